"""Own images in a CSV."""

from pathlib import Path

import pytest

from brnf.data.entries import select_classes
from brnf.data.table import list_table
from brnf.errors import UserError


def table(folder: Path, text: str) -> Path:
    (folder / "pictures").mkdir(exist_ok=True)
    for name in (
        "one.jpg",
        "two.png",
        "three.jpg",
        "bad name.jpg",
        "bad_name.jpg",
        "-one.jpg",
        "mask.png",
    ):
        (folder / "pictures" / name).touch()
    (folder / "two").mkdir(exist_ok=True)
    (folder / "two" / "one.png").touch()
    path = folder / "own.csv"
    path.write_text(text)
    return path


def test_rows_become_entries(tmp_path: Path) -> None:
    text = (
        "\ufeffimage,labels,mask,split\npictures/one.jpg,dog;cat,pictures/mask.png,train\n\n"
        "pictures/two.png, cat |owl ,,train;val\npictures/three.jpg,,,test\n"
    )
    listing = list_table(table(tmp_path, text))
    assert listing.classes == ("cat", "dog", "owl") and listing.mask_values == (1, 2, 3)
    assert listing.splits == ("test", "train", "val")
    one, three, two = listing.entries
    assert (one.id, one.image, one.mask) == (
        "one",
        str(tmp_path / "pictures/one.jpg"),
        str(tmp_path / "pictures/mask.png"),
    )
    assert one.labels == {"cat", "dog"} and two.labels == {"cat", "owl"} and three.labels is None
    assert two.splits == ("train", "val") and two.mask is None
    only = list_table(table(tmp_path, text), splits=("val",), classes=("owl", "dog", "cat"))
    assert [entry.id for entry in only.entries] == ["two"] and only.classes == ("owl", "dog", "cat")


def test_relative_paths_stay_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path, "image,labels\npictures/one.jpg,cat\n")
    monkeypatch.chdir(tmp_path.parent)
    (entry,) = list_table(Path(tmp_path.name) / "own.csv").entries
    assert Path(entry.image) == Path(tmp_path.name) / "pictures" / "one.jpg" and entry.splits == (
        "train",
    )


def test_names_that_people_give_become_ids(tmp_path: Path) -> None:
    names = {
        "Müller (3).jpg": "M_ller_3_",
        "bad name.jpg": "bad_name",
        "a;b.jpg": "a_b",
        "..x y.jpg": "_.x_y",
        "-one.jpg": "_one",
        f"{'y' * 220}.jpg": "y" * 180,
    }
    for name in names:
        table(tmp_path, f'image,labels\n"pictures/{name}",cat\n')
        (tmp_path / "pictures" / name).touch()
        (entry,) = list_table(tmp_path / "own.csv").entries
        assert (entry.id, entry.image) == (names[name], str(tmp_path / "pictures" / name))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,label\n", "line 1: column 'labels' is missing"),
        ("image,labels,weight\n", "line 1: unknown column 'weight'"),
        ("image,labels,labels\n", "line 1: a column is there twice"),
        ("image,labels\n", "holds no image"),
        ("", "line 1: column 'image' is missing"),
        (
            "image,labels\npictures/one.jpg,cat\npictures/gone.jpg,cat\n",
            "line 3: image .*gone.jpg is missing",
        ),
        ("image,labels\n,cat\n", "line 2: no image is named"),
        ("image,labels\npictures/one.jpg,wolf\n", "line 2: label 'wolf' is not in dataset.classes"),
        ("image,labels\npictures/one.jpg,cat,dog\n", "line 2: 3 cells under 2 columns"),
        (
            "image,labels,mask\npictures/one.jpg,cat,gone.png\n",
            "line 2: mask .*gone.png is missing",
        ),
        ("image,labels,split\npictures/one.jpg,cat,\n", "line 2: split '' is no name"),
        ("image,labels,split\npictures/one.jpg,cat,../x\n", "line 2: split '../x' is no name"),
        ('image,labels\n"pictures/one.jpg,cat\n', "cannot be read as a CSV"),
    ],
)
def test_bad_tables_are_one_line_with_file_and_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(UserError, match=rf"own\.csv[:,] ?[^\n]*{problem}[^\n]*; [^\n]+$") as caught:
        list_table(table(tmp_path, text), classes=("cat", "dog"))
    assert "\n" not in str(caught.value)


def test_missing_tables_and_splits_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv: cannot be read as a CSV [^\n]+$"):
        list_table(tmp_path / "gone.csv")
    with pytest.raises(
        UserError, match=r"own\.csv: split 'val' holds no image; the table has: train$"
    ):
        list_table(table(tmp_path, "image,labels\npictures/one.jpg,cat\n"), splits=("val",))


def test_more_classes_than_two_bytes_hold_are_one_line(tmp_path: Path) -> None:
    labels = [";".join(f"c{number}" for number in range(one, 65_535, 8)) for one in range(8)]
    rows = "".join(f"pictures/one.jpg,{several}\n" for several in labels)
    listing = list_table(table(tmp_path, f"image,labels\n{rows}"))
    with pytest.raises(
        UserError,
        match=r"^dataset\.classes: 65535 classes, and masks of two bytes hold 65534; [^\n]+$",
    ):
        select_classes(listing, ())
    most, _ = select_classes(listing, listing.classes[:-1])
    assert most.mask_values == tuple(range(1, 65_535))
