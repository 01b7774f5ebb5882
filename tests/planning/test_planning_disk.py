"""What an experiment will put on the disk, and the refusal when that is too small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brnf.backbones import build_backbone
from brnf.backbones.network import backbone_channels
from brnf.config.experiment import Experiment, merged
from brnf.config.generate import load_schema
from brnf.config.schema import complete
from brnf.config.sections.cam import BackboneOptions
from brnf.data.index import ImageRecord, Index
from brnf.errors import UserError
from brnf.planning import disk
from brnf.planning.disk import Share, check_disk, check_run, needed_bytes, planned_shares
from brnf.planning.jobs import Job
from brnf.planning.sizes import SIZES, SMALL, SplitSize, bytes_made, split_size
from brnf.store.pixels import PixelRows, write_pixels

NOWHERE = Path("no-such-folder")


def experiment(**changes: Any) -> Experiment:
    """Return the schema's defaults with changes; nothing is validated."""
    return Experiment(complete(merged({"name": "x", "dataset": {}}, changes), load_schema()))


def write_index(results: Path, sizes: list[tuple[int, int, int]], shards: int) -> None:
    """Write an index of images of given heights, widths and numbers of labels, all in train_aug."""
    records = tuple(
        ImageRecord(f"i{number}", Path("a.jpg"), width, height, tuple(range(1, labels + 1)))
        for number, (height, width, labels) in enumerate(sizes)
    )
    (results / "x" / "index").mkdir(parents=True)
    Index(("cat", "dog", "cow"), (1, 2, 3), records).write(
        results / "x" / "index", "train_aug", shards
    )


@pytest.mark.parametrize(
    ("kind", "split", "rows", "gigabytes"),
    [("voc", "train_aug", 10.8e6, 16.6), ("coco", "train", 84e6, 129), ("coco", "val", 41e6, 63)],
)
def test_without_an_index_the_stores_are_as_large_as_method_md_plans(
    kind: str, split: str, rows: float, gigabytes: float
) -> None:
    chosen = experiment(dataset={"kind": kind})
    size = split_size(chosen, split, NOWHERE)
    assert size.rows == pytest.approx(rows, rel=0.01)
    assert bytes_made("store_pixels", chosen, "base", size) / 1e9 == pytest.approx(
        gigabytes, rel=0.02
    )


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("voc", "VOCdevkit/VOC2012/JPEGImages"), ("voc", "JPEGImages"), ("coco", "images/val2014")],
)
def test_without_an_index_no_more_images_count_than_there_are(
    tmp_path: Path, kind: str, folder: str
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    for number in range(3):
        (tmp_path / folder / f"{number}.jpg").touch()
    chosen = experiment(dataset={"kind": kind, "root": str(tmp_path)})
    assert split_size(chosen, "val", NOWHERE).images == 3
    assert (
        split_size(
            experiment(dataset={"kind": "voc", "root": "no-such-folder"}), "val", NOWHERE
        ).images
        == 1449
    )


def test_sizes_of_an_index_are_counted_image_by_image(tmp_path: Path) -> None:
    sizes = [(375, 500, 1), (500, 333, 3), (100, 100, 0)]
    write_index(tmp_path, sizes, 4)
    chosen = experiment(cam={"image_long_side": 320, "map_stride": 3})
    size = split_size(chosen, "train_aug", tmp_path / "x" / "index")
    assert (size.images, size.classes) == (3, 3)
    assert size.pixels == 375 * 500 + 500 * 333 + 100 * 100
    assert size.map_values == 2 * 125 * 167 + 4 * 167 * 111 + 34 * 34
    assert size.rows == 15 * 20 + 20 * 14 + 20 * 20  # 240 x 320, 320 x 213 and 320 x 320 pixels
    assert size.labels == pytest.approx(4 / 3)


def test_scenes_and_tables_tell_their_number_themselves(tmp_path: Path) -> None:
    scenes = experiment(dataset={"kind": "scenes"}, scenes={"train": 7, "val": 3, "size": 64})
    assert [
        (split_size(scenes, split, NOWHERE).images, split_size(scenes, split, NOWHERE).rows)
        for split in ("train", "val")
    ] == [
        (7, 7 * 16),
        (3, 3 * 16),
    ]
    (tmp_path / "a.csv").write_text(
        "image,labels,split\na.jpg,cat,train\nb.jpg,cat,val\nc.jpg,dog,\n"
    )
    table = experiment(dataset={"kind": "table", "table": str(tmp_path / "a.csv")})
    assert [split_size(table, split, NOWHERE).images for split in ("train", "val")] == [2, 2]


def test_a_real_pixel_store_is_as_large_as_said(tmp_path: Path) -> None:
    rows, dimension = 4096 * 2, 32
    random = np.random.default_rng(0)
    with write_pixels(tmp_path / "a.h5", dimension, 3) as writer:
        for name in ("a", "b"):
            features = random.random((rows // 2, dimension), dtype=np.float32)
            score = np.zeros(rows // 2, np.float32)
            label, position = np.zeros(rows // 2, np.uint8), np.arange(rows // 2, dtype=np.int32)
            writer.append(
                PixelRows(name, (64, 64), np.ones(3, bool), features, score, score, label, position)
            )
    chosen = experiment(cam={"side_widths": [8, 8, 8, 8]})
    size = SplitSize(2, 2, 1, 0, 0, rows)
    assert (tmp_path / "a.h5").stat().st_size == pytest.approx(
        bytes_made("store_pixels", chosen, "base", size), rel=0.05
    )


def test_the_cache_of_a_training_holds_the_stages_of_every_image_and_its_mirror() -> None:
    options = BackboneOptions(
        name="tf_efficientnet_lite0", weights="none", stride=16, trainable_stages=0
    )
    network = build_backbone(options)
    with torch.no_grad():
        stages = network(torch.zeros(1, 3, 96, 96))
    kept = sum(stage.numel() * stage.element_size() for stage in stages)
    chosen = experiment(base={"cache": True, "crop": 96})
    size = SplitSize(10, 6, 1, 0, 0, 0)
    channels = backbone_channels("tf_efficientnet_lite0")
    assert channels == network.channels
    assert bytes_made("train_base", chosen, "base", size, channels) == 2 * 10 * kept
    assert bytes_made("train_base", experiment(base={"cache": False}), "base", size, channels) == 0


def test_maps_shrink_with_the_square_of_their_stride_and_probabilities_cost_all_classes() -> None:
    size = split_size(experiment(), "val", NOWHERE)
    chosen = {stride: experiment(cam={"map_stride": stride}) for stride in (1, 4)}
    fine, coarse = (
        bytes_made("compute_cams", one, "base", split_size(one, "val", NOWHERE))
        for one in chosen.values()
    )
    assert fine == pytest.approx(16 * coarse)
    assert bytes_made("denoise_seeds", experiment(), "base", size) == fine / 2
    masks = bytes_made("predict_segmentation", experiment(), "base", size)
    kept = bytes_made(
        "predict_segmentation",
        experiment(segmentation={"test": {"save_probabilities": True}}),
        "base",
        size,
    )
    assert kept - masks == pytest.approx(21 * size.pixels * 2 * 0.45)


def of_shard(rule: str, shard: int, output: str = "not-there", model: str = "base") -> Job:
    wildcards = {"name": "x", "model": model, "seed": "1", "split": "train_aug"}
    return Job(rule, {**wildcards, "shard": str(shard)}, (output,))


def test_planned_jobs_are_counted_by_their_shards(tmp_path: Path) -> None:
    write_index(tmp_path, [(64, 64, 1)] * 30, 4)
    there = tmp_path / "there.h5"
    there.touch()
    of_model = {"name": "x", "model": "base", "seed": "1"}
    jobs = [
        of_shard("compute_cams", 0, model="base@xi-0.8"),
        of_shard("compute_cams", 1, str(there)),
        Job("tabulate", {"name": "x"}),
        Job("train_base", of_model),
        Job("draw_masks", {"name": "x", "split": "val", "shard": "0"}),
        Job("export_predictions", of_model),
        Job("render_scenes", {"name": "x"}),
    ]
    chosen = experiment(shards=5, dataset={"test": "test"})
    assert planned_shares({"x": chosen}, jobs, tmp_path)["x"] == [
        Share("compute_cams", "base@xi-0.8", "1", "train_aug", 0.25),
        Share("train_base", "base", "1", "train_aug", 1.0),
        Share("draw_masks", "", "", "val", 0.2),
        Share("export_predictions", "base", "1", "test", 1.0),
        Share("render_scenes", "", "", "train", 1.0),
        Share("render_scenes", "", "", "val", 1.0),
    ]


@pytest.mark.parametrize("method", ["sipe", "sfc", "clip_es", "import"])
@pytest.mark.parametrize("refine", ["crf", "random_walk"])
@pytest.mark.parametrize("kind", ["voc", "coco", "scenes"])
def test_every_rule_that_is_not_small_has_bytes(method: str, refine: str, kind: str) -> None:
    chosen = experiment(
        dataset={"kind": kind, "train": "train", "seeds": "train"},
        base={"method": method, "cache": True},
        brnf={"cache": True},
        pseudo_labels={"refine": refine},
    )
    size = split_size(chosen, "train", NOWHERE)
    for rule in SIZES:
        model = "brnf" if rule == "train_brnf" else "base"
        assert bytes_made(rule, chosen, model, size) > 1e3 * size.images, rule
    maps = ("import_maps", "compute_clip_maps", "compute_cams")
    assert len({bytes_made(rule, chosen, "base", size) for rule in maps}) == 1
    assert all(bytes_made(rule, chosen, "base", size) == 0 for rule in SMALL)


def test_probabilities_of_the_walk_count_like_those_of_the_crf() -> None:
    size = split_size(experiment(), "val", NOWHERE)
    kept = experiment(pseudo_labels={"save_probabilities": True})
    for rule in ("make_pseudo_labels", "walk_pseudo_labels"):
        more = bytes_made(rule, kept, "base", size) - bytes_made(rule, experiment(), "base", size)
        assert more == pytest.approx((1 + size.labels) * size.pixels * 2 * 0.45)


def test_a_limited_split_is_no_larger_than_its_limit() -> None:
    for kind, limit, images in (("voc", 20, 20), ("voc", 5000, 1449), ("scenes", 3, 3)):
        chosen = experiment(dataset={"kind": kind, "limit": limit})
        assert split_size(chosen, "val", NOWHERE).images == images


def test_behind_an_index_snakemake_is_asked_only_where_room_is_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def whole(experiments: Any, shards: Any) -> list[Job]:
        asked.append(shards("x", "val"))
        return [of_shard("store_pixels", number) for number in range(8)]

    monkeypatch.setattr(disk, "whole_jobs", whole)
    experiments, index = {"x": experiment()}, Job("index_images", {"name": "x"}, ("index",))
    check_run(experiments, [index], True, tmp_path, free=1e12)
    assert not asked
    check_run(experiments, [index], True, tmp_path, free=18e9)  # a store has 16.6 GB
    assert asked == [8]
    with pytest.raises(UserError, match="about 18 GB"):
        check_run(experiments, [index], True, tmp_path, free=15e9)
    with pytest.raises(UserError, match="about 18 GB"):
        check_run(experiments, whole(experiments, lambda name, split: 8), False, tmp_path, 15e9)
    asked.clear()
    check_run(experiments, [index], False, tmp_path, free=1)
    assert not asked


def test_without_keep_features_the_largest_store_of_each_seed_counts() -> None:
    size = {
        "a": split_size(experiment(), "val", NOWHERE),
        "b": split_size(experiment(), "train", NOWHERE),
    }
    shares = [
        Share("store_pixels", model, seed, split, 1.0)
        for model in ("base", "brnf")
        for seed in "01"
        for split in "ab"
    ]
    shares.append(Share("store_pixels", "brnf", "1", "a", 1.0))
    one, two = (bytes_made("store_pixels", experiment(), "base", size[split]) for split in "ab")
    assert needed_bytes(experiment(), shares, size) == pytest.approx(5 * one + 4 * two)
    assert needed_bytes(experiment(keep_features=False), shares, size) == pytest.approx(
        (one + two) + (2 * one + two)
    )


def test_trainings_that_share_what_they_cache_need_it_once() -> None:
    small = {"cache": True, "crop": 320, "batch_size": 8}
    chosen = experiment(base=small, brnf=small, variants={"other": {"crop": 512}})
    size = {"train_aug": split_size(chosen, "train_aug", NOWHERE)}
    shares = [Share("train_base", "base", seed, "train_aug", 1.0) for seed in "012"]
    shares += [Share("train_brnf", model, "0", "train_aug", 1.0) for model in ("brnf", "other")]
    shared, other = (
        bytes_made("train_brnf", chosen, model, size["train_aug"]) for model in ("brnf", "other")
    )
    assert 0 < shared < other
    assert needed_bytes(chosen, shares, size) == pytest.approx(shared + other)


RULES = (
    *("train_base", "train_brnf", "compute_cams", "store_pixels", "denoise_seeds"),
    *("make_pseudo_labels", "predict_segmentation"),
)


def everything() -> list[Share]:
    """Return what base and brnf make of the training and the validation images."""
    return [
        Share(rule, model, "0", "val" if rule == "predict_segmentation" else "train_aug", 1.0)
        for rule in RULES
        for model in ("base", "brnf")
    ]


def refusal(free: float, **changes: Any) -> str:
    chosen = experiment(**changes)
    planned = {"x": (chosen, everything())}
    with pytest.raises(UserError) as caught:
        check_disk(planned, NOWHERE, free)
    return str(caught.value)


def test_a_disk_that_is_too_small_is_refused_with_what_to_set() -> None:
    message = refusal(30e9)
    assert (
        "\n" not in message
        and message.startswith("no-such-folder: this run still makes about ")
        and "30 GB are free" in message
    )
    needed, *settings = (
        float(word.split(" GB")[0])
        for word in message.replace("(then ", "about ").split("about ")[1:]
    )
    assert needed > 2 * 16.6 + 30
    assert (
        "keep_features: false (then" in message
        and "cam.map_stride: 4 (then" in message
        and "save_probabilities" not in message
    )
    assert (
        needed - settings[0] == pytest.approx(16.6 * 1.05, abs=2) and settings[1] < settings[0] - 25
    )
    assert "save_probabilities: false" in refusal(
        1e9, segmentation={"test": {"save_probabilities": True}}
    )
    assert "keep_features" not in refusal(1e9, keep_features=False)


def test_a_disk_that_is_large_enough_is_not() -> None:
    chosen = experiment()
    check_disk({"x": (chosen, everything())}, NOWHERE, 200e9)
    check_disk({"x": (chosen, [])}, NOWHERE, 0)
    check_disk({"x": (chosen, [])}, NOWHERE)


def test_a_narrow_backbone_is_asked_how_wide_it_is_before_a_refusal() -> None:
    share = [Share("store_pixels", "base", "0", "train_aug", 1.0)]
    narrow = experiment(backbone={"name": "tf_efficientnet_lite0"})
    gigabytes = 10582 * 1024 * (2 * (24 + 40 + 112 + 256) + 13) * 1.05 / 1e9
    check_disk({"x": (narrow, share)}, NOWHERE, 1.01e9 * gigabytes)
    with pytest.raises(UserError, match=f"about {gigabytes:.2g} GB"):
        check_disk({"x": (narrow, share)}, NOWHERE, 0.99e9 * gigabytes)
