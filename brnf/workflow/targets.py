"""Which files an experiment asks for, and of which shards they are made."""

from pathlib import Path

from brnf.config.experiment import Experiment
from brnf.config.studies import ABLATION_PANELS, SUPERVISED
from brnf.data.index import has_images, has_masks
from brnf.errors import UserError
from brnf.evaluate.names import panel_name
from brnf.workflow.measurements import evaluations, has_product, product_splits

__all__ = [
    "MAP_PRODUCTS",
    "evaluated_files",
    "export_tree",
    "exported_predictions",
    "figure_words",
    "figures",
    "map_product",
    "models",
    "predicted_split",
    "product_folder",
    "shards",
    "unmeasured_files",
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


def predicted_split(experiment: Experiment, index: Path) -> str:
    """Return the split that segmenters predict: the training one where none is for validation."""
    dataset = experiment.settings["dataset"]
    return str(dataset["val"] if has_images(index, dataset["val"]) else dataset["train"])


def unmeasured_files(experiment: Experiment, index: Path, run: str) -> list[str]:
    """Return what `all` makes although no mask is there to measure it: the products themselves, and
    the predictions of the test split where those of the validation split are not measured.

    Arguments:
        experiment: whose models, seeds and products are taken.
        index: folder of the image index.
        run: pattern of the folder of a model's results for one seed.
    """
    settings = experiment.settings
    found = []
    for model in settings["models"]:
        for product in settings["products"]:
            splits = product_splits(settings, product)
            without = [split for split in splits if not has_masks(index, split)]
            if product == "segmentation":
                without = [predicted_split(experiment, index)] if without else []
            for split in without if has_product(experiment, model, product) else ():
                if not has_images(index, split):
                    continue
                for seed in settings["random_seeds"]:
                    folder = run.format(name=experiment.name, model=model, seed=seed)
                    computed = experiment.computed_split(split)
                    files = evaluated_files(index, product, computed, folder)
                    found += files.get("maps", files.get("masks", []))
    if _segmented(experiment) and not has_masks(index, settings["dataset"]["val"]):
        found += exported_predictions(experiment, f"{run}/test_predictions")
    return list(dict.fromkeys(found))


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
    models = [
        model for model in settings["models"] if has_product(experiment, model, "segmentation")
    ]
    return [
        pattern.format(name=experiment.name, model=model, seed=seed)
        for model in models
        for seed in settings["random_seeds"]
    ]


def models(experiment: Experiment, run: str) -> list[str]:
    """Return the files of trained networks for use outside the workflow: of each model's CAM
    network, and of its segmenter.

    Arguments:
        experiment: whose models and seeds are taken.
        run: pattern of the folder of a model's results for one seed.
    """
    return [
        f"{run}/{training}/model.pt".format(name=experiment.name, model=model, seed=seed)
        for model in experiment.settings["models"]
        for training, _ in _histories(experiment, model)
        if training != "flow"
        for seed in experiment.settings["random_seeds"]
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


def figures(experiment: Experiment, index: Path) -> list[str]:
    """Return an experiment's figures: predictions where there is a segmenter, scores where
    something is measured; only scenes have context masks to measure bias with.
    """
    settings = experiment.settings
    measured = bool(evaluations(experiment, index, ""))
    scenes = settings["dataset"]["kind"] == "scenes"
    return [
        *(["predictions"] if _segmented(experiment) else []),
        *(["examples"] if _panels(experiment) else []),
        *(["scores"] if measured else []),
        *(["bias"] if measured and scenes else []),
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
        pattern = f"{run}/evaluation/{{product}}-{{split}}.json"
        return {"evaluations": evaluations(experiment, index, pattern)}
    if figure == "curves":
        files = [
            (model, stage, file)
            for model in settings["models"]
            for stage, file in _histories(experiment, model)
        ]
        words = [
            f"{model}:{stage}:{run}/{file}".format(name=experiment.name, model=model, seed=seed)
            for model, stage, file in files
            for seed in settings["random_seeds"]
        ]
        return {"histories": words}
    split, shown = _shown(experiment, figure, index)
    panels: list[str] = []
    confidences: list[str] = []
    for model, product in shown:
        folder = run.format(name=experiment.name, model=model, seed=settings["random_seeds"][0])
        read = evaluated_files(index, product, experiment.computed_split(split), folder)
        title = panel_name(model, product)
        paths = read.get("maps", read.get("masks", []))
        panels += [f"{title}:{map_product(experiment, model, product)}:{file}" for file in paths]
        if product == "segmentation":
            confidences += [f"{title}:{file}.csv" for file in paths]
    return {"panels": panels} | ({"confidences": confidences} if confidences else {})


def _panels(experiment: Experiment) -> list[tuple[str, str]]:
    """Return models and products that the examples show: seeds before and after BSDNF of each,
    pseudo-labels of the last.
    """
    settings = experiment.settings
    found = []
    weak = [model for model in settings["models"] if model != SUPERVISED]
    for model in weak:
        for product in ("seeds", "seeds_bsdnf", "pseudo_labels"):
            last = model == weak[-1]
            if (
                product in settings["products"]
                and has_product(experiment, model, product)
                and (product != "pseudo_labels" or last)
            ):
                found.append((model, product))
    return found


def _shown(experiment: Experiment, figure: str, index: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return of which split a figure shows images, and which products of which models."""
    dataset = experiment.settings["dataset"]
    if figure != "predictions":
        return dataset["eval_split"], (
            list(ABLATION_PANELS) if figure == "ablation" else _panels(experiment)
        )
    split = predicted_split(experiment, index)
    models = _segmented(experiment)
    trained = experiment.computed_split(split) == dataset["train"]
    weak = [model for model in models if model != SUPERVISED][-1:] if trained else []
    return split, [
        *((model, product) for model in weak for product in ("seeds", "pseudo_labels")),
        *((model, "segmentation") for model in models),
    ]


def _segmented(experiment: Experiment) -> list[str]:
    """Return the models that have a segmentation."""
    if "segmentation" not in experiment.settings["products"]:
        return []
    models = experiment.settings["models"]
    return [model for model in models if has_product(experiment, model, "segmentation")]


def _histories(experiment: Experiment, model: str) -> list[tuple[str, str]]:
    """Return the trainings of a model that its products need, and their files."""
    products = {
        product
        for product in experiment.settings["products"]
        if has_product(experiment, model, product)
    }
    found = [] if model == SUPERVISED else [("network", "network/history.csv")]
    guides = model == "base" and any(
        experiment.denoises(other) for other in experiment.settings["models"]
    )
    labels = experiment.labels_denoised(model) and products & {"pseudo_labels", "segmentation"}
    if (
        guides
        or labels
        or ("seeds_bsdnf" in products and has_product(experiment, model, "seeds_bsdnf"))
    ):
        found.append(("flow", "flow/history.csv"))
    if "segmentation" in products:
        found.append(("segmentation", "segmentation/history.csv"))
    return found
