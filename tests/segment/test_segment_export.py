"""Predictions of a test split in the evaluation server's tree."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.data.index import ImageRecord, Index
from brnf.data.masks import colour_map, write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.export_predictions import Inputs, Options, Outputs, run

QUIET = Runtime(workers=0, progress="none")


@pytest.fixture
def predicted(tmp_path: Path) -> Inputs:
    """Return predictions of two images in two shards; the classes are VOC's dog and cat."""
    records = tuple(
        ImageRecord(name, tmp_path / f"{name}.jpg", 3, 2, ())
        for name in ("2008_000006", "2008_000011")
    )
    Index(("dog", "cat"), (12, 8), records).write(tmp_path / "index", "test", shards=2)
    for shard, record in enumerate(records):
        (tmp_path / str(shard)).mkdir()
        write_palette_png(
            tmp_path / str(shard) / f"{record.id}.png",
            np.array([[0, 1, 2], [2, 2, shard]], np.uint8),
        )
    return Inputs(tmp_path / "index", (tmp_path / "0", tmp_path / "1"))


def test_the_tree_holds_palette_masks_with_the_values_of_the_data_set(
    predicted: Inputs, tmp_path: Path
) -> None:
    run(predicted, Outputs(tmp_path / "test_predictions"), Options("test"), QUIET)
    files = sorted(
        path.relative_to(tmp_path / "test_predictions").as_posix()
        for path in (tmp_path / "test_predictions").rglob("*.png")
    )
    assert files == [
        f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png"
        for name in ("2008_000006", "2008_000011")
    ]
    with Image.open(tmp_path / "test_predictions" / files[1]) as image:
        assert image.mode == "P" and np.array(image).tolist() == [[0, 12, 8], [8, 8, 12]]
        assert image.getpalette() == colour_map().reshape(-1).tolist()


def test_an_image_without_prediction_is_one_line_and_leaves_nothing(
    predicted: Inputs, tmp_path: Path
) -> None:
    (tmp_path / "1" / "2008_000011.png").unlink()
    with pytest.raises(UserError, match=r"^2008_000011: no mask [^\n]+; [^\n]+$"):
        run(
            predicted, Outputs(tmp_path / "test_predictions"), Options("test", Path("masks")), QUIET
        )
    assert not (tmp_path / "test_predictions").exists()
