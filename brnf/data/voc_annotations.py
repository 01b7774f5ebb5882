"""Annotations in VOC's XML: which objects an image shows."""

from collections import Counter
from pathlib import Path
from xml.parsers import expat

from brnf.data.entries import is_file, is_no_class
from brnf.data.labels import spelling, tidy
from brnf.errors import UserError

__all__ = ["read_labels", "read_object_names"]


def read_labels(path: Path, classes: tuple[str, ...], written: Counter[str]) -> frozenset[str]:
    """Return the classes that an annotation names.

    Arguments:
        path: the annotation.
        classes: that there are.
        written: counts names in another spelling.

    Raises:
        UserError: the file is missing or damaged, or names an unknown class.
    """
    exact = {tidy(name): name for name in classes}
    alike = {spelling(name): name for name in classes}
    labels = set()
    for name in map(tidy, read_object_names(path)):
        label = exact.get(name) or alike.get(spelling(name))
        if label is None and not is_no_class(name):
            raise UserError(
                f"{path}: unknown class '{name}'; the data set has: {', '.join(classes)}; name all "
                "classes of an own data set in dataset.classes, in the order of their mask values"
            )
        if label is not None:
            labels.add(label)
            written.update([f"'{name}' ({label})"] if name not in exact else [])
    return frozenset(labels)


def read_object_names(path: Path) -> set[str]:
    """Return the names of the objects in a VOC annotation (not those of their parts).

    Document types and entities are refused: an annotation needs none, and they can blow up a
        parser.

    Raises:
        UserError: the file is missing or damaged.
    """
    names: set[str] = set()
    open_tags: list[str] = []
    text: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        open_tags.append(tag)
        text.clear()

    def end(_: str) -> None:
        if open_tags == ["annotation", "object", "name"]:
            names.add(" ".join("".join(text).split()))
        open_tags.pop()

    def refuse(*_: object) -> None:
        raise UserError(
            f"{path}: an annotation with a document type is not read; remove its <!DOCTYPE ...>"
        )

    if not is_file(path):
        raise UserError(f"{path}: annotation is missing; restore it or take the image off the list")
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = (
        start,
        end,
        text.append,
    )
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        raise UserError(f"{path}: annotation cannot be read ({error}); restore the file") from error
    return names
