"""The notebook of docs and the lines of the README run over finished results."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CELLS = json.loads((ROOT / "docs" / "use.ipynb").read_text())["cells"]


@pytest.fixture
def demo(results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, in which results/demo has a model."""
    demo = tmp_path / "results" / "demo"
    demo.mkdir(parents=True)
    for name in ("index", "config.yaml"):
        (demo / name).symlink_to(results.root / name)
    (demo / "brnf").symlink_to(results.root / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lines_of_the_readme_run(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    Image.new("RGB", (40, 30), "green").save(demo / "photo.jpg")
    exec(lines, {})
    assert capsys.readouterr().out.startswith("(30, 40) ")


def test_the_notebook_runs(demo: Path) -> None:
    space: dict[str, Any] = {}
    for cell in CELLS:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
    assert space["result"].mask.shape == Image.open("scene.png").size
    assert Path("model.pt2").is_file() and Path("pseudo_labels", "README.md").is_file()


def test_the_notebook_holds_no_outputs() -> None:
    assert 5 <= len(CELLS) <= 10
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
