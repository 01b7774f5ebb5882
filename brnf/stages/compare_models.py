"""Stage: compare models seed by seed."""

from dataclasses import dataclass
from pathlib import Path

from brnf.engine.runtime import Runtime
from brnf.evaluate.tables import compared, markdown, read_evaluations, results_table, write_table
from brnf.stages._cli import run_stage
from brnf.store.files import locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    evaluations: tuple[Path, ...]
    """JSON files of the stage evaluate."""


@dataclass(frozen=True)
class Outputs:
    """What is written; every number is in percent."""

    csv: Path
    """Mean and deviation of the mIoU over seeds, and of its difference to each reference of the
    same seed.
    """
    markdown: Path
    """The same for reading."""


@dataclass(frozen=True)
class Options:
    """Rows and what they are compared with."""

    models: tuple[str, ...] = ("base", "brnf")
    """Models in their order."""
    references: tuple[str, ...] = ("base",)
    """Models that every other is compared with."""
    paper: tuple[str, ...] = ()
    """Words ``model=mIoU``: the paper's figure, which stands in a column of its own beside ours."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Compare models seed by seed."""
    table = compared(
        results_table(read_evaluations(inputs.evaluations, options.models)), options.references
    )
    if options.paper:
        table["paper"] = table.model.map(
            {model: float(value) for model, value in (word.split("=") for word in options.paper)}
        )
    with locked(outputs.csv):
        write_table(table, outputs.csv, outputs.markdown)
    if runtime.progress != "none":
        print(markdown(table), end="")


if __name__ == "__main__":
    run_stage(run)
