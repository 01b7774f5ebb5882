"""Stage: gather all evaluations of an experiment in tables."""

import sys
from dataclasses import dataclass
from pathlib import Path

from brnf.engine.runtime import Runtime
from brnf.evaluate.tables import (
    SPREAD,
    for_reading,
    markdown,
    mean_over_seeds,
    read_evaluations,
    remarks,
    results_table,
    seeds_table,
    write_table,
)
from brnf.evaluate.upper_bound import with_share
from brnf.stages._cli import run_stage
from brnf.store.files import locked

__all__ = ["Inputs", "Options", "Outputs", "run"]


@dataclass(frozen=True)
class Inputs:
    """What is read."""

    evaluations: tuple[Path, ...]
    """JSON files of the stage evaluate, in the order of their splits."""


@dataclass(frozen=True)
class Outputs:
    """What is written; every number but a threshold is in percent."""

    results_csv: Path
    """mIoU, its share of that of the model supervised where this is there, bias with the object
    recall it was measured at, and IoU per class, mean over seeds; how many these are, and whether
    the images' labels were given.
    """
    results_md: Path
    """The same for reading."""
    by_seed_csv: Path
    """The same for each seed."""
    seeds_csv: Path
    """Maps read with their own background, at the best threshold and at equal recall, mean and
    deviation over seeds.
    """
    seeds_md: Path
    """The same for reading."""


@dataclass(frozen=True)
class Options:
    """Order of the rows."""

    models: tuple[str, ...] = ("base", "brnf")
    """Models in their order."""
    products: tuple[str, ...] = (
        "cam_classifier",
        "cam_prototype",
        "seeds",
        "seeds_bsdnf",
        "pseudo_labels",
        "segmentation",
    )
    """Products in their order."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Gather all evaluations of an experiment in tables."""
    evaluations = read_evaluations(inputs.evaluations, options.models, options.products)
    measured = results_table(evaluations)
    by_seed, results = with_share(measured), with_share(mean_over_seeds(measured))
    scores = seeds_table(evaluations)
    seeds = mean_over_seeds(scores, SPREAD)
    notes, score_notes = remarks(measured), remarks(scores)
    with locked(outputs.results_csv):
        write_table(by_seed, outputs.by_seed_csv)
        write_table(results, outputs.results_csv, outputs.results_md, notes=notes)
        write_table(seeds, outputs.seeds_csv, outputs.seeds_md, notes=score_notes)
    if runtime.progress != "none":
        print(markdown(for_reading(results)[0]), end="")
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)


if __name__ == "__main__":
    run_stage(run)
