"""Keys and values that had another name before, or are gone: accepted for one version, with a
line.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from brnf.config.sections.segmentation import Crf

__all__ = ["GONE", "RENAMED", "VALUES", "Sources", "with_new_names"]

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
} | {
    "segmentation.test.crf_minimum": "segmentation.test.crf.minimum",
    "seeds": "random_seeds",
    "dataset.seeds": "dataset.eval_split",
    "base.classifier_penalty": "base.classifier_weight_decay",
    "brnf.classifier_penalty": "brnf.classifier_weight_decay",
    "flow.deviation_floor": "flow.std_floor",
    "brnf.sample_width": "brnf.sample_std",
}
"""Old key -> new key; those of sections flow and brnf are also renamed where a network or a variant
has its own.
"""
VALUES = {
    "segmentation.head": {"sum": "aspp_sum", "aspp": "aspp_concat"},
    "flow.noise_unit": {"deviation": "std"},
}
"""Key -> its old values and what they are called now."""
GONE = {"evaluate.thresholds": "the sweep takes the quantiles of the maps themselves"}
"""Key that has no effect any more -> what there is in its place."""
SWITCHED = ("pseudo_labels.crf", "segmentation.test.crf")
"""Sections of a CRF that were a truth value before: false is a CRF of 0 iterations."""
PRECISION_OF_AMP = {False: "fp32", True: "bf16"}
"""Truth value of the old key amp -> precision."""
TRUTH = {"true": True, "false": False}
Sources = Callable[[], Sequence[Mapping[str, Any]]]
EMPTY = (None, "null")
"""What a section without keys is in a file, and on the command line."""


def with_new_names(
    config: Mapping[str, Any],
    sources: Sources = tuple,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return a configuration under the new names, and print a line for each old or ignored one.

    Where both names are given, the new one has precedence, unless a later source has only the old
    one, such as ``--config seeds=[1]`` beside a file with ``random_seeds``. What is no section
    where one should be stays as it is, for the validation to complain about.

    Arguments:
        config: as given by the user.
        sources: returns what it was merged from, each stronger than those before it; called only
            where both names of a key are there.
        quiet: print nothing, as for the records of finished runs.
    """
    lines: list[str] = []
    new = _renamed(config, "", sources, lines)
    companions = new.get("companions")
    if isinstance(companions, dict):
        for name, overrides in companions.items():
            if isinstance(overrides, Mapping):
                where = f"companions.{name}."
                companions[name] = _renamed(overrides, where, sources, lines, config)
    for line in () if quiet else lines:
        print(f"configuration: {line}", file=sys.stderr)
    return new


def _renamed(
    config: Mapping[str, Any],
    where: str,
    sources: Sources,
    lines: list[str],
    whole: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a configuration, or what a companion changes, under the new names.

    Arguments:
        config: under any names.
        where: printed before a key, such as ``companions.small.``.
        sources: see :func:`with_new_names`.
        lines: gets what is to be printed.
        whole: for a companion, the configuration that it changes.
    """
    new = deepcopy(dict(config))
    switched = {key: _switch(new, key, where, lines) for key in SWITCHED}
    if (amp := _truth(new.get("amp"))) is not None:
        del new["amp"]
        new.setdefault("precision", PRECISION_OF_AMP[amp])
        lines.append(f"{where}amp is now {where}precision ({PRECISION_OF_AMP[amp]})")
    for renamed in RENAMED.items():
        for old, key in zip(*(_wherever(one, new) for one in renamed), strict=True):
            holder, name = _holder(new, old)
            if holder is None or name not in holder:
                continue
            value, (section, own) = holder.pop(name), _holder(new, key)
            if section is holder and own in holder:
                holder[own] = _latest(sources(), [f"{where}{key}", f"{where}{old}"], holder[own])
            _place(new, key, value)
            lines.append(f"{where}{old} is now {where}{key}")
    for renamed_in, values in VALUES.items():
        for key in _wherever(renamed_in, new):
            holder, name = _holder(new, key)
            value = None if holder is None else holder.get(name)
            if isinstance(value, str) and value in values:
                holder[name] = values[value]
                lines.append(f"{where}{key}: {value} is now {values[value]}")
    for old, instead in GONE.items():
        holder, name = _holder(new, old)
        if holder is not None and holder.pop(name, None) is not None:
            lines.append(f"{where}{old} is ignored: {instead}")
    for key, switch in switched.items():
        if switch and whole is not None and (iterations := _left_out(whole, key)) is not None:
            _place(new, f"{key}.iterations", iterations)
    return new


def _wherever(key: str, config: Mapping[str, Any]) -> list[str]:
    """Return a key, and what it is called where a network or a variant has its own value."""
    section, _, rest = key.partition(".")
    variants = config.get("variants")
    names = list(variants) if isinstance(variants, Mapping) else []
    if section == "flow":
        return [key, f"brnf.{key}", *(f"variants.{name}.{key}" for name in names)]
    return [key, *(f"variants.{name}.{rest}" for name in names if section == "brnf")]


def _latest(sources: Sequence[Mapping[str, Any]], keys: Sequence[str], otherwise: Any) -> Any:
    """Return the value of the last source that has one of these keys, the first before others."""
    for source in reversed(sources):
        for key in keys:
            holder, name = _holder(source, key)
            if holder is not None and name in holder:
                return holder[name]
    return otherwise


def _switch(config: dict[str, Any], key: str, where: str, lines: list[str]) -> bool | None:
    """Replace a truth value by the section that means the same, and return it."""
    holder, name = _holder(config, key)
    value = None if holder is None else _truth(holder.get(name))
    if holder is not None and value is not None:
        holder[name] = {} if value else {"iterations": 0}
        lines.append(f"{where}{key} is now {where}{key}.iterations (0 leaves the CRF out)")
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


def _holder(config: Any, key: str) -> tuple[Any, str]:
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
