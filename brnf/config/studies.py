"""What the studies compare: the models of the ablation, the thresholds of the sensitivity, the
densities.
"""

from collections.abc import Mapping
from typing import Any

from brnf.errors import UserError

__all__ = [
    "ABLATION",
    "ABLATION_DENOISED",
    "ABLATION_MODELS",
    "ABLATION_PANELS",
    "ABLATION_PRODUCTS",
    "BASELINES",
    "BASE_MODELS",
    "PAPER_POINTS",
    "POINT_PATTERN",
    "SUPERVISED",
    "TAUS",
    "XIS",
    "at_point",
    "fit_settings",
    "full_models",
    "kind_of",
    "lengthened",
    "tau_fits",
]

BASE_MODELS = ("base", "base_long")
"""The base, and the base trained for as long as base and BRNF together: the fair opponent of
everything that trains on.
"""
SUPERVISED = "supervised"
"""The segmenter alone, trained on true masks: the upper bound of all that are trained on labels."""

ABLATION: dict[str, dict[str, bool]] = {
    "only_guidance": {"ccnf": False, "fscl": False, "bsdnf": False},
    "only_ccnf": {"guidance": False, "fscl": False, "bsdnf": False},
    "only_fscl": {"guidance": False, "ccnf": False, "bsdnf": False},
    "only_bsdnf": {"ccnf": False, "fscl": False},
    "without_guidance": {"guidance": False},
    "without_ccnf": {"ccnf": False},
    "without_fscl": {"fscl": False},
    "without_bsdnf": {"bsdnf": False},
}
"""Name of a network -> what differs from the section brnf.

BSDNF works through the seeds that guide the network, so ``only_bsdnf`` keeps the guidance;
``only_guidance`` is guided by the raw seeds, as are ``only_ccnf`` and ``only_fscl`` where the
online flow takes its labels from seeds.
"""

ABLATION_MODELS = (
    *BASE_MODELS,
    *(name for name in ABLATION if name.startswith("only")),
    "brnf",
    *(name for name in ABLATION if name.startswith("without")),
)
"""Rows of the ablation, in their order."""
ABLATION_PRODUCTS = ("cam_classifier", "cam_prototype", "seeds_bsdnf")
"""What is measured of each; on unseen images only the maps, since BSDNF is for training images."""
ABLATION_DENOISED = ("base", "brnf")
"""Models whose denoised seeds are measured, too: each needs a store and a flow of its own, which
costs more than its training.
"""
ABLATION_PANELS = (
    ("base", "seeds"),
    ("only_ccnf", "cam_prototype"),
    ("without_bsdnf", "cam_prototype"),
    ("brnf", "seeds_bsdnf"),
)
"""Columns of its figure: the base's seeds, then CCNF, FSCL and BSDNF one after the other, as in the
supplement's figure 2.
"""


def lengthened(base: Mapping[str, Any], brnf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section base with the length of both trainings.

    Arguments:
        base: section of the configuration.
        brnf: section of the configuration.

    Raises:
        UserError: one is given in steps and the other in epochs.
    """
    for none, other in ((base, brnf), (brnf, base)):
        if none["steps"] == 0:  # which is no length in epochs, either
            return {**base, "epochs": other["epochs"], "steps": other["steps"]}
    if (base["steps"] is None) != (brnf["steps"] is None):
        raise UserError(
            "configuration: base.steps: base_long needs the lengths of base and brnf both in steps "
            "or both in epochs; set both"
        )
    key = "epochs" if base["steps"] is None else "steps"
    return {**base, key: base[key] + brnf[key]}


TAUS = (
    (0.3, 0.9),
    (0.3, 0.8),
    (0.3, 0.7),
    (0.3, 0.6),
    (0.3, 0.5),
    (0.3, 0.4),
    (0.4, 0.7),
    (0.5, 0.7),
    (0.6, 0.7),
    (0.7, 0.9),
)
"""Pairs (tau_l, tau_h) of the paper's supplement, table 1."""
XIS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Thresholds of BSDNF; the paper's four and two lower ones, where rules that compare with the
background have their best.
"""
BASELINES = ("gaussian_diagonal", "gaussian_full", "gmm")
"""Densities that the flow is compared with."""


def tau_fits(settings: Mapping[str, Any]) -> list[str]:
    """Return the fits of the sensitivity in tau; ``own`` stands for the run's thresholds."""
    own = (settings["flow"]["tau"]["low"], settings["flow"]["tau"]["high"])
    return ["own" if tau == own else f"tau-{tau[0]}-{tau[1]}" for tau in TAUS]


PAPER_POINTS = {
    **{
        f"tau-{low}-{high}": miou
        for low, high, miou in ((0.3, 0.9, 69.9), (0.3, 0.7, 72.1), (0.6, 0.7, 71.9))
    },
    **{f"xi-{xi}": miou for xi, miou in ((0.95, 71.8), (0.9, 72.1), (0.8, 69.9))},
}
"""Points of the sensitivity's scope ``full``, where a value enters both rounds and the training ->
the paper's mIoU of a product it does not name. A model ``brnf@tau-0.3-0.9`` is BRNF at such a
point; ``base@tau-0.3-0.9`` is the flow and the denoised seeds that guide it, made from the base's
one network, maps and pixel store."""
POINT_PATTERN = r"(@(tau-[\d.]+-[\d.]+|xi-[\d.]+))?"
"""Regular expression of what may follow the name of a model."""


def kind_of(model: str) -> str:
    """Return a model's name without its point."""
    return model.partition("@")[0]


def at_point(model: str) -> dict[str, Any]:
    """Return what differs from the experiment's settings for a model at a point; nothing for any
    other model.
    """
    what, _, values = model.partition("@")[2].partition("-")
    if what == "tau":
        low, high = map(float, values.split("-"))
        return {"flow": {"tau": {"low": low, "high": high}}}
    if what == "xi":
        return {"bsdnf": {"base": {"xi": float(values)}, "final": {"xi": float(values)}}}
    return {}


def full_models(settings: Mapping[str, Any]) -> dict[str, float]:
    """Return the models of the sensitivity's scope ``full`` and the paper's mIoU at each; ``brnf``
    stands for its own values.
    """
    found = {}
    for point, miou in PAPER_POINTS.items():
        changes = at_point(f"brnf@{point}")
        own = all(
            settings[section][part].get(key) == value
            for section in changes
            for part, key, value in _values(changes[section])
        )
        found["brnf" if own else f"brnf@{point}"] = miou
    return found


def _values(section: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, float]]:
    return [(part, key, value) for part, values in section.items() for key, value in values.items()]


def fit_settings(settings: Mapping[str, Any], fit: str) -> dict[str, Any]:
    """Return what a fit is made of: the kind of density and the thresholds of its labels.

    Arguments:
        settings: of the experiment.
        fit: ``own``, ``tau-<low>-<high>``, or the name of a baseline.
    """
    flow = settings["flow"]
    found = {
        "flow.density": flow["density"],
        "flow.tau.low": flow["tau"]["low"],
        "flow.tau.high": flow["tau"]["high"],
    }
    if fit.startswith("tau-"):
        _, low, high = fit.split("-")
        return {**found, "flow.tau.low": float(low), "flow.tau.high": float(high)}
    return found if fit == "own" else {**found, "flow.density": fit}
