"""A hash of the code that a stage runs, so that editing it reruns the stage and editing a comment does not."""

import ast
import hashlib
from functools import cache
from pathlib import Path

__all__ = ["fingerprint", "reached_modules"]

ROOT = Path(__file__).parents[2]


def fingerprint(module: str, root: Path = ROOT) -> str:
    """Hash the syntax trees, without docstrings and comments, of all package modules that a module reaches by its imports.

    A data file of the package, such as a template, counts when a reached module names it.

    Arguments:
        module: dotted name, such as ``brnf.stages.train_flow``.
        root: folder that holds the package.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    trees = {name: _tree(_file(name, root)) for name in reached_modules(module, root)}
    named = {
        node.value for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for name, tree in trees.items():
        digest.update(f"{name}\n{ast.unparse(tree)}\n".encode())
    for file in _data_files(root / module.split(".")[0]):
        if file.name in named:
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def reached_modules(module: str, root: Path = ROOT) -> list[str]:
    """Return the modules of the same package that importing and running ``module`` reads, itself included, sorted.

    Imports inside functions count; so do the ``__init__`` modules of all parent packages.
    """
    package = module.split(".")[0]
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        found = parents | {target for target in _imports(_file(name, root), name, root) if target.split(".")[0] == package}
        waiting |= found - reached
    return sorted(reached)


@cache
def _file(module: str, root: Path) -> Path:
    """Return the source of a module.

    Raises:
        FileNotFoundError: there is none.
    """
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(file: Path) -> ast.Module:
    """Parse a file and leave out all strings that stand alone: docstrings of modules, classes, functions and fields."""
    tree = ast.parse(file.read_text(), str(file))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_string(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_string(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


@cache
def _imports(file: Path, module: str, root: Path) -> frozenset[str]:
    """Return the dotted names of all modules that a file imports."""
    found: set[str] = set()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level > 0 else ""
            source = ".".join(filter(None, (above, node.module)))
            # a name taken from a package is a module of its own, or something that the package's __init__ defines
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names if _is_module(f"{source}.{alias.name}", root)}
    return frozenset(found)


@cache
def _is_module(name: str, root: Path) -> bool:
    return _file(name, root).is_file()


@cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")))
