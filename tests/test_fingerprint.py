"""Fingerprints change with the code that a stage reaches, and with nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from brnf import fingerprint as module
from brnf.fingerprint import ROOT, fingerprint, reached_modules
from brnf.workflow.params import STAGES

FILES = {
    "brnf/__init__.py": "",
    "brnf/errors.py": "class UserError(Exception):\n    pass\n",
    "brnf/cam/__init__.py": "from brnf.cam.network import NETWORK\n",
    "brnf/cam/network.py": "NETWORK = 1\n",
    "brnf/cam/contrast.py": "CONTRAST = 1\n",
    "brnf/flow/__init__.py": "",
    "brnf/flow/late.py": "LATE = 1\n",
    "brnf/flow/near.py": "NEAR = 1\n",
    "brnf/page/__init__.py": "",
    "brnf/page/page.html.j2": "<p>",
    "brnf/page/other.html.j2": "<p>",
    "brnf/page/mentioned.html.j2": "<p>",
    "brnf/far/__init__.py": "",
    "brnf/far/page.html.j2": "<p>",
    "brnf/stages/__init__.py": "",
    "brnf/stages/one.py": '''"""Stage."""
from brnf import cam
from . import near_by

TEMPLATE = "page.html.j2"
HELP = "not mentioned.html.j2"
"""mentioned.html.j2"""

class Options:
    """Options."""

    xi: float = 0.9
    """Threshold."""

def run():
    """Run."""
    from brnf.flow import late
    import brnf.page
    return late, cam  # both
''',
    "brnf/stages/near_by.py": "from ..flow.near import NEAR\n",
}
REACHED = [
    "brnf",
    "brnf.cam",
    "brnf.cam.network",
    "brnf.flow",
    "brnf.flow.late",
    "brnf.flow.near",
    "brnf.page",
    "brnf.stages",
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def hashed(package: Path) -> str:
    for cached in (
        module._known,
        module._file,
        module._read,
        module._is_module,
        module._data_files,
    ):
        cached.cache_clear()
    return fingerprint("brnf.stages.one", package)


def test_reached_modules_follow_every_kind_of_import(package: Path) -> None:
    assert reached_modules("brnf.stages.one", package) == [
        *REACHED,
        "brnf.stages.near_by",
        "brnf.stages.one",
    ]


def test_imports_for_type_checkers_only_are_not_followed(package: Path) -> None:
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from brnf.cam import contrast\n"
    )
    for name, ending in (("typed", ""), ("real", "else:\n    from brnf.flow import near\n")):
        (package / "brnf" / f"{name}.py").write_text(text + ending)
    for cached in (module._file, module._read, module._is_module):
        cached.cache_clear()
    assert reached_modules("brnf.typed", package) == ["brnf", "brnf.typed"]
    assert "brnf.flow.near" in reached_modules("brnf.real", package)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("brnf/stages/one.py", '"""Run."""', '"""Run it, in other words."""'),
        ("brnf/stages/one.py", '"""Threshold."""', '"""Threshold of the rule."""'),
        ("brnf/stages/one.py", '    """Options."""\n', ""),
        ("brnf/stages/one.py", "  # both", "  # neither\n\n"),
        ("brnf/cam/contrast.py", "1", "2"),
        ("brnf/errors.py", "pass", "x = 1"),
        ("brnf/page/other.html.j2", "<p>", "<b>"),
        ("brnf/page/mentioned.html.j2", "<p>", "<b>"),
        ("brnf/far/page.html.j2", "<p>", "<b>"),
    ],
)
def test_words_and_unreached_code_change_nothing(
    package: Path, file: str, old: str, new: str
) -> None:
    before = hashed(package)
    path = package / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert hashed(package) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("brnf/stages/one.py", "0.9", "0.8"),
        ("brnf/cam/network.py", "1", "2"),
        ("brnf/flow/late.py", "1", "2"),
        ("brnf/flow/near.py", "1", "'a'"),
        ("brnf/cam/__init__.py", "from", "import brnf.errors\nfrom"),
        ("brnf/page/page.html.j2", "<p>", "<b>"),
    ],
)
def test_reached_code_and_named_data_change_it(
    package: Path, file: str, old: str, new: str
) -> None:
    before = hashed(package)
    path = package / file
    path.write_text(path.read_text().replace(old, new))
    assert hashed(package) != before


def test_all_modules_that_a_stage_really_imports_are_reached() -> None:
    """Compare with the interpreter: what is loaded after importing a stage must have been found
    statically.
    """
    code = (
        "import sys, importlib; importlib.import_module(sys.argv[1]); "
        "print(*[name for name in sys.modules if name.startswith('brnf')])"
    )
    for stage in ("brnf.stages.evaluate", "brnf.stages.train_brnf"):
        done = subprocess.run(
            [sys.executable, "-c", code, stage],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert set(done.stdout.split()) <= set(reached_modules(stage)), stage


def test_stages_do_not_share_what_they_need_not() -> None:
    assert "brnf.flow.bsdnf" not in reached_modules("brnf.stages.index_images")
    assert "brnf.segment.deeplab" not in reached_modules("brnf.stages.train_flow")
    assert len({fingerprint(f"brnf.stages.{stage}") for stage in STAGES}) == len(STAGES)


PRINT = (
    "import sys; from pathlib import Path; from brnf.fingerprint import *; "
    "print(fingerprint(sys.argv[1], Path(sys.argv[2])))"
)


def said_by_another_process(package: Path, folder: Path) -> str:
    words = [sys.executable, "-c", PRINT, "brnf.stages.one", str(package)]
    return subprocess.run(
        words, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in which Snakemake has run."""
    (tmp_path / "run" / ".snakemake").mkdir(parents=True)
    return tmp_path / "run"


def test_fingerprints_are_kept_as_long_as_no_file_changes(package: Path, folder: Path) -> None:
    computed = said_by_another_process(package, folder)
    assert computed == hashed(package)
    kept = folder / module.KEPT
    ((sources, known),) = json.loads(kept.read_text()).items()
    assert known == {"brnf.stages.one": computed}
    kept.write_text(json.dumps({sources: {"brnf.stages.one": "taken over"}}))
    assert said_by_another_process(package, folder) == "taken over"
    (package / "brnf/flow/late.py").write_text("LATE = 2\n")
    assert said_by_another_process(package, folder) == hashed(package) != computed
    assert list(json.loads(kept.read_text())) != [sources]


@pytest.mark.parametrize("damage", ["", "[]", "null", '{"a": ', '{"a": 1}', "\x00"])
def test_a_damaged_file_of_kept_fingerprints_is_made_anew(
    package: Path, folder: Path, damage: str
) -> None:
    kept = folder / module.KEPT
    kept.write_text(damage)
    assert said_by_another_process(package, folder) == hashed(package)
    assert list(json.loads(kept.read_text()).values()) == [{"brnf.stages.one": hashed(package)}]


def test_nothing_is_kept_where_no_snakemake_has_run(package: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert said_by_another_process(package, tmp_path / "elsewhere") == hashed(package)
    assert not list((tmp_path / "elsewhere").iterdir())
