"""A hash of the code that a stage runs, so that editing it reruns the stage and editing a comment
does not.
"""

import ast
import atexit
import hashlib
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from brnf.cache import read_cache, write_cache

__all__ = ["fingerprint", "imported_modules", "keep_fingerprints", "reached_modules"]

ROOT = Path(__file__).parents[1]
KEPT = Path(".snakemake", "brnf_fingerprints.json")
"""Fingerprints of the package as it was at the last call, in the folder that Snakemake runs in: to
parse it all takes half a second.
"""


def fingerprint(module: str, root: Path = ROOT) -> str:
    """Hash the syntax trees, without docstrings and comments, of all package modules that a module
    reaches by its imports.

    A data file of the package, such as a template, counts when it lies in the folder of a reached
    module and one of them holds its name as a string. As long as no file of the package changes,
    fingerprints of earlier calls and of other processes are taken over.

    Arguments:
        module: dotted name, such as ``brnf.stages.train_flow``.
        root: folder that holds the package.

    Returns:
        16 hexadecimal digits.
    """
    package = root / module.split(".")[0]
    known = _known(package)
    if module not in known:
        known[module] = _computed(module, root)
    return known[module]


@cache
def _known(package: Path) -> dict[str, str]:
    """Return the fingerprints that were kept for exactly these files, and keep what is added to
    them when the process ends.
    """
    sources = hashlib.sha256(sys.version.encode())
    for path in sorted(
        file for file in package.rglob("*") if file.is_file() and file.suffix != ".pyc"
    ):
        sources.update(
            (
                f"{path.relative_to(package)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
            ).encode()
        )
    known: dict[str, str] = {}
    with suppress(TypeError, ValueError):  # damaged
        known = dict(read_cache(KEPT).get(sources.hexdigest(), {}))
    KNOWN.append(_Known(KEPT.absolute(), sources.hexdigest(), known, len(known)))
    return known


@dataclass
class _Known:
    """Fingerprints for some sources, and how many of them the file holds."""

    path: Path
    sources: str
    fingerprints: dict[str, str]
    written: int


KNOWN: list[_Known] = []


@atexit.register
def keep_fingerprints() -> None:
    """Write the fingerprints that were computed, for later calls and for other processes."""
    for known in KNOWN:
        if len(known.fingerprints) > known.written:
            write_cache(known.path, {known.sources: known.fingerprints})
            known.written = len(known.fingerprints)


def _computed(module: str, root: Path) -> str:
    """Compute a fingerprint; see :func:`fingerprint`."""
    digest = hashlib.sha256()
    named: set[str] = set()
    folders: set[Path] = set()
    for name in reached_modules(module, root):
        file = _file(name, root)
        found = _read(file, name, root)
        digest.update(f"{name} {found.digest}\n".encode())
        named |= found.strings
        folders.add(file.parent)
    for path in _data_files(root / module.split(".")[0]):
        if path.name in named and path.parent in folders:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def reached_modules(module: str, root: Path = ROOT) -> list[str]:
    """Return the modules of the same package that importing and running ``module`` reads, itself
    included, sorted.

    Imports inside functions count; so do the ``__init__`` modules of all parent packages.
    """
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        waiting |= (parents | imported_modules(name, root)) - reached
    return sorted(reached)


def imported_modules(module: str, root: Path = ROOT) -> set[str]:
    """Return the modules of the same package that a module itself imports, in functions too."""
    package = module.split(".")[0]
    imports = _read(_file(module, root), module, root).imports
    return {target for target in imports if target.split(".")[0] == package}


@cache
def _file(module: str, root: Path) -> Path:
    """Return the source of a module.

    Raises:
        FileNotFoundError: there is none.
    """
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@dataclass(frozen=True)
class _Module:
    """What a file holds: a hash of its syntax tree, the dotted names of all modules that it
    imports, and its strings.
    """

    digest: str
    imports: frozenset[str]
    strings: frozenset[str]


@cache
def _read(file: Path, module: str, root: Path) -> _Module:
    """Parse a file and leave out all strings that stand alone: docstrings of modules, classes,
    functions and fields.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    imports: set[str] = set()
    strings: set[str] = set()
    alone: set[ast.AST] = set()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    typing_only = {
        inner
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for line in block.body
        for inner in ast.walk(line)
    }  # their imports never run
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            alone |= {line.value for line in body if _is_string(line)}
            node.body = [line for line in body if not _is_string(line)] or [ast.Pass()]  # type: ignore[attr-defined]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in alone:
            strings.add(node.value)
        elif node in typing_only:
            continue
        elif isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level > 0 else ""
            source = ".".join(filter(None, (above, node.module)))
            # a name taken from a package is a module of its own, or something that the package's
            # __init__ defines
            imports |= {source} | {
                f"{source}.{alias.name}"
                for alias in node.names
                if _is_module(f"{source}.{alias.name}", root)
            }
    return _Module(
        hashlib.sha256(ast.unparse(tree).encode()).hexdigest(),
        frozenset(imports),
        frozenset(strings),
    )


def _is_string(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


@cache
def _is_module(name: str, root: Path) -> bool:
    return _file(name, root).is_file()


@cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    return tuple(
        sorted(
            file
            for file in folder.rglob("*")
            if file.is_file() and file.suffix not in (".py", ".pyc")
        )
    )
