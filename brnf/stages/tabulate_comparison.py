"""Stage: put what was run here beside the paper's main table."""

from dataclasses import dataclass
from pathlib import Path

from brnf.engine.runtime import Runtime
from brnf.evaluate.comparison import comparison_table, read_runs, runs_table
from brnf.evaluate.tables import markdown, write_table
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    experiments: tuple[Path, ...] = ()
    """Folders of experiments, each with its config.yaml and evaluations of segmentations."""


@dataclass(frozen=True)
class Outputs:
    """What is written; mIoU of segmentations in percent."""

    csv: Path
    """The paper's rows with its figures and ours, each of ours with its protocol."""
    runs_csv: Path
    """All runs, also those on other data than the paper's."""
    markdown: Path
    """Both for reading."""


@dataclass(frozen=True)
class Options:
    """Nothing can be chosen."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Put what was run here beside the paper's main table."""
    found = read_runs(inputs.experiments)
    table, runs = comparison_table(found), runs_table(found)
    text = _page(markdown(table), markdown(runs) if len(runs) else "")
    with locked(outputs.csv):
        write_table(table, outputs.csv)
        write_table(runs, outputs.runs_csv)
        with atomic_file(outputs.markdown) as temporary:
            temporary.write_text(text)
    if runtime.progress != "none":
        print(text, end="")


def _page(table: str, runs: str) -> str:
    """Return both tables with what a reader must know."""
    note = (
        "Segmentation, mIoU in percent. `paper` columns: as printed in the BRNF paper. `here` "
        "columns: measured in this folder, with the"
        " protocol and the experiment; numbers of different protocols are not comparable. VOC test "
        "is measured by its server only."
    )
    everything = (
        f"Everything that was run here, in no order of merit:\n\n{runs}"
        if runs
        else "Nothing has been run here yet.\n"
    )
    return f"{note}\n\n{table}\n{everything}"


if __name__ == "__main__":
    run_stage(run)
