"""A density and its calibration in one file."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from brnf.errors import DamagedProduct
from brnf.flow.bsdnf import Calibration
from brnf.flow.density import FlowDensity, FlowOptions
from brnf.flow.gaussian import GaussianDensity, GaussianOptions, build_gaussian
from brnf.store.tensors import read_tensors

__all__ = ["AnyDensity", "load_density", "save_density"]

AnyDensity = FlowDensity | GaussianDensity


def save_density(path: Path, density: AnyDensity, calibration: Calibration | None = None) -> None:
    """Write a density as plain values and tensors; equal contents give equal bytes.

    Arguments:
        path: the file.
        density: a flow or one of the baselines.
        calibration: of the BSDNF rules, when it was fitted.
    """
    state = {name: value.detach().cpu().clone() for name, value in density.state_dict().items()}
    content = {
        "kind": density.kind,
        "dimension": density.dimension,
        "classes": density.classes,
        "options": asdict(density.options),
        "state": state,
        "calibration": calibration.state() if calibration else None,
    }
    # Through a handle: given a path, torch would write its name into the file.
    with path.open("wb") as file:
        torch.save(content, file)


def load_density(path: Path) -> tuple[AnyDensity, Calibration | None]:
    """Read what :func:`save_density` wrote, onto the CPU, ready to evaluate.

    Raises:
        UserError: the file is missing, damaged or holds something else.
    """
    stage = "train_flow"
    content = read_tensors(path, f"run {stage} first", stage)
    try:
        density = _build(content)
        density.load_state_dict(content["state"])
        calibration = _calibration(content["calibration"], density.classes)
        density.log_prob(
            torch.zeros(1, density.dimension)
        )  # permutations may lead out of the features
    except Exception as error:  # whatever stands in the place of sizes and options
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedProduct(path, f"not a flow file or damaged ({reason[:120]})", stage) from error
    if not all(value.isfinite().all() for value in density.state_dict().values()):
        raise DamagedProduct(path, "holds values that are not finite", stage)
    return density.requires_grad_(False).eval(), calibration


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


def _build(content: Mapping[str, Any]) -> AnyDensity:
    kind, dimension, classes, options = (
        content[key] for key in ("kind", "dimension", "classes", "options")
    )
    if kind == "flow":
        return FlowDensity(dimension, classes, FlowOptions(**options))
    return build_gaussian(kind, dimension, classes, GaussianOptions(**options))
