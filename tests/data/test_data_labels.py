"""Labels and splits as people type them."""

import unicodedata
from pathlib import Path

import pytest

from brnf.data.entries import Listing
from brnf.data.labels import read_labels, spelling
from brnf.data.table import list_table
from brnf.errors import UserError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def listed(
    folder: Path,
    *labels: str,
    splits: tuple[str, ...] = (),
    wanted: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
    skip_bad: bool = False,
) -> Listing:
    """List a table with one image for each label cell, of the given splits."""
    rows = ["image,labels,split"]
    for number, cell in enumerate(labels):
        (folder / f"{number}.jpg").touch()
        quoted = cell.replace('"', '""')
        rows.append(f'{number}.jpg,"{quoted}",{splits[number] if splits else "train"}')
    (folder / "own.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return list_table(folder / "own.csv", wanted, classes, skip_bad)


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("cat; dog", ["cat", "dog"]),
        ("cat|dog|cat", ["cat", "dog"]),
        ("polar  bear", ["polar bear"]),
        ("polar\u00a0bear", ["polar bear"]),
        ("\u3000dog\u00a0", ["dog"]),
        ("\ufeffdog\u200b", ["dog"]),
        (DECOMPOSED, [COMPOSED]),
        ('"dog"', ["dog"]),
        ("'dog';\u201ecat\u201c", ["dog", "cat"]),
        ("it's", ["it's"]),
        ("猫🐱", ["猫🐱"]),
        (" ; | ", []),
    ],
)
def test_one_name_is_one_class(cell: str, labels: list[str]) -> None:
    assert read_labels(cell) == labels


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        *((word, "looks like a missing value") for word in ("nan", "NaN", "None", "NA", "-", "?")),
        *((word, "is an answer") for word in ("True", "false", "yes", "NO")),
        *(
            (text, "looks like a list")
            for text in ("cat,dog", "['cat', 'dog']", "{cat}", '("cat"', '"cat"dog"', "(cat)")
        ),
        ("c\0at", "holds control characters"),
        ("\u202ecat", "holds control characters"),
    ],
)
def test_a_doubtful_label_is_refused_unless_it_is_a_class(cell: str, problem: str) -> None:
    with pytest.raises(UserError, match=rf"^label [^\n]* {problem}[^\n]*; [^\n]+$"):
        read_labels(f"bird;{cell}")
    if "control" not in problem:
        assert read_labels(cell, ("bird", cell)) == [cell]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("dog", "Dog"),
        ("polar bear", "Polar_Bear"),
        ("polar-bear", "polar bear"),
        ("dog", "ｄｏｇ"),
        ("straße", "STRASSE"),
    ],
)
def test_labels_that_differ_in_spelling_only_are_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    assert spelling(first) == spelling(second)
    with pytest.raises(
        UserError,
        match=rf"own\.csv, line 4: label '{second}' differs in spelling only from '{first}' of "
        r"[^\n]+line 2; write one of them, [^\n]+$",
    ):
        listed(tmp_path, first, "cow", second)
    assert listed(tmp_path, first, second, classes=(first, second)).classes == (first, second)


@pytest.mark.parametrize("cell", ["cat dog", "cat/dog", "dog+cat", "cat & dog", "cat_dog"])
def test_a_label_made_of_others_is_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(UserError, match=r"line 2: label [^\n]+ consists of the labels [^\n]+$"):
        listed(tmp_path, cell, "cat", "dog")
    assert listed(tmp_path, cell, "cat").classes == ("cat", cell)


@pytest.mark.parametrize("cell", ["polar bear dog", "Dog and polar_bear", "dog, polar bear"])
def test_a_label_made_of_others_with_several_words_is_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(UserError, match=r"line 2: label [^\n]+ (consists|looks like a list)"):
        listed(tmp_path, cell, "polar bear", "dog")
    assert listed(tmp_path, "polar bear dog", "bear", "dog").classes[-1] == "polar bear dog"
    assert listed(tmp_path, "dog and", "dog").classes == ("dog", "dog and")


def test_labels_of_a_list_of_classes_are_looked_up_by_their_tidy_name(tmp_path: Path) -> None:
    listing = listed(tmp_path, f"{DECOMPOSED};b  c", classes=("b c", COMPOSED, "Dog"))
    assert listing.entries[0].labels == {COMPOSED, "b c"}
    with pytest.raises(UserError, match=r"'dog' is not in dataset\.classes, which has 'Dog'; "):
        listed(tmp_path, "dog", classes=("cat", "Dog"))


def test_numbers_are_the_values_in_masks(tmp_path: Path) -> None:
    listing = listed(tmp_path, *map(str, range(1, 13)))
    assert listing.classes == tuple(map(str, range(1, 13)))
    assert listing.mask_values == tuple(range(1, 13))
    assert listed(tmp_path, "11", "2;4").mask_values == (2, 4, 11)
    assert listed(tmp_path, "3.0", "1.0").classes == ("1.0", "3.0")
    assert listed(tmp_path, "10", "9", "cat").classes == ("10", "9", "cat")


@pytest.mark.parametrize(
    "cells", [("0", "1"), ("1", "65535"), ("1", "01"), ("2", "2.0"), ("70000",)]
)
def test_numbers_that_no_mask_can_hold_are_refused(tmp_path: Path, cells: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"line [23]: label '[0-9.]+': numbers are taken [^\n]+$"):
        listed(tmp_path, *cells)
    assert listed(tmp_path, *cells, classes=cells).mask_values == tuple(range(1, len(cells) + 1))


def test_an_empty_label_is_a_negative_image_and_unknown_in_test(tmp_path: Path) -> None:
    splits = ("train", "train", "val", "test", "test;val")
    listing = listed(tmp_path, "cat", "", "", "", "", splits=splits)
    assert [entry.labels for entry in listing.entries] == [
        {"cat"},
        frozenset(),
        frozenset(),
        None,
        frozenset(),
    ]
    with pytest.raises(UserError, match=r"own\.csv: no row has a label; [^\n]+$"):
        listed(tmp_path, "", "")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Train", "train"),
        ("TRAIN", "train"),
        ("training", "train"),
        ("validation", "val"),
        ("Valid", "val"),
        ("Testing", "test"),
    ],
)
def test_splits_that_are_clear_are_corrected_and_counted(
    tmp_path: Path, written: str, meant: str
) -> None:
    listing = listed(tmp_path, "cat", "cat", splits=("fit", written), wanted=("fit", meant))
    assert [entry.splits for entry in listing.entries] == [("fit",), (meant,)]
    (note,) = listing.notes
    assert note.endswith(f"own.csv: splits written in another way: 1 of '{written}' ({meant})")
    exact = listed(tmp_path, "cat", "cat", splits=("fit", written), wanted=("fit", written))
    assert exact.entries[1].splits == (written,) and not exact.notes


def test_images_of_other_splits_are_counted(tmp_path: Path) -> None:
    listing = listed(
        tmp_path, *["cat"] * 4, splits=("train", "extra", "extra;train", "nan"), wanted=("train",)
    )
    assert [entry.id for entry in listing.entries] == ["0", "2"]
    (note,) = listing.notes
    assert note.endswith("images of splits that are not used: 2 of 'extra', 1 of 'nan'")


def test_skip_bad_leaves_out_rows_with_any_fault(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    for name in ("a.jpg", "b.jpg", "m.png"):
        (tmp_path / name).touch()
    path.write_text(
        "image,labels,mask,split\na.jpg,cat,m.png,train\ngone.jpg,cat,,train\nb.jpg,nan,,train\n"
        "b.jpg,cat,gone.png,train\nb.jpg,cat,,../x\nb.jpg,cat,dog,m.png,train\n,cat,,train\n"
        '"b\n.jpg",cat,,train\n'
    )
    places = "line 3, line 4, line 5, line 6, line 7, line 8, line 10"
    with pytest.raises(
        UserError,
        match=rf"line 3: image [^\n]+ is missing; [^\n]+ \(7 bad images in all: {places}\)$",
    ):
        list_table(path)
    listing = list_table(path, skip_bad=True)
    assert [entry.id for entry in listing.entries] == ["a"]
    assert ", ".join(fault.name for fault in listing.faults) == places
    assert listing.faults[0].files == (tmp_path / "gone.jpg",)
    path.write_text("image,labels\n" + "gone.jpg,cat\n" * 30)
    with pytest.raises(UserError, match=r"line 21 \.\.\.\)$"):
        list_table(path, skip_bad=True)
