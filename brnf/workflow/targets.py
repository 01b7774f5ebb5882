"""Which files an experiment asks for, and of which shards they are made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brnf.config.experiment import Experiment
from brnf.config.studies import (
    ABLATION_DENOISED,
    ABLATION_MODELS,
    ABLATION_PANELS,
    ABLATION_PRODUCTS,
    BASE_MODELS,
    BASELINES,
    full_models,
    tau_fits,
)
from brnf.errors import UserError

__all__ = [
    "MAP_PRODUCTS",
    "ablation",
    "evaluated_files",
    "evaluations",
    "export_tree",
    "exported_predictions",
    "figure_words",
    "figures",
    "full_sensitivity",
    "map_product",
    "product_folder",
    "shards",
    "sweeps",
]

MAP_PRODUCTS = ("cam_classifier", "cam_prototype", "seeds", "seeds_bsdnf")
"""Products that are maps; the others are masks."""


def shards(index: Path, pattern: str, split: str) -> list[str]:
    """Fill ``{split}`` and ``{shard}`` of a pattern for every shard of a split that holds images;
    other wildcards stay.

    Arguments:
        index: folder of the image index.
        pattern: of a file.
        split: to list.

    Raises:
        UserError: the split has no image.
    """
    numbers = sorted(int(path.stem) for path in (index / "shards" / split).glob("*.csv"))
    if not numbers:
        raise UserError(
            f"{index}: split '{split}' holds no image; name another one in section dataset"
        )
    return [pattern.replace("{split}", split).replace("{shard}", str(number)) for number in numbers]


def evaluations(experiment: Experiment, pattern: str) -> list[str]:
    """Return all evaluations of an experiment.

    Arguments:
        experiment: whose models, seeds and products are taken.
        pattern: of a file, with the wildcards name, model, seed, product, split.
    """
    settings = experiment.settings
    found = []
    for model in settings["models"]:
        for product in settings["products"]:
            if not _exists(experiment, model, product):
                continue
            for split in _splits(settings, product):
                found += [
                    pattern.format(
                        name=experiment.name, model=model, seed=seed, product=product, split=split
                    )
                    for seed in settings["seeds"]
                ]
    return found


def sweeps(experiment: Experiment, study: str, pattern: str) -> list[str]:
    """Return the sweeps that a study compares.

    Arguments:
        experiment: whose seeds are taken.
        study: ``sensitivity``, of BRNF in tau and xi, the run's own flow first; or ``density``, of
            base and BRNF.
        pattern: of a file, with the wildcards name, model, seed, fit.
    """
    chosen = (
        ["own", *sorted(set(tau_fits(experiment.settings)) - {"own"})]
        if study == "sensitivity"
        else ["own", *BASELINES]
    )
    models = ("brnf",) if study == "sensitivity" else ("base", "brnf")
    seeds = experiment.settings["seeds"]
    return [
        pattern.format(name=experiment.name, model=model, fit=fit, seed=seed)
        for model in models
        for fit in chosen
        for seed in seeds
    ]


def _exists(experiment: Experiment, model: str, product: str) -> bool:
    """Return whether a model has a product: some are left out by choice; a variant without BSDNF
    has no denoised maps.
    """
    if product not in experiment.settings["model_products"].get(model, [product]):
        return False
    return product != "seeds_bsdnf" or model in BASE_MODELS or experiment.denoises(model)


def ablation(experiment: Experiment, pattern: str) -> list[str]:
    """Return the evaluations that the ablation compares.

    Arguments:
        experiment: whose seeds and splits are taken.
        pattern: of a file, with the wildcards name, model, seed, product, split.

    Raises:
        UserError: the lengths of base and brnf are given in different units.
    """
    experiment.network("base_long")
    return _compared(
        experiment,
        pattern,
        ABLATION_MODELS,
        ABLATION_PRODUCTS,
        experiment.settings["seeds"],
        ABLATION_DENOISED,
    )


def full_sensitivity(experiment: Experiment, pattern: str) -> list[str]:
    """Return the evaluations that the sensitivity's scope ``full`` compares, of the first seed.

    Arguments: as :func:`ablation`.
    """
    models = tuple(dict.fromkeys(("brnf", *full_models(experiment.settings))))
    return _compared(
        experiment,
        pattern,
        models,
        ("cam_prototype", "seeds_bsdnf"),
        experiment.settings["seeds"][:1],
        models,
    )


def _compared(
    experiment: Experiment,
    pattern: str,
    models: Sequence[str],
    products: Sequence[str],
    seeds: Sequence[int],
    denoised: Sequence[str],
) -> list[str]:
    """Return evaluations on seen and, of maps, unseen images; only some denoised seeds."""
    seen, unseen = experiment.settings["dataset"]["seeds"], experiment.settings["dataset"]["val"]
    found = []
    for model in models:
        for product in products:
            if product == "seeds_bsdnf" and not (
                model in denoised and (model in BASE_MODELS or experiment.denoises(model))
            ):
                continue
            for split in [seen] if product == "seeds_bsdnf" else dict.fromkeys((seen, unseen)):
                word = {"name": experiment.name, "model": model, "product": product, "split": split}
                found += [pattern.format(seed=seed, **word) for seed in seeds]
    return found


def _splits(settings: Mapping[str, Any], product: str) -> list[str]:
    dataset = settings["dataset"]
    if product == "segmentation":
        return [dataset["val"]]
    unseen = [dataset["val"]] if product in settings["evaluate"]["val_products"] else []
    return list(dict.fromkeys([dataset["seeds"], *unseen]))


def map_product(experiment: Experiment, model: str, product: str) -> str:
    """Return the name that a product of the tables has inside the map shards, or ``mask``."""
    if product == "seeds":
        return experiment.seed_map(model)
    if product not in MAP_PRODUCTS:
        return "mask"
    return {"cam_classifier": "classifier", "cam_prototype": "prototype", "seeds_bsdnf": "seeds"}[
        product
    ]


def product_folder(product: str) -> str:
    """Return the folder of a run in which a product of the tables stands."""
    if product in MAP_PRODUCTS:
        return "denoised" if product == "seeds_bsdnf" else "cams"
    return "pseudo_labels" if product == "pseudo_labels" else "predictions"


def evaluated_files(index: Path, product: str, split: str, run: str) -> dict[str, list[str]]:
    """Return what an evaluation reads: shards of maps, or folders of masks and shards of their
    probabilities.

    Arguments:
        index: folder of the image index.
        product: of the tables.
        split: whose shards hold the images to evaluate on.
        run: folder of the model's results for one seed.
    """
    folder = product_folder(product)
    if product in MAP_PRODUCTS:
        return {"maps": shards(index, f"{run}/{folder}/{{split}}/{{shard}}.h5", split)}
    masks = shards(index, f"{run}/{folder}/{{split}}/{{shard}}", split)
    return {"masks": masks, "probabilities": [f"{path}.h5" for path in masks]}


def exported_predictions(experiment: Experiment, pattern: str) -> list[str]:
    """Return the predictions of the test split, of every model that has a segmentation; none
    without such a split.

    Arguments:
        experiment: whose models and seeds are taken.
        pattern: of a folder, with the wildcards name, model, seed.
    """
    settings = experiment.settings
    if settings["dataset"]["test"] is None:
        return []
    models = [model for model in settings["models"] if _exists(experiment, model, "segmentation")]
    return [
        pattern.format(name=experiment.name, model=model, seed=seed)
        for model in models
        for seed in settings["seeds"]
    ]


def export_tree(experiment: Experiment) -> str:
    """Return the folders in which the masks of the test split lie: for VOC as its evaluation server
    wants them.
    """
    return (
        "results/VOC2012/Segmentation/comp6_test_cls"
        if experiment.settings["dataset"]["kind"] == "voc"
        else "masks"
    )


def figures(experiment: Experiment) -> list[str]:
    """Return an experiment's figures; only scenes have context masks to measure bias with."""
    scenes = experiment.settings["dataset"]["kind"] == "scenes"
    return [
        *(["examples"] if _panels(experiment) else []),
        "scores",
        *(["bias"] if scenes else []),
        "curves",
    ]


def figure_words(
    experiment: Experiment, figure: str, index: Path, run: str
) -> dict[str, list[str]]:
    """Return what a figure is drawn from, as flags of the stage draw and their words; a word ends
    with ``:`` and a file, or is one.

    Arguments:
        experiment: knows the models and products.
        figure: name.
        index: folder of the image index.
        run: pattern of the folder of a model's results for one seed.
    """
    settings = experiment.settings
    if figure in ("scores", "bias"):
        return {
            "evaluations": evaluations(experiment, f"{run}/evaluation/{{product}}-{{split}}.json")
        }
    if figure == "curves":
        files = [
            (model, stage, file)
            for model in settings["models"]
            for stage, file in _histories(experiment, model)
        ]
        words = [
            f"{model}:{stage}:{run}/{file}".format(name=experiment.name, model=model, seed=seed)
            for model, stage, file in files
            for seed in settings["seeds"]
        ]
        return {"histories": words}
    words = []
    split = experiment.computed_split(settings["dataset"]["seeds"])
    for model, product in ABLATION_PANELS if figure == "ablation" else _panels(experiment):
        folder = run.format(name=experiment.name, model=model, seed=settings["seeds"][0])
        read = evaluated_files(index, product, split, folder)
        title = f"{model}: {product}".replace(":", "")
        words += [
            f"{title}:{map_product(experiment, model, product)}:{file}"
            for file in read.get("maps", read.get("masks", []))
        ]
    return {"panels": words}


def _panels(experiment: Experiment) -> list[tuple[str, str]]:
    """Return models and products that the examples show: seeds before and after BSDNF of each,
    pseudo-labels of the last.
    """
    settings = experiment.settings
    found = []
    for model in settings["models"]:
        for product in ("seeds", "seeds_bsdnf", "pseudo_labels"):
            last = model == settings["models"][-1]
            if (
                product in settings["products"]
                and _exists(experiment, model, product)
                and (product != "pseudo_labels" or last)
            ):
                found.append((model, product))
    return found


def _histories(experiment: Experiment, model: str) -> list[tuple[str, str]]:
    """Return the trainings of a model that its products need, and their files."""
    products = {
        product
        for product in experiment.settings["products"]
        if _exists(experiment, model, product)
    }
    found = [("network", "network/history.csv")]
    guides = model == "base" and any(
        experiment.denoises(other) for other in experiment.settings["models"]
    )
    labels = experiment.denoises(model) and products & {"pseudo_labels", "segmentation"}
    if (
        guides
        or labels
        or ("seeds_bsdnf" in products and _exists(experiment, model, "seeds_bsdnf"))
    ):
        found.append(("flow", "flow/history.csv"))
    if "segmentation" in products:
        found.append(("segmentation", "segmentation/history.csv"))
    return found
