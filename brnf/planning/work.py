"""What a whole experiment makes, before there is an image index that Snakemake could plan with:
`rule all`, without its files.

The rules decide what depends on what; here it is said once more for all that follows the index, and
a test compares both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from brnf.config.experiment import Experiment
from brnf.config.studies import BASE_MODELS
from brnf.workflow.targets import evaluations, product_folder

__all__ = ["FOLDERS", "Work", "planned_work"]

FOLDERS = {
    "compute_cams": "cams",
    "store_pixels": "pixels",
    "denoise_seeds": "denoised",
    "make_pseudo_labels": "pseudo_labels",
    "predict_segmentation": "predictions",
}
"""Rule that works shard by shard -> folder of a run that it fills."""


@dataclass(frozen=True)
class Work:
    """The jobs of one rule for one model and one seed: all shards of a split, or a single job.

    Attributes:
        rule: its name.
        model: whose run it is.
        split: whose images are worked on; for trainings those that are trained on.
        product: that is evaluated.
    """

    rule: str
    model: str
    split: str
    product: str = ""

    @property
    def sharded(self) -> bool:
        """Tell whether there is a job for each shard."""
        return self.rule in FOLDERS


def planned_work(experiment: Experiment) -> list[Work]:
    """Return what `all` makes of the runs of one seed, each thing after what it needs.

    Arguments:
        experiment: whose models and products are wanted.
    """
    found: dict[Work, None] = {}
    settings = experiment.settings
    for model in settings["models"]:
        _add(found, _network(experiment, model))
    for word in evaluations(experiment, "{model} {product} {split} {seed}"):
        model, product, split, seed = word.split()
        if int(seed) == settings["seeds"][0]:
            makers = {
                "cams": _maps,
                "denoised": _denoised,
                "pseudo_labels": _pseudo_labels,
                "predictions": _predictions,
            }
            _add(
                found,
                makers[product_folder(product)](
                    experiment, model, experiment.computed_split(split)
                ),
            )
            found[Work("evaluate", model, split, product)] = None
    return list(found)


def _add(found: dict[Work, None], work: Iterator[Work]) -> None:
    found.update(dict.fromkeys(one for one in work if one not in found))


def _train(experiment: Experiment) -> str:
    return str(experiment.settings["dataset"]["train"])


def _network(experiment: Experiment, model: str) -> Iterator[Work]:
    if model in BASE_MODELS:
        yield Work("train_base", model, _train(experiment))
        return
    yield from _network(experiment, "base")
    yield from _seeds(experiment, "base", _train(experiment), experiment.denoises(model))
    yield Work("train_brnf", model, _train(experiment))


def _maps(experiment: Experiment, model: str, split: str) -> Iterator[Work]:
    yield from _network(experiment, model)
    yield Work("compute_cams", model, split)


def _pixels(experiment: Experiment, model: str, split: str) -> Iterator[Work]:
    yield from _maps(experiment, model, split)
    yield Work("store_pixels", model, split)


def _denoised(experiment: Experiment, model: str, split: str) -> Iterator[Work]:
    yield from _pixels(experiment, model, _train(experiment))
    yield Work("train_flow", model, _train(experiment))
    yield from _pixels(experiment, model, split)
    yield Work("denoise_seeds", model, split)


def _seeds(experiment: Experiment, model: str, split: str, denoised: bool) -> Iterator[Work]:
    folder, _ = experiment.seeds_of(model, denoised)
    yield from (_denoised if folder == "denoised" else _maps)(experiment, model, split)


def _pseudo_labels(experiment: Experiment, model: str, split: str) -> Iterator[Work]:
    yield from _seeds(experiment, model, split, experiment.denoises(model))
    yield Work("make_pseudo_labels", model, split)


def _predictions(experiment: Experiment, model: str, split: str) -> Iterator[Work]:
    yield from _pseudo_labels(experiment, model, _train(experiment))
    yield Work("train_segmentation", model, _train(experiment))
    yield Work("predict_segmentation", model, split)
