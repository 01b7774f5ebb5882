"""Stage: draw the figures of the studies sensitivity and density."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.records import read_sweep, read_table
from brnf.evaluate.study_figures import (
    failures_figure,
    margins_figure,
    scaling_figure,
    sensitivity_figure,
)
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_file, locked

__all__ = ["Inputs", "Options", "Outputs", "run"]

SENSITIVITY = ("tau_low", "tau_high", "xi", "miou", "miou_std", "paper")
SCALING = ("rows", "seconds", "peak_mb")
"""Columns that the figures draw."""


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    table: Path | None = None
    """CSV of the study sensitivity, or of the stage measure_scaling."""
    sweeps: tuple[Path, ...] = ()
    """JSON files of the stage sweep_denoising, one a model; the last one's failures are drawn."""


@dataclass(frozen=True)
class Outputs:
    """What is written; None leaves a figure out."""

    sensitivity: Path | None = None
    """mIoU over tau and xi beside the paper's."""
    margins: Path | None = None
    """Decision margins of true objects and false activations."""
    failures: Path | None = None
    """Log-density against the number of pixels of each class, and the images that lose most."""
    scaling: Path | None = None
    """Time and memory over the number of rows."""


@dataclass(frozen=True)
class Options:
    """Nothing changes these figures but their data."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Draw the figures of the studies."""
    figures: dict[Path, Figure] = {}
    for path, draw, stage, numbers, words in (
        (
            outputs.sensitivity,
            sensitivity_figure,
            "tabulate_sweeps",
            SENSITIVITY,
            ("varied", "rule"),
        ),
        (outputs.scaling, scaling_figure, "measure_scaling", SCALING, ("density",)),
    ):
        if path:
            if inputs.table is None:
                raise UserError("draw_studies: --sensitivity and --scaling need --table")
            figures[path] = draw(read_table(inputs.table, stage, numbers, words))
    if outputs.margins or outputs.failures:
        if not inputs.sweeps:
            raise UserError("draw_studies: --margins and --failures need --sweeps")
        sweeps = [read_sweep(path, drawn=True) for path in inputs.sweeps]
        if outputs.margins:
            figures[outputs.margins] = margins_figure(sweeps)
        if outputs.failures:
            figures[outputs.failures] = failures_figure(sweeps[-1])
    if not figures:
        raise UserError(
            "draw_studies: no figure asked for; give --sensitivity, --scaling, --margins or "
            "--failures"
        )
    for path, figure in figures.items():
        with locked(path), atomic_file(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


if __name__ == "__main__":
    run_stage(run)
