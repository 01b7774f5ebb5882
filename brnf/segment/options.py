"""Hand the flat options of a stage to the parts that it is made of."""

from dataclasses import fields
from typing import Any, TypeVar

__all__ = ["part_of"]

Kind = TypeVar("Kind")


def part_of(options: Any, kind: type[Kind]) -> Kind:
    """Return the fields of a stage's options that a dataclass ``kind`` declares, as one of it.

    Arguments:
        options: a dataclass whose fields include all of ``kind``, under the same names.
        kind: the dataclass to make.
    """
    return kind(**{field.name: getattr(options, field.name) for field in fields(kind)})  # type: ignore[arg-type]
