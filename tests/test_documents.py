"""Documents and sections that are cited exist, and lines of text have at most 100 columns."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CITED = re.compile(
    r"(?<![\w*<>/.-])((?:docs/)?[\w-]+\.md)\b(?:`{1,2}|\))?,? ?(?:sections? ((?:\d+(?:, | and "
    r"|\.\.)?)+))?"
)
TABLES = {"summary.md", "results.md", "seeds.md"}
"""Files that the workflow writes into results/; docs/results.md is cited with its folder."""


COLUMNS = 100
UNBROKEN = {"workflow/schemas/config.schema.yaml", "brnf/evaluate/report.html.j2"}
"""Files whose lines may be longer: the second is printed as it stands into every report."""


def tracked_files() -> Iterator[Path]:
    """Yield the files that git knows, and those that it would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.fail(f"git does not list the files of {ROOT}: {listed.stderr}")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            yield ROOT / name


def tracked_texts() -> Iterator[tuple[Path, str]]:
    """Yield the files that may cite a document, with their texts."""
    for path in tracked_files():
        kind = path.suffix in {".py", ".smk", ".yaml", ".md", ".toml", ".j2"}
        if kind or path.name in {"Makefile", "Snakefile"}:
            yield path, path.read_text(encoding="utf-8")


def citations(text: str) -> Iterator[tuple[str, list[int]]]:
    """Yield each document that a text names, and the numbers of the sections that it cites."""
    for match in CITED.finditer(text):
        yield match[1], [int(number) for number in re.findall(r"\d+", match[2] or "")]


def sections(document: Path) -> set[int]:
    """Return the numbers of a document's sections, ``## 3 Base seeds``."""
    return {int(number) for number in re.findall(r"^## (\d+) ", document.read_text(), re.MULTILINE)}


def test_a_citation_is_found_in_every_form() -> None:
    text = (
        "docs/a.md section 2; `b.md` sections 3 and 4; ``docs/c.md`` section 5) x.md.j2 [d](d.md)"
    )
    found = list(citations(text))
    assert found[:3] == [("docs/a.md", [2]), ("b.md", [3, 4]), ("docs/c.md", [5])]
    assert found[-1] == ("d.md", [])


def faults(path: Path, text: str) -> Iterator[str]:
    """Yield what a file cites in vain; tests may name files that they write themselves."""
    place = path.relative_to(ROOT)
    for name, numbers in citations(text):
        candidates = [ROOT / name, ROOT / "docs" / name, path.parent / name]
        document = next((candidate for candidate in candidates if candidate.is_file()), None)
        if document is not None:
            missing = set(numbers) - sections(document)
            yield from (f"{place}: {name} has no section {number}" for number in missing)
        elif name not in TABLES and (name.startswith("docs/") or place.parts[0] != "tests"):
            yield f"{place}: {name} does not exist"


def test_every_document_and_section_that_is_named_exists() -> None:
    texts = [(path, text) for path, text in tracked_texts() if path != Path(__file__)]
    assert [fault for path, text in texts for fault in faults(path, text)] == []


def test_a_citation_in_vain_is_found() -> None:
    found = list(faults(ROOT / "brnf" / "errors.py", "docs/method.md section 99, docs/no.md"))
    assert found == [
        "brnf/errors.py: docs/method.md has no section 99",
        "brnf/errors.py: docs/no.md does not exist",
    ]


def test_the_code_cites_the_method_by_its_place() -> None:
    wrong = []
    for path, text in tracked_texts():
        inside = path.parent == ROOT / "docs" or path == Path(__file__)
        if not inside and re.search(r"(?<!docs/)\bmethod\.md", text):
            wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


def test_every_mark_of_origin_stands_where_its_legend_is_named() -> None:
    legend = (ROOT / "docs" / "method.md").read_text()
    assert all(f"| [{mark}] |" in legend for mark in "PBD")


def long_lines(name: str, text: str) -> Iterator[str]:
    """Yield the lines of a text that are too long, without those that cannot be broken.

    Rows of Markdown's tables, links, pragmas for mypy, and what a program printed: a fence of
    Markdown that names no language.
    """
    printed = fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if name.endswith(".md") and line.startswith("```"):
            fenced, printed = not fenced, not fenced and line == "```"
        row = name.endswith(".md") and (printed or line.startswith("|"))
        if len(line) > COLUMNS and not row and not re.search(r"https?://|# type: ignore", line):
            yield f"{name}:{number}: {len(line)} columns"


def test_no_line_is_longer_than_100_columns() -> None:
    found = []
    for path in tracked_files():
        name = str(path.relative_to(ROOT))
        if path.suffix != ".csv" and name not in UNBROKEN:
            with contextlib.suppress(UnicodeDecodeError):  # a picture, an archive
                found += long_lines(name, path.read_text(encoding="utf-8"))
    assert found == []


def test_a_long_line_is_found_where_it_can_be_broken() -> None:
    long = "a " * 51
    text = f"{long}\n| {long}|\n```\n{long}\n```\n```bash\n{long}\n```\n{long}\nhttps://{long}\n"
    assert [fault.split(":")[1] for fault in long_lines("a.md", text)] == ["1", "7", "9"]
    assert [fault.split(":")[1] for fault in long_lines("a.yaml", f"| {long}")] == ["1"]
