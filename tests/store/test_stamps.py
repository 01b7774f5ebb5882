"""What a product holds, and whether it still does."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from brnf.store.stamps import (
    Stamp,
    compare,
    content_of,
    digest_of,
    read_stamp,
    refresh,
    stamp_file,
    unchanged,
    write_stamp,
)


@pytest.fixture(params=["file", "folder"])
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "product"
    if request.param == "file":
        path.write_bytes(b"four")
        return path
    (path / "deep").mkdir(parents=True)
    (path / "a.png").write_bytes(b"four")
    (path / "deep" / "b.png").write_bytes(b"more")
    return path


def first_file(product: Path) -> Path:
    return product if product.is_file() else product / "a.png"


def rewritten(text: bytes) -> Callable[[Path], None]:
    def change(product: Path) -> None:
        first_file(product).write_bytes(text)
        os.utime(first_file(product), ns=(1, 1))

    return change


def replaced(product: Path) -> None:
    file = first_file(product)
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "change",
    [rewritten(b""), rewritten(b"five"), rewritten(b"longer"), replaced],
    ids=["emptied", "other bytes", "more bytes", "a folder in its place"],
)
def test_damage_is_seen(product: Path, change: Callable[[Path], None]) -> None:
    content = content_of(product)
    assert unchanged(product, content)
    change(product)
    assert not unchanged(product, content)


def test_names_and_missing_files_count(product: Path) -> None:
    content = content_of(product)
    first_file(product).rename(first_file(product).with_name("other"))
    assert not unchanged(product, content)


def test_a_touched_or_copied_product_is_read_and_found_unchanged(product: Path) -> None:
    content, before = content_of(product), first_file(product).stat()
    os.utime(first_file(product), ns=(5, 5))
    asked: list[Path] = []

    def digest(path: Path) -> str:
        asked.append(path)
        return digest_of(path)

    assert compare(product, content, digest) == "touched" and asked == [product]
    os.utime(first_file(product), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert compare(product, content, digest) == "same" and asked == [product]


def test_a_stamp_takes_new_times_but_no_other_size(product: Path) -> None:
    write_stamp(product, Stamp("stage", {}, "code", content=content_of(product)))
    os.utime(first_file(product), ns=(5, 5))
    refresh(product)
    stamp = read_stamp(product)
    assert stamp and stamp.content and compare(product, stamp.content) == "same"
    first_file(product).write_bytes(b"longer")
    refresh(product)
    assert read_stamp(product) == stamp and not unchanged(product, stamp.content)


def test_a_stamp_comes_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    product = tmp_path / "flow.pt"
    product.write_bytes(b"weights")
    stamp = Stamp("train_flow", {"seed": ["0"]}, "ab", {"x": "1"}, content=content_of(product))
    write_stamp(product, stamp)
    assert read_stamp(product) == stamp and stamp_file(product).name == ".flow.pt.stamp"
    whole = stamp_file(product).read_bytes()
    for damaged in (b"", whole[:-20], b"[]", b"\xff\xfe", b'{"stage": 3}'):
        stamp_file(product).write_bytes(damaged)
        assert read_stamp(product) is None
