"""The schema of the configuration: reading values by it, filling its defaults, explaining
violations in one line.
"""

import difflib
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
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
REFUSED = ("Cc", "Cs")
"""Categories of Unicode: control characters, and what stands for bytes that are no text."""
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
    r"^[^-]": "a name without - in front",
    r"^[^-{}][^{}]*$(?!\n)": "a path without { or }, with no - in front",
    r"^(auto)$(?!\n)": "auto or a number",
    r"^[a-z]+(:[0-9]+)?$(?!\n)": "auto, cpu, cuda or cuda:1",
}


def oversized(value: Any) -> bool:
    """Return whether a value is too large or too deep (YAML alias bombs)."""
    waiting, seen = [(value, 0)], 0
    while waiting:
        entry, depth = waiting.pop()
        seen += 1
        if seen > MOST_VALUES or depth > DEEPEST:
            return True
        waiting += [(part, depth + 1) for _, part in _parts(entry)]
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


def violation(value: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the key, such as ``flow.blocks``, and the description of the first violation of the
    schema, or None.
    """
    errors = Draft202012Validator(schema).iter_errors(value)
    error = min(errors, key=lambda error: [str(part) for part in error.absolute_path], default=None)
    if error is None:
        return _impossible(value)
    path = [str(part) for part in error.absolute_path]
    properties = error.schema.get("properties", {})
    if error.validator == "additionalProperties":
        unknown = str(next(key for key in error.instance if key not in properties))
        said = f"unknown key; {_suggest(unknown, error.schema, schema)}"
        return ".".join([*path, unknown]), said
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        said = f"missing; set it: {properties[missing]['description']}"
        return ".".join([*path, missing]), said
    named = "has the name" if "propertyNames" in error.absolute_schema_path else "is"
    return ".".join(path), f"{named} {_shown(error.instance)}, must be {_wanted(error)}"


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
    named = {None: "null", True: "true", False: "false"}
    is_named = value is None or isinstance(value, bool)
    text = named[value] if is_named else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _impossible(value: Any, path: str = "") -> tuple[str, str] | None:
    """Find what passes every bound and no library takes: a number that is infinite, no number, or
    too large, and text with control characters, which no file name needs and no line shows.
    """
    if isinstance(value, str) and any(unicodedata.category(letter) in REFUSED for letter in value):
        said = "holds control characters or bytes that are not UTF-8; write it without them"
        return path, f"is {_shown(value)}, which {said}"
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"is {value}, must be a finite number"
    if isinstance(value, int) and abs(value) > LARGEST:
        return path, f"is {_shown(value)}, must be at most {LARGEST}"
    faults = (_impossible(part, f"{path}.{key}".lstrip(".")) for key, part in _parts(value))
    return next(filter(None, faults), None)


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return keys and values of a section, numbers and values of a list, nothing of others."""
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()
