"""The stage that writes the scenes."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from brnf.config.sections.data import Scenes
from brnf.data.masks import colour_map
from brnf.data.voc_annotations import read_object_names
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.render_scenes import Options, Outputs, run

CONFIG = Path(__file__).parents[2] / "config"
QUIET = Runtime(workers=0, progress="none")


def write(folder: Path, **options: float) -> Path:
    run(Outputs(folder), Options(Scenes(**{"train": 3, "val": 2, "size": 64, **options})), QUIET)
    return folder / "VOC2012"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_equal_options_give_equal_bytes_and_more_scenes_change_none(tmp_path: Path) -> None:
    first, second = contents(write(tmp_path / "a")), contents(write(tmp_path / "b"))
    assert first == second
    more = contents(write(tmp_path / "c", train=4))
    lists = "ImageSets/Segmentation/train.txt"
    assert {name: data for name, data in more.items() if name in first and name != lists} == {
        name: data for name, data in first.items() if name != lists
    }
    assert contents(write(tmp_path / "d", seed=1)) != first


def test_the_layout_is_that_of_voc(tmp_path: Path) -> None:
    root = write(tmp_path / "scenes")
    classes = (root / "classes.txt").read_text().split()
    ids = [
        name
        for split in ("train", "val")
        for name in (root / "ImageSets/Segmentation" / f"{split}.txt").read_text().split()
    ]
    assert len(ids) == 5 and len(classes) == 6
    for name in ids:
        with Image.open(root / "SegmentationClass" / f"{name}.png") as image:
            assert image.mode == "P"
            assert image.getpalette()[:21] == colour_map()[:7].ravel().tolist()
            present = set(np.unique(np.array(image))) - {0}
        assert {classes[label - 1] for label in present} == read_object_names(
            root / "Annotations" / f"{name}.xml"
        )
        with Image.open(root / "JPEGImages" / f"{name}.jpg") as image:
            assert image.size == (64, 64) and image.mode == "RGB"


def test_a_folder_of_photographs_stays(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"photos: holds a\.jpg and was not written by this"):
        write(tmp_path / "photos")
    assert contents(tmp_path) == {"photos/a.jpg": b"mine"}
    assert write(tmp_path / "scenes", seed=0) and write(tmp_path / "scenes", seed=1)


def test_validation_scenes_have_their_own_bias(tmp_path: Path) -> None:
    root = write(tmp_path / "scenes", rho=1.0, nu=0.0, val_rho=0.0, val_nu=0.0, train=6, val=4)

    def read(folder: str, name: str) -> np.ndarray:
        return np.array(Image.open(root / folder / f"{name}.png"))

    for number in range(6):
        objects, contexts = (
            read(folder, f"train_{number:05d}") for folder in ("SegmentationClass", "ContextClass")
        )
        assert set(np.unique(contexts)) - {0} == set(np.unique(objects)) - {0}
    assert not any(read("ContextClass", f"val_{number:05d}").any() for number in range(4))


@pytest.mark.parametrize("name", ["demo", "tiny"])
def test_the_inseparable_companion_is_so_on_both_splits(tmp_path: Path, name: str) -> None:
    settings = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    scenes = settings["companions"][f"{name}-inseparable"]["scenes"]
    root = write(tmp_path, **{**scenes, "train": 6, "val": 12})
    ids = [path.stem for path in (root / "ContextClass").glob("*.png")]
    assert len(ids) == 18
    for image in ids:
        objects, contexts = (
            set(np.unique(np.array(Image.open(root / folder / f"{image}.png")))) - {0, 255}
            for folder in ("SegmentationClass", "ContextClass")
        )
        assert contexts <= objects, image
