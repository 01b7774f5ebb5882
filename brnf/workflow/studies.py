"""The models of the ablation: what of BRNF helps, alone and on top of the rest."""

from collections.abc import Mapping
from typing import Any

from brnf.errors import UserError

__all__ = ["ABLATION", "ABLATION_MODELS", "ABLATION_PRODUCTS", "BASE_MODELS", "lengthened"]

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
