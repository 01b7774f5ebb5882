"""The records of settings beside results: what differs between two, and what a run replaces."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from brnf.config.renamed import with_new_names

__all__ = ["UNSET", "Change", "changes", "flattened", "in_words", "replacement"]

UNSET = object()
"""Value of a key that a record does not have."""
ADDED = (
    *("name", "protocol", "random_seeds", "models", "variants", "products", "model_products"),
    *("figures.*", "evaluate.val_products"),
)
"""Patterns of keys which add results, or follow from others: they replace none."""
MOST_SAID = 4
"""Changes that one line names."""


@dataclass(frozen=True)
class Change:
    """A key whose value differs between two records; ``UNSET`` where one has none."""

    key: str
    then: Any
    now: Any

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.key} was {in_words(self.then)}, is {in_words(self.now)}"


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return all values of nested settings by their dotted keys; lists are values."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Return what differs between two records, in the order of the later one."""
    before, after = flattened(then), flattened(now)
    return [
        Change(key, before.get(key, UNSET), after.get(key, UNSET))
        for key in {**after, **before}
        if before.get(key, UNSET) != after.get(key, UNSET)
    ]


def in_words(value: Any) -> str:
    """Return a value as a configuration has it, on one line and not too long."""
    if value is UNSET:
        return "not set"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n")
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def replacement(record: str, now: Mapping[str, Any]) -> str | None:
    """Say in one line what the settings of a run replace, None where they only add results.

    Arguments:
        record: text of the ``config.yaml`` beside the results.
        now: settings of the run, as they are recorded.
    """
    try:
        then = yaml.safe_load(record)
    except yaml.YAMLError:
        return None
    if not isinstance(then, Mapping):
        return None
    found = [
        str(change)
        for change in changes(with_new_names(then, quiet=True), now)
        if not any(fnmatch.fnmatchcase(change.key, one) for one in ADDED)
        and not change.key.startswith("variants.")
    ]
    if not found:
        return None
    more = f" and {len(found) - MOST_SAID} others" if len(found) > MOST_SAID else ""
    return f"{'; '.join(found[:MOST_SAID])}{more}: what depends on that is replaced"
