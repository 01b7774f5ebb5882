"""From the configuration to the command line of a stage: exactly the keys that its options name."""

import ast
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from brnf.config.experiment import Experiment
from brnf.config.studies import BASE_MODELS, kind_of
from brnf.fingerprint import ROOT

__all__ = ["SOURCES", "command_line", "option_names", "stage_options"]

SOURCES: dict[str, dict[str, str]] = {
    "render_scenes": {"scenes": ""},
    "download_archives": {},
    "index_images": {"": "", "dataset": ""},
    "draw_masks": {"dataset": ""},
    "train_base": {"": "", "backbone": "", "cam": "", "model": ""},
    "compute_cams": {"": "", "cam": ""},
    "import_maps": {"cam": ""},
    "compute_clip_maps": {"cam": "", "base.clip_es": ""},
    "export_maps": {},
    "store_pixels": {"": "", "cam": ""},
    "train_flow": {"flow": ""},
    "denoise_seeds": {"round": ""},
    "train_brnf": {
        "": "",
        "backbone": "",
        "cam": "",
        "model": "",
        "online": "flow_",
        "flow.tau": "tau_",
    },
    "make_pseudo_labels": {"pseudo_labels": ""},
    "make_boundary_labels": {"random_walk": ""},
    "train_boundaries": {"backbone": "", "random_walk": ""},
    "walk_pseudo_labels": {"cam": "", "random_walk": "", "pseudo_labels": ""},
    "train_segmentation": {"": "", "segmentation": ""},
    "predict_segmentation": {"": "", "segmentation.test": ""},
    "export_predictions": {},
    "evaluate": {"": "", "evaluate": ""},
    "tabulate": {"": ""},
    "compare_models": {},
    "sweep_denoising": {"": "", "round": ""},
    "tabulate_sweeps": {},
    "tabulate_comparison": {},
    "plan": {"": ""},
    "measure_scaling": {"flow": ""},
    "draw_studies": {},
    "draw": {"": "", "figures": ""},
    "report": {"": ""},
}
"""Sections of the configuration that a stage takes options from -> prefix of the option's name.

A section called ``""`` is the top level, ``round`` the section of bsdnf for the model, ``model``
the section of its network, ``online`` that of its online flow.
"""


def stage_options(
    stage: str, experiment: Experiment, model: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a stage: from the sections of the configuration that concern it, or
    given by the rule.

    Arguments:
        stage: its name.
        experiment: supplies the sections.
        model: decides between both rounds of denoising and between the networks.
        given: options that the rule knows, such as ``seed`` and ``split``; those that the stage
            lacks are an error.

    Raises:
        LookupError: a given option does not exist.
    """
    names = option_names(stage)
    unknown = set(given) - set(names)
    if unknown:
        raise LookupError(f"stage {stage} has no option {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {}
    for section, prefix in SOURCES[stage].items():
        found.update(_flat(_section(section, experiment, model), prefix, section))
    return {
        name: given.get(name, found.get(name)) for name in names if name in given or name in found
    }


def _section(section: str, experiment: Experiment, model: str) -> Mapping[str, Any]:
    settings = experiment.settings
    if section == "":
        return {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    if section == "model":
        return experiment.network(model)
    if section == "online":
        return experiment.online_flow(model)
    path = (
        f"bsdnf.{'base' if kind_of(model) in BASE_MODELS else 'final'}"
        if section == "round"
        else section
    )
    for key in path.split("."):
        settings = settings[key]
    return settings


def _flat(section: Mapping[str, Any], prefix: str, title: str) -> Iterator[tuple[str, Any]]:
    """Yield options and values; a key ``name`` is an option called like its section."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}_", key)
        else:
            yield f"{prefix}{title if key == 'name' else key}", value


def command_line(options: Mapping[str, Any]) -> str:
    """Return options as words for a shell.

    >>> command_line({"tau_low": 0.3, "ccnf": True, "steps": None, "scales": [0.5, 1.0]})
    '--tau-low 0.3 --ccnf True --steps None --scales 0.5 1.0'
    """
    words: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, list | tuple) else [value]
        words += [f"--{name.replace('_', '-')}", *(shlex.quote(str(word)) for word in values)]
    return " ".join(words)


@cache
def option_names(stage: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the fields of a stage's ``Options``, inherited ones first, read from its source
    without importing it.

    Raises:
        LookupError: the module has no such class.
    """
    return _fields(f"brnf.stages.{stage}", "Options", root)


def _fields(module: str, name: str, root: Path) -> tuple[str, ...]:
    """Return the fields of a dataclass in its order (the last base first); its bases are imported
    from the package.
    """
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text(), str(file))
    origin = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            inherited = [
                field
                for base in reversed(bases)
                for field in _fields(origin.get(base, module), base, root)
            ]
            own = [
                field.target.id
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            ]
            return tuple(
                dict.fromkeys((*inherited, *own))
            )  # a field declared again keeps its place
    raise LookupError(f"{file}: no class {name}")
