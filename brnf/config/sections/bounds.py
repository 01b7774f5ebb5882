"""Types of values with bounds."""

from typing import Annotated, TypeVar

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

Value = TypeVar("Value")
Distinct = Annotated[tuple[Value, ...], UNIQUE]
SomeDistinct = Annotated[tuple[Value, ...], SOME, UNIQUE]
