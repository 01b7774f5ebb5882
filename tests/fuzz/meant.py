"""Valid files with another meaning than their reader may take them for: nothing is damaged, so each
case knows what is right. It must end with that, with a warning or with one line.
"""

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from brnf.config.sections.data import IndexedImages, Masks
from brnf.data.index import Index
from brnf.errors import UserError
from brnf.evaluate.truth import GroundTruth
from brnf.stages import draw_masks, index_images
from tests.fuzz.runner import Kind
from tests.fuzz.sources import QUIET

__all__ = ["NAMES", "chosen", "drawn_coco", "indexed", "meant_kind", "png", "warned"]

PLAIN = "plain"
NAMES = (
    *("cat", "dog", "polar bear", "Zürich", "été", "seed", "model", "bus", "tv-monitor", "7up"),
    *("background noise", "Ärger", "猫", "x", "class"),
)

Read = Callable[[Path, str, np.random.Generator], bool]
"""Given a folder, a change and a source of random numbers: writes the files, lets the package read
them, asserts that what it read is right or warned of, and returns whether it warned.
"""


def meant_kind(
    name: str, files: int, clear: Sequence[str], doubtful: Sequence[str], read: Read
) -> Kind:
    """Return a kind whose file is the recipe of a case: a change and a seed.

    Arguments:
        name: of the kind.
        files: of a full run.
        clear: changes of the plain case after which its meaning is clear: no error may refuse it.
        doubtful: those after which it is not.
        read: see :data:`Read`; gets ``plain`` in the first case.
    """

    changes = [*clear, *doubtful]

    def spoil(random: np.random.Generator) -> bytes:
        recipe = {"change": str(random.choice(changes)), "seed": int(random.integers(2**31))}
        return json.dumps(recipe).encode()

    def build(path: Path, number: int) -> bool:
        recipe = json.loads(path.read_text())
        try:
            return read(path.parent, recipe["change"], np.random.default_rng(recipe["seed"]))
        except UserError as error:
            assert recipe["change"] not in clear, f"refused: {error}"
            raise

    valid = json.dumps({"change": PLAIN, "seed": 0}).encode()
    return Kind(name, files, valid, spoil, build, "recipe.json")


def chosen(random: np.random.Generator, values: Sequence[str], count: int) -> list[str]:
    """Return some of the values in random order."""
    return [values[place] for place in random.permutation(len(values))[:count]]


def drawn_coco(folder: Path) -> tuple[Index, GroundTruth, Path]:
    """Index COCO's files in ``folder/coco`` and draw their masks; returns the folder of the index
    beside it.
    """
    inputs = index_images.Inputs(root=folder / "coco")
    place = indexed(folder, IndexedImages(kind="coco"), inputs, ("train",))
    draw_masks.run(
        draw_masks.Inputs(place, place / "splits" / "train.csv"),
        draw_masks.Outputs(folder / "drawn"),
        draw_masks.Options("train", Masks()),
        QUIET,
    )
    index = Index.of_split(place, "train")
    return index, GroundTruth(index, place, "train", [folder / "drawn"]), place


def indexed(
    folder: Path,
    dataset: IndexedImages,
    inputs: index_images.Inputs,
    splits: tuple[str, ...] = (),
) -> Path:
    """Run the stage and return the folder of the index."""
    options = index_images.Options(dataset, splits, shards=1)
    index_images.run(inputs, index_images.Outputs(folder / "index"), options, QUIET)
    return folder / "index"


def warned(index: Path, words: str = "") -> bool:
    """Return whether the summary of an index tells of something, or of what has these words."""
    told = [
        line
        for line in (index / "summary.md").read_text().splitlines()
        if line.startswith(("- ", "Warning:"))
    ]
    return any(words in line for line in told if "on every image" not in line)


def png(values: np.ndarray, bits: int) -> bytes:
    """Return values [H, W] or [H, W, 3] as a PNG of so many bits, which PIL does not write."""
    height, width = values.shape[:2]
    colour = 2 if values.ndim == 3 else 0
    flat = values.reshape(height, -1)
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in flat]
    else:
        places = np.arange(bits)[::-1]
        lines = [np.packbits(row[:, None] >> places & 1).tobytes() for row in flat]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line for line in lines))
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
