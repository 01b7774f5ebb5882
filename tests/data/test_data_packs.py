"""Packs of images and masks, for jobs that see no shared disk."""

import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from brnf.config.sections.data import IndexedImages
from brnf.data.index import Index, read_masks
from brnf.data.packs import unpacked, write_pack
from brnf.engine.runtime import Runtime
from brnf.errors import DamagedProduct, UserError
from brnf.evaluate.truth import GroundTruth
from brnf.stages import index_images, pack_images
from brnf.store.hdf5 import FORMAT

QUIET = Runtime(workers=0, progress="none")
SPLITS = ("train", "train_aug", "val")


@pytest.fixture
def packed(voc_tree: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Index a data set, pack it, and take its files away; return both folders."""
    options = index_images.Options(IndexedImages(classes=("dog", "cat", "person")), shards=2)
    index, packs = tmp_path / "index", tmp_path / "packed"
    index_images.run(index_images.Inputs(voc_tree), index_images.Outputs(index), options, QUIET)
    pack(index, packs)
    voc_tree.rename(tmp_path / "away")
    (index / "root.txt").unlink()
    return index, packs


def pack(index: Path, packs: Path, splits: tuple[str, ...] = SPLITS) -> None:
    inputs, outputs = pack_images.Inputs(index), pack_images.Outputs(packs)
    pack_images.run(inputs, outputs, pack_images.Options(splits), QUIET)


def of_split(packs: Path, kind: str, split: str) -> tuple[Path, ...]:
    return tuple(sorted((packs / kind / split).glob("*.h5")))


def held(away: Path, pattern: str) -> bytes:
    (path,) = away.rglob(pattern)
    return path.read_bytes()


def test_each_shard_has_its_own_images_byte_for_byte(
    packed: tuple[Path, Path], tmp_path: Path
) -> None:
    index, packs = packed
    for split in SPLITS:
        for path in (index / "shards" / split).glob("*.csv"):
            images = packs / "images" / split / f"{path.stem}.h5"
            listed = Index.of_list(index, path, (images,)).images
            with h5py.File(images) as file:
                assert set(file) == {"image"} and set(file["image"]) == {one.id for one in listed}
            for image in listed:
                assert image.path.read_bytes() == held(tmp_path / "away", f"{image.id}.jpg")
    whole = Index.of_split(index, "train_aug", of_split(packs, "images", "train_aug"))
    assert [image.id for image in whole.images] == ["a1", "a2", "c1"]
    assert all(image.path.is_file() for image in whole.images)


def test_masks_lie_apart_from_what_training_may_know(
    packed: tuple[Path, Path], tmp_path: Path
) -> None:
    index, packs = packed
    masks = of_split(packs, "masks", "train")
    found = read_masks(index, "train", masks)
    for name in ("a1", "a2"):
        path = found[name].mask
        assert path is not None and found[name].context is None
        assert path.read_bytes() == held(tmp_path / "away", f"SegmentationClass/{name}.png")
    listed = Index.of_split(index, "train", of_split(packs, "images", "train"))
    truth = GroundTruth(listed, index, "train", packed=masks).objects(listed.images[0])
    assert truth is not None and set(np.unique(truth)) == {0, 1, 2, 255}
    images = set(of_split(packs, "images", "train"))
    assert not any("mask" in h5py.File(path) for path in images)


def test_equal_files_give_equal_packs_and_a_split_without_an_image_none(
    packed: tuple[Path, Path], tmp_path: Path
) -> None:
    index, packs = packed
    (tmp_path / "away").rename(tmp_path / "data")
    (index / "root.txt").write_text(f"{tmp_path / 'data/VOCdevkit/VOC2012'}\n")
    pack(index, tmp_path / "again", (*SPLITS, "nothing"))
    for path in packs.rglob("*.h5"):
        again = tmp_path / "again" / path.relative_to(packs)
        assert again.read_bytes() == path.read_bytes()
    assert not list((tmp_path / "again").glob("*/nothing"))


def test_a_checkpoint_does_not_ask_where_images_were_unpacked(packed: tuple[Path, Path]) -> None:
    index, packs = packed
    image = Index.of_split(index, "train", of_split(packs, "images", "train")).images[0]
    assert str(replace(image, path=Path("elsewhere"))) == str(image)
    assert str(replace(image, digest="another")) != str(image)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*lost.jpg: cannot be read [^\n]+$"):
        write_pack(tmp_path / "0.h5", [("image", "a", tmp_path / "lost.jpg")])
    assert not (tmp_path / "0.h5").exists()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (".hidden", np.zeros(3, np.uint8)),
        ("a b", np.zeros(3, np.uint8)),
        ("a", np.zeros(3, np.float32)),
        ("a", np.zeros((2, 2), np.uint8)),
        ("a/b", np.zeros(3, np.uint8)),
    ],
)
def test_what_is_no_pack_is_told_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, values: np.ndarray
) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "images"))
    with h5py.File(tmp_path / "0.h5", "w", libver=FORMAT) as file:
        file.create_group("image").create_dataset(name, data=values)
    with pytest.raises(DamagedProduct, match="damaged pack"):
        unpacked((tmp_path / "0.h5",))
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file()]


def test_a_pack_that_is_missing_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run pack_images first"):
        unpacked((tmp_path / "none.h5",))
