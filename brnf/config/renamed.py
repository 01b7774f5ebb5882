"""Keys that had another name before: accepted for one version, with a line."""

import sys
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from brnf.config.sections.segmentation import Crf

__all__ = ["RENAMED", "with_new_names"]

_CRF = (
    "gaussian_sigma",
    "gaussian_weight",
    "bilateral_sigma_xy",
    "bilateral_sigma_rgb",
    "bilateral_weight",
)
RENAMED: dict[str, str] = {
    f"{section}.{old}": f"{section}.crf.{new}"
    for section in ("pseudo_labels", "random_walk", "segmentation.test")
    for old, new in (("crf_iterations", "iterations"), *((name, name) for name in _CRF))
} | {"segmentation.test.crf_minimum": "segmentation.test.crf.minimum"}
"""Old key -> new key."""
SWITCHED = ("pseudo_labels.crf", "segmentation.test.crf")
"""Sections of a CRF that were a truth value before: false is a CRF of 0 iterations."""
TRUTH = {"true": True, "false": False}
EMPTY = (None, "null")
"""What a section without keys is in a file, and on the command line."""


def with_new_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration under the new names, and print a line for each old one.

    Where both names are given, the new one has precedence. What is no section where one should be
    stays as it is, for the validation to complain about.

    Arguments:
        config: as given by the user.
    """
    new = _renamed(config, "")
    companions = new.get("companions")
    if isinstance(companions, dict):
        for name, overrides in companions.items():
            if isinstance(overrides, Mapping):
                companions[name] = _renamed(overrides, f"companions.{name}.", config)
    return new


def _renamed(
    config: Mapping[str, Any], where: str, whole: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a configuration, or what a companion changes, under the new names.

    Arguments:
        config: under any names.
        where: printed before a key, such as ``companions.small.``.
        whole: for a companion, the configuration that it changes.
    """
    new = deepcopy(dict(config))
    switched = {key: _switch(new, key, where) for key in SWITCHED}
    for old, key in RENAMED.items():
        holder, name = _holder(new, old)
        if holder is not None and name in holder:
            _place(new, key, holder.pop(name))
            _say(where, old, key)
    for key, value in switched.items():
        if value and whole is not None and (iterations := _left_out(whole, key)) is not None:
            _place(new, f"{key}.iterations", iterations)
    return new


def _switch(config: dict[str, Any], key: str, where: str) -> bool | None:
    """Replace a truth value by the section that means the same, and return it."""
    holder, name = _holder(config, key)
    value = None if holder is None else _truth(holder.get(name))
    if holder is not None and value is not None:
        holder[name] = {} if value else {"iterations": 0}
        _say(where, key, f"{key}.iterations (0 leaves the CRF out)")
    return value


def _truth(value: Any) -> bool | None:
    """Return a truth value, which ``--config`` gives as a string; None for anything else."""
    value = TRUTH.get(value.strip().lower()) if isinstance(value, str) else value
    return value if isinstance(value, bool) else None


def _left_out(config: Mapping[str, Any], key: str) -> Any:
    """Return the iterations of a CRF that a truth value leaves out, or None."""
    holder, name = _holder(config, key)
    if holder is None or _truth(holder.get(name)) is not False:
        return None
    return holder.get("crf_iterations", Crf().iterations)


def _holder(config: Mapping[str, Any], key: str) -> tuple[Any, str]:
    """Return the section that would hold a key, or None, and the key's last part."""
    *sections, name = key.split(".")
    for section in sections:
        part = config.get(section)
        if not isinstance(part, dict):
            return None, name
        config = part
    return config, name


def _place(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a key unless it is set."""
    *sections, name = key.split(".")
    for section in sections:
        if config.get(section) in EMPTY:
            config[section] = {}
        config = config[section]
        if not isinstance(config, dict):
            return
    config.setdefault(name, value)


def _say(where: str, old: str, new: str) -> None:
    print(f"configuration: {where}{old} is now {where}{new}", file=sys.stderr)
