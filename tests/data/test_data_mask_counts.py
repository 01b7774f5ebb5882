"""What masks hold, against labels and classes: kinds of masks that say something else than they
seem to.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brnf.config.sections.data import IndexedImages
from brnf.data import mask_counts, probing
from brnf.data.masks import colour_map, read_mask, read_values, write_mask, write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.stages.index_images import Inputs, Options, Outputs, run

QUIET = Runtime(workers=0, progress="none")
BOX = np.zeros((6, 8), np.uint8)
BOX[1:5, 2:6] = 1


def picture(path: Path) -> Path:
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(path)
    return path


def small_png(values: np.ndarray, bits: int) -> bytes:
    """Return a gray PNG of 1, 2, 4 or 8 bits."""
    rows = b""
    for row in values.tolist():
        digits = "".join(format(value, f"0{bits}b") for value in row)
        digits = digits.ljust(-(-len(digits) // 8) * 8, "0")
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_palette(path: Path, values: np.ndarray, colours: list[tuple[int, ...]]) -> None:
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette([channel for colour in colours for channel in colour])
    image.save(path)


def table(
    folder: Path, masks: list[tuple[str, Any]], column: str = "image,labels,mask", ending: str = ""
) -> Path:
    """Write a table of images with labels and masks; a mask is an array, or writes itself."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [column]
    for number, (labels, mask) in enumerate(masks):
        picture(folder / f"{number}.jpg")
        path = folder / f"{number}.png"
        if callable(mask):
            mask(path)
        else:
            write_palette_png(path, mask)
        lines.append(f"{number}.jpg,{labels},{number}.png{ending}")
    (folder / "own.csv").write_text("\n".join(lines) + "\n")
    return folder / "own.csv"


def indexed(csv: Path, **options: Any) -> str:
    """Index a table and return the last line of its summary."""
    dataset = IndexedImages(kind="table", **options)
    folder = csv.parent / "index"
    run(Inputs(table=csv), Outputs(folder), Options(dataset, shards=1), QUIET)
    return (folder / "summary.md").read_text().splitlines()[-1]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_gray_pngs_of_few_bits_hold_indices(tmp_path: Path, bits: int) -> None:
    values = (np.arange(10).reshape(2, 5) % 2**bits).astype(np.uint8)
    (tmp_path / "mask.png").write_bytes(small_png(values, bits))
    assert read_mask(tmp_path / "mask.png", range(1, 20)).tolist() == values.tolist()


@pytest.mark.parametrize("mode", ["1", "I;16", "I", "RGB", "LA"])
def test_pictures_that_hold_no_indices_are_refused(tmp_path: Path, mode: str) -> None:
    endings = {"1": "bmp", "I;16": "tiff", "I": "tiff"}
    path = tmp_path / f"mask.{endings.get(mode, 'png')}"
    kind = {"I;16": np.uint16, "I": np.int32}.get(mode, np.uint8)
    image = Image.fromarray(np.zeros((2, 3), kind))
    (image if mode == image.mode else image.convert(mode)).save(path)
    with pytest.raises(UserError, match=rf"mask\.\w+: a mask holds class indices [^\n]*{mode}"):
        read_values(path)


def test_masks_of_two_bytes_belong_to_tables_of_many_classes(tmp_path: Path) -> None:
    def wide(value: int, nothing: int = 65535) -> Callable[[Path], None]:
        values = BOX.astype(np.uint16) * value
        values[0] = nothing
        return lambda path: write_mask(path, values)

    names = tuple(f"class {number:03}" for number in range(1, 301))
    csv = table(tmp_path, [(names[299], wide(300)), (names[254], wide(255))])
    assert indexed(csv, classes=names).startswith("Masks: 2 masks, none of which contradicts")
    csv = table(tmp_path, [(names[299], wide(300)), (names[0], wide(301))])
    with pytest.raises(UserError, match=r"holds 301, which no [^\n]+ 0\.\.300 and 65535; [^\n]+$"):
        indexed(csv, classes=names)
    csv = table(tmp_path, [(names[0], wide(1, 255)), (names[1], wide(2))])
    with pytest.raises(UserError, match=r"holds 65535, which no [^\n]+ 0\.\.2 and 255; [^\n]+$"):
        indexed(csv, classes=names[:2])


@pytest.mark.parametrize("write", ["palette", "gray", "tiff", "2 bits"])
def test_values_of_no_class_are_refused(tmp_path: Path, write: str) -> None:
    values = BOX * 3

    def mask(path: Path) -> None:
        if write == "2 bits":
            path.write_bytes(small_png(values, 2))
        elif write == "palette":
            write_palette_png(path, values)
        else:
            form = {"gray": "PNG", "tiff": "TIFF"}[write]
            Image.fromarray(values).save(path, form)

    csv = table(tmp_path, [("cat", BOX), ("dog", mask), ("dog", BOX * 2)])
    with pytest.raises(
        UserError,
        match=r"1\.png: holds 3, which no class has \(16 pixels\); allowed are 0\.\.2 and 255; ",
    ):
        indexed(csv)
    indexed(csv, skip_bad=True)
    assert "- 1: " in (tmp_path / "index" / "summary.md").read_text()


def test_colours_saved_as_gray_are_refused(tmp_path: Path) -> None:
    def gray(path: Path) -> None:
        Image.fromarray(colour_map()[BOX]).convert("L").save(path)

    with pytest.raises(UserError, match=r"0\.png: holds 38, which no class has"):
        indexed(table(tmp_path, [("cat", gray), ("dog", BOX)]))


def test_voc_masks_may_hold_classes_that_were_not_chosen(voc_tree: Path, tmp_path: Path) -> None:
    chosen = Options(IndexedImages(classes=("dog",)))
    run(Inputs(root=voc_tree), Outputs(tmp_path / "index"), chosen, QUIET)
    summary = (tmp_path / "index" / "summary.md").read_text()
    assert "Masks: 2 masks, none of which contradicts its image's labels; 30.0 %" in summary
    mask = voc_tree / "VOCdevkit/VOC2012/SegmentationClass/a1.png"
    write_palette_png(mask, np.full((10, 12), 21, np.uint8))
    with pytest.raises(UserError, match=r"a1\.png: holds 21, [^\n]+ are 0\.\.20 and 255"):
        run(Inputs(root=voc_tree), Outputs(tmp_path / "index"), chosen, QUIET)


NO_BIT = small_png(np.zeros((6, 8), np.uint8), 1)
SWAPPED = [("cat", BOX * 2), ("dog", BOX), ("cat", BOX * 2), ("dog", BOX)]
KINDS: dict[str, tuple[list[tuple[str, Any]], dict[str, Any], str]] = {
    "binary": (
        [("cat", BOX * 255)] * 2,
        {},
        r"0\.png: labelled cat, its mask holds 0 and 255 only, and 255 is ignored \(2 of 2",
    ),
    "other order": (SWAPPED, {}, r"labelled cat, its mask holds dog \(4 of 4[^\n]+1 cat, 2 dog,"),
    "a label too few": (
        [("cat", BOX + (BOX > 0) * (np.arange(8) > 3).astype(np.uint8)), ("dog", BOX * 2)],
        {},
        r"0\.png: its mask holds dog, which no label names \(1 of 2",
    ),
    "a label too many": (
        [("cat;dog", BOX), ("dog", BOX * 2)],
        {},
        r"0\.png: labelled dog, its mask holds none of it \(1 of 2",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_that_contradict_their_labels_end_the_run(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, options, found = KINDS[kind]
    csv = table(tmp_path, masks)
    with pytest.raises(UserError, match=rf"{found}[^\n]+dataset\.mask_contradictions to go on$"):
        indexed(csv, **options)
    told = capsys.readouterr().err
    assert told.count("warning: masks: ") == 1 and "masks contradict their image's labels" in told
    assert not (tmp_path / "index").exists()
    last = indexed(csv, mask_contradictions=1.0, **options)
    assert last.startswith("Warning: masks and labels: ") and last[9:].rstrip(".")[18:] in told


def test_masks_that_nobody_has_drawn_yet_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = table(tmp_path, [("cat", BOX * 0), ("cat", lambda path: path.write_bytes(NO_BIT))])
    last = indexed(csv)
    assert "; 2 are empty although their images are labelled;" in last and "in no mask: cat" in last
    assert capsys.readouterr().err.count("2 are empty") == 1


def test_a_palette_that_an_editor_has_rebuilt(tmp_path: Path) -> None:
    red, black, green = (128, 0, 0), (0, 0, 0), (0, 128, 0)

    def rebuilt(path: Path) -> None:  # colours by their frequency, or as they come
        with_palette(path, 1 - BOX, [red, black])

    def of_two(path: Path) -> None:
        with_palette(path, BOX, [black, green])

    def gray(path: Path) -> None:  # as PIL writes a GIF of values 0 and 2
        with_palette(path, BOX, [black, (2, 2, 2)])

    # By index all of this fits the labels: one class, with object and background exchanged.
    with pytest.raises(
        UserError, match=r"0\.png: its palette has the colours of other values \(1 of 1[^\n]+edit"
    ):
        indexed(table(tmp_path / "one", [("cat", rebuilt)]))
    csv = table(tmp_path / "two", [("cat", BOX), ("dog", of_two), ("dog", gray)])
    with pytest.raises(UserError, match=r"1\.png: its palette has the colours [^\n]+ \(2 of 3"):
        indexed(csv, mask_contradictions=0.5)


def test_own_palettes_are_left_alone(tmp_path: Path) -> None:
    def own(path: Path) -> None:
        with_palette(path, BOX, [(255, 255, 255), (0, 0, 0)])

    def green_is_first(path: Path) -> None:  # VOC's second colour, but there is one class only
        with_palette(path, BOX, [(0, 0, 0), (0, 128, 0)])

    last = indexed(table(tmp_path, [("cat", own), ("cat", green_is_first)]))
    assert last.startswith("Masks: 2 masks, none of which contradicts")


def test_a_share_of_contradictions_is_allowed_and_told(tmp_path: Path) -> None:
    csv = table(tmp_path, [*[("cat", BOX)] * 4, ("dog", BOX)])
    assert "1 of 5 masks contradict" in indexed(csv)
    assert "in no mask: dog" in indexed(csv)
    assert "- 1 times labelled dog, its mask holds cat" in (
        (tmp_path / "index" / "summary.md").read_text()
    )
    with pytest.raises(UserError, match="1 of 5"):
        indexed(csv, mask_contradictions=0.1)


def test_images_without_known_labels_are_not_compared(tmp_path: Path) -> None:
    csv = table(tmp_path, [("", BOX)], "image,labels,mask,split", ",test")
    with csv.open("a") as file:
        file.write(f"{picture(tmp_path / 'x.jpg').name},cat,,train\n")
    assert indexed(csv).startswith("Masks: 1 masks, none of which contradicts")


def test_masks_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def counted(path: Path, size: tuple[int, int]) -> mask_counts.MaskCount:
        decoded.append(path.name)
        return count(path, size)

    count = mask_counts.count_mask
    monkeypatch.setattr(probing, "count_mask", counted)
    csv = table(tmp_path, [("cat", BOX), ("dog", BOX * 2)])
    first = indexed(csv)
    assert sorted(decoded) == ["0.png", "1.png"]
    assert indexed(csv) == first and len(decoded) == 2
    for damage in ("", "digest,pixels,colours\nx,300:1,\n", "digest,pixels,colours\nx,1\n"):
        (tmp_path / "index.masks.csv").write_text(damage)
        assert indexed(csv) == first
    assert len(decoded) == 8
    # What is allowed is looked at each time, decoded or not.
    with pytest.raises(UserError, match=r"1\.png: holds 2, which no class has"):
        indexed(table(tmp_path, [("cat", BOX), ("cat", BOX * 2)]))
    assert len(decoded) == 8


def test_without_verify_nothing_is_decoded_or_told(tmp_path: Path) -> None:
    assert "Masks" not in indexed(table(tmp_path, SWAPPED), verify=False)


@pytest.mark.parametrize("name", ["images", "with a mask", "without labels"])
def test_classes_called_like_rows_of_the_summary(tmp_path: Path, name: str) -> None:
    indexed(table(tmp_path, [(name, BOX), (name, BOX), ("zebra", BOX * 2)]))
    summary = (tmp_path / "index" / "summary.md").read_text()
    assert f"| images | 3 |\n| {name} | 2 |\n| zebra | 1 |\n" in summary
