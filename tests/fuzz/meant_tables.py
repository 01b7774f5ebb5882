"""Tables of labels in every dialect that people and programs write."""

import csv
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brnf.config.sections.data import IndexedImages
from brnf.data.index import Index
from brnf.stages.index_images import Inputs
from tests.fuzz.meant import NAMES, chosen, indexed, meant_kind, warned
from tests.fuzz.pictures import JPEG
from tests.fuzz.runner import Kind

__all__ = ["table_kinds"]

SAME = (
    *("byte-order mark", "UTF-16", "UTF-16 without mark", "CRLF", "CR", "capitals", "columns"),
    *("empty columns", "empty rows", "bars", "blanks", "twice", "decomposed", "invisible"),
    *("quoted cells", "quoted labels", "a row a label", "split names", "numbers", "negatives"),
    *("own order", "folders", "many", "unused split", "no split"),
)
"""Ways to write the same: these must be read."""
DOUBTFUL = (
    *("semicolons", "tabs", "latin-1", "commas", "brackets", "missing words", "answers"),
    *("capital label", "joined labels", "empty split", "two splits", "missing file"),
    *("unknown column", "repeated column", "class not named", "same number", "line break"),
    *("half-width", "separator in name", "underscore"),
)
"""Ways whose meaning is not clear."""
UNUSED = ("1.jpg", "2.jpg")
"""Images that may belong to another split."""
Row = tuple[str, list[str], str]
"""Of an image: file, labels and split."""


def rows_of(change: str, random: np.random.Generator) -> tuple[list[str], list[Row]]:
    """Return classes, and images with labels and split, as they are meant."""
    names = chosen(random, NAMES, int(random.integers(2, 6)))
    if change in ("numbers", "same number"):
        names = [str(number) for number in sorted(1 + random.permutation(14)[:4])]
    rows = []
    for place in range(int(random.integers(4, 40 if change == "many" else 9))):
        labels = chosen(random, names, int(random.integers(1, len(names) + 1)))
        rows.append((f"{place}.jpg", labels, "val" if place == 3 else "train"))
    rows[0] = (rows[0][0], [*names], "train")  # so that every class occurs
    if change in ("joined labels", "separator in name"):
        names = names[:2]
        rows = [(image, names, split) for image, _, split in rows]
    if change == "negatives":
        rows.append(("negative.jpg", [], "train"))
    if change == "folders":
        rows = [(f"{place % 2}/{place // 2}.jpg", *rest) for place, (_, *rest) in enumerate(rows)]
    return names, rows


def cell_of(change: str, labels: Sequence[str], random: np.random.Generator) -> str:
    """Return labels as one cell."""
    words = [*labels]
    if change == "decomposed":
        words = [unicodedata.normalize("NFD", word) for word in words]
    elif change == "invisible":
        words = [f"\u200b{word}\u00a0" for word in words]
    elif change == "quoted labels":
        words = [f"'{word}'" if random.integers(2) else f'"{word}"' for word in words]
    elif change == "twice":
        words += words[:1]
    between = {
        "bars": "|",
        "blanks": "  ; ",
        "commas": ",",
        "brackets": "', '",
        "line break": "\n",
    }.get(change, ";")
    cell = between.join(words)
    return f"['{cell}']" if change == "brackets" else f" {cell}; " if change == "blanks" else cell


def doubtful(change: str, table: list[list[str]], rows: list[Row], names: list[str]) -> None:
    """Write in one place what is not clear; ``table`` has a header."""
    first = table[1]
    if change == "missing words":
        table[2][1] = ("nan", "None", "-", "N/A", "null")[len(rows) % 5]
    elif change == "answers":
        table[2][1] = ("True", "no")[len(rows) % 2]
    elif change == "capital label":
        other = names[0].swapcase()
        table.append(["0.jpg", f"{names[0]}s" if other == names[0] else other, "train"])
    elif change == "underscore":
        table[2][1] = "polar_bear;polar bear"
    elif change == "joined labels":
        table[2][1] = f"{names[0]} {names[1]}"
    elif change == "separator in name":
        table[2][1] = f"{names[0]} and {names[1]}"
    elif change == "half-width":
        table[2][1] = "x;\uff58"
    elif change == "empty split":
        first[2] = ""
    elif change == "two splits":
        table.append([*first[:2], "val"])
    elif change == "missing file":
        first[0] = "nowhere.jpg"
    elif change == "same number":
        first[1] += f";0{names[0]}"
    elif change in ("unknown column", "repeated column"):
        table[0].append("note" if "unknown" in change else "labels")
        for row in table[1:]:
            row.append("cat")


def written(change: str, rows: list[Row], names: list[str], random: np.random.Generator) -> bytes:
    """Return the file."""
    splits = {"train": ("Train", "TRAIN", "training"), "val": ("validation", "Val", "valid")}
    table = [["image", "labels", "split"]]
    for image, labels, split in rows:
        own = splits[split][int(random.integers(3))] if change == "split names" else split
        own = "extra" if change == "unused split" and image in UNUSED else own
        if change == "a row a label":
            table += [[image, label, own] for label in labels]
        else:
            table.append([image, cell_of(change, labels, random), own])
    doubtful(change, table, rows, names)
    if change == "capitals":
        table[0] = ["Image", " LABELS", "Split "]
    elif change == "columns":
        order = random.permutation(3)
        table = [[row[place] for place in order] for row in table]
    elif change == "no split":
        table = [row[:2] for row in table]
    elif change == "empty columns":
        table = [[*row, "", ""] for row in table]
    elif change == "empty rows":
        table += [["", "", ""], []]
    file = io.StringIO(newline="")
    ends = {"CRLF": "\r\n", "CR": "\r"}.get(change, "\n")
    between = {"semicolons": ";", "tabs": "\t"}.get(change, ",")
    quoting = csv.QUOTE_ALL if change == "quoted cells" else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=between, lineterminator=ends, quoting=quoting).writerows(table)
    encoding = {
        "byte-order mark": "utf-8-sig",
        "UTF-16": "utf-16",
        "UTF-16 without mark": "utf-16-le",
        "latin-1": "latin-1",
    }.get(change, "utf-8")
    return file.getvalue().encode(encoding, errors="replace")


def read(folder: Path, change: str, random: np.random.Generator) -> bool:
    """Index a table, and compare classes, splits and labels."""
    names, rows = rows_of(change, random)
    if change == "unused split":
        used = [labels for image, labels, _ in rows if image not in UNUSED]
        names = sorted({label for labels in used for label in labels})
    for image, _, _ in rows:
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).write_bytes(JPEG)
    (folder / "table.csv").write_bytes(written(change, rows, names, random))
    classes = tuple(names) if change in ("own order", "class not named") else ()
    dataset = IndexedImages(kind="table", classes=classes[change == "class not named" :])
    splits = ("train", "val") if change == "unused split" else ()
    index = indexed(folder, dataset, Inputs(table=folder / "table.csv"), splits)
    order = names if change in ("own order", "numbers") else sorted(names)
    meant: dict[str, tuple[set[str], set[str]]] = {}
    for image, labels, split in rows:
        if change != "unused split" or image not in UNUSED:
            meant[image] = (set(labels), {"train" if change == "no split" else split})
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in sorted((index / "splits").glob("*.csv")):
        part = Index.of_split(index, path.stem)
        assert [*part.classes] == order, f"{part.classes} instead of {order}"
        for one in part.images:
            named = {part.classes[label - 1] for label in one.labels}
            image = one.path.relative_to(folder).as_posix()
            found.setdefault(image, (named, set()))[1].add(path.stem)
    assert found == meant, f"{found} instead of {meant}"
    told = warned(index, str(folder / "table.csv"))
    assert change in SAME or told or change in ("plain", "latin-1"), "doubtful, and not a word"
    assert change not in ("unused split", "a row a label", "split names") or told
    return told


def table_kinds() -> list[Kind]:
    """Return the one kind."""
    return [meant_kind("meant tables", 500, SAME, DOUBTFUL, read)]
