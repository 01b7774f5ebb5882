"""What follows from the sections is as committed, and says all there is to say of a key."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from brnf.config.fields import schema_of
from brnf.config.generate import REFERENCE, SCHEMA, key_reference, schema_text
from brnf.config.sections.bounds import Positive, SomeDistinct


def test_the_committed_files_are_those_that_the_sections_give() -> None:
    hint = "run `python -m brnf.config.generate`"
    assert SCHEMA.read_text() == schema_text(), hint
    assert REFERENCE.read_text() == key_reference(), hint


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A section in a section."""

    rate: Positive = 0.5
    """How fast."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """All kinds of values."""

    name: str
    """Its name."""
    import_: Annotated[int, Meta(ge=1, le=3)] | None = None
    """Of
    two lines."""
    kind: Literal["a", "b"] = "b"
    """One of two."""
    auto: Positive | Literal["auto"] = "auto"
    """A number or a word."""
    scales: SomeDistinct[Positive] = (1.0,)
    """Some."""
    inner: Inner = Inner(rate=0.25)
    """With a default of its own."""


def test_a_section_gives_the_schema_that_one_would_write() -> None:
    assert schema_of(Outer, described=True) == {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "description": "Its name."},
            "import": {
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": 3,
                "default": None,
                "description": "Of two lines.",
            },
            "kind": {
                "type": "string",
                "enum": ["a", "b"],
                "default": "b",
                "description": "One of two.",
            },
            "auto": {
                "type": ["number", "string"],
                "exclusiveMinimum": 0,
                "pattern": r"^(auto)$(?!\n)",
                "default": "auto",
                "description": "A number or a word.",
            },
            "scales": {
                "type": "array",
                "items": {"type": "number", "exclusiveMinimum": 0},
                "minItems": 1,
                "uniqueItems": True,
                "default": [1.0],
                "description": "Some.",
            },
            "inner": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "rate": {
                        "type": "number",
                        "exclusiveMinimum": 0,
                        "default": 0.25,
                        "description": "How fast.",
                    }
                },
                "default": {},
                "description": "With a default of its own.",
            },
        },
    }
