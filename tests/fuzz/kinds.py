"""The kinds of files: what is valid, how it is spoilt or changed, how the package reads it."""

from pathlib import Path

from tests.fuzz.arrays import array_kinds
from tests.fuzz.coco import coco_kinds
from tests.fuzz.meant_layouts import layout_kinds
from tests.fuzz.meant_masks import mask_kinds
from tests.fuzz.meant_numbers import number_kinds
from tests.fuzz.meant_photographs import photograph_kinds
from tests.fuzz.meant_tables import table_kinds
from tests.fuzz.pictures import picture_kinds
from tests.fuzz.runner import Kind
from tests.fuzz.stores import store_kinds
from tests.fuzz.texts import text_kinds

__all__ = ["make_kinds"]


def make_kinds(folder: Path) -> list[Kind]:
    """Return all kinds; files that several cases share are made in ``folder``."""
    folder.mkdir(parents=True)
    return [
        *picture_kinds(),
        *text_kinds(folder),
        *coco_kinds(),
        *array_kinds(),
        *store_kinds(folder),
        *mask_kinds(),
        *table_kinds(),
        *photograph_kinds(),
        *layout_kinds(),
        *number_kinds(),
    ]
