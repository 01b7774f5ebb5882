"""True masks as the model `supervised` learns from them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brnf.data.index import ImageRecord, Index, MaskRecord, write_masks
from brnf.data.masks import read_values, write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.segment.dataset import pair_with_masks
from brnf.stages.collect_masks import Inputs, Options, Outputs, run

QUIET = Runtime(workers=0, progress="none")


def test_values_of_the_data_set_become_classes_and_what_is_not_masked_is_left_out(
    tmp_path: Path,
) -> None:
    truth = np.array([[0, 8, 3], [255, 8, 0]], np.uint8)  # 3 is no class that was chosen
    records, masks = [], []
    for name in ("a", "b"):
        Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / f"{name}.png")
        records.append(ImageRecord(name, tmp_path / f"{name}.png", 3, 2, (1,)))
        masks.append(MaskRecord(name, tmp_path / "a-mask.png" if name == "a" else None, None))
    write_palette_png(tmp_path / "a-mask.png", truth)
    index = tmp_path / "index"
    Index(("cat",), (8,), tuple(records)).write(index, "train")
    write_masks(index, "train", masks)
    folder = tmp_path / "true"
    run(Inputs(index, index / "shards/train/0.csv"), Outputs(folder), Options("train"), QUIET)
    assert [path.name for path in folder.glob("*.png")] == ["a.png"]
    found, _ = read_values(folder / "a.png", size=(2, 3))
    np.testing.assert_array_equal(found, [[0, 1, 255], [255, 1, 0]])
    paired = pair_with_masks(records, [folder], every=False)
    assert [one.mask for one in paired] == [folder / "a.png"]
    with pytest.raises(UserError, match="b: this image has no mask"):
        pair_with_masks(records, [folder])
    (folder / "a.png").unlink()
    with pytest.raises(UserError, match="a: this image has no mask"):
        pair_with_masks(records, [folder], every=False)
