"""Types of values with bounds."""

from typing import Annotated, Literal, TypeVar

from msgspec import Meta

UNIQUE = Meta(extra_json_schema={"uniqueItems": True})
"""No value of a list comes twice."""
SOME = Meta(min_length=1)
"""A list is not empty."""

Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=16)]
"""Pixels of the side of an image or a crop."""
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
BelowOne = Annotated[float, Meta(ge=0, lt=1)]
Momentum = BelowOne
Share = Annotated[float, Meta(ge=0, le=1)]
Probability = Annotated[float, Meta(gt=0, lt=1)]
"""Neither 0 nor 1."""

# The end is written $(?!\n): in Python $ alone matches before a last line break, too, and \Z means
# nothing to the editors that read the schema.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$(?!\n)")]
"""Of an experiment or a model: a folder's name that no shell takes for anything else."""
Word = Annotated[str, Meta(pattern=r"^[^-]")]
"""Of a list: with - in front it would be a flag."""
Folder = Annotated[str, Meta(pattern=r"^[^-{}][^{}]*$(?!\n)")]
"""That stands among the files of a rule, where Snakemake takes braces for something else."""
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""In which a network computes; losses, flows and maps are float32 whatever it is."""
SplitName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]+$(?!\n)")]

Value = TypeVar("Value")
Distinct = Annotated[tuple[Value, ...], UNIQUE]
SomeDistinct = Annotated[tuple[Value, ...], SOME, UNIQUE]
