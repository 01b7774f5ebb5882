"""Class names as people type them: blanks and accents are made alike, doubtful ones are refused."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from brnf.errors import UserError
from brnf.store.label_type import MOST_CLASSES

__all__ = ["as_mask_values", "check_labels", "read_labels", "spelling", "tidy"]

MISSING = {"nan", "none", "null", "nil", "na", "n/a", "#n/a", "<na>", "-", "--", "?"}
ANSWERS = {"true", "false", "yes", "no"}
INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u201e": "\u201c", "\u00ab": "\u00bb"}
NUMBER = re.compile(r"[0-9]+(\.0*)?")
LISTED = re.compile(r"[\[\](){},]")
"""Marks of a list that other programs wrote as text."""
BETWEEN = re.compile(r"[\s/,+&_-]+")
MOST_WORDS = 8
"""Of a label that another one may hold."""
REMEDY = "or name all classes in dataset.classes"


def tidy(text: str) -> str:
    """Return a name composed (NFC), without invisible characters and the quotes around it, with
    single blanks.

    >>> tidy(' "polar  bear" ')
    'polar bear'
    """
    text = INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    text = re.sub(r"[^\S\r\n]+", " ", text).strip()
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def spelling(name: str) -> str:
    """Return what names share that differ in capitals, width, or in what stands between words.

    >>> spelling("Polar_Bear") == spelling("polar-bear")
    True
    """
    name = unicodedata.normalize("NFKC", tidy(name)).casefold()
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name)


def read_labels(cell: str, classes: Sequence[str] = ()) -> list[str]:
    """Return the labels of a cell, which ``;`` or ``|`` separate.

    Arguments:
        cell: as it was typed.
        classes: that there are; empty if any name may be one.

    Raises:
        UserError: a label is none of the classes; or, where any name may be one, it looks like a
            missing value, an answer or a list.
    """
    labels = [label for part in re.split(r"[;|]", cell) if (label := tidy(part))]
    if unprintable := [label for label in labels if not label.isprintable()]:
        raise UserError(f"label {unprintable[0]!r} holds control characters; write it without them")
    if not classes:
        for label in labels:
            _check_label(label)
        return list(dict.fromkeys(labels))
    known = _by_spelling(tuple(classes))
    if unknown := [label for label in labels if label not in known]:
        alike = [name for name in classes if spelling(name) == spelling(unknown[0])]
        hint = f", which has '{alike[0]}'" if alike else ""
        raise UserError(
            f"label '{unknown[0]}' is not in dataset.classes{hint}; add it there or correct the row"
        )
    return list(dict.fromkeys(known[label] for label in labels))


@lru_cache
def _by_spelling(classes: tuple[str, ...]) -> dict[str, str]:
    """Return the classes by what is compared with a label, once for all rows of a table."""
    return {tidy(name): name for name in classes}


def _check_label(label: str) -> None:
    if label.casefold() in MISSING:
        raise UserError(
            f"label '{label}' looks like a missing value; leave the cell empty where no class is "
            f"shown, {REMEDY}"
        )
    if label.casefold() in ANSWERS:
        raise UserError(
            f"label '{label}' is an answer; write the name of the class, and nothing where it is "
            f"not shown, {REMEDY}"
        )
    if label[0] in QUOTES or label[-1] in QUOTES.values() or LISTED.search(label):
        raise UserError(f"label '{label}' looks like a list; separate several labels by ; {REMEDY}")


def check_labels(places: Mapping[str, str]) -> None:
    """Refuse labels that are likely others, written in another way.

    Arguments:
        places: each label and where it was seen first.

    Raises:
        UserError: names both labels.
    """
    alike: dict[str, str] = {}
    words = {_words(label): label for label in places}
    for label, place in places.items():
        other = alike.setdefault(spelling(label), label)
        if other != label:
            raise UserError(
                f"{place}: label '{label}' differs in spelling only from '{other}' of "
                f"{places[other]}; write one of them, {REMEDY}"
            )
        if len(parts := _parts(label, words)) > 1:
            raise UserError(
                f"{place}: label '{label}' consists of the labels {' and '.join(parts)}; separate "
                f"several labels by ; {REMEDY}"
            )


def _words(label: str) -> tuple[str, ...]:
    return tuple(word for word in BETWEEN.split(label.casefold()) if word)


def _parts(label: str, labels: Mapping[tuple[str, ...], str]) -> list[str]:
    """Return the other labels that a label consists of, also with ``and`` between them, or none.

    Arguments:
        label: to take apart.
        labels: all of them by their words.
    """
    words = _words(label)
    parts: list[list[str] | None] = [[], *[None] * len(words)]
    for end in range(1, len(words) + 1):
        for start in range(max(end - MOST_WORDS, 0), end):
            before, other = parts[start], labels.get(words[start:end])
            if before is not None and other not in (None, label):
                parts[end] = [*before, str(other)]
            elif before and words[start:end] == ("and",) and end < len(words):
                parts[end] = before
    return parts[-1] or []


def as_mask_values(labels: Mapping[str, str]) -> dict[str, int] | None:
    """Return the value that each label has in masks where all labels are numbers, else None.

    Arguments:
        labels: each label and where it was seen first.

    Raises:
        UserError: a number cannot be the value of a class, or two labels are the same number.
    """
    if not labels or not all(NUMBER.fullmatch(label) for label in labels):
        return None
    values = {label: int(float(label)) for label in labels}
    times = Counter(values.values())
    for label, value in values.items():
        if not 1 <= value <= MOST_CLASSES or times[value] > 1:
            raise UserError(
                f"{labels[label]}: label '{label}': numbers are taken for the values 1 to "
                f"{MOST_CLASSES} in masks, each written in one way; correct it, {REMEDY}"
            )
    return dict(sorted(values.items(), key=lambda item: item[1]))
