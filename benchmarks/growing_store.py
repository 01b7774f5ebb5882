"""Files as research code writes them: a dictionary of maps for each image, pixel features in
datasets that grow image by image.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from brnf.store.maps import CamMaps
from brnf.store.pixels import PixelRows

__all__ = ["GrowingStore", "SavedMaps", "read_saved", "write_saved"]

COLUMNS = {"score": np.float16, "background": np.float16, "label": np.uint8}


def write_saved(
    path: Path, classes: NDArray[np.integer], products: Mapping[str, NDArray[np.floating]]
) -> None:
    """Save maps [1 + k, H, W] in float32 with the class indices [k] of their channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: Any = {
        "keys": np.asarray(classes),
        **{name: np.asarray(values, np.float32) for name, values in products.items()},
    }
    np.save(path, content)


def read_saved(path: Path) -> dict[str, NDArray[Any]]:
    """Return a dictionary that :func:`write_saved` wrote in this run, so its pickle is safe."""
    content: dict[str, NDArray[Any]] = np.load(path, allow_pickle=True).item()
    return content


class SavedMaps:
    """Read saved dictionaries the way a reader of shards is asked.

    Arguments:
        folder: of ``<id>.npy``.
        product: name of the maps.
    """

    def __init__(self, folder: Path, product: str) -> None:
        self._folder, self._product = folder, product

    def __getitem__(self, image: str) -> CamMaps:
        content = read_saved(self._folder / f"{image}.npy")
        return CamMaps(content["keys"], content[self._product])


class GrowingStore:
    """Pixel features and scores in an HDF5 file whose datasets grow by images, in the chunks that
    h5py chooses.

    Arguments:
        file: open.

    Attributes:
        file: whose datasets are ``feature`` [M, D] float16, ``score`` [M], ``background`` [M] and
            ``label`` [M].
        images: id -> number of the image, in the order of appending.
        grid: rows and columns of each image's feature grid.
        present: [K] bool of each image, background and labels.
        begin: first row of each image, and of the next one to come.
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        names = [] if "images" not in file else [name.decode() for name in file["images"][()]]
        self.images = {name: number for number, name in enumerate(names)}
        self.grid: list[NDArray[np.integer]] = list(file["grid"][()]) if names else []
        self.present: list[NDArray[np.bool_]] = list(file["present"][()]) if names else []
        self.begin: list[int] = file["begin"][()].tolist() if names else [0]

    @classmethod
    @contextmanager
    def create(cls, path: Path, dimension: int) -> Iterator["GrowingStore"]:
        """Open an empty file for features of D dimensions."""
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "feature", (0, dimension), np.float16, maxshape=(None, dimension), chunks=True
            )
            for name, kind in COLUMNS.items():
                file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=True)
            store = cls(file)
            yield store
            file["images"] = np.array([name.encode() for name in store.images])
            file["grid"], file["present"], file["begin"] = (
                np.array(store.grid),
                np.array(store.present),
                np.array(store.begin),
            )

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["GrowingStore"]:
        """Open a file for reading."""
        with h5py.File(path, "r") as file:
            yield cls(file)

    def append(self, rows: PixelRows) -> None:
        """Append the rows of an image."""
        end = self.begin[-1] + len(rows.position)
        for name in ("feature", *COLUMNS):
            dataset = self.file[name]
            dataset.resize(end, 0)
            dataset[self.begin[-1] :] = getattr(rows, name)
        self.images[rows.image] = len(self.images)
        self.grid.append(np.array(rows.grid))
        self.present.append(rows.present)
        self.begin.append(end)

    def rows(self, image: str) -> slice:
        """Return where an image's rows lie."""
        number = self.images[image]
        return slice(self.begin[number], self.begin[number + 1])
