"""What follows from the sections: the schema, and the key reference.

``python -m brnf.config.generate`` writes workflow/schemas/config.schema.yaml, by which editors
complete and check configurations, and docs/configuration.md; a test compares both.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from brnf.config.fields import schema_of
from brnf.config.sections.experiment import Experiment

__all__ = ["REFERENCE", "SCHEMA", "key_reference", "load_schema", "schema_text"]

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
REFERENCE = ROOT / "docs" / "configuration.md"
TITLE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Configuration of one experiment",
    "description": "A file of config/ needs to hold only what differs from the defaults.",
}


@cache
def load_schema() -> dict[str, Any]:
    """Return the schema of an experiment; its callers must not change it."""
    return schema_of(Experiment)


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
