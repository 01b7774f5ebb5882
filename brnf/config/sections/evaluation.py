"""What evaluations measure, and what figures show."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from brnf.config.sections.bounds import Count, Distinct, Probability, SomeDistinct

MapProduct = Literal["cam_classifier", "cam_prototype", "seeds", "seeds_bsdnf", "pseudo_labels"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What an evaluation measures."""

    thresholds: SomeDistinct[Probability] = (
        0.05,
        0.1,
        0.15,
        0.2,
        0.25,
        0.3,
        0.35,
        0.4,
        0.45,
        0.5,
        0.55,
        0.6,
    )
    """Background thresholds of the sweep."""
    recall: Annotated[float, Meta(gt=0, le=1)] = 0.7
    """Object recall at which the bias is read."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Scores):
    """Section evaluate."""

    val_products: Distinct[MapProduct] = ()
    """Products evaluated on the validation split, too."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Section figures."""

    images: Distinct[str] = ()
    """Ids of the example images; empty chooses some."""
    count: Count = 6
    """Number of example images."""
