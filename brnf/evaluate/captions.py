"""Titles and captions of what the report shows, and what protocols mean."""

from dataclasses import dataclass

__all__ = ["CHARTS", "FIGURES", "PROTOCOLS", "STUDY_FIGURES", "STUDY_TABLES", "TABLES", "Caption"]


@dataclass(frozen=True)
class Caption:
    """What stands over a table or figure and below it.

    Attributes:
        title: a few words.
        text: what is to be known to read it.
        folded: whether it is shown when asked for only.
    """

    title: str
    text: str
    folded: bool = False


TABLES = {
    "results": Caption(
        "Results",
        "mIoU, bias with the object recall it was measured at, and IoU of each class in percent, "
        "means over seeds. Labels: whether those of the images were given.",
    ),
    "seeds": Caption(
        "Three ways to read a map",
        "With its own background; at the best constant threshold, chosen on the other half of the "
        "images; and at equal object recall. Means over seeds.",
    ),
    "by_seed": Caption("Results by seed", "mIoU, bias and IoU of each class in percent.", True),
}
"""File in ``tables/`` -> caption, in the order of the report."""

FIGURES = {
    "predictions": Caption(
        "Segmentations",
        "What the segmenters say of images that they were given without labels, or of those they "
        "were trained on where none are for validation. White lines are the outlines of the true "
        "objects, where there is ground truth. Confidence is the largest probability of a pixel "
        "before the dense CRF, the mean over the image.",
    ),
    "examples": Caption(
        "Seeds and pseudo-labels",
        "White lines are the outlines of the true objects, where there is ground truth.",
    ),
    "bias": Caption(
        "Bias against mIoU",
        "mIoU against the context inside the seed at equal object recall. Large marks are means, "
        "dots seeds; up and left is better.",
    ),
    "scores": Caption(
        "mIoU of every product",
        "Large marks are means, small dots seeds. Segmentations get no labels of the images, all "
        "other products do.",
    ),
    "curves": Caption(
        "Training curves", "Thin lines are single steps, thick ones their moving mean."
    ),
}
"""File in ``figures/`` -> caption, in the order of the report."""

STUDY_FIGURES = {
    "ablation": Caption(
        "Ablation in pictures",
        "Seeds of the base, then what CCNF, FSCL and BSDNF change, one after the other.",
    ),
    "sensitivity": Caption(
        "Sensitivity to thresholds",
        "mIoU after BSDNF over τ and ξ. Bars are deviations over seeds; the paper's curve is gray, "
        "on a scale of its own of equal length.",
    ),
    "margins": Caption(
        "Decision margins", "What BSDNF suppresses lies left of 0; less of the true object is."
    ),
    "failures": Caption(
        "Where BSDNF fails", "Density of classes by their number of pixels, and images that lose."
    ),
    "scaling": Caption(
        "Time and memory of a density", "Online training of a flow against EM of mixtures."
    ),
}
STUDY_TABLES = {
    "ablation": Caption(
        "Ablation", "mIoU, and gains over other models at the same seed, means over seeds."
    ),
    "sensitivity": Caption("Sensitivity to thresholds", "mIoU after BSDNF, means over seeds."),
    "sensitivity_full": Caption(
        "Sensitivity of the whole method", "Networks trained again at each value, first seed."
    ),
    "density": Caption(
        "Densities compared",
        "The threshold of each rule is chosen on one half of the images and read on the other.",
    ),
    "scaling": Caption("Time and memory of a density", "Medians over repeats."),
    "comparison": Caption(
        "Beside the paper's main table", "Segmentation; numbers of different protocols differ."
    ),
    "comparison_runs": Caption("Everything that was run here", "In no order of merit.", True),
}
"""Those that targets beside ``all`` make."""

CHARTS = ("bias", "scores", "curves", "sensitivity", "margins", "failures", "scaling")
"""Figures without photographs, which the report draws light on dark for those who want it."""

PROTOCOLS = {
    "paper": "the paper's setting: no key that a number depends on differs from it.",
    "bench": "a setting of its own: "
    "the keys that differ from the paper's are listed with the experiment.",
    "scenes": "rendered scenes with known context bias, a small frozen backbone, "
    "a few hundred training steps.",
}
