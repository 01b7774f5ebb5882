"""What evaluations measure, and what figures show."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from brnf.config.sections.bounds import Count, Distinct, Word

MapProduct = Literal["cam_classifier", "cam_prototype", "seeds", "seeds_bsdnf", "pseudo_labels"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What an evaluation measures."""

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

    images: Distinct[Word] = ()
    """Ids of the example images; empty chooses some."""
    count: Count = 6
    """Number of example images."""
    palette: Literal["voc", "safe"] = "voc"
    """Colours of classes in figures: VOC's, or some that colour-blind readers tell apart. Masks on
    disk keep VOC's.
    """
