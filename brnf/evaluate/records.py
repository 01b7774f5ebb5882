"""Reading of measurements that other stages wrote as JSON and CSV, checked before anything is
computed from them.
"""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import pandas as pd

from brnf.errors import DamagedProduct, UserError

__all__ = ["read_evaluation", "read_sweep", "read_table"]


class _BestOfSweep(msgspec.Struct):
    best_miou: float
    best_threshold: float


class _Reading(msgspec.Struct):
    target: float
    threshold: float
    recall: float
    miou: float
    fire: float | None


class _Evaluation(msgspec.Struct):
    model: str
    product: str
    split: str
    protocol: str
    seed: int
    classes: list[str]
    iou: list[float | None]
    miou: float
    sweep: _BestOfSweep | None
    at_recall: _Reading | None
    labels: Literal["given", "none"] | None = None
    no_class: float = 0.0
    coverage: float = 1.0

    def __post_init__(self) -> None:
        if len(self.iou) != len(self.classes):
            raise ValueError("not one IoU for each class")


class _Point(msgspec.Struct):
    rule: str
    xi: float
    miou: float


class _Margins(msgspec.Struct):
    edges: list[float]
    true: list[float]
    false: list[float]

    def __post_init__(self) -> None:
        if not len(self.true) == len(self.false) == len(self.edges) - 1:
            raise ValueError("not one number for each bin of the margins")


class _Shown(msgspec.Struct):
    rule: str
    xi: float


class _Loss(msgspec.Struct):
    id: str
    before: float
    after: float


class _Sweep(msgspec.Struct):
    model: str
    split: str
    protocol: str
    seed: int
    density: str
    tau_low: float
    tau_high: float
    held_out: float | None
    raw_miou: float
    points: list[_Point]
    cross_validated: dict[str, float]
    seed_accuracy: float | None
    density_accuracy: float | None

    def __post_init__(self) -> None:
        if {point.rule for point in self.points} - set(self.cross_validated):
            raise ValueError("not one cross-validated mIoU for each rule")


class _DrawnSweep(_Sweep):
    classes: list[str]
    class_pixels: list[int]
    class_log_density: list[float | None]
    shown: _Shown
    margins: _Margins
    worst: list[_Loss]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.class_pixels) == len(self.class_log_density) == len(self.classes):
            raise ValueError("not one number for each class")


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read what the stage ``evaluate`` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _read(path, _Evaluation, "evaluate")


def read_sweep(path: Path, *, drawn: bool = False) -> dict[str, Any]:
    """Read what the stage ``sweep_denoising`` wrote.

    Arguments:
        path: the file.
        drawn: whether what the figures show must be there, beside what the tables do.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _read(path, _DrawnSweep if drawn else _Sweep, "sweep_denoising")


def _read(path: Path, kind: type[msgspec.Struct], stage: str) -> dict[str, Any]:
    """Read a JSON object after comparing it with what it must hold."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; run {stage} first")
    try:
        text = path.read_bytes()
        msgspec.json.decode(text, type=kind)
        found: dict[str, Any] = json.loads(text)
    except Exception as error:  # RecursionError, UnicodeDecodeError and what msgspec finds
        raise DamagedProduct(path, f"damaged measurements ({error})", stage) from error
    return found


def read_table(
    path: Path, stage: str, numbers: tuple[str, ...] = (), words: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Read a CSV that a stage wrote.

    Arguments:
        path: the file.
        stage: that writes it.
        numbers: columns that must be there and hold numbers or nothing.
        words: columns that must be there and are read as words.

    Raises:
        UserError: the file is missing, damaged, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; run {stage} first")
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(words, str))
        if table.empty:  # a training of no steps: columns without a value are taken for words
            table = table.astype(dict.fromkeys(table.columns.difference(list(words)), float))
        for name in (*numbers, *words):
            if name not in table or (
                name in numbers and not pd.api.types.is_numeric_dtype(table[name])
            ):
                raise ValueError(f"column '{name}' is missing or holds no numbers")
    except Exception as error:  # pandas reports damage with many kinds of exceptions
        raise DamagedProduct(path, f"damaged table ({error})", stage) from error
    return table
