"""At most so many images of each split."""

from collections import Counter
from pathlib import Path

import pytest

from brnf.config.sections.data import IndexedImages
from brnf.data.entries import Entry, Listing
from brnf.data.index import Index
from brnf.data.limit import limited
from brnf.engine.runtime import Runtime
from brnf.stages.index_images import Inputs, Options, Outputs, run

CLASSES = ("cat", "dog", "cow")


def entry(name: str, labels: str | None, *splits: str) -> Entry:
    found = None if labels is None else frozenset(labels.split())
    return Entry(name, f"{name}.jpg", found, splits, None, None)


def listing(*entries: Entry, splits: tuple[str, ...] = ("train",)) -> Listing:
    ordered = tuple(sorted(entries, key=lambda one: one.id))
    return Listing(CLASSES, (1, 2, 3), splits, ordered, (), Path())


def ids(chosen: Listing, split: str) -> set[str]:
    return {one.id for one in chosen.entries if split in one.splits}


def test_classes_take_turns_until_the_limit() -> None:
    rare = (entry("x", "cow", "train"), entry("y", "dog", "train"))
    whole = listing(*(entry(f"c{i}", "cat", "train") for i in range(50)), *rare)
    for limit in (3, 5):
        chosen = limited(whole, limit)
        assert len(chosen.entries) == limit and {"x", "y"} < ids(chosen, "train")
    plenty = [entry(f"{name}{i}", name, "train") for name in CLASSES for i in range(9)]
    counts = Counter(next(iter(one.labels or ())) for one in limited(listing(*plenty), 6).entries)
    assert counts == {"cat": 2, "dog": 2, "cow": 2}


def test_the_choice_is_fixed_sorted_and_never_more_than_there_is() -> None:
    whole = listing(*(entry(f"c{i}", "cat", "train") for i in range(50)))
    chosen = limited(whole, 4)
    assert chosen == limited(whole, 4) and chosen.entries == tuple(
        one for one in whole.entries if one in chosen.entries
    )
    assert ids(chosen, "train") < ids(limited(whole, 5), "train")
    assert ids(chosen, "train") != {one.id for one in whole.entries[:4]}  # not the first ones
    assert limited(whole, 50) == whole and limited(whole, 99) == whole


def test_negative_images_take_turns_like_a_class() -> None:
    images = [entry(f"{i}", "dog" if i % 9 else "", "train") for i in range(45)]
    chosen = limited(listing(*images), 4).entries
    assert Counter(bool(one.labels) for one in chosen) == {True: 2, False: 2}


def test_images_of_unknown_labels_come_last() -> None:
    whole = listing(
        entry("a", None, "train"), entry("b", None, "train"), entry("c", "dog", "train")
    )
    assert ids(limited(whole, 1), "train") == {"c"}
    assert len(limited(whole, 2).entries) == 2


def test_a_split_stays_within_the_one_that_holds_it_and_none_exceeds_the_limit() -> None:
    entries = [entry(f"a{i}", "cat", "train", "train_aug") for i in range(20)]
    entries += [entry(f"b{i}", "dog", "train_aug") for i in range(200)]
    entries += [entry(f"v{i}", "dog", "val", "train_aug") for i in range(10)]
    chosen = limited(listing(*entries, splits=("train_aug", "train", "val")), 8)
    assert [len(ids(chosen, split)) for split in ("train", "val", "train_aug")] == [8, 8, 8]
    inside = ids(limited(listing(*entries, splits=("train_aug", "train")), 30), "train_aug")
    assert {f"a{i}" for i in range(20)} < inside and len(inside) == 30


@pytest.mark.parametrize("limit", [1, None])
def test_the_index_obeys(voc_tree: Path, tmp_path: Path, limit: int | None) -> None:
    options = Options(IndexedImages(limit=limit))
    run(Inputs(voc_tree), Outputs(tmp_path / "index"), options, Runtime(progress="none"))
    found = {
        split: {image.id for image in Index.of_split(tmp_path / "index", split).images}
        for split in ("train", "train_aug", "val")
    }
    assert found["train"] <= found["train_aug"]
    assert all(len(images) == 1 for images in found.values()) == (limit == 1)
    assert ("At most 1 of each" in (tmp_path / "index" / "summary.md").read_text()) == (limit == 1)
