"""How far the files of a device are from those of the CPU, and how far they may be."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from brnf.engine.history import read_history
from brnf.store.maps import MapReader
from brnf.store.pixels import PixelStore

__all__ = ["TOLERANCES", "difference"]

TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "maps": {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2},
    "rows": {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2},
    "loss": {"fp32": 2e-3, "tf32": 2e-2, "bf16": 1e-1, "fp16": 2e-2},
    "masks": {"fp32": 5e-3, "tf32": 3e-2, "bf16": 1e-1, "fp16": 3e-2},
    "figures": {"fp32": 1e-2, "tf32": 1e-2, "bf16": 1e-2, "fp16": 1e-2},
}
"""By kind of file and precision the largest difference. Maps: the mean absolute one of values in
0..1. Rows: the mean absolute one of features over their mean size. Loss: the largest relative one
of a step. Masks: the share of pixels. Figures: the largest absolute one of an mIoU.
"""


def difference(kind: str, own: Path, theirs: Path) -> tuple[str, float]:
    """Return the key of :data:`TOLERANCES` and the difference of two files.

    Arguments:
        kind: ``loss``, ``rows``, ``masks``, ``figures``, or names of products of maps.
        own: file or folder of the device.
        theirs: of the CPU.
    """
    if kind == "loss":
        own_loss, their_loss = (read_history(path, "loss")["loss"] for path in (own, theirs))
        assert len(own_loss) == len(their_loss) > 0
        return kind, float(((own_loss - their_loss) / their_loss).abs().max())
    if kind == "rows":
        found, expected = (
            np.concatenate([batch.feature for batch in PixelStore([path]).blocks()]).astype(float)
            for path in (own, theirs)
        )
        return kind, float(np.abs(found - expected).mean() / np.abs(expected).mean())
    if kind == "masks":
        return kind, _masks(own, theirs)
    if kind == "figures":
        found, expected = (_mean_ious(path) for path in (own, theirs))
        return kind, float(np.abs(found - expected).max())
    return "maps", max(_maps(product, own, theirs) for product in kind.split())


def _maps(product: str, own: Path, theirs: Path) -> float:
    found, expected = MapReader([own], product), MapReader([theirs], product)
    assert found.images == expected.images != []
    each = [
        np.abs(found[image].values.astype(float) - expected[image].values).mean()
        for image in found.images
    ]
    return float(np.mean(each))


def _masks(own: Path, theirs: Path) -> float:
    names = sorted(path.name for path in theirs.glob("*.png"))
    assert names == sorted(path.name for path in own.glob("*.png")) != []
    each = [
        (np.asarray(Image.open(own / name)) != np.asarray(Image.open(theirs / name))).mean()
        for name in names
    ]
    return float(np.mean(each))


def _mean_ious(path: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = json.loads(path.read_text())
    return np.array([found["raw_miou"], *(point["miou"] for point in found["points"])])
