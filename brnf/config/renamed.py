"""Keys that had another name before: accepted for one version, with a line."""

import sys
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

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


def with_new_names(config: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return a configuration under the new names, and print a line for each old one.

    Arguments:
        config: as given by the user.
        where: printed before a key, such as ``companions.small.``.
    """
    new = deepcopy(dict(config))
    for key in SWITCHED:
        _switch(new, key, where)
    for old, key in RENAMED.items():
        holder, name = _holder(new, old)
        if holder is None or name not in holder:
            continue
        value = holder.pop(name)
        _place(new, key, value)
        _say(where, old, key)
    companions = new.get("companions")
    if isinstance(companions, dict):
        for name, overrides in companions.items():
            if isinstance(overrides, Mapping):
                companions[name] = with_new_names(overrides, f"companions.{name}.")
    return new


def _switch(config: dict[str, Any], key: str, where: str) -> None:
    """Replace a truth value by the section that means the same."""
    holder, name = _holder(config, key)
    if holder is None:
        return
    value = holder.get(name)
    value = TRUTH.get(value.lower(), value) if isinstance(value, str) else value
    if isinstance(value, bool):
        holder[name] = {} if value else {"iterations": 0}
        _say(where, key, f"{key}.iterations (0 leaves the CRF out)")


def _holder(config: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """Return the section that would hold a key, or None, and the key's last part."""
    *sections, name = key.split(".")
    for section in sections:
        part = config.get(section)
        if not isinstance(part, dict):
            return None, name
        config = part
    return config, name


def _place(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a key that is not set yet: under its new name it has precedence."""
    *sections, name = key.split(".")
    for section in sections:
        part = config.setdefault(section, {})
        if not isinstance(part, dict):
            return  # for the validation to complain about
        config = part
    config.setdefault(name, value)


def _say(where: str, old: str, new: str) -> None:
    print(f"configuration: {where}{old} is now {where}{new}", file=sys.stderr)
