"""A density and its calibration in one file."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from brnf.errors import UserError
from brnf.flow.bsdnf import Calibration
from brnf.flow.density import FlowDensity, FlowOptions
from brnf.flow.gaussian import GaussianDensity, GaussianOptions, build_gaussian

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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        density = _build(content)
        density.load_state_dict(content["state"])
        calibration = Calibration(**content["calibration"]) if content["calibration"] else None
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such flow file; run train_flow first") from error
    except Exception as error:  # torch reports damage with many kinds of exceptions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a flow file or damaged ({reason[:120]}); remove it and run train_flow again") from error
    return density.requires_grad_(False).eval(), calibration


def _build(content: Mapping[str, Any]) -> AnyDensity:
    kind, dimension, classes, options = (content[key] for key in ("kind", "dimension", "classes", "options"))
    if kind == "flow":
        return FlowDensity(dimension, classes, FlowOptions(**options))
    return build_gaussian(kind, dimension, classes, GaussianOptions(**options))
