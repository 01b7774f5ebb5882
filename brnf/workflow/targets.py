"""Which files an experiment asks for, and of which shards they are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brnf.errors import UserError
from brnf.workflow.configuration import Experiment

__all__ = ["MAP_PRODUCTS", "evaluated_files", "evaluations", "map_product", "shards"]

MAP_PRODUCTS = ("cam_classifier", "cam_prototype", "seeds", "seeds_bsdnf")
"""Products that are maps; the others are masks."""


def shards(index: Path, pattern: str, split: str) -> list[str]:
    """Fill ``{split}`` and ``{shard}`` of a pattern for every shard of a split that holds images; other wildcards stay.

    Arguments:
        index: folder of the image index.
        pattern: of a file.
        split: to list.

    Raises:
        UserError: the split has no image.
    """
    numbers = sorted(int(path.stem) for path in (index / "shards" / split).glob("*.txt"))
    if not numbers:
        raise UserError(f"{index}: split '{split}' holds no image; name another one in section dataset")
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
            if product == "seeds_bsdnf" and model != "base" and not experiment.denoises(model):
                continue  # a variant without flow has no denoised maps
            for split in _splits(settings, product):
                found += [pattern.format(name=experiment.name, model=model, seed=seed, product=product, split=split) for seed in settings["seeds"]]
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
    return {"cam_classifier": "classifier", "cam_prototype": "prototype", "seeds_bsdnf": "seeds"}[product]


def evaluated_files(index: Path, product: str, split: str, run: str) -> dict[str, list[str]]:
    """Return what an evaluation reads: shards of maps, or folders of masks and shards of their probabilities.

    Arguments:
        index: folder of the image index.
        product: of the tables.
        split: whose shards hold the images to evaluate on.
        run: folder of the model's results for one seed.
    """
    if product in MAP_PRODUCTS:
        folder = "denoised" if product == "seeds_bsdnf" else "cams"
        return {"maps": shards(index, f"{run}/{folder}/{{split}}/{{shard}}.h5", split)}
    folder = "pseudo_labels" if product == "pseudo_labels" else "predictions"
    masks = shards(index, f"{run}/{folder}/{{split}}/{{shard}}", split)
    return {"masks": masks, "probabilities": [f"{path}.h5" for path in masks]}
