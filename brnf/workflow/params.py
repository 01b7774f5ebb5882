"""From the configuration to the command line of a stage: exactly the keys that its options name."""

import ast
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from brnf.config.experiment import Experiment
from brnf.config.fields import key_of
from brnf.config.studies import BASE_MODELS, kind_of
from brnf.fingerprint import ROOT

__all__ = [
    "STAGES",
    "command_line",
    "input_names",
    "option_fields",
    "option_names",
    "stage_options",
]

STAGES = tuple(
    sorted(
        path.stem
        for path in (ROOT / "brnf" / "stages").glob("*.py")
        if not path.stem.startswith("_")
    )
)
"""Names of all stages."""
SECTIONS: dict[str, str] = {
    "clip_es": "base.clip_es",
    "tau": "flow.tau",
    "test": "segmentation.test",
    "scores": "evaluate",
}
"""Field of a stage's options -> section of the configuration, where they are not called alike."""


def stage_options(
    stage: str, experiment: Experiment, model: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a stage: from the configuration, or given by the rule.

    A field that is a section of the configuration becomes one option for each key that its class
    has, called ``<field>.<key>``.

    Arguments:
        stage: its name.
        experiment: supplies the sections.
        model: decides between both rounds of denoising and between the networks.
        given: options that the rule knows, such as ``seed`` and ``split``; those that the stage
            lacks are an error.

    Raises:
        LookupError: a given option does not exist.
    """
    found: dict[str, Any] = {}
    names: list[str] = []
    for name, kind in option_fields(stage).items():
        if kind is None:
            names.append(name)
            if name in experiment.settings:
                found[name] = experiment.settings[name]
            continue
        narrowed = _narrowed(_of_field(stage, name, experiment, model), kind)
        values = {f"{name}.{key}": value for key, value in narrowed}
        found |= values
        names += values
    unknown = set(given) - set(names)
    if unknown:
        raise LookupError(f"stage {stage} has no option {', '.join(sorted(unknown))}")
    return {
        name: given.get(name, found.get(name)) for name in names if name in given or name in found
    }


def _narrowed(section: Mapping[str, Any], kind: type) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of a section that a class of its keys has; nested ones with dots."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        value = section[key_of(field.name)]
        if is_dataclass(hints[field.name]):
            for key, nested in _narrowed(value, hints[field.name]):
                yield f"{field.name}.{key}", nested
        else:
            yield field.name, value


def _of_field(stage: str, name: str, experiment: Experiment, model: str) -> Mapping[str, Any]:
    """Return the section that a field of a stage's options is filled from."""
    if name == "base":
        return experiment.network(model if kind_of(model) in BASE_MODELS else "base")
    if name == "brnf":
        return experiment.network(model)
    if name == "bsdnf":
        part = "base" if kind_of(model) in BASE_MODELS else "final"
        return _section(f"bsdnf.{part}", experiment)
    if (stage, name) == ("train_brnf", "flow"):
        return experiment.online_flow(model)
    return _section(SECTIONS.get(name, name), experiment)


def _section(path: str, experiment: Experiment) -> Mapping[str, Any]:
    found = experiment.settings
    for key in path.split("."):
        found = found[key]
    return found


def command_line(options: Mapping[str, Any]) -> str:
    """Return options as words for a shell.

    >>> command_line({"tau_low": 0.3, "ccnf": True, "steps": None, "scales": [0.5, 1.0]})
    '--tau-low 0.3 --ccnf True --steps None --scales 0.5 1.0'
    >>> command_line({"root": "-rf", "names": ["a b"]})
    "--root=-rf --names 'a b'"
    """
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, list | tuple) else [value]
        quoted = [shlex.quote(str(word)) for word in values]
        if isinstance(value, str) and value.startswith("-"):
            words.append(f"{flag}={quoted[0]}")  # by itself it would be a flag
        else:
            words += [flag, *quoted]
    return " ".join(words)


def input_names(stage: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the fields of a stage's ``Inputs``, read from its source, if it has any."""
    try:
        return tuple(_fields(f"brnf.stages.{stage}", "Inputs", root))
    except LookupError:
        return ()


def option_names(stage: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the fields of a stage's ``Options``; see :func:`option_fields`."""
    return tuple(option_fields(stage, root))


@cache
def option_fields(stage: str, root: Path = ROOT) -> dict[str, type | None]:
    """Return the fields of a stage's ``Options``, inherited ones first.

    They are read from its source: to import a stage costs seconds, a section of the configuration
    nothing.

    Returns:
        For each field its class where that is a section of the configuration, else None.

    Raises:
        LookupError: the module has no such class.
    """
    return _fields(f"brnf.stages.{stage}", "Options", root)


def _fields(module: str, name: str, root: Path) -> dict[str, type | None]:
    """Return the fields of a dataclass; its bases are imported from the package."""
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    origin = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            found: dict[str, type | None] = {}
            for base in reversed(bases):
                found |= _fields(origin.get(base, module), base, root)
            for line in node.body:  # a field declared again keeps its place
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    found[line.target.id] = _section_class(line.annotation, origin)
            return found
    raise LookupError(f"{file}: no class {name}")


def _section_class(annotation: ast.expr, origin: Mapping[str, str]) -> type | None:
    """Return the section of the configuration that an annotation names, or None."""
    module = origin.get(annotation.id, "") if isinstance(annotation, ast.Name) else ""
    if not module.startswith("brnf.config.sections"):
        return None
    found = getattr(import_module(module), annotation.id)  # type: ignore[attr-defined]
    return found if isinstance(found, type) and is_dataclass(found) else None
