"""Which protocol an experiment follows: what differs from the paper's setting, key by key."""

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from brnf.config.generate import load_schema
from brnf.config.schema import complete, leaves, merged, reread
from brnf.shipped import CONFIG
from brnf.weights import WEIGHTS_OF, same_weights

__all__ = [
    "NOT_COMPARED",
    "Difference",
    "compared_keys",
    "differences",
    "false_claim",
    "paper_files",
    "protocol_of",
]

NOT_COMPARED = (
    # how results are called, and of what there are some
    *(
        "name",
        "protocol",
        "random_seeds",
        "models",
        "variants",
        "products",
        "model_products",
        "companions",
        "figures.*",
    ),
    *("dataset.test", "evaluate.val_products", "*.save_probabilities"),
    # where data are, and how they get there; dataset.kind is compared
    *("dataset.root", "dataset.table", "dataset.verify", "download.*", "scenes.*"),
    # how the work is done
    *(
        "shards",
        "keep_features",
        "device",
        "devices",
        "unstamped",
        "other_versions",
        "workers",
        "threads",
        "progress",
        "checkpoint_seconds",
        "deterministic",
        "tensorboard",
    ),
)
"""Patterns of keys on which no number of ``base`` and ``brnf`` depends; all others are compared."""
MAP_STRIDE = ("cam", "map_stride")
CLIP_WEIGHTS = "base.clip_es.weights"
MISSING = object()


@dataclass(frozen=True)
class Difference:
    """A key that has another value than in the paper's setting."""

    key: str
    paper: Any
    here: Any


def paper_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the files, relative to ``config``, that are the paper's setting for data and base.

    Where the paper has no such setting, for other data or maps from elsewhere, it is that of SIPE
    on VOC.

    Arguments:
        settings: of an experiment; may lack sections.
    """
    kind, method = (_at(settings, path) for path in (("dataset", "kind"), ("base", "method")))
    coco = kind == "coco"
    first = "coco14.yaml" if coco else "voc12.yaml"
    bases = {"sfc": "bases/sfc.yaml", "clip_es": f"bases/clip_es{'_coco' if coco else ''}.yaml"}
    return (first, bases[method]) if method in ("sfc", "clip_es") else (first,)


def compared_keys() -> Iterator[tuple[str, ...]]:
    """Yield the paths of the keys that decide about the protocol, in the schema's order."""
    for path, _ in leaves(load_schema()):
        if not any(fnmatch.fnmatchcase(".".join(path), pattern) for pattern in NOT_COMPARED):
            yield path


def differences(settings: Mapping[str, Any]) -> list[Difference]:
    """Return every compared key whose value is not the paper's, in the schema's order.

    A file of weights that was published as the tag of the paper's setting is no difference, nor are
    maps of more pixels than a file of ``config`` keeps.

    Arguments:
        settings: of an experiment; a key that is missing has the paper's value.
    """
    paper = _paper(paper_files(settings))
    found = []
    for path in compared_keys():
        here, there = _at(settings, path), _at(paper, path)
        if here is MISSING or here == there or _is_file_of(path, here, there, paper):
            continue
        if path != MAP_STRIDE or here > there:
            found.append(Difference(".".join(path), there, here))
    return found


def protocol_of(settings: Mapping[str, Any]) -> str:
    """Return what stands beside every number: the configuration's label, or what ``auto`` finds.

    Rendered scenes are ``scenes``, what differs in no compared key ``paper``, all else ``bench``.

    Arguments:
        settings: all keys of an experiment.
    """
    if settings["protocol"] != "auto":
        return str(settings["protocol"])
    if settings["dataset"]["kind"] == "scenes":
        return "scenes"
    return "bench" if differences(settings) else "paper"


def false_claim(settings: Mapping[str, Any]) -> str | None:
    """Say in one line why an experiment cannot have the label that it is given, or return None.

    Arguments:
        settings: all keys of an experiment.
    """
    label, kind = settings["protocol"], settings["dataset"]["kind"]
    if label == "scenes" and kind != "scenes":
        return f"is scenes, but dataset.kind is {kind}; set it to auto"
    if label != "paper" or not (differing := differences(settings)):
        return None
    names = [difference.key for difference in differing]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    keys = "1 key differs" if len(names) == 1 else f"{len(names)} keys differ"
    reference = " + ".join(paper_files(settings))
    return (
        f"is paper, but {keys} from the paper's setting (config/{reference}): {shown};"
        " set it to auto"
    )


@cache
def _paper(files: tuple[str, ...]) -> dict[str, Any]:
    """Return the completed settings of files of ``config``, which callers must not change."""
    settings: dict[str, Any] = {}
    for file in files:
        settings = merged(settings, yaml.safe_load((CONFIG / file).read_text()))
    schema = load_schema()
    return complete(reread(settings, schema), schema)


def _is_file_of(path: tuple[str, ...], here: Any, there: Any, paper: Mapping[str, Any]) -> bool:
    """Return whether a value is a file that was published as the paper's weights."""
    key = ".".join(path)
    if key not in (*WEIGHTS_OF, CLIP_WEIGHTS) or not isinstance(here, str):
        return False
    if key == CLIP_WEIGHTS:
        there = f"{_at(paper, (*path[:-1], 'model'))}/{there}"
    return same_weights(here, there)


def _at(settings: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path, or ``MISSING``."""
    for key in path:
        settings = settings.get(key, MISSING) if isinstance(settings, Mapping) else MISSING
    return settings
