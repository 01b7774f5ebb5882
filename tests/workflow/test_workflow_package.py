"""The package as `pip install .` makes it, in an environment of its own: it brings the workflow
along, and a folder of `brnf init` runs.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from brnf import __version__
from brnf.use.folder import make_folder
from tests.test_documents import tracked_files

ROOT = Path(__file__).parents[2]
NETWORK = "results/tiny/base/seed0/network/model.pt"
Wheels = dict[str, Path]


def done(*words: str | Path, folder: Path, status: int = 0) -> str:
    """Run a program in a folder and return what it prints, on both channels."""
    outside = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
    found = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in outside},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert found.returncode == status, f"{words}\n{found.stdout[-3000:]}"
    return found.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Build the package from the repository, and again from an archive of its sources."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    for path in tracked_files():
        (tree / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, tree / path.relative_to(ROOT))
    stale = tree / "build" / "lib" / "brnf" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    archive = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    done(sys.executable, "-c", archive, folder=tree)
    (packed,) = folder.glob("brnf-*.tar.gz")
    for name, source in (("repository", tree), ("archive", packed)):
        words = ("wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
        pip = (sys.executable, "-m", "pip", *words)
        done(*pip, "--wheel-dir", folder / name, source, folder=folder)
    return {name: next((folder / name).glob("*.whl")) for name in ("repository", "archive")}


@pytest.fixture(scope="module")
def python(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into an environment that has this one's packages, but not its brnf."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    done(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder.parent)
    python = folder / "bin" / "python"
    words = ("--python", python, "install", "--quiet", "--no-index", "--no-deps")
    done(sys.executable, "-m", "pip", *words, wheels["archive"], folder=folder)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(done(python, "-c", where, folder=folder).strip())
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    place = done(python, "-c", "import brnf; print(brnf.__file__)", folder=folder)
    assert Path(place.strip()).is_relative_to(packages)
    return python


@pytest.fixture(scope="module")
def experiment(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder as a user does, who then writes a small experiment into its configuration."""
    folder = tmp_path_factory.mktemp("user")
    said = done(python.with_name("brnf"), "init", "mine", folder=folder)
    assert said == "cd mine\nsnakemake --cores all\n"
    shutil.copy(ROOT / "config" / "tiny.yaml", folder / "mine" / "config" / "demo.yaml")
    return folder / "mine"


@pytest.mark.parametrize("source", ["repository", "archive"])
def test_the_package_holds_its_sources_and_what_the_workflow_needs(
    wheels: Wheels, source: str
) -> None:
    expected = set()
    for path in tracked_files():
        place = path.relative_to(ROOT)
        shipped = place.parts[0] in ("workflow", "config") and place.suffix != ".md"
        if shipped or place == Path("envs/brnf.yaml"):
            expected.add(str("brnf" / Path("share") / place))
        elif place.parts[0] == "brnf":
            expected.add(str(place))
    found = zipfile.ZipFile(wheels[source]).namelist()
    assert {name for name in found if ".dist-info/" not in name} == expected


def test_the_version_is_written_once(wheels: Wheels) -> None:
    packed = zipfile.ZipFile(wheels["archive"])
    metadata = packed.read(f"brnf-{__version__}.dist-info/METADATA").decode()
    assert Parser().parsestr(metadata)["Version"] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_a_folder_is_planned_as_the_repository_plans_it(
    python: Path, experiment: Path, workflow: Any
) -> None:
    words = ("--cores", "2", "--dry-run", "--quiet", "rules")
    said = done(python, "-m", "snakemake", *words, folder=experiment)
    table = said[said.rindex("Job stats:") :].partition("\n\n")[0]
    assert table in workflow(*words[2:], "--configfile", str(ROOT / "config" / "tiny.yaml"))


def test_a_folder_runs_and_its_network_predicts(
    python: Path, experiment: Path, workflow: Any
) -> None:
    done(python, "-m", "snakemake", "--cores", "2", NETWORK, folder=experiment)
    photograph = next(experiment.glob("results/tiny/data/**/*.png"))
    said = done(
        *(python.with_name("brnf"), "predict", NETWORK, photograph, "--out", "masks"),
        *("--labels", "bee,train", "--no-crf"),
        folder=experiment,
    )
    assert "error" not in said
    mask = np.asarray(Image.open(next((experiment / "masks" / "masks").glob("*.png"))))
    assert mask.shape == (96, 96)
    # Commands and fingerprints of the code are those of the repository: it finds nothing to do.
    again = workflow.elsewhere(experiment)
    assert again.jobs("--configfile", "config/demo.yaml", "--", NETWORK) == {}


def test_what_is_in_a_folder_stays(python: Path, experiment: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in experiment.rglob("*") if path.is_file()}
    for kind in ("demo", "own"):
        said = done(
            python.with_name("brnf"), "init", ".", "--kind", kind, folder=experiment, status=2
        )
        assert said.startswith("error: ") and said.count("\n") == 1 and "is there already" in said
    after = {path: path.stat().st_mtime_ns for path in experiment.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("kind", "named"), [("own", "dataset.table"), ("voc12", "dataset.root"), ("coco14", "root")]
)
def test_a_folder_of_each_kind_asks_for_its_data(
    kind: str, named: str, snakemake: Any, tmp_path: Path
) -> None:
    said = make_folder(tmp_path / "it", kind)
    assert said.splitlines()[0] == f"cd {tmp_path / 'it'}"
    snakefile = tmp_path / "it" / "workflow" / "Snakefile"
    status, output = snakemake(tmp_path / "it", "--dry-run", snakefile=snakefile)
    assert status and "error: configuration: " in output and named in output
