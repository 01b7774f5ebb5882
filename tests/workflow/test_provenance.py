"""Products held against their stamps, without Snakemake: a chain maps -> pixels -> flow."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from brnf.engine.stamping import given_options
from brnf.errors import UserError
from brnf.store.stamps import (
    Stamp,
    content_of,
    digest_of,
    read_stamp,
    stamp_file,
    versions,
    write_stamp,
)
from brnf.workflow.provenance import Expected, Provenance

CHAIN = ("maps", "pixels", "flow")
NOW = {name: Expected(f"make_{name}", f"--seed 0 --{name}.steps 5 7", "c0de") for name in CHAIN}


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text("a\n")
    source = "list.csv"
    for name in CHAIN:
        Path(name).write_text(name)
        make(name, {source: digest_of(Path(source))})
        source = name
    return tmp_path


def make(name: str, inputs: dict[str, str]) -> None:
    expected = NOW[name]
    stamp = Stamp(expected.stage, expected.words(), expected.code, inputs)
    write_stamp(name, msgspec.structs.replace(stamp, content=content_of(Path(name))))


def faults(
    now: dict[str, Expected] = NOW, unstamped: str = "refuse", write: bool = True
) -> dict[str, str]:
    provenance = Provenance(now.get, unstamped, write=write)
    forced: set[str] = set()
    for name in CHAIN:
        provenance.mark(name, forced)
    found = {name: provenance.verdict(name).fault for name in CHAIN}
    assert forced >= {name for name, fault in found.items() if fault and os.path.lexists(name)}
    return {name: fault for name, fault in found.items() if fault}


def test_what_would_be_made_again_stays(chain: Path) -> None:
    assert faults() == {}
    moved = chain.with_name("elsewhere")
    shutil.copytree(chain, moved)
    os.chdir(moved)
    assert faults() == {}, "a copy says as well what made it"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"options": "--seed 1 --pixels.steps 5 7"}, "seed was 0, is 1"),
        ({"options": "--seed 0 --pixels.steps 5"}, "pixels.steps was 5 7, is 5"),
        ({"options": "--seed 0"}, "pixels.steps was 5 7, is not given"),
        ({"code": "0ther"}, "the code of make_pixels is another one"),
        ({"stage": "import_pixels"}, "was made by make_pixels, not import_pixels"),
    ],
)
def test_other_options_code_or_stage_are_seen_and_what_follows(
    chain: Path, change: dict[str, str], fault: str
) -> None:
    now = {**NOW, "pixels": replace(NOW["pixels"], **change)}
    assert faults(now) == {"pixels": fault, "flow": "pixels is made anew"}
    Path("pixels").unlink()  # as a temporary product, whose stamp stays
    assert faults(now) == {"pixels": fault, "flow": "pixels is made anew"}


def test_what_a_checkpoint_hid_is_looked_at_again(chain: Path) -> None:
    """Snakemake ends a function that needs a checkpoint, and calls it again when that is done."""
    hidden = True
    now = {**NOW, "maps": Expected("make_maps", "--seed 1", "c0de")}

    def expected(path: str) -> Expected | None:
        if hidden and path == "maps":
            raise LookupError
        return now.get(path)

    provenance, forced = Provenance(expected), set[str]()
    with pytest.raises(LookupError):
        provenance.mark("flow", forced)
    hidden = False
    for name in CHAIN:
        provenance.mark(name, forced)
    assert forced == set(CHAIN)


def test_a_history_without_stamp_counts_by_content(chain: Path) -> None:
    """It is not worth a training, so what was drawn of it stays as long as it holds the same."""
    now = {**NOW, "pixels": replace(NOW["pixels"], only_told=True)}
    stamp_file("pixels").unlink()
    provenance, forced = Provenance(now.get), set[str]()
    provenance.mark("flow", forced)
    assert forced == set()
    Path("pixels").write_text("others")
    provenance, forced = Provenance(now.get), set[str]()
    provenance.mark("flow", forced)
    assert forced == {"flow"}


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        ({"maps"}, None),
        (None, None),
        ({"maps", "more", "yet more"}, "was made without"),
        (set(), "was made from maps"),
        ({"others"}, "was made without others"),
    ],
)
def test_more_or_fewer_files_than_it_was_made_from(
    chain: Path, capsys: pytest.CaptureFixture[str], read: set[str] | None, fault: str | None
) -> None:
    forced: set[str] = set()
    Provenance(NOW.get).mark("pixels", forced, read)
    assert forced == ({"pixels"} if fault else set())
    assert (f"made anew: pixels: {fault}" in capsys.readouterr().err) == bool(fault)


def test_a_product_that_is_missing_is_made_anew_unless_it_may_go(chain: Path) -> None:
    Path("pixels").unlink()
    provenance, forced = Provenance(NOW.get), set[str]()
    provenance.mark("pixels", forced, may_go=True)
    assert not forced
    provenance.mark("pixels", forced)
    assert forced == {"pixels"}
    Path("pixels").write_text("pixels")
    provenance.mark("pixels", forced)
    assert not forced


def test_an_input_made_otherwise_is_seen_whatever_the_clock_says(chain: Path) -> None:
    Path("maps").write_text("others")
    make("maps", {"list.csv": digest_of(Path("list.csv"))})
    os.utime("maps", ns=(1, 1))
    assert faults() == {"pixels": "maps is another one", "flow": "pixels is made anew"}


def test_a_file_that_no_stage_made_counts_by_content(chain: Path) -> None:
    Path("list.csv").touch()
    assert faults() == {}
    Path("list.csv").write_text("b\n")
    assert faults() == {
        "maps": "list.csv is another one",
        "pixels": "maps is made anew",
        "flow": "pixels is made anew",
    }


def broken_stamp() -> None:
    stamp_file("flow").write_text("{")


def cut() -> None:
    Path("flow").write_text("fl")


def folder() -> None:
    Path("flow").unlink()
    Path("flow").mkdir()


def interrupted() -> None:
    stamp = read_stamp("flow")
    assert stamp
    write_stamp("flow", msgspec.structs.replace(stamp, content=None))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (cut, "was changed after it was made"),
        (folder, "was changed after it was made"),
        (interrupted, "its stage was interrupted"),
        (broken_stamp, "its stamp is damaged"),
    ],
)
def test_damage_is_seen(chain: Path, damage: Callable[[], None], fault: str) -> None:
    damage()
    assert faults() == {"flow": fault}


def test_a_link_to_nothing_is_one_line(chain: Path) -> None:
    Path("flow").unlink()
    Path("flow").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"^flow: is a link to nothing, [^\n]+; remove it$"):
        Provenance(NOW.get).mark("flow", set())


def test_results_without_stamps_are_refused_or_adopted(chain: Path) -> None:
    for name in CHAIN:
        stamp_file(name).unlink()
    with pytest.raises(UserError, match=r"^maps: no stamp says .*unstamped=adopt[^\n]+$"):
        faults()
    assert set(faults(unstamped="remake").values()) == {"no stamp says what made it"}
    assert faults(unstamped="adopt", write=False) == {}
    assert not stamp_file("maps").exists(), "in a dry run"
    assert faults(unstamped="adopt") == {} and faults() == {}
    other = {**NOW, "flow": replace(NOW["flow"], code="0ther")}
    assert faults(other) == {"flow": "the code of make_flow is another one"}


def test_other_versions_are_told_once_or_made_anew(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("maps", "pixels"):
        stamp = read_stamp(name)
        assert stamp
        other = {**versions(), "torch": "1.0", "snakemake": "7.0"}
        write_stamp(name, msgspec.structs.replace(stamp, versions=other))
    assert faults() == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: maps and perhaps others: was made with torch 1.0 (is ")
    provenance = Provenance(NOW.get, other_versions="remake")
    found = {name: provenance.verdict(name).fault or "" for name in CHAIN}
    assert found["maps"] == f"was made with torch 1.0 (is {versions()['torch']})"
    assert found["pixels"] == found["maps"] and found["flow"] == "pixels is made anew"


def test_products_are_named_once_and_their_followers_are_not(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance = Provenance({**NOW, "maps": replace(NOW["maps"], code="0ther")}.get)
    forced = {"flow"}  # by the user
    for name in (*CHAIN, *CHAIN):
        provenance.mark(name, forced)
    assert forced == set(CHAIN)
    line = "made anew: maps: the code of make_maps is another one\n"
    assert capsys.readouterr().err == line


def test_words_of_the_command_line_go_to_the_options_they_belong_to() -> None:
    from brnf.stages.train_flow import Options

    words = ["--flow", "out/flow.pt", "--flow.steps", "5", "--seed=3", "--device", "cpu"]
    words += ["--flow.tau.low", ".3", "--pixels", "a", "b"]
    assert given_options(words, Options()) == {
        "flow.steps": ["5"],
        "seed": ["3"],
        "flow.tau.low": [".3"],
    }
