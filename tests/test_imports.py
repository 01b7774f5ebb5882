"""The rooms of the package lie above one another: imports point down, and never in a circle."""

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from brnf.fingerprint import ROOT, imported_modules

ROOMS = (
    *(
        "errors",
        "cache",
        "fingerprint",
        "shipped",
        "weights",
        "config",
        "store",
        "data",
        "backbones",
        "engine",
    ),
    *("flow", "cam", "segment", "base", "evaluate", "use", "workflow", "planning", "stages"),
)
"""From the ground up."""


def module_name(file: Path) -> str:
    """Return the dotted name of a source; a package's is that of its folder."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


IMPORTS = {
    name: imported_modules(name) - {name}
    for name in sorted(map(module_name, (ROOT / "brnf").rglob("*.py")))
}


def room(module: str) -> str | None:
    """Return the room of a module, None for the package itself."""
    return module.split(".")[1] if "." in module else None


def test_every_module_stands_in_a_room() -> None:
    assert {room(name) for name in IMPORTS} - {None} == set(ROOMS)


def test_imports_point_down() -> None:
    height = {name: level for level, name in enumerate(ROOMS)}
    upward = {
        (name, above)
        for name, found in IMPORTS.items()
        for above in map(room, found)
        if above and (here := room(name)) and height[above] > height[here]
    }
    assert not upward


def test_no_module_imports_itself_by_way_of_others() -> None:
    list(TopologicalSorter(IMPORTS).static_order())  # an error names the circle


def test_planning_jobs_imports_no_torch(tmp_path: Path) -> None:
    """Parse the workflow and plan all that can be planned before there is an image index."""
    code = "\n".join(
        [
            "import sys",
            "from snakemake.cli import main",
            "try:",
            "    main(sys.argv[1:])",
            "finally:",
            "    print('brnf.config.experiment' in sys.modules, 'torch' in sys.modules)",
        ]
    )
    words = ["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--dry-run"]
    words += ["--configfile", str(ROOT / "config" / "tiny.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "True False", done.stderr
