"""Make the tables of docs/results.md: ``python -m benchmarks.studies --photographs <folder with
VOCdevkit> --coco <folder with annotations>``.

Every study is a call of the workflow, which is printed, and leaves its results in
``results/<name>``. What is there is not made again, so an interrupted call goes on where it was.
Tables are copied into ``docs/results``. ``--list`` tells the studies and how long each takes,
``--only`` names some of them.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.own_photographs import CLASSES as OWN_CLASSES
from benchmarks.own_photographs import write_own
from benchmarks.recomposed import CHANCE, CLASSES
from benchmarks.recomposed import main as recompose

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "results"
MADE = ROOT / "data" / "made"
"""Data sets that are made of the photographs; git does not see them."""
ANIMALS = "config/voc-animals.yaml"
SEEDS = "random_seeds=[0, 1, 2]"
ALONE = "companions=null"
DEGREES = (CHANCE, 0.6, 0.95)


@dataclass(frozen=True)
class Folders:
    """Where the data sets are; None where one was not named."""

    photographs: Path | None
    coco: Path | None


@dataclass(frozen=True)
class Study:
    """One call of the workflow.

    Attributes:
        results: name of the experiment.
        minutes: that it took on two cores, after the studies above it in the list; the ablation is
            estimated, and those below it that are not recomposed are of an earlier version.
        files: of the configuration.
        data: the setting of the data set, from the folders.
        settings: other words behind ``--config``.
        targets: of Snakemake; none is ``all``.
        tables: of ``results/<name>/tables`` that are kept.
    """

    results: str
    minutes: int
    files: tuple[str, ...]
    data: Callable[[Folders], str] | None
    settings: tuple[str, ...]
    targets: tuple[str, ...] = ()
    tables: tuple[str, ...] = ("results", "by_seed", "seeds")

    def command(self, folders: Folders) -> list[str]:
        """Return the call, after its data set was made where it has to be."""
        data = [] if self.data is None else [self.data(folders)]
        words = [*data, f"name={self.results}", *self.settings]
        targets = ["--", *self.targets] if self.targets else []
        program = str(ROOT / ".venv" / "bin" / "snakemake")
        return [
            program,
            "--cores",
            "all",
            "--configfile",
            *self.files,
            "--config",
            *words,
            *targets,
        ]


def photographs(folders: Folders) -> str:
    """Return the setting of the photographs."""
    return f"dataset={{root: {_given(folders.photographs, '--photographs')}}}"


def coco(folders: Folders) -> str:
    """Return the setting of the COCO subset."""
    return f"dataset={{root: {_given(folders.coco, '--coco')}}}"


def recomposed(rho: float) -> Callable[[Folders], str]:
    """Return what makes recomposed photographs and returns their setting."""

    def made(folders: Folders) -> str:
        folder = MADE / "recomposed"
        if not (folder / f"rho-{rho:g}").is_dir():
            recompose(_given(folders.photographs, "--photographs"), folder, (rho,))
        names = ", ".join(CLASSES)
        return f"dataset={{root: {folder / f'rho-{rho:g}'}, classes: [{names}], train: train}}"

    return made


def own(folders: Folders) -> str:
    """Write thirty photographs with a table, and return their setting."""
    table = MADE / "own" / "images.csv"
    if not table.exists():
        write_own(_given(folders.photographs, "--photographs"), table.parent)
    return f"dataset={{table: {table}, classes: [{', '.join(OWN_CLASSES)}]}}"


def _given(folder: Path | None, option: str) -> Path:
    if folder is None:
        sys.exit(f"error: {option}: is missing; name the folder of the data set")
    return folder.resolve()


def _animals(minutes: int, name: str = "voc-animals", *settings: str, target: str = "") -> Study:
    """Return a study of the photographs of six classes."""
    tables = (target,) if target else ("results", "by_seed", "seeds")
    targets = (target,) if target else ()
    return Study(name, minutes, (ANIMALS,), photographs, settings, targets, tables)


MAIN = (SEEDS, "models=[base, control, brnf, supervised]", ALONE)
STUDIES: dict[str, Study] = {
    "demo": Study("demo", 9, ("config/demo.yaml",), None, (SEEDS,)),
    "animals": _animals(65, "voc-animals", *MAIN),
    "ablation": _animals(60, "voc-animals", *MAIN, target="ablation"),
    "sensitivity": _animals(35, "voc-animals", *MAIN, target="sensitivity"),
    "density": _animals(7, "voc-animals", *MAIN, target="density"),
    "sensitivity_full": _animals(43, "voc-animals", *MAIN, target="sensitivity_full"),
    **{
        f"recomposed-{rho:g}": Study(
            f"recomposed-{100 * rho:.0f}",
            16,
            (ANIMALS,),
            recomposed(rho),
            (
                SEEDS,
                "models=[base, control, brnf]",
                "products=[cam_classifier, cam_prototype]",
                ALONE,
            ),
        )
        for rho in DEGREES
    },
    "scales": _animals(
        17,
        "voc-animals-scales",
        "cam={scales: [0.5, 1.0, 1.5, 2.0]}",
        "models=[base, brnf]",
        "products=[cam_classifier, cam_prototype, seeds, seeds_bsdnf]",
        ALONE,
    ),
    "sfc": Study(
        "voc-sfc",
        31,
        (ANIMALS, "config/bases/sfc.yaml"),
        photographs,
        ("models=[base, control, brnf]", ALONE),
    ),
    "coco": Study("coco-mini", 6, ("config/coco-mini.yaml",), coco, ()),
    "own": Study("holiday", 6, ("config/custom.yaml", "config/machines/cpu.yaml"), own, (ALONE,)),
}
"""By name, in the order in which they are made."""


def run(names: Sequence[str], folders: Folders) -> int:
    """Make studies one after the other; return the exit status of the first that fails."""
    for name in names:
        study = STUDIES[name]
        command = study.command(folders)
        print(f"{name}: {shlex.join(command)}", flush=True)
        if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
            print(f"error: {name}: ended with status {status}; call again to go on")
            return status
        for table in study.tables:
            for path in (ROOT / "results" / study.results / "tables").glob(f"{table}.csv"):
                folder = KEPT / study.results
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / path.name)
    return 0


def main(words: Sequence[str]) -> int:
    """Make the studies that were asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies", description=__doc__)
    parser.add_argument("--photographs", type=Path, help="folder that holds VOCdevkit")
    parser.add_argument("--coco", type=Path, help="folder that holds annotations")
    parser.add_argument("--only", nargs="+", choices=STUDIES, metavar="STUDY")
    parser.add_argument("--list", action="store_true", help="tell the studies and end")
    chosen = parser.parse_args(words)
    names = [name for name in STUDIES if name in (chosen.only or STUDIES)]
    if chosen.list:
        for name in names:
            print(f"{name:18} {STUDIES[name].minutes:4} min")
    total = sum(STUDIES[name].minutes for name in names)
    print(f"{len(names)} studies, about {total / 60:.1f} hours on two cores", flush=True)
    return 0 if chosen.list else run(names, Folders(chosen.photographs, chosen.coco))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
