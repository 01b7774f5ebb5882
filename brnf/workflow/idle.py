"""Options that others make meaningless: they stay away from a stage's command line, so that
changing one reruns nothing.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["IDLE", "without_idle"]

Options = Mapping[str, Any]

_FITTED = " ".join(
    [
        "coupling blocks hidden clamp learn_means steps batch_rows balanced",
        "learning_rate decay final_rate beta1 beta2 clip_norm",
    ]
)

IDLE: tuple[tuple[str, Callable[[Options], bool], str], ...] = (
    ("index_images", lambda options: options["kind"] != "coco", "labels_from overlap crowds"),
    ("index_images", lambda options: options["labels_from"] != "masks", "overlap"),
    (
        "train_base train_brnf train_boundaries",
        lambda options: options["steps"] is not None,
        "epochs",
    ),
    ("train_base", lambda options: options["method"] != "sfc", "sfc_*"),
    ("train_base", lambda options: options["method"] == "sfc", "seed_rule"),
    ("train_base train_brnf", lambda options: not options["fit_classifier"], "classifier_penalty"),
    ("train_base train_brnf", lambda options: options["trainable_stages"] == 0, "detach_sides"),
    ("train_brnf", lambda options: not options["guidance"], "lambda_gui"),
    ("train_brnf", lambda options: not options["ccnf"], "lambda_cal"),
    (
        "train_brnf",
        lambda options: not options["fscl"],
        "lambda_nce nce_temperature sample_width samples_per_step bank_*",
    ),
    (
        "train_brnf",
        lambda options: not options["ccnf"] and not options["fscl"],
        "flow_* tau_* labels_from online_*",
    ),
    (
        "train_brnf",
        lambda options: options["flow_temperature"] != "auto",
        "flow_target online_refit_*",
    ),
    ("train_flow", lambda options: options["temperature"] != "auto", "target"),
    ("train_flow", lambda options: options["final_rate"] == 1, "decay"),
    ("train_brnf", lambda options: options["flow_final_rate"] == 1, "flow_decay"),
    ("train_brnf", lambda options: options["flow_noise"] == 0, "flow_noise_unit"),
    ("train_flow", lambda options: options["density"] == "flow", "ridge components"),
    ("train_flow", lambda options: options["density"] != "flow", _FITTED),
    ("train_flow", lambda options: options["density"] != "gmm", "components"),
    (
        "make_boundary_labels",
        lambda options: not options["random_walk.ignore_unsure"],
        "random_walk.background_factor",
    ),
    (
        "make_boundary_labels",
        lambda options: options["random_walk.crf.iterations"] == 0,
        "random_walk.crf.gaussian_* random_walk.crf.bilateral_*",
    ),
    (
        "make_pseudo_labels",
        lambda options: options["pseudo_labels.crf.iterations"] == 0,
        "pseudo_labels.crf.gaussian_* pseudo_labels.crf.bilateral_* pseudo_labels.unary",
    ),
    (
        "predict_segmentation",
        lambda options: options["test.crf.iterations"] == 0,
        "test.crf.gaussian_* test.crf.bilateral_* test.crf.minimum",
    ),
    ("train_segmentation", lambda options: bool(options["scales"]), "scale_low scale_high"),
    ("train_segmentation", lambda options: options["head"] != "aspp", "head_width norm_momentum"),
    ("train_segmentation", lambda options: not options["trainable_stages"], "frozen_batch_norm"),
)
"""Stages, when, and the options of theirs that then change nothing."""


def without_idle(stage: str, options: Options) -> dict[str, Any]:
    """Return the options of a stage that can change its result, given the others.

    Arguments:
        stage: its name.
        options: all of its options by name.
    """
    idle = [
        pattern
        for stages, when, names in IDLE
        if stage in stages.split() and when(options)
        for pattern in names.split()
    ]
    return {
        name: value
        for name, value in options.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in idle)
    }
