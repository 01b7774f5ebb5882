"""The schema of the configuration: reading values by it, filling its defaults, explaining
violations in one line.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

__all__ = [
    "complete",
    "leaves",
    "merged",
    "oversized",
    "reread",
    "violation",
]

MOST_VALUES = 20_000
DEEPEST = 20
LARGEST = 2**63 - 1
KINDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a section of keys",
}
BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "greater than",
    "exclusiveMaximum": "less than",
}
PATTERNS = {
    "^auto$": "auto or a number",
    "^[a-z]+(:[0-9]+)?$": "auto, cpu, cuda or cuda:1",
}


def oversized(value: Any) -> bool:
    """Return whether a value is too large or too deep (YAML alias bombs)."""
    waiting, seen = [(value, 0)], 0
    while waiting:
        entry, depth = waiting.pop()
        seen += 1
        if seen > MOST_VALUES or depth > DEEPEST:
            return True
        parts = (
            entry.values()
            if isinstance(entry, Mapping)
            else entry
            if isinstance(entry, list | tuple)
            else ()
        )
        waiting += [(part, depth + 1) for part in parts]
    return False


def leaves(
    schema: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the path and the schema of every key that holds a value and no section."""
    for key, part in schema["properties"].items():
        if "properties" in part:
            yield from leaves(part, (*path, key))
        else:
            yield (*path, key), part


def reread(value: Any, schema: Mapping[str, Any]) -> Any:
    """Turn strings into the numbers, truth values and nulls that the schema expects at their
    places.

    Nested values of ``--config`` arrive as strings, and YAML 1.1 takes ``1e-3`` for one. What
    cannot be read stays as it is, for the validation to complain about. Numbers get the type of the
    schema, so that 1 and 1.0 are the same setting.
    """
    types = _types(schema)
    if isinstance(value, Mapping):
        parts, other = schema.get("properties", {}), schema.get("additionalProperties")
        known = other if isinstance(other, Mapping) else {}
        return {key: reread(entry, parts.get(key, known)) for key, entry in value.items()}
    if types == {"object"} and (value is None or value == "null"):
        return {}  # an empty section of a file, or companions=null on the command line
    if isinstance(value, list):
        return [reread(entry, schema.get("items", {})) for entry in value]
    if isinstance(value, str):
        value = _read(value.strip(), types) if types - {"string"} else value
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and "number" in types
        and "integer" not in types
    ):
        return float(value) if abs(value) <= LARGEST else math.inf
    if (
        isinstance(value, float)
        and value.is_integer()
        and "integer" in types
        and "number" not in types
    ):
        return int(value)
    return value


def _types(schema: Mapping[str, Any]) -> set[str]:
    types = schema.get("type", [])
    return {types} if isinstance(types, str) else set(types)


def _read(text: str, types: set[str]) -> Any:
    """Read a string as the first of the types that it is a value of."""
    words: dict[str, dict[str, bool | None]] = {
        "boolean": {"true": True, "false": False},
        "null": {"null": None, "none": None, "~": None},
    }
    for kind, values in words.items():
        if kind in types and text.lower() in values:
            return values[text.lower()]
    converters: dict[str, Callable[[str], float]] = {"integer": int, "number": float}
    for kind, convert in converters.items():
        if kind in types:
            try:
                return convert(text)
            except ValueError:
                continue
    return text


def complete(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with the defaults of all missing keys, at every level, in the schema's order.

    Unknown keys stay, for the validation to complain about.
    """
    result: dict[str, Any] = {}
    for key, part in schema["properties"].items():
        if key in value or "default" in part:
            entry = deepcopy(value.get(key, part.get("default")))
            result[key] = (
                complete(entry, part)
                if "properties" in part and isinstance(entry, Mapping)
                else entry
            )
    return result | {key: deepcopy(entry) for key, entry in value.items() if key not in result}


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``base`` with the values of ``overrides``, section by section."""
    result = deepcopy(dict(base))
    for key, value in overrides.items():
        old = result.get(key)
        result[key] = (
            merged(old, value)
            if isinstance(old, Mapping) and isinstance(value, Mapping)
            else deepcopy(value)
        )
    return result


def violation(
    value: Mapping[str, Any], schema: Mapping[str, Any]
) -> tuple[tuple[str, ...], str] | None:
    """Return path and description of the first violation of the schema, or None."""
    errors = sorted(
        Draft202012Validator(schema).iter_errors(value),
        key=lambda error: [str(part) for part in error.absolute_path],
    )
    for error in errors:
        path = tuple(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties":
            unknown = next(
                key for key in error.instance if key not in error.schema.get("properties", {})
            )
            return (
                *path,
                str(unknown),
            ), f"unknown key; {_suggest(str(unknown), error.schema, schema)}"
        if error.validator == "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            return (
                (*path, missing),
                f"missing; set it: {error.schema['properties'][missing]['description']}",
            )
        return path, f"is {_shown(error.instance)}, must be {_wanted(error)}"
    return _not_finite(value)


def _suggest(unknown: str, section: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(unknown, section["properties"], n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    elsewhere = [".".join(path) for path, _ in leaves(whole) if path[-1] == unknown]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere[:2])}?"
    return f"known here: {', '.join(section['properties'])}"


def _wanted(error: ValidationError) -> str:
    """Say what would be right."""
    rule, limit = error.validator, error.validator_value
    if rule == "type":
        return " or ".join(KINDS[kind] for kind in ([limit] if isinstance(limit, str) else limit))
    if rule in BOUNDS:
        return f"{BOUNDS[rule]} {limit}"
    if rule == "enum":
        near = difflib.get_close_matches(str(error.instance), [str(value) for value in limit], n=1)
        return f"one of {', '.join(map(str, limit))}" + (
            f"; did you mean '{near[0]}'?" if near else ""
        )
    if rule == "pattern":
        return PATTERNS.get(limit, "letters, digits, '_' and '-' only")
    if rule in ("minItems", "maxItems", "minLength"):
        return f"{'at least' if rule.startswith('min') else 'at most'} {limit} long"
    return "without repetition" if rule == "uniqueItems" else f"right ({error.message})"


def _shown(value: Any) -> str:
    text = (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _not_finite(value: Any, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], str] | None:
    """Find a number that is infinite, no number, or too large for any library, which may pass every
    bound.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"is {value}, must be a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return path, f"is {_shown(value)}, must be at most {LARGEST}"
    entries = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return next(
        filter(None, (_not_finite(entry, (*path, str(key))) for key, entry in entries)), None
    )
