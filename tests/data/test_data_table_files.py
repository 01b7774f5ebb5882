"""Tables as spreadsheets and scripts write them, and the files that they name."""

import unicodedata
from pathlib import Path

import pytest

from brnf.data.entries import is_safe_id
from brnf.data.table import list_table
from brnf.errors import UserError

TEXT = "image,labels\n0.jpg,cat\n1.jpg,dog;bär\n"


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder / "own.csv"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.replace("\n", ",\n").encode(),
        TEXT.replace("\n", " ,, \n").encode(),
        (TEXT + "\n,\n , \n").encode(),
        TEXT.replace("image,labels", " Image, LABELS ").encode(),
        TEXT.replace("dog;bär", ' "dog;bär"').encode(),
        TEXT.replace("image,labels", '"image","labels"').encode(),
        TEXT.rstrip().encode(),
    ],
)
def test_habits_of_spreadsheets_and_scripts_are_read(tmp_path: Path, content: bytes) -> None:
    path = pictures(tmp_path, "0.jpg", "1.jpg")
    path.write_bytes(content)
    listing = list_table(path)
    assert [entry.labels for entry in listing.entries] == [{"cat"}, {"dog", "bär"}]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (TEXT.replace(";", "|").replace(",", ";").encode(), "separated by ';'"),
        (TEXT.replace(",", "\t").encode(), "separated by tab"),
        (TEXT.encode("latin-1"), "give a UTF-8 file"),
        (b"PK\x03\x04" + bytes(range(256)), "give a UTF-8 file"),
        (b",image,labels\n0,0.jpg,cat\n", "column 1 has no name; remove it"),
        (b"image,labels,Labels\n0.jpg,cat,dog\n", "a column is there twice"),
        (b"filename,label\n0.jpg,cat\n", "column 'image' is missing"),
        (b"0.jpg,cat\n1.jpg,dog\n", "column 'image' is missing"),
        (b"image,labels\n0.jpg,cat,dog\n", "line 2: 3 cells under 2 columns"),
        (b"image,labels,split\n0.jpg,cat\n", "line 2: 2 cells under 3 columns"),
        (b'image,labels\n0.jpg,"cat\ndog"\n', "line 3: a cell holds [^\n]+line break"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = pictures(tmp_path, "0.jpg", "1.jpg")
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"own\.csv[:,] [^\n]*{problem}[^\n]*$") as caught:
        list_table(path)
    assert "\n" not in str(caught.value)


def test_rows_of_one_image_are_joined_and_counted(tmp_path: Path) -> None:
    path = pictures(tmp_path, "0.jpg", "1.jpg", "m.png")
    path.write_text("image,labels,mask\n0.jpg,cat,m.png\n0.jpg,dog,\n1.jpg,,\n./0.jpg,dog,m.png\n")
    listing = list_table(path)
    assert [(entry.labels, entry.mask) for entry in listing.entries] == [
        ({"cat", "dog"}, str(tmp_path / "m.png")),
        (frozenset(), None),
    ]
    (note,) = listing.notes
    assert note.endswith("2 rows name an image of an earlier row; their labels were joined")


@pytest.mark.parametrize(
    ("columns", "rows"),
    [("split", ("train", "val")), ("mask", ("m.png", "0.jpg"))],
)
def test_rows_of_one_image_that_contradict_each_other_are_refused(
    tmp_path: Path, columns: str, rows: tuple[str, str]
) -> None:
    path = pictures(tmp_path, "0.jpg", "m.png")
    path.write_text(f"image,labels,{columns}\n0.jpg,cat,{rows[0]}\n0.jpg,dog,{rows[1]}\n")
    with pytest.raises(
        UserError, match=r"line 3: image [^\n]+ has another split or mask in line 2; give it once$"
    ):
        list_table(path)


@pytest.mark.parametrize(
    "names",
    [
        ("图片.jpg", "照片.jpg"),
        ("图片1.jpg", "照片1.jpg"),
        ("cat/1.jpg", "dog/1.jpg", "1.png"),
        ("é.jpg", "è.jpg"),
        ("A.jpg", "a.jpg"),
        ("a.jpg", "a.png"),
        ("-a.jpg", "_a.jpg"),
        ("a b.jpg", "a_b.jpg"),
        ("y" * 190 + "1.jpg", "y" * 190 + "2.jpg"),
    ],
)
def test_distinct_files_have_distinct_ids(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = pictures(tmp_path, *names, "x.jpg")

    def ids(rows: tuple[str, ...]) -> dict[str, str]:
        path.write_text("image,labels\n" + "".join(f"{name},cat\n" for name in rows))
        listing = list_table(path)
        assert len(listing.notes) == (len(rows) > 2)
        return {str(Path(entry.image).relative_to(tmp_path)): entry.id for entry in listing.entries}

    found = ids((*names, "x.jpg"))
    folded = {name.casefold() for name in found.values()}
    assert len(folded) == len(names) + 1 and all(map(is_safe_id, found.values()))
    assert found["x.jpg"] == "x"
    assert found == ids(("x.jpg", *reversed(names)))  # whatever the order of the rows


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_other_systems_are_found(tmp_path: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    name = unicodedata.normalize(form, "tief/Bär.jpg")
    path = pictures(tmp_path, name)
    for cell in (unicodedata.normalize(other, name), name.replace("/", "\\")):
        path.write_text(f"image,labels\n{cell},cat\n", encoding="utf-8")
        (entry,) = list_table(path).entries
        assert (entry.image, entry.id) == (str(tmp_path / name), "B_r")
