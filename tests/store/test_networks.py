"""Saved networks come back as they were, and files that hold none end in one line."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brnf.errors import DamagedProduct, UserError
from brnf.store.networks import NetworkKind, load_network, rebuilding, save_network
from brnf.store.tensors import read_tensors, write_tensors

KIND = NetworkKind("line", "draw_line")


def build(options: dict[str, Any], classes: int) -> nn.Linear:
    return nn.Linear(options["inputs"], classes)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_network(tmp_path / "a.pt", KIND, nn.Linear(3, 2), {"inputs": 3}, ["cat", "dog"])
    return tmp_path / "a.pt"


def test_a_network_comes_back_the_same_and_in_equal_bytes(saved: Path) -> None:
    network, options = load_network(saved, KIND, build, ("cat", "dog"))
    assert options == {"inputs": 3} and not network.training
    again = saved.with_name("another_name.pt")
    wide = torch.cat([network.weight, network.weight], 1)
    network.weight = nn.Parameter(wide[:, :3])  # a view: its storage holds more
    save_network(again, KIND, network, options, ["cat", "dog"])
    assert again.read_bytes() == saved.read_bytes()


def test_a_file_that_unpacks_to_more_than_it_has_is_refused_unread(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch never compresses; 2 MB of zeros would take as long as 2 GB."""
    bomb = saved.with_name("bomb.pt")
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        new.writestr("a/data/99", bytes(10**7))
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: pytest.fail("read"))
    with pytest.raises(UserError, match=r"bomb\.pt: damaged, or not a torch file of plain tensors"):
        read_tensors(bomb, "give another file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 0}, "no network file, or one of another version of this program; remove it"),
        ({"options": {}}, r"damaged, holds no line \('inputs'\); remove it and run draw_line"),
        ({"options": {"inputs": 4}}, "damaged, holds no line"),
        ({"options": None}, "damaged, holds no line"),
        ({"classes": 7}, "damaged, holds no line"),
        ({"state": {}}, "damaged, holds no line"),
        (
            {"state": {"weight": torch.full((2, 3), torch.inf), "bias": torch.zeros(2)}},
            "holds values that are not finite; remove it and run draw_line again",
        ),
    ],
)
def test_what_is_damaged_is_said_in_one_line(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    write_tensors(saved, read_tensors(saved, "") | changes)
    with pytest.raises(DamagedProduct, match=rf"^\S*a\.pt: {message}") as caught:
        load_network(saved, KIND, build)
    assert "\n" not in str(caught.value)


def test_files_of_before_are_refused(saved: Path) -> None:
    """The layouts that the four savers had."""
    old: list[Any] = [
        {"kind": "flow", "dimension": 4, "classes": 3, "options": {}, "state": {}},
        {"kind": "deeplab", "options": {}, "classes": [], "weights": {}, "state_dict": {}},
        {"backbone": {}, "weights": {}, "classes": [], "widths": [], "state": {}},
        {"backbone": {}, "weights": {}, "boundaries": {}},
        torch.zeros(2),
    ]
    for content in old:
        write_tensors(saved, content)
        with pytest.raises(DamagedProduct, match=r"another version[^\n]+ run draw_line again$"):
            load_network(saved, KIND, build)


def test_missing_and_foreign_files_are_mistakes_and_stay_where_they_are(saved: Path) -> None:
    def refuses(path: Path, kind: NetworkKind, message: str, *classes: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            load_network(path, kind, build, classes or None)
        assert not isinstance(caught.value, DamagedProduct) and "\n" not in str(caught.value)

    refuses(saved.with_name("b.pt"), KIND, r"b\.pt: no such file; run draw_line first$")
    circle = NetworkKind("circle", "draw_circle")
    refuses(saved, circle, r"a\.pt: holds a line, not a circle; give the file of draw_circle$")
    line = "trained for the classes cat, dog, not those of the index; run draw_line again$"
    refuses(saved, KIND, line, "dog", "cat")
    write_tensors(saved, read_tensors(saved, "") | {"kind": {"a": torch.zeros(1)}})
    refuses(saved, KIND, r"a\.pt: holds a \{'a': tensor\(\[0\.\]\)\}, not a line")


def test_rebuilding_names_the_file_and_the_first_line_of_the_reason() -> None:
    with (
        pytest.raises(DamagedProduct, match=r"^x: damaged, holds no line \(one\); remove it"),
        rebuilding(Path("x"), KIND),
    ):
        raise ValueError("one\ntwo")
    with pytest.raises(DamagedProduct, match=r"\(ValueError\)"), rebuilding(Path("x"), KIND):
        raise ValueError
