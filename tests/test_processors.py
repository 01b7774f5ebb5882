"""The table of `make test-processors`: what a setting changes; no failure is overlooked."""

import os
from pathlib import Path

import pytest

from tests.processors import NUMERIC, ROOT, Order, Setting, run, settings

TESTS = """
import os, pytest

def test_one():
    assert os.environ["MARK"] == "here" and "HOME" not in os.environ

def test_two():
    assert os.stat(__file__).st_size == 0

@pytest.mark.skip
def test_three():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_a_setting_reaches_the_tests_and_all_are_counted(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    setting = Setting("other", {"MARK": "here", "HOME": None})
    found = run(setting, [str(tmp_path / "test_some.py")], folder)
    assert (found.passed, found.skipped) == (1, 1)
    assert [name.split("::")[1] for name in found.failures] == ["test_two"]


@pytest.mark.parametrize("text", ["import os; os._exit(0)", "1 / 0", ""])
def test_a_run_that_tests_nothing_has_failed(text: str, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "test_none.py").write_text(text)
    found = run(Setting("as it is"), [str(tmp_path / "test_none.py")], folder)
    assert found.passed == 0 and len(found.failures) == 1


def test_the_order_changes_and_files_stay_together() -> None:
    class Item:
        def __init__(self, path: Path, number: int) -> None:
            self.path, self.number = path, number

    def order(name: str) -> list[tuple[str, int]]:
        items = [Item(Path(file), number) for file in "abc" for number in range(4)]
        Order(name).pytest_collection_modifyitems(items)  # type: ignore[arg-type]
        return [(str(item.path), item.number) for item in items]

    written = order("as written")
    assert order("reversed") == written[::-1]
    assert order("1") == order("1") != order("2")
    for seed in ("1", "2"):
        files = [file for file, _ in order(seed)]
        assert sorted(order(seed)) == written != order(seed) and files[::4] == files[3::4]


def test_settings_are_told_apart_and_what_they_run_exists(tmp_path: Path) -> None:
    before = dict(os.environ)
    found = settings(tmp_path)
    assert dict(os.environ) == before, "a setting must not change this process"
    assert len({setting.name for setting in found}) == len(found)
    assert all((ROOT / word).exists() for word in NUMERIC)
    held = [setting.environment for setting in found if setting.name.endswith("at most")]
    assert len({str(environment) for environment in held}) == 3
