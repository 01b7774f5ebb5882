"""Stage: gather sweeps in a table of the study sensitivity or density."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brnf.config.sections.flow import Rule
from brnf.engine.runtime import Runtime
from brnf.evaluate.sweeps import density_table, read_sweeps, sensitivity_table
from brnf.evaluate.tables import markdown, write_table
from brnf.stages._cli import run_stage
from brnf.store.files import locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    sweeps: tuple[Path, ...]
    """JSON files of the stage sweep_denoising; for the sensitivity those of the run's own flow
    first.
    """


@dataclass(frozen=True)
class Outputs:
    """What is written; mIoU and accuracies in percent."""

    csv: Path
    """The table."""
    markdown: Path
    """The same for reading."""


@dataclass(frozen=True)
class Options:
    """Which table."""

    study: Literal["sensitivity", "density"] = "sensitivity"
    """Sensitivity to tau and xi beside the paper's, or densities with the best threshold of each
    rule.
    """
    rule: Rule = "posterior"
    """Rule of BSDNF with which tau is varied."""
    xi: float = 0.9
    """Threshold of BSDNF with which tau is varied."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Gather sweeps in a table."""
    sweeps = read_sweeps(inputs.sweeps)
    table = (
        density_table(sweeps)
        if options.study == "density"
        else sensitivity_table(sweeps, options.rule, options.xi)
    )
    with locked(outputs.csv):
        write_table(table, outputs.csv, outputs.markdown)
    if runtime.progress != "none":
        print(markdown(table), end="")


if __name__ == "__main__":
    run_stage(run)
