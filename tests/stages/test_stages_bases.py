"""The stages of other sources of base seeds: what they read and write, and what they refuse."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brnf.base.clip_es import clip_maps
from brnf.base.clip_model import load_clip
from brnf.cam.inference import multi_scale_maps
from brnf.cam.network import load_cam_network
from brnf.config.sections.cam import (
    BackboneNetwork,
    BackboneOptions,
    BaseTraining,
    BrnfTraining,
    CamMaps,
    CamTraining,
    ClipEs,
    MapSize,
    MultiScaleMaps,
    StoredMaps,
)
from brnf.config.sections.data import IndexedImages
from brnf.config.sections.segmentation import BoundaryLabels, BoundaryTraining, LabelChoice
from brnf.data.index import ImageRecord, Index
from brnf.data.masks import read_mask, write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages import (
    compute_cams,
    compute_clip_maps,
    export_maps,
    import_maps,
    index_images,
    make_boundary_labels,
    train_base,
    train_boundaries,
    train_brnf,
    walk_pseudo_labels,
)
from brnf.store.maps import MapReader, write_maps

RUNTIME = Runtime(device="cpu", workers=0, progress="none")
LABELS = {"one": (1,), "two": (1, 2), "three": ()}
SIZE = (32, 48)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write an index of two of VOC's classes with three images, one without labels."""
    records = []
    for name, labels in sorted(LABELS.items()):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / f"{name}.png")
        records.append(ImageRecord(name, tmp_path / f"{name}.png", SIZE[1], SIZE[0], labels))
    Index(("cat", "person"), (8, 15), tuple(records)).write(tmp_path / "index", "train")
    (tmp_path / "foreign").mkdir()
    return tmp_path


def bring_in(data: Path, **options: int) -> Path:
    inputs = import_maps.Inputs(
        data / "index", data / "foreign", data / "index" / "shards" / "train" / "0.csv"
    )
    import_maps.run(
        inputs,
        import_maps.Outputs(data / "maps.h5"),
        import_maps.Options(MapSize(**options)),
        RUNTIME,
    )
    return data / "maps.h5"


def save(data: Path, image: str, **content: object) -> None:
    np.save(
        data / "foreign" / f"{image}.npy",
        np.array({key: np.asarray(value) for key, value in content.items()}, dtype=object),
    )


def level(*levels: float) -> np.ndarray:
    return np.stack([np.full(SIZE, value, np.float32) for value in levels])


def test_maps_of_several_codes_stand_in_one_shard(data: Path) -> None:
    save(data, "one", keys=[7], attn_highres=level(0.75))
    np.savez(data / "foreign" / "two.npz", keys=[0, 8, 15], maps=level(0.5, 0.25, 0.125))
    for product in ("classifier", "prototype"):
        maps = MapReader([bring_in(data)], product)
        assert maps.images == ["one", "three", "two"]
        assert [maps[image].values[:, 0, 0].tolist() for image in maps.images] == [
            [0.25, 0.75],
            [1],
            [0.5, 0.25, 0.125],
        ]
        assert maps["two"].classes.tolist() == [1, 2] and maps["three"].values.shape == (1, *SIZE)


def test_the_program_of_the_documents_makes_masks_of_another_model_the_base(tmp_path: Path) -> None:
    """Classes that the image is not labelled with are left out, missing ones are empty."""
    page = (Path(__file__).parents[2] / "docs" / "bases.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    masks = {"a": np.zeros(SIZE, np.uint8), "b": np.zeros(SIZE, np.uint8)}
    masks["a"][:8, :9], masks["a"][20:, :9], masks["b"][4:, 5:] = 1, 2, 2
    (tmp_path / "masks").mkdir()
    for name, mask in masks.items():
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / f"{name}.jpg")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "table.csv").write_text("image,labels\na.jpg,cat\nb.jpg,dog;cat\n")
    words = [sys.executable, "-c", program, "table.csv", "masks", "foreign"]
    subprocess.run(words, cwd=tmp_path, check=True)
    index_images.run(
        index_images.Inputs(table=tmp_path / "table.csv"),
        index_images.Outputs(tmp_path / "index"),
        index_images.Options(IndexedImages(kind="table"), ("train",), shards=1),
        RUNTIME,
    )
    maps = MapReader([bring_in(tmp_path, map_stride=1)], "prototype")
    np.testing.assert_array_equal(maps["a"].labels(), masks["a"] == 1)
    np.testing.assert_array_equal(maps["b"].labels(), masks["b"])
    assert maps["b"].classes.tolist() == [1, 2]


def test_stored_maps_have_the_wanted_size(data: Path) -> None:
    save(data, "one", keys=[7], high_res=level(0.75))
    save(data, "two", keys=[7, 14], high_res=level(0.75, 0.5)[:, ::16, ::16])
    maps = MapReader([bring_in(data, map_stride=4)], "prototype")
    assert [maps[image].values.shape[1:] for image in maps.images] == [(8, 12)] * 3


def test_a_missing_image_is_one_line_and_nothing_is_written(data: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"foreign: no file one\.npy or \.npz \(2 of 3 images of this shard lack theirs\)",
    ):
        bring_in(data)
    save(data, "one", keys=[7], high_res=level(0.75))
    with pytest.raises(UserError, match=r"foreign: no file two\.npy or \.npz; make these maps"):
        bring_in(data)
    save(data, "two", keys=[7], high_res=level(0.75))
    with pytest.raises(UserError, match=r"two\.npy: keys \[7\] lack class 14"):
        bring_in(data)
    assert not (data / "maps.h5").exists()


def test_files_of_no_image_are_named_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, keys in {"one": [7], "two": [7, 14], "four": [7], "five": [3]}.items():
        save(data, name, keys=keys, high_res=level(*[0.5] * len(keys)))
    bring_in(data)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].endswith(
        "foreign: 2 files belong to no image of the index (five.npy); ignored"
    )


def test_two_files_of_an_image_are_refused(data: Path) -> None:
    save(data, "one", keys=[7], high_res=level(0.5))
    np.savez(data / "foreign" / "one.npz", keys=[8], maps=level(0.5))
    with pytest.raises(UserError, match=r"holds both one\.npy and one\.npz; remove one"):
        bring_in(data)


def test_a_file_that_would_run_code_is_refused(data: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (data / "gone off",)  # type: ignore[return-value]

    save(data, "two", keys=[7, 14], high_res=level(0.75, 0.5))
    np.save(
        data / "foreign" / "one.npy",
        np.array({"keys": np.array([7]), "high_res": Bomb()}, dtype=object),
    )
    with pytest.raises(UserError, match=r"one\.npy: .*; save the maps of the image again"):
        bring_in(data)
    assert not (data / "gone off").exists()


def test_what_is_exported_and_imported_is_equal(data: Path) -> None:
    """Whatever follows reads nothing but these maps, so that all later products and tables are
    equal, too.
    """
    generator = np.random.default_rng(0)
    with write_maps(data / "own.h5", 20) as writer:
        for image, labels in sorted(LABELS.items()):
            maps = {
                name: generator.random((1 + len(labels), *SIZE)) if labels else np.ones((1, *SIZE))
                for name in ("classifier", "prototype")
            }
            writer.write(image, np.array(labels, np.uint8), maps)
    inputs = export_maps.Inputs(data / "index", (data / "own.h5",))
    (data / "foreign").rmdir()
    export_maps.run(inputs, export_maps.Outputs(data / "foreign"), export_maps.Options(), RUNTIME)
    other = np.load(
        data / "foreign" / "two.npy", allow_pickle=True
    ).item()  # as SFC's own code reads it
    assert other["keys"].tolist() == [0, 8, 15] and other["IS_CAM"].shape == other[
        "IS_CAM1"
    ].shape == (3, *SIZE)
    back = bring_in(data)
    for product in ("classifier", "prototype"):
        mine, theirs = MapReader([data / "own.h5"], product), MapReader([back], product)
        assert mine.images == theirs.images == sorted(LABELS)
        for image in LABELS:
            np.testing.assert_array_equal(theirs[image].values, mine[image].values)
            np.testing.assert_array_equal(theirs[image].classes, mine[image].classes)


SMALL = {
    "split": "train",
    "backbone": BackboneOptions(name="tf_efficientnet_lite0", weights="none"),
    "cam": CamTraining(side_widths=(4, 4, 4, 4)),
}


def shard(data: Path) -> Path:
    return data / "index" / "shards" / "train" / "0.csv"


def test_sfc_writes_propagated_maps(data: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)).save(
        data / "two.png"
    )
    sizes = {
        "resize_low": 32,
        "resize_high": 48,
        "crop": 32,
        "batch_size": 3,
    }
    files = train_base.Outputs(data / "base.pt", data / "base.csv")
    sfc = train_base.Options(**SMALL, method="sfc", base=BaseTraining(**sizes, steps=2))  # type: ignore[arg-type]
    train_base.run(
        train_base.Inputs(data / "index"),
        files,
        sfc,
        RUNTIME,
    )
    network = load_cam_network(data / "base.pt", torch.device("cpu"), ("cat", "person"))
    inputs = compute_cams.Inputs(data / "index", data / "base.pt", shard(data))
    compute_cams.run(
        inputs,
        compute_cams.Outputs(data / "maps.h5"),
        compute_cams.Options(CamMaps(scales=(1.0,))),
        RUNTIME,
    )
    image = torch.from_numpy(np.array(Image.open(data / "two.png"))).permute(2, 0, 1)
    with torch.inference_mode():
        expected = multi_scale_maps(
            network, image, torch.ones(2), SIZE, MultiScaleMaps(scales=(1.0,))
        )
        network.affinity = None
        plain = multi_scale_maps(network, image, torch.ones(2), SIZE, MultiScaleMaps(scales=(1.0,)))
    values = MapReader([data / "maps.h5"], "classifier")["two"].values
    np.testing.assert_allclose(values, expected.classifier.numpy(), atol=1e-3)
    assert np.abs(values - plain.classifier.numpy()).max() > 0.1
    brnf = BrnfTraining(**sizes, init="base", ccnf=False, fscl=False, steps=1)  # type: ignore[arg-type]
    options_of_brnf = train_brnf.Options(**SMALL, seed_product="classifier", brnf=brnf)  # type: ignore[arg-type]
    inputs_of_brnf = train_brnf.Inputs(data / "index", data / "base.pt", (data / "maps.h5",))
    brnf_files = train_brnf.Outputs(data / "brnf.pt", data / "brnf.csv")
    train_brnf.run(inputs_of_brnf, brnf_files, options_of_brnf, RUNTIME)
    assert (
        load_cam_network(data / "brnf.pt", torch.device("cpu"), ("cat", "person")).affinity is None
    )  # BRNF's maps are SIPE's
    with pytest.raises(UserError, match=r"base\.cache: sfc sees random crops at two scales"):
        frozen = replace(sfc.backbone, trainable_stages=0)
        kept = replace(sfc, backbone=frozen, base=replace(sfc.base, cache=True))
        train_base.run(train_base.Inputs(data / "index"), files, kept, RUNTIME)


def test_maps_of_clip_are_those_of_its_words(data: Path, tiny_clip: tuple[str, Path]) -> None:
    (data / "words.yaml").write_text("names: {person: someone}\nbackground: [sky, cat, sea]\n")
    name, weights = tiny_clip
    options = compute_clip_maps.Options(
        ClipEs(
            words=str(data / "words.yaml"),
            prompt="a {name}.",
            model=name,
            weights=str(weights),
            attention_maps=2,
        ),
        StoredMaps(map_stride=2),
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)).save(
        data / "two.png"
    )
    inputs = compute_clip_maps.Inputs(data / "index", shard(data))
    compute_clip_maps.run(inputs, compute_clip_maps.Outputs(data / "maps.h5"), options, RUNTIME)
    clip = load_clip(name, str(weights), torch.device("cpu"))
    image = torch.from_numpy(np.array(Image.open(data / "two.png"))).permute(2, 0, 1)
    asked, things = (
        clip.directions(["a cat.", "a someone."]),
        clip.directions(["a sky.", "a sea."]),
    )  # a cat is no background here
    expected = clip_maps(clip, image, asked, things, (16, 24), options.clip_es)
    for product, wanted in (("classifier", expected.classifier), ("prototype", expected.prototype)):
        maps = MapReader([data / "maps.h5"], product)
        np.testing.assert_allclose(maps["two"].values, wanted.numpy(), atol=1e-3)
        assert maps["three"].values.tolist() == np.ones((1, 16, 24)).tolist()


def test_pseudo_labels_walk_up_to_the_boundaries(data: Path) -> None:
    """The object is the bright left half; its map covers the middle of it only."""
    (data / "labels").mkdir()
    pixels, label = np.full((*SIZE, 3), 20, np.uint8), np.zeros(SIZE, np.uint8)
    pixels[:, :24], label[:, :24] = 230, 1
    for name in LABELS:
        Image.fromarray(pixels).save(data / f"{name}.png")
        write_palette_png(data / "labels" / f"{name}.png", label)
    options = train_boundaries.Options(
        split="train",
        backbone=BackboneNetwork(name="tf_efficientnet_lite0", weights="efficientnet_lite0"),
        random_walk=BoundaryTraining(
            batch_size=3,
            steps=40,
            crop=48,
            scale_low=1.0,
            scale_high=1.0,
            training_radius=4,
            momentum=0.9,
            learning_rate=0.3,
        ),
    )
    files = train_boundaries.Outputs(data / "boundaries.pt", data / "boundaries.csv")
    inputs = train_boundaries.Inputs(data / "index", (data / "labels",))
    train_boundaries.run(inputs, files, options, RUNTIME)
    with write_maps(data / "maps.h5", 20) as writer:
        for name, labels in LABELS.items():
            values = np.zeros((1 + len(labels), *SIZE))
            values[0] = 0.1
            values[0, :, 30:] = 0.6
            values[1:2, 4:28, 4:14] = 1.0
            writer.write(name, np.array(labels, np.uint8), {"seeds": values})
    walked = walk_pseudo_labels.Outputs(data / "walked", data / "walked.h5")
    inputs_of_walk = walk_pseudo_labels.Inputs(
        data / "index", shard(data), data / "maps.h5", data / "boundaries.pt"
    )
    saved = walk_pseudo_labels.Options(pseudo_labels=LabelChoice(save_probabilities=True))
    walk_pseudo_labels.run(inputs_of_walk, walked, saved, RUNTIME)
    found = read_mask(data / "walked" / "one.png", (1, 2), size=SIZE)
    assert (found[:, :20] == 1).mean() > 0.9 and (found[:, 28:] == 0).mean() > 0.9
    probability = MapReader([data / "walked.h5"], "probability")["two"].values
    np.testing.assert_allclose(probability.sum(0), 1, atol=2e-3)
    assert not read_mask(data / "walked" / "three.png", (1, 2), size=SIZE).any()


def test_labels_of_boundaries_leave_unsure_pixels_out(data: Path) -> None:
    """A weak middle between object and ground is background at the maps' own background only."""
    pixels = np.full((*SIZE, 3), 20, np.uint8)
    pixels[:, :16], pixels[:, 16:32] = 230, 120
    values = np.zeros((3, *SIZE), np.float32)
    values[1, :, :16], values[1, :, 16:32] = 1.0, 0.3
    values[0] = np.where(values[1] > 0.5, 0.0, 0.5)
    with write_maps(data / "maps.h5", 20) as writer:
        for name, labels in LABELS.items():
            Image.fromarray(pixels).save(data / f"{name}.png")
            writer.write(name, np.array(labels, np.uint8), {"seeds": values[: 1 + len(labels)]})
    inputs = make_boundary_labels.Inputs(data / "index", shard(data), data / "maps.h5")
    for unsure, middle in ((True, 255), (False, 0)):
        files = make_boundary_labels.Outputs(data / f"labels_{unsure}")
        options = make_boundary_labels.Options(random_walk=BoundaryLabels(ignore_unsure=unsure))
        make_boundary_labels.run(inputs, files, options, RUNTIME)
        found = np.array(Image.open(files.masks / "one.png"))
        parts = found[:, :15], found[:, 17:31], found[:, 33:]
        assert [np.unique(part).tolist() for part in parts] == [[1], [middle], [0]]
        assert not np.array(Image.open(files.masks / "three.png")).any()  # an image without labels


def test_a_damaged_boundary_network_is_one_line(data: Path) -> None:
    (data / "maps.h5").touch()
    torch.save({"a": 1}, data / "boundaries.pt")
    inputs = walk_pseudo_labels.Inputs(
        data / "index", shard(data), data / "maps.h5", data / "boundaries.pt"
    )
    with pytest.raises(UserError, match=r"boundaries\.pt: no network file, .*; remove it"):
        walk_pseudo_labels.run(
            inputs,
            walk_pseudo_labels.Outputs(data / "walked", data / "walked.h5"),
            walk_pseudo_labels.Options(),
            RUNTIME,
        )
