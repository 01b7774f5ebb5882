"""Readable names of models, products, columns and curves, for figures and the report.

What is not listed, such as a variant of one's own or a class, keeps its name.
"""

from brnf.config.studies import ABLATION, SUPERVISED, kind_of

__all__ = [
    "SHARE",
    "column_name",
    "curve_name",
    "model_name",
    "panel_name",
    "product_name",
    "stage_name",
    "training_name",
]

SHARE = f"of_{SUPERVISED}"
"""Column of the share of the upper bound that a model reaches."""
COMPONENTS = {"guidance": "guidance", "ccnf": "CCNF", "fscl": "FSCL", "bsdnf": "BSDNF"}
MODELS = {
    "base": "base",
    "base_long": "base, trained longer",
    "brnf": "BRNF",
    "control": "control without flow",
    SUPERVISED: "true masks",
}
PRODUCTS = {
    "cam_classifier": "classifier CAM",
    "cam_prototype": "prototype CAM",
    "seeds": "seeds",
    "seeds_bsdnf": "seeds after BSDNF",
    "pseudo_labels": "pseudo-labels",
    "segmentation": "segmentation",
}
TRAININGS = {"network": "CAM network", "flow": "flow", "segmentation": "segmenter"}
DIMENSION = "nats per dimension"
CURVES = {
    ("network", "loss"): ("whole loss", ""),
    ("network", "classification"): ("classification", "nats"),
    ("network", "consistency"): ("consistency of maps", "mean difference"),
    ("network", "guidance"): ("guidance by seeds", "weighted mean difference"),
    ("network", "flow_nll"): ("negative log-likelihood of its flow", DIMENSION),
    ("network", "contrast"): ("contrast (FSCL)", "weighted, nats"),
    ("network", "calibration"): ("calibration (CCNF)", "weighted mean difference"),
    ("flow", "loss"): ("negative log-likelihood", DIMENSION),
    ("flow", "held_out"): ("negative log-likelihood, held out", DIMENSION),
    ("segmentation", "loss"): ("cross entropy", "nats per pixel"),
}
"""Training and column of its history -> name and unit."""
COLUMNS = {
    "miou": "mIoU (%)",
    SHARE: "share of true masks' mIoU (%)",
    "no_class": "pixels without class (%)",
    "coverage": "pixels with label (%)",
    "bias": "bias, fire@70 (%)",
    "recall": "object recall (%)",
    "own": "mIoU, own background (%)",
    "best": "mIoU, best threshold (%)",
    "threshold": "best threshold",
    "fire70": "bias, fire@70 (%)",
    "miou70": "mIoU at equal recall (%)",
    "threshold70": "threshold at equal recall",
    "tau_low": "τ low",
    "tau_high": "τ high",
    "xi": "ξ",
    "paper": "the paper (%)",
    "over_raw": "gain over raw seeds (points)",
    "density_accuracy": "accuracy of the density (%)",
    "seed_accuracy": "accuracy of the seeds (%)",
    "held_out": f"held-out loss ({DIMENSION})",
    "rows": "rows of the store",
    "seconds": "time (s)",
    "peak_mb": "growth of memory (MiB)",
    "seconds_per_1000_rows": "time per 1000 rows (s)",
}
STAGES = {
    "compute_cams": "class activation maps",
    "train_base": "training of the base",
    "train_brnf": "training of BRNF",
    "train_flow": "training of flows",
    "train_segmentation": "training of segmenters",
    "denoise_seeds": "BSDNF",
    "draw": "figures",
    "draw_studies": "figures of studies",
    "tabulate": "tables",
    "evaluate": "evaluation",
}


def model_name(model: str) -> str:
    """Return the name of a model, with its point of a sensitivity study.

    >>> model_name("without_ccnf"), model_name("brnf@xi-0.8"), model_name("my_own")
    ('BRNF without CCNF', 'BRNF at xi 0.8', 'my_own')
    """
    kind = kind_of(model)
    name = MODELS.get(kind, kind)
    if kind in ABLATION:
        word, _, component = kind.partition("_")
        name = f"BRNF {word} {COMPONENTS[component]}"
    _, at, point = model.partition("@")
    return name + (f" at {point.replace('-', ' ')}" if at else "")


def product_name(product: str) -> str:
    """Return the name of a product."""
    return PRODUCTS.get(product, product.replace("_", " "))


def panel_name(model: str, product: str) -> str:
    """Return the title of a picture of one model's product.

    >>> panel_name("brnf", "seeds_bsdnf")
    'BRNF, seeds after BSDNF'
    """
    return f"{model_name(model)}, {product_name(product)}"


def training_name(training: str) -> str:
    """Return the name of what is trained."""
    return TRAININGS.get(training, training.replace("_", " "))


def curve_name(training: str, column: str) -> tuple[str, str]:
    """Return the name of a quantity that a training follows, and its unit, which may be empty."""
    return CURVES.get((training, column), (column.replace("_", " "), ""))


def column_name(column: str) -> str:
    """Return the head of a table's column, with its unit.

    >>> column_name("miou_std"), column_name("over_base_long"), column_name("tv monitor")
    ('mIoU (%), deviation', 'gain over base, trained longer (points)', 'tv monitor')
    """
    if column in COLUMNS:
        return COLUMNS[column]
    if column.endswith("_std"):
        return f"{column_name(column.removesuffix('_std'))}, deviation"
    if column.startswith("over_"):
        return f"gain over {model_name(column.removeprefix('over_'))} (points)"
    return column.replace("_", " ")


def stage_name(stage: str) -> str:
    """Return what a stage does, for a table of times."""
    return STAGES.get(stage, stage.replace("_", " "))
