"""What the studies compare: the models of the ablation, the thresholds of the sensitivity, the densities."""

from collections.abc import Mapping
from typing import Any

from brnf.errors import UserError

__all__ = [
    "ABLATION",
    "ABLATION_MODELS",
    "ABLATION_PANELS",
    "ABLATION_PRODUCTS",
    "BASELINES",
    "BASE_MODELS",
    "TAUS",
    "XIS",
    "fit_settings",
    "lengthened",
    "tau_fits",
]

BASE_MODELS = ("base", "base_long")
"""The base, and the base trained for as long as base and BRNF together: the fair opponent of everything that trains on."""

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

BSDNF works through the seeds that guide the network, so ``only_bsdnf`` keeps the guidance; ``only_guidance`` is guided by the raw
seeds, as are ``only_ccnf`` and ``only_fscl`` where the online flow takes its labels from seeds.
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
ABLATION_PANELS = (("base", "seeds"), ("only_ccnf", "cam_prototype"), ("without_bsdnf", "cam_prototype"), ("brnf", "seeds_bsdnf"))
"""Columns of its figure: the base's seeds, then CCNF, FSCL and BSDNF one after the other, as in the supplement's figure 2."""


def lengthened(base: Mapping[str, Any], brnf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section base with the length of both trainings.

    Arguments:
        base: section of the configuration.
        brnf: section of the configuration.

    Raises:
        UserError: one is given in steps and the other in epochs.
    """
    if (base["steps"] is None) != (brnf["steps"] is None):
        raise UserError("configuration: base.steps: base_long needs the lengths of base and brnf both in steps or both in epochs; set both")
    key = "epochs" if base["steps"] is None else "steps"
    return {**base, key: base[key] + brnf[key]}


TAUS = ((0.3, 0.9), (0.3, 0.8), (0.3, 0.7), (0.3, 0.6), (0.3, 0.5), (0.3, 0.4), (0.4, 0.7), (0.5, 0.7), (0.6, 0.7), (0.7, 0.9))
"""Pairs (tau_l, tau_h) of the paper's supplement, table 1."""
XIS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Thresholds of BSDNF; the paper's four and two lower ones, where rules that compare with the background have their best."""
BASELINES = ("gaussian_diagonal", "gaussian_full", "gmm")
"""Densities that the flow is compared with."""


def tau_fits(settings: Mapping[str, Any]) -> list[str]:
    """Return the fits of the sensitivity in tau: the run's ``own`` flow stands for its own thresholds."""
    own = (settings["flow"]["tau"]["low"], settings["flow"]["tau"]["high"])
    return ["own" if tau == own else f"tau-{tau[0]}-{tau[1]}" for tau in TAUS]


def fit_settings(settings: Mapping[str, Any], fit: str) -> dict[str, Any]:
    """Return what a fit is made of: the kind of density and the thresholds of its labels.

    Arguments:
        settings: of the experiment.
        fit: ``own``, ``tau-<low>-<high>``, or the name of a baseline.
    """
    flow = settings["flow"]
    found = {"density": flow["density"], "tau_low": flow["tau"]["low"], "tau_high": flow["tau"]["high"]}
    if fit.startswith("tau-"):
        _, low, high = fit.split("-")
        return {**found, "tau_low": float(low), "tau_high": float(high)}
    return found if fit == "own" else {**found, "density": fit}
