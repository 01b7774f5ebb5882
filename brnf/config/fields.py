"""The schema of a section, from its class: types, bounds, defaults and descriptions."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

__all__ = ["descriptions", "key_of", "plain", "schema_of"]

KINDS = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "pattern": "pattern",
}


def key_of(name: str) -> str:
    """Return the key of a field: ``import`` for ``import_``, which Python reserves."""
    return name.rstrip("_")


def schema_of(section: type, default: Any = None, described: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a section with everything in its place, without references.

    Arguments:
        section: a class of :mod:`brnf.config.sections`.
        default: instance whose values are the defaults; without one those of the class.
        described: whether keys have their descriptions.
    """
    hints = get_type_hints(section, include_extras=True)
    properties, required = {}, []
    for field in fields(section):
        value = _default(field) if default is None else getattr(default, field.name)
        part = _part(hints[field.name], value, described)
        if value is MISSING:
            required.append(key_of(field.name))
        elif "properties" in part:
            part["default"] = {}
        else:
            part["default"] = plain(value)
        told = described or value is MISSING  # what is missing is explained to the user
        if told and (text := descriptions(section).get(field.name)):
            part["description"] = text
        properties[key_of(field.name)] = part
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
    return schema | ({"required": required} if required else {}) | {"properties": properties}


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def plain(value: Any) -> Any:
    """Return a value as YAML would give it: lists for tuples, nan and inf as they are."""
    value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _part(hint: Any, default: Any, described: bool) -> dict[str, Any]:
    """Return the schema of a value."""
    if metadata := getattr(hint, "__metadata__", ()):
        part = _part(get_args(hint)[0], default, described)
        for bounds in metadata:
            part |= _bounds(bounds, part)
        return part
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _union([_part(argument, None, described) for argument in arguments])
    if origin is Literal:
        return {"type": KINDS[type(arguments[0])], "enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _part(arguments[0], None, described)}
    if origin is dict:
        part = {"type": "object"}
        if pattern := _part(arguments[0], None, described).get("pattern"):
            part["propertyNames"] = {"pattern": pattern}
        if arguments[1] is not Any:
            part["additionalProperties"] = _part(arguments[1], None, described)
        return part
    if is_dataclass(hint):
        return schema_of(hint, None if default is MISSING else default, described)  # type: ignore[arg-type]
    return {"type": KINDS[hint]}


def _bounds(bounds: Any, part: Mapping[str, Any]) -> dict[str, Any]:
    found = {word: getattr(bounds, name) for name, word in BOUNDS.items()}
    unit = "Items" if part.get("type") == "array" else "Length"
    found |= {f"min{unit}": bounds.min_length, f"max{unit}": bounds.max_length}
    given = {word: value for word, value in found.items() if value is not None}
    return given | (bounds.extra_json_schema or {})


def _union(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a value or null, or of a number or one word."""
    merged: dict[str, Any] = {"type": [part["type"] for part in parts]}
    for part in parts:
        if "enum" in part:
            merged["pattern"] = rf"^({'|'.join(part['enum'])})$(?!\n)"
        merged |= {key: value for key, value in part.items() if key not in ("type", "enum")}
    return merged


@cache
def descriptions(section: type) -> dict[str, str]:
    """Return the docstrings under the fields of a class and its bases, by the field's name."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not is_dataclass(cls):
            continue
        body = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, following in zip(body.body, body.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                text = ast.get_docstring(ast.Module([following], []))
                if text:
                    found[line.target.id] = " ".join(text.split())
    return found
