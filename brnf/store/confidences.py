"""How sure a segmenter is of each photograph, as CSV."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from brnf.errors import DamagedProduct, UserError
from brnf.store.files import atomic_file

__all__ = ["read_confidences", "write_confidences"]

COLUMNS = ("image", "confidence")


def write_confidences(path: Path, confidences: Mapping[str, float]) -> None:
    """Write the confidence of each image.

    Arguments:
        path: the CSV file.
        confidences: by the id of the image, in 0..1.
    """
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((image, f"{value:.4f}") for image, value in confidences.items())


def read_confidences(paths: Iterable[Path]) -> dict[str, float]:
    """Read what :func:`write_confidences` wrote of several shards.

    Raises:
        UserError: a file is missing or damaged.
    """
    found = {}
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; run predict_segmentation first")
        try:
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    value = float(row["confidence"])
                    if not 0 <= value <= 1:
                        raise ValueError(f"{value} is no probability")
                    found[row["image"]] = value
        except (OSError, LookupError, ValueError, TypeError, csv.Error) as error:
            fault = f"damaged confidences ({error})"
            raise DamagedProduct(path, fault, "predict_segmentation") from error
    return found
