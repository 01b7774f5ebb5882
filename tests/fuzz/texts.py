"""Annotations, lists, tables, measurements and configurations."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from snakemake.common.configfile import load_configfile
from snakemake_interface_common.exceptions import WorkflowError

from brnf.config.experiment import read_experiments
from brnf.data.entries import is_safe_id
from brnf.data.index import Index
from brnf.data.voc_annotations import read_object_names
from brnf.engine.history import read_history
from brnf.errors import UserError
from brnf.evaluate.show import show
from brnf.evaluate.truth import GroundTruth
from brnf.stages import tabulate, tabulate_sweeps
from tests.fuzz.mutations import junk, mutate_text, mutate_value
from tests.fuzz.pictures import JPEG, MASK
from tests.fuzz.runner import Kind
from tests.fuzz.sources import QUIET, index_own, index_voc, spoilt_text

__all__ = ["text_kinds"]

ROOT = Path(__file__).parents[2]
XML = (
    b"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>a.jpg</filename>\n\t<object>\n"
    b"\t\t<name>cat</name>\n\t\t<bndbox><xmin>1</xmin></bndbox>\n\t</object>\n"
    b"\t<object><name>dog</name><part><name>head</name></part></object>\n</annotation>\n",
    b'<?xml version="1.0" encoding="utf-8"?>'
    b"<annotation><object><name>person</name></object></annotation>",
    b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
    b"<annotation><object><name>&c;</name></object></annotation>",
)
LISTS = (b"a\nb\n", b"a 1\nb -1\n", b"b\r\na\r\n")
TABLES = (
    b"image,labels\nphoto.jpg,cat;dog\nother.jpg,dog\n",
    b"image,labels,mask,split\nphoto.jpg,cat|dog,mask.png,train;val\nother.jpg,dog,,val\n",
    b'split,image,labels\r\ntrain,photo.jpg,"cat;dog"\r\ntest,other.jpg,\r\n',
)
EVALUATION: dict[str, Any] = {
    "model": "base",
    "split": "train",
    "protocol": "bench",
    "seed": 0,
    "product": "seeds",
    "classes": ["background", "cat", "dog"],
    "images": 4,
    "images_without_mask": 0,
    "miou": 0.5,
    "iou": [0.5, None, 0.25],
    "unlabelled_pixels": 0,
    "sweep": {"thresholds": [0.5], "miou": [0.4], "best_miou": 0.4, "best_threshold": 0.5},
    "at_recall": {
        "target": 0.7,
        "threshold": 0.2,
        "recall": 0.71,
        "miou": 0.3,
        "fire": None,
        "fire_of_class": None,
    },
    "confusion": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
}
SWEEP: dict[str, Any] = {
    **{key: EVALUATION[key] for key in ("model", "split", "protocol", "seed", "classes", "images")},
    "density": "flow",
    "tau_low": 0.3,
    "tau_high": 0.7,
    "held_out": -1.5,
    "raw_miou": 0.4,
    "points": [
        {"rule": "quantile", "xi": 0.9, "miou": 0.5},
        {"rule": "posterior", "xi": 0.8, "miou": 0.45},
    ],
    "cross_validated": {"quantile": 0.49, "posterior": 0.45},
    "labelled": 10,
    "seed_accuracy": 0.7,
    "density_accuracy": None,
    "class_pixels": [5, 6, 7],
    "class_log_density": [1.0, None, -2.0],
    "shown": {"rule": "quantile", "xi": 0.9},
    "margins": {"edges": [-1.0, 0.0, 1.0], "true": [1, 2], "false": [3, 4]},
    "worst": [{"id": "a", "before": 0.5, "after": 0.4}],
}
RESULTS = (
    b"model,product,split,protocol,miou,bias,background,cat\n"
    b"base,seeds,train,bench,50.1234,,70.5,\nbrnf,seeds,train,bench,55.0,3.25,71,40\n",
)
HISTORIES = (
    b"step,loss,held_out,learning_rate\n1,0.5,,0.001\n2,0.25,-0.1,0.0009\n",
    b"loss,L_cls\n0.5,0.5\n0.25,\n",
)


def dumped(value: Any, random: np.random.Generator) -> bytes:
    """Return a spoilt value as JSON, whose text may be spoilt too."""
    text = json.dumps(mutate_value(value, random), indent=int(random.choice([0, 1]))).encode()
    return mutate_text(text, [text], random) if random.random() < 0.4 else text


def read_annotation(path: Path, number: int) -> None:
    """Read an annotation alone or, every fourth, by indexing its image."""
    if number % 4 == 1:
        index_voc(
            path.parent,
            {
                "JPEGImages/a.jpg": JPEG,
                "ImageSets/Segmentation/train.txt": b"a\n",
                "Annotations/a.xml": path.read_bytes(),
            },
        )
        return
    assert all(isinstance(name, str) for name in read_object_names(path))


def read_list(path: Path, number: int) -> None:
    """Index the images of a list; whatever it names, nothing outside of the root is read."""
    files = {f"JPEGImages/{name}.jpg": JPEG for name in "ab"} | {
        f"Annotations/{name}.xml": XML[0] for name in "ab"
    }
    index_voc(path.parent, {**files, "ImageSets/Segmentation/train.txt": path.read_bytes()})
    images = Index.of_split(path.parent / "out" / "index", "train").images
    assert all(
        image.id in "ab" and image.path.parent == path.parent / "VOC2012" / "JPEGImages"
        for image in images
    )


def read_table(path: Path, number: int) -> None:
    """Index the images of a table."""
    index_own(
        path.parent, {"photo.jpg": JPEG, "other.jpg": JPEG, "mask.png": MASK}, path.read_bytes()
    )
    index = path.parent / "out" / "index"
    splits = [file.stem for file in (index / "splits").glob("*.csv")]
    assert splits and all(
        is_safe_id(image.id) for split in splits for image in Index.of_split(index, split).images
    )


INDEX = {
    "classes.csv": b"index,name,mask_value\n1,cat,8\n2,dog,12\n",
    "splits/train.csv": b"id,path,width,height,labels,digest\n"
    b"a,photo.jpg,24,20,1;2,0a\nb,other.jpg,24,20,2,0b\n",
    "masks/train.csv": b"id,mask,context,digest\na,mask.png,,0c\nb,,,\n",
    "root.txt": b"data\n",
}


def read_index(path: Path, number: int) -> None:
    """Read an image index, one of whose files is the spoilt one."""
    folder = path.parent / "index"
    for place, (name, content) in enumerate(INDEX.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes() if place == number % len(INDEX) else content)
    index = Index.of_split(folder, "train")
    truth = GroundTruth(index, folder, "train")
    assert (
        all(is_safe_id(image.id) and image.width > 0 and image.height > 0 for image in index.images)
        and truth is not None
    )


def read_evaluation(path: Path, number: int) -> None:
    """Tabulate a spoilt evaluation beside a fine one."""
    other = path.parent / "other.json"
    other.write_text(json.dumps({**EVALUATION, "seed": 1}))
    names = ("results.csv", "results.md", "by_seed.csv", "seeds.csv", "seeds.md")
    outputs = tabulate.Outputs(*(path.parent / "out" / name for name in names))
    tabulate.run(tabulate.Inputs((other, path)), outputs, tabulate.Options(), QUIET)


def read_sweep(path: Path, number: int) -> None:
    """Tabulate a spoilt sweep beside a fine one."""
    other = path.parent / "other.json"
    other.write_text(json.dumps(SWEEP))
    outputs = tabulate_sweeps.Outputs(
        path.parent / "out" / "table.csv", path.parent / "out" / "table.md"
    )
    options = tabulate_sweeps.Options("density" if number % 2 else "sensitivity", "quantile", 0.9)
    tabulate_sweeps.run(tabulate_sweeps.Inputs((other, path)), outputs, options, QUIET)


def read_results(path: Path, number: int) -> None:
    """Show a table of results, or read a training's curves."""
    if number % 2:
        read_history(path)
        return
    folder = path.parent / "name" / "tables"
    folder.mkdir(parents=True)
    path.rename(folder / "results.csv")
    assert "mIoU" in show(folder.parent)


CONFIGURATIONS = [
    copy.deepcopy(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()))
    for name in ("demo", "tiny", "voc-animals")
]
CONFIGURATION_TEXTS = [
    (ROOT / "config" / f"{name}.yaml").read_bytes() for name in ("tiny", "demo", "voc12", "custom")
]
BOMB = b"name: x\na: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 8))
    for letter in b"bcdefghi"
)
"""Aliases that stand for 134 million values."""


def spoil_configuration(random: np.random.Generator) -> bytes:
    """Spoil the text or the values of a configuration."""
    chance = random.random()
    if chance < 0.45:
        return mutate_text(
            CONFIGURATION_TEXTS[int(random.integers(len(CONFIGURATION_TEXTS)))],
            CONFIGURATION_TEXTS,
            random,
        )
    if chance < 0.5:
        return BOMB if random.random() < 0.5 else junk(random)
    spoilt = mutate_value(CONFIGURATIONS[int(random.integers(len(CONFIGURATIONS)))], random)
    try:
        return (
            json.dumps(spoilt).encode()
            if random.random() < 0.5
            else yaml.safe_dump(spoilt).encode()
        )
    except RecursionError:  # too deep for the writer of YAML
        return json.dumps(spoilt).encode()


def read_configuration(path: Path, number: int) -> None:
    """Read a configuration through Snakemake's reader, whose own complaints are its user's, then by
    the schema.
    """
    try:
        config = load_configfile(path)
    except (
        WorkflowError,
        UnicodeDecodeError,
        RecursionError,
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise UserError(f"Snakemake refuses it ({type(error).__name__})") from error
    for experiment in read_experiments(config).values():
        assert isinstance(yaml.safe_load(experiment.yaml()), dict)


def text_kinds(folder: Path) -> list[Kind]:
    """Return the kinds of text files."""
    evaluation, sweep = (json.dumps(value, indent=1).encode() for value in (EVALUATION, SWEEP))
    index = tuple(INDEX.values())
    return [
        Kind("xml", 1200, XML[0], spoilt_text(XML), read_annotation, "a.xml"),
        Kind("list", 600, LISTS[0], spoilt_text(LISTS), read_list, "list.txt"),
        Kind("csv table", 1200, TABLES[0], spoilt_text(TABLES), read_table, "spoilt.csv"),
        Kind("csv index", 700, index[0], spoilt_text(index), read_index, "spoilt.csv"),
        Kind(
            "csv results",
            500,
            RESULTS[0],
            spoilt_text((*RESULTS, *HISTORIES)),
            read_results,
            "results.csv",
        ),
        Kind(
            "json evaluation",
            800,
            evaluation,
            lambda random: dumped(EVALUATION, random),
            read_evaluation,
            "spoilt.json",
        ),
        Kind(
            "json sweep",
            500,
            sweep,
            lambda random: dumped(SWEEP, random),
            read_sweep,
            "spoilt.json",
        ),
        Kind(
            "configuration",
            1200,
            CONFIGURATION_TEXTS[0],
            spoil_configuration,
            read_configuration,
            "config.yaml",
        ),
    ]
