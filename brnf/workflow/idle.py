"""Options that others make meaningless: they stay away from a stage's command line, so that
changing one reruns nothing.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["IDLE", "without_idle"]

Options = Mapping[str, Any]

_FITTED = " ".join(
    f"flow.{key}"
    for key in (
        *("coupling", "blocks", "hidden", "clamp", "learn_means", "steps", "batch_rows"),
        *("balanced", "learning_rate", "decay", "final_rate", "beta1", "beta2", "clip_norm"),
    )
)

IDLE: tuple[tuple[str, Callable[[Options], bool], str], ...] = (
    (
        "index_images",
        lambda options: options["dataset.kind"] != "coco",
        "dataset.labels_from dataset.overlap dataset.crowds",
    ),
    ("index_images", lambda options: options["dataset.labels_from"] != "masks", "dataset.overlap"),
    (
        "train_boundaries",
        lambda options: options["random_walk.steps"] is not None,
        "random_walk.epochs",
    ),
    ("train_base", lambda options: options["base.steps"] is not None, "base.epochs"),
    ("train_base", lambda options: options["method"] != "sfc", "base.sfc.*"),
    ("train_base", lambda options: options["method"] == "sfc", "cam.seed_rule"),
    (
        "train_base",
        lambda options: not options["base.fit_classifier"],
        "base.classifier_weight_decay",
    ),
    (
        "train_base train_brnf",
        lambda options: options["backbone.trainable_stages"] == 0,
        "cam.detach_sides",
    ),
    ("train_brnf", lambda options: options["brnf.steps"] is not None, "brnf.epochs"),
    (
        "train_brnf",
        lambda options: not options["brnf.fit_classifier"],
        "brnf.classifier_weight_decay",
    ),
    ("train_brnf", lambda options: not options["brnf.guidance"], "brnf.lambda_gui"),
    ("train_brnf", lambda options: not options["brnf.ccnf"], "brnf.lambda_cal"),
    (
        "train_brnf",
        lambda options: not options["brnf.fscl"],
        "brnf.lambda_nce brnf.nce_temperature brnf.sample_std brnf.samples_per_step brnf.bank_*",
    ),
    (
        "train_brnf",
        lambda options: not options["brnf.ccnf"] and not options["brnf.fscl"],
        "flow.* brnf.labels_from brnf.online_*",
    ),
    (
        "train_brnf",
        lambda options: options["flow.temperature"] != "auto",
        "flow.target brnf.online_refit_*",
    ),
    ("train_brnf", lambda options: options["flow.final_rate"] == 1, "flow.decay"),
    ("train_brnf", lambda options: options["flow.noise"] == 0, "flow.noise_unit"),
    ("train_flow", lambda options: options["flow.temperature"] != "auto", "flow.target"),
    ("train_flow", lambda options: options["flow.final_rate"] == 1, "flow.decay"),
    ("train_flow", lambda options: options["flow.density"] == "flow", "flow.ridge flow.components"),
    ("train_flow", lambda options: options["flow.density"] != "flow", _FITTED),
    ("train_flow", lambda options: options["flow.density"] != "gmm", "flow.components"),
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
        "make_pseudo_labels write_cam_model",
        lambda options: options["pseudo_labels.crf.iterations"] == 0,
        "pseudo_labels.crf.gaussian_* pseudo_labels.crf.bilateral_* pseudo_labels.unary",
    ),
    (
        "predict_segmentation write_segmentation_model",
        lambda options: options["test.crf.iterations"] == 0,
        "test.crf.gaussian_* test.crf.bilateral_* test.crf.minimum",
    ),
    (
        "train_segmentation",
        lambda options: bool(options["segmentation.scales"]),
        "segmentation.scale_low segmentation.scale_high",
    ),
    (
        "train_segmentation",
        lambda options: options["segmentation.head"] != "aspp_concat",
        "segmentation.head_width segmentation.norm_momentum",
    ),
    (
        "train_segmentation",
        lambda options: not options["segmentation.trainable_stages"],
        "segmentation.frozen_batch_norm",
    ),
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
