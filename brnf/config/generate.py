"""What follows from the sections: the schema, and the key reference.

``python -m brnf.config.generate`` writes workflow/schemas/config.schema.yaml, by which editors
complete and check configurations, and docs/configuration.md; a test compares both.
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from brnf.config.sections.experiment import Experiment

__all__ = ["descriptions", "key_of", "key_reference", "plain", "schema_of", "schema_text"]

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
REFERENCE = ROOT / "docs" / "configuration.md"
TITLE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Configuration of one experiment",
    "description": "A file of config/ needs to hold only what differs from the defaults.",
}
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
    texts = descriptions(section) if described else {}
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
        if text := texts.get(field.name):
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
        if arguments[1] is Any:
            return {"type": "object"}
        return {"type": "object", "additionalProperties": _part(arguments[1], None, described)}
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
            merged["pattern"] = f"^{'|'.join(part['enum'])}$"
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


def schema_text() -> str:
    """Return the schema as YAML."""
    schema = TITLE | schema_of(Experiment, described=True)
    head = "# Generated from brnf/config/sections by `python -m brnf.config.generate`.\n"
    return head + yaml.safe_dump(schema, sort_keys=False, default_flow_style=None, width=100)


def key_reference() -> str:
    """Return docs/configuration.md: every key with its default, what it may be, and its meaning."""
    lines = [
        "# Configuration",
        "",
        "Every key of an experiment, with its default and what it may be. A file of `config/`, or",
        "`--config` on the command line, holds what differs. Generated from `brnf/config/sections`",
        "by `python -m brnf.config.generate`.",
    ]
    schema = schema_of(Experiment, described=True)
    lines += _table("Top level", schema)
    return "\n".join(lines) + "\n"


def _table(title: str, schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    values = {key: part for key, part in schema["properties"].items() if "properties" not in part}
    if values:
        yield from (
            "",
            f"## {title}",
            "",
            "| key | default | may be | meaning |",
            "|---|---|---|---|",
        )
    for key, part in values.items():
        default = "required" if "default" not in part else f"`{_shown(part['default'])}`"
        yield f"| `{'.'.join((*path, key))}` | {default} | {allowed(part)} | {_cell(part)} |"
    for key, part in schema["properties"].items():
        if "properties" in part:
            yield from _table(f"Section {'.'.join((*path, key))}", part, (*path, key))


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _cell(part: Mapping[str, Any]) -> str:
    return str(part.get("description", "")).replace("|", "\\|")


def allowed(part: Mapping[str, Any]) -> str:
    """Say in a few words which values a key may have."""
    kinds = [part["type"]] if isinstance(part.get("type"), str) else list(part.get("type", ()))
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = " and ".join(f"{sign} {part[word]}" for word, sign in signs.items() if word in part)
    words = {"array": "list", "object": "mapping", "string": "text", "boolean": "true, false"}
    named = [words.get(kind, kind) for kind in kinds]
    if "string" in kinds and "number" in kinds:
        named = ["number", "`auto`"]
    return " ".join(filter(None, (" or ".join(named), bounds)))


def main() -> None:
    """Write both files."""
    SCHEMA.write_text(schema_text())
    REFERENCE.write_text(key_reference())


if __name__ == "__main__":
    main()
