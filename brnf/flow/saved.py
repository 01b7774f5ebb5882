"""A density and its calibration in one file."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from brnf.config.sections.flow import Baseline, FlowArchitecture
from brnf.flow.bsdnf import Calibration
from brnf.flow.density import FlowDensity
from brnf.flow.gaussian import GaussianDensity, build_gaussian
from brnf.store.networks import NetworkKind, load_network, rebuilding, save_network

__all__ = ["AnyDensity", "load_density", "save_density"]

AnyDensity = FlowDensity | GaussianDensity
KIND = NetworkKind("density", "train_flow")
EARLIER_STD = "deviation"
"""Unit of the noise in files that an earlier version wrote, for ``std``."""


def save_density(path: Path, density: AnyDensity, calibration: Calibration | None = None) -> None:
    """Write a density and what it is used with.

    Arguments:
        path: the file.
        density: a flow or one of the baselines.
        calibration: of the BSDNF rules, when it was fitted.
    """
    kind = FlowArchitecture if isinstance(density, FlowDensity) else Baseline
    options = {
        "density": density.kind,
        "dimension": density.dimension,
        "classes": density.classes,
        "options": {field.name: getattr(density.options, field.name) for field in fields(kind)},
        "calibration": calibration.state() if calibration else None,
    }
    save_network(path, KIND, density, options)


def load_density(path: Path) -> tuple[AnyDensity, Calibration | None]:
    """Read what :func:`save_density` wrote, onto the CPU, ready to evaluate.

    Raises:
        UserError: the file is missing, damaged or holds something else.
    """
    density, options = load_network(path, KIND, _rebuild)
    with rebuilding(path, KIND):
        calibration = _calibration(options["calibration"], density.classes)
        # Permutations may lead out of the features.
        density.log_prob(torch.zeros(1, density.dimension))
    return density.requires_grad_(False), calibration


def _calibration(state: Mapping[str, Any] | None, classes: int) -> Calibration | None:
    if not state:
        return None
    calibration = Calibration(**state)
    tables = (*calibration.likelihood.values(), *calibration.ratio.values())
    if not calibration.temperature > 0 or any(
        len(table) != classes or table.isnan().any() for table in tables
    ):
        raise ValueError("calibration of other classes")
    return calibration


def _rebuild(stored: dict[str, Any], classes: int) -> AnyDensity:
    kind, dimension, known, options = (
        stored[key] for key in ("density", "dimension", "classes", "options")
    )
    if options["noise_unit"] == EARLIER_STD:
        options = {**options, "noise_unit": "std"}
    if kind == "flow":
        return FlowDensity(dimension, known, FlowArchitecture(**options))
    return build_gaussian(kind, dimension, known, Baseline(**options))
