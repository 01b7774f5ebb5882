"""Every kind of product of a finished run, damaged in every way: the next call sees it, and at most
two make the same bytes again. Run by ``make test-attacks``.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brnf.store.stamps import Stamp, digest_of, read_stamp, stamp_file

TINY = str(Path(__file__).parents[2] / "config" / "tiny.yaml")
WORDS = ("--configfile", TINY, "--config", "companions=null")
MAY_GO = "store_pixels"
"""Stage whose products may be removed when everything is made that reads them."""


@pytest.fixture(scope="module")
def whole(lasting_workflow: Any) -> Any:
    lasting_workflow(*WORDS)
    return lasting_workflow


def products(folder: Path) -> dict[str, tuple[Path, Stamp]]:
    """Return one product of each stage and ending."""
    found: dict[str, tuple[Path, Stamp]] = {}
    for file in sorted((folder / "results").rglob(".*.stamp")):
        product = file.with_name(file.name[1:].removesuffix(".stamp"))
        stamp = read_stamp(product)
        assert stamp and stamp.content, file
        found.setdefault(f"{stamp.stage}{product.suffix}", (product, stamp))
    return found


def some_file(product: Path) -> Path:
    """Return the product, or a file in it."""
    if product.is_file():
        return product
    return max((path for path in product.rglob("*") if path.is_file()), key=lambda path: path.name)


def files_of(index: Path) -> dict[str, str]:
    """Return a digest of each file of an index but its state, whose name tells of its past."""
    files = [path for path in index.rglob("*") if path.is_file() and path.name != "state.txt"]
    return {str(path.relative_to(index)): digest_of(path) for path in files}


def missing(product: Path) -> None:
    some_file(product).unlink()


def gone(product: Path) -> None:
    shutil.rmtree(product) if product.is_dir() else product.unlink()


def emptied(product: Path) -> None:
    os.truncate(some_file(product), 0)


def cut(product: Path) -> None:
    os.truncate(some_file(product), some_file(product).stat().st_size // 2)


def longer(product: Path) -> None:
    with some_file(product).open("ab") as file:
        file.write(b"\0")


def foreign(product: Path) -> None:
    shutil.copyfile(__file__, some_file(product))


def flipped(product: Path) -> None:
    file = some_file(product)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def other_kind(product: Path) -> None:
    if product.is_dir():
        shutil.rmtree(product)
        product.write_text("a file")
    else:
        product.unlink()
        product.mkdir()


def broken_link(product: Path) -> None:
    gone(product)
    product.symlink_to("nowhere")


def no_stamp(product: Path) -> None:
    stamp_file(product).unlink()


def empty_stamp(product: Path) -> None:
    stamp_file(product).write_bytes(b"")


pytestmark = pytest.mark.timeout(3600)

DAMAGES = (
    *(missing, gone, emptied, cut, longer, foreign, flipped, other_kind, broken_link),
    *(no_stamp, empty_stamp),
)
KINDS = (
    *("render_scenes", "index_images", "train_base.pt", "train_base.csv", "compute_cams.h5"),
    *("store_pixels.h5", "train_flow.pt", "train_flow.csv", "denoise_seeds.h5", "train_brnf.pt"),
    *("train_brnf.csv", "make_pseudo_labels", "make_pseudo_labels.h5", "train_segmentation.pt"),
    *(
        "train_segmentation.csv",
        "predict_segmentation",
        "predict_segmentation.h5",
        "predict_segmentation.csv",
    ),
    *("write_cam_model.pt", "write_segmentation_model.pt", "evaluate.json", "tabulate.csv"),
    *("tabulate.md", "draw.png", "report.html"),
)


def test_the_kinds_are_those_of_the_run(whole: Any) -> None:
    assert set(KINDS) == set(products(whole.folder))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_seen(
    whole: Any, tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    product, stamp = products(whole.folder)[kind]
    saved = tmp_path / "saved"
    for path in (product, stamp_file(product)):
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, saved.with_name(path.name))
    try:
        damage(product)
        if product.name == "history.csv":
            said = whole(*WORDS, "--dry-run")
            told = f"note: {product.relative_to(whole.folder)}: was changed after it was made; "
            assert told in said or damage is no_stamp
            return
        if damage is broken_link:
            said = whole(*WORDS, fails=True)
            assert f"error: {product.relative_to(whole.folder)}: is a link to nothing" in said
            return
        jobs = whole.jobs(*WORDS, "unstamped=remake")
        may_go = stamp.stage == MAY_GO and damage in (gone, missing)
        expected = None if may_go else stamp.stage
        assert expected is None or expected in jobs
        if damage is no_stamp:
            said = whole(*WORDS, fails=True)
            assert f"error: {product.relative_to(whole.folder)}: no stamp" in said
    finally:
        if product.is_symlink() or product.exists():
            shutil.rmtree(product) if product.is_dir() else product.unlink()
        for path in (product, stamp_file(product)):
            path.unlink(missing_ok=True) if not path.is_dir() else None
            shutil.move(saved.with_name(path.name), path)


def test_what_was_restored_is_whole(whole: Any) -> None:
    assert whole.jobs(*WORDS) == {}


@pytest.mark.parametrize("turn", range(len(DAMAGES)))
def test_everything_damaged_at_once_is_made_again_to_the_byte(
    whole: Any, tmp_path: Path, turn: int
) -> None:
    """Each kind of product has another damage in each turn."""
    copy = whole.elsewhere(tmp_path / "copy")
    shutil.copytree(whole.folder, copy.folder, symlinks=True)
    found = list(products(copy.folder).values())
    for place, (product, _) in enumerate(found):
        damage = DAMAGES[(place + turn) % len(DAMAGES)]
        if product.name != "history.csv" and damage is not broken_link:
            damage(product)
    copy(*WORDS, "unstamped=remake")
    if copy.jobs(*WORDS):
        copy(*WORDS)
    assert copy.jobs(*WORDS) == {}
    for product, stamp in found:
        if stamp.stage == "index_images":  # its state has another name after a change of the data
            one, other = map(files_of, (whole.folder / product.relative_to(copy.folder), product))
            assert one == other
        elif stamp.stage != "report":
            assert stamp.content and digest_of(product) == stamp.content.digest, product
