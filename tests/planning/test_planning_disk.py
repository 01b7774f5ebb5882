"""What an experiment will put on the disk, and the refusal when that is too small."""

from collections.abc import Sequence
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
from brnf.planning.disk import check_run, needed_bytes, product_table, stored_shares, written_bytes
from brnf.planning.jobs import Job
from brnf.planning.sizes import RESNET50, SplitSize, bytes_made, split_size
from brnf.store.maps import write_maps
from brnf.store.pixels import PixelRows, write_pixels

NOWHERE = Path("no-such-folder")


def experiment(**changes: Any) -> Experiment:
    """Return the schema's defaults with changes; nothing is validated."""
    return Experiment(complete(merged({"name": "x", "dataset": {}}, changes), load_schema()))


def made(
    rule: str,
    chosen: Experiment,
    model: str,
    size: SplitSize,
    channels: Sequence[int] = RESNET50,
) -> float:
    return bytes_made(chosen, model, size, channels).get(rule, 0.0)


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
    assert made("store_pixels", chosen, "base", size) / 1e9 == pytest.approx(gigabytes, rel=0.02)


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
    size = split_size(chosen, "train_aug", tmp_path)
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
        "Image,labels,split\na.jpg,cat,Train\nb.jpg,cat,val\nc.jpg,dog,\n", encoding="utf-16"
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
        made("store_pixels", chosen, "base", size), rel=0.05
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
    assert made("train_base", chosen, "base", size, channels) == 2 * 10 * kept
    assert made("train_base", experiment(base={"cache": False}), "base", size, channels) == 0


def test_maps_shrink_with_the_square_of_their_stride_and_probabilities_cost_all_classes() -> None:
    size = split_size(experiment(), "val", NOWHERE)
    chosen = {stride: experiment(cam={"map_stride": stride}) for stride in (1, 4)}
    fine, coarse = (
        made("compute_cams", one, "base", split_size(one, "val", NOWHERE))
        for one in chosen.values()
    )
    assert fine == pytest.approx(16 * coarse)
    assert made("denoise_seeds", experiment(), "base", size) == fine / 2
    masks = made("predict_segmentation", experiment(), "base", size)
    kept = made(
        "predict_segmentation",
        experiment(segmentation={"test": {"save_probabilities": True}}),
        "base",
        size,
    )
    assert kept - masks == pytest.approx(21 * size.pixels * 2 * 0.45)


def job(rule: str, output: str = "", name: str = "x", **wildcards: str) -> Job:
    return Job(rule, {"name": name, **wildcards}, (output,) if output else ())


def test_jobs_count_by_their_shards_and_only_what_is_missing(tmp_path: Path) -> None:
    write_index(tmp_path, [(64, 64, 1)] * 30, 4)
    there = tmp_path / "there.h5"
    there.touch()
    chosen = experiment(shards=5, dataset={"test": "test"})
    of_model = {"model": "base", "seed": "1"}
    shard = {**of_model, "split": "train_aug", "shard": "0"}
    jobs = [
        job("compute_cams", **shard),
        job("compute_cams", str(there), **shard),
        job("denoise_seeds", "not-there", **{**shard, "model": "base@xi-0.8"}),
        job("tabulate"),
        job("draw_masks", split="val", shard="0"),
        job("export_predictions", **of_model),
    ]
    table = product_table({"x": chosen}, jobs, tmp_path)
    train, val, test = (
        split_size(chosen, split, tmp_path) for split in ("train_aug", "val", "test")
    )
    cams, denoised, masks, exported = (
        made("compute_cams", chosen, "base", train) / 4,
        made("denoise_seeds", chosen, "base", train) / 4,
        made("draw_masks", chosen, "", val) / 5,
        made("export_predictions", chosen, "base", test),
    )
    assert table.bytes.tolist() == pytest.approx([cams, cams, denoised, masks, exported])
    assert needed_bytes(table) == pytest.approx(cams + denoised + masks + exported)


def maps_of(folder: Path, images: int) -> tuple[Experiment, list[Job]]:
    """Write maps of images with one label, as smooth as those of photographs or a little less."""
    write_index(folder / "results", [(64, 64, 1)] * images, 1)
    path = folder / "cams.h5"
    rows, columns = np.mgrid[:64, :64] / 64
    with write_maps(path, 3) as maps:
        for number in range(images):
            wave = np.sin((3 + number % 5) * rows + columns)[None].astype(np.float32)
            both = np.concatenate([wave, 1 - wave])
            maps.write(f"i{number}", (1,), {"prototype": both, "classifier": both[::-1]})
    wildcards = {"model": "base", "seed": "0", "split": "train_aug", "shard": "0"}
    return experiment(), [job("compute_cams", "cams.h5", **wildcards), job("train_flow", "flow.pt")]


def test_what_two_small_runs_wrote_tells_of_a_large_one_within_a_tenth(tmp_path: Path) -> None:
    written = []
    for images in (4, 12, 50):
        folder = tmp_path / str(images)
        chosen, jobs = maps_of(folder, images)
        written.append(written_bytes({"x": chosen}, jobs, folder))
    small, large, whole = written
    assert large.index.tolist() == ["compute_cams x base train_aug"]
    shares = stored_shares(small, large)
    expected = whole.expected * shares
    assert expected.iloc[0] == pytest.approx(whole.written.iloc[0], rel=0.1)
    assert shares.iloc[0] != pytest.approx(1, rel=0.1), "the usual share is another"


def test_products_that_went_keep_the_bytes_expected_of_them(tmp_path: Path) -> None:
    chosen, jobs = maps_of(tmp_path, 4)
    (tmp_path / "cams.h5").unlink()
    gone = written_bytes({"x": chosen}, jobs, tmp_path)
    assert gone.written.tolist() == [0] and stored_shares(gone, gone).empty


@pytest.mark.parametrize("method", ["sipe", "sfc", "clip_es", "import"])
@pytest.mark.parametrize("refine", ["crf", "random_walk"])
@pytest.mark.parametrize("kind", ["voc", "coco", "scenes"])
def test_every_rule_with_a_product_has_bytes(method: str, refine: str, kind: str) -> None:
    chosen = experiment(
        dataset={"kind": kind, "train": "train", "eval_split": "train"},
        base={"method": method, "cache": True},
        brnf={"cache": True},
        pseudo_labels={"refine": refine},
    )
    size = split_size(chosen, "train", NOWHERE)
    for rule in bytes_made(chosen, "base", size):
        model = "brnf" if rule == "train_brnf" else "base"
        assert made(rule, chosen, model, size) > 1e3 * size.images, rule
    maps = ("import_maps", "compute_clip_maps", "compute_cams")
    assert len({made(rule, chosen, "base", size) for rule in maps}) == 1
    assert made("train_flow", chosen, "base", size) == 0


def test_probabilities_of_the_walk_count_like_those_of_the_crf() -> None:
    size = split_size(experiment(), "val", NOWHERE)
    kept = experiment(pseudo_labels={"save_probabilities": True})
    for rule in ("make_pseudo_labels", "walk_pseudo_labels"):
        more = made(rule, kept, "base", size) - made(rule, experiment(), "base", size)
        assert more == pytest.approx((1 + size.labels) * size.pixels * 2 * 0.45)


def test_a_limited_split_is_no_larger_than_its_limit() -> None:
    for kind, limit, images in (("voc", 20, 20), ("voc", 5000, 1449), ("scenes", 3, 3)):
        chosen = experiment(dataset={"kind": kind, "limit": limit})
        assert split_size(chosen, "val", NOWHERE).images == images


def test_behind_an_index_snakemake_is_asked_only_where_room_is_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    store = {"model": "base", "seed": "0", "split": "train_aug"}  # has 16.6 GB
    stores = [job("store_pixels", shard=str(number), **store) for number in range(8)]

    def whole(experiments: Any, results: Path) -> list[Job]:
        asked.append(results)
        return stores

    monkeypatch.setattr(disk, "whole_jobs", whole)
    experiments, index = {"x": experiment()}, job("index_images", "index")
    check_run(experiments, [index], True, tmp_path, free=1e12)
    assert not asked
    check_run(experiments, [index], True, tmp_path, free=18e9)
    assert asked == [tmp_path]
    with pytest.raises(UserError, match=r"about 17\.6 GB"):
        check_run(experiments, [index], True, tmp_path, free=15e9)
    with pytest.raises(UserError, match=r"about 17\.6 GB"):
        check_run(experiments, stores, False, tmp_path, free=15e9)
    asked.clear()
    check_run(experiments, [index], False, tmp_path, free=1)
    assert not asked


def test_without_keep_features_the_largest_store_of_each_seed_counts() -> None:
    jobs = [
        job("store_pixels", model=model, seed=seed, split=split)
        for model in ("base", "brnf")
        for seed in "01"
        for split in ("val", "train")
    ]
    jobs.append(job("store_pixels", model="brnf", seed="1", split="val"))
    one, two = (
        made("store_pixels", experiment(), "base", split_size(experiment(), split, NOWHERE))
        for split in ("val", "train")
    )

    def needed(**changes: Any) -> float:
        return needed_bytes(product_table({"x": experiment(**changes)}, jobs, NOWHERE))

    assert needed() == pytest.approx(5 * one + 4 * two)
    assert needed(keep_features=False) == pytest.approx((one + two) + (2 * one + two))


def test_trainings_that_share_what_they_cache_need_it_once() -> None:
    small = {"cache": True, "crop": 320, "batch_size": 8}
    chosen = experiment(base=small, brnf=small, variants={"other": {"crop": 512}})
    jobs = [job("train_base", model="base", seed=seed) for seed in "012"]
    jobs += [job("train_brnf", model=model, seed="0") for model in ("brnf", "other")]
    size = split_size(chosen, "train_aug", NOWHERE)
    shared, other = (made("train_brnf", chosen, model, size) for model in ("brnf", "other"))
    assert 0 < shared < other
    assert needed_bytes(product_table({"x": chosen}, jobs, NOWHERE)) == pytest.approx(
        shared + other
    )


def everything() -> list[Job]:
    """Return what base and brnf make of the training and the validation images."""
    maps = ("compute_cams", "store_pixels", "denoise_seeds", "make_pseudo_labels")
    runs = [{"model": model, "seed": "0"} for model in ("base", "brnf")]
    jobs = [job(rule, split="train_aug", **run) for rule in maps for run in runs]
    return jobs + [job("predict_segmentation", split="val", **run) for run in runs]


def test_a_disk_that_is_too_small_is_refused_with_what_to_set() -> None:
    with pytest.raises(UserError) as caught:
        check_run({"x": experiment()}, everything(), False, NOWHERE, 30e9)
    message = str(caught.value)
    assert message.startswith("no-such-folder: this run still makes about ")
    assert "30.0 GB are free; set keep_features: false" in message and "\n" not in message
    assert float(message.split("about ")[1].split(" GB")[0]) > 2 * 16.6 + 30


def test_a_disk_that_is_large_enough_is_not() -> None:
    check_run({"x": experiment()}, everything(), False, NOWHERE, 200e9)
    check_run({"x": experiment()}, [], False, NOWHERE, 0)
    check_run({"x": experiment()}, [], False, NOWHERE)


def test_a_narrow_backbone_is_asked_how_wide_it_is_before_a_refusal() -> None:
    store = [job("store_pixels", model="base", seed="0", split="train_aug")]
    narrow = {"x": experiment(backbone={"name": "tf_efficientnet_lite0"})}
    gigabytes = 10582 * 1024 * (2 * (24 + 40 + 112 + 256) + 13) * 1.05 / 1e9
    check_run(narrow, store, False, NOWHERE, 1.01e9 * gigabytes)
    with pytest.raises(UserError, match=f"about {gigabytes:.1f} GB"):
        check_run(narrow, store, False, NOWHERE, 0.99e9 * gigabytes)
