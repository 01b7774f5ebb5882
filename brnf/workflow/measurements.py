"""Which measurements an experiment and its studies ask for: none without ground truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brnf.config.experiment import Experiment
from brnf.config.studies import (
    ABLATION_DENOISED,
    ABLATION_MODELS,
    ABLATION_PRODUCTS,
    BASE_MODELS,
    BASELINES,
    SUPERVISED,
    full_models,
    tau_fits,
)
from brnf.data.index import has_masks
from brnf.errors import UserError

__all__ = [
    "ablation",
    "evaluations",
    "full_sensitivity",
    "has_product",
    "product_splits",
    "sweeps",
]


def evaluations(experiment: Experiment, index: Path, pattern: str) -> list[str]:
    """Return all evaluations of an experiment, none on splits of which no image has a mask.

    Arguments:
        experiment: whose models, seeds and products are taken.
        index: folder of the image index.
        pattern: of a file, with the wildcards name, model, seed, product, split.
    """
    settings = experiment.settings
    found = []
    for model in settings["models"]:
        for product in settings["products"]:
            if not has_product(experiment, model, product):
                continue
            for split in product_splits(settings, product):
                if not has_masks(index, split):
                    continue
                found += [
                    pattern.format(
                        name=experiment.name, model=model, seed=seed, product=product, split=split
                    )
                    for seed in settings["random_seeds"]
                ]
    return found


def sweeps(experiment: Experiment, index: Path, study: str, pattern: str) -> list[str]:
    """Return the sweeps that a study compares.

    Arguments:
        experiment: whose seeds are taken.
        index: folder of the image index.
        study: ``sensitivity``, of BRNF in tau and xi, the run's own flow first; or ``density``, of
            base and BRNF.
        pattern: of a file, with the wildcards name, model, seed, fit.

    Raises:
        UserError: no image of the split has a mask.
    """
    _check_masks(index, [experiment.settings["dataset"]["eval_split"]], study)
    chosen = (
        ["own", *sorted(set(tau_fits(experiment.settings)) - {"own"})]
        if study == "sensitivity"
        else ["own", *BASELINES]
    )
    models = ("brnf",) if study == "sensitivity" else ("base", "brnf")
    seeds = experiment.settings["random_seeds"]
    return [
        pattern.format(name=experiment.name, model=model, fit=fit, seed=seed)
        for model in models
        for fit in chosen
        for seed in seeds
    ]


def has_product(experiment: Experiment, model: str, product: str) -> bool:
    """Return whether a model has a product: some are left out by choice; a variant without BSDNF
    has no denoised maps, and what learns from true masks has a segmentation only.
    """
    if model == SUPERVISED and product != "segmentation":
        return False
    if product not in experiment.settings["model_products"].get(model, [product]):
        return False
    return product != "seeds_bsdnf" or model in BASE_MODELS or experiment.denoises(model)


def ablation(experiment: Experiment, index: Path, pattern: str) -> list[str]:
    """Return the evaluations that the ablation compares.

    Arguments:
        experiment: whose seeds and splits are taken.
        index: folder of the image index.
        pattern: of a file, with the wildcards name, model, seed, product, split.

    Raises:
        UserError: the lengths of base and brnf are given in different units, or no image has a
            mask.
    """
    experiment.network("base_long")
    return _compared(
        experiment,
        index,
        pattern,
        ABLATION_MODELS,
        ABLATION_PRODUCTS,
        experiment.settings["random_seeds"],
        ABLATION_DENOISED,
    )


def full_sensitivity(experiment: Experiment, index: Path, pattern: str) -> list[str]:
    """Return the evaluations that the sensitivity's scope ``full`` compares, of the first seed.

    Arguments: as :func:`ablation`.

    Raises:
        UserError: no image has a mask.
    """
    models = tuple(dict.fromkeys(("brnf", *full_models(experiment.settings))))
    return _compared(
        experiment,
        index,
        pattern,
        models,
        ("cam_prototype", "seeds_bsdnf"),
        experiment.settings["random_seeds"][:1],
        models,
    )


def _compared(
    experiment: Experiment,
    index: Path,
    pattern: str,
    models: Sequence[str],
    products: Sequence[str],
    seeds: Sequence[int],
    denoised: Sequence[str],
) -> list[str]:
    """Return evaluations on seen and, of maps, unseen images that have masks; only some denoised
    seeds.
    """
    seen, unseen = (experiment.settings["dataset"][key] for key in ("eval_split", "val"))
    _check_masks(index, [seen, unseen], "study")
    found = []
    for model in models:
        for product in products:
            if product == "seeds_bsdnf" and not (
                model in denoised and (model in BASE_MODELS or experiment.denoises(model))
            ):
                continue
            for split in [seen] if product == "seeds_bsdnf" else dict.fromkeys((seen, unseen)):
                if not has_masks(index, split):
                    continue
                word = {"name": experiment.name, "model": model, "product": product, "split": split}
                found += [pattern.format(seed=seed, **word) for seed in seeds]
    return found


def _check_masks(index: Path, splits: Sequence[str], study: str) -> None:
    """Refuse a study of splits none of which has a mask."""
    if not any(has_masks(index, split) for split in splits):
        names = "' and '".join(dict.fromkeys(splits))
        raise UserError(
            f"{study}: no image of '{names}' has a mask, so nothing can be compared; add masks, or "
            "leave the study out"
        )


def product_splits(settings: Mapping[str, Any], product: str) -> list[str]:
    """Return the splits on which a product is to be measured."""
    dataset = settings["dataset"]
    if product == "segmentation":
        return [dataset["val"]]
    unseen = [dataset["val"]] if product in settings["evaluate"]["val_products"] else []
    return list(dict.fromkeys([dataset["eval_split"], *unseen]))
