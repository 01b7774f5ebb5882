"""A trained network with all that prediction needs, in one file: ``model.pt``.

It has the layout of the network's own file, which every stage can read, and two more entries: how
images are predicted, and how masks are written. A training knows neither, so that another test
option trains nothing anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import yaml

from brnf.cam.network import KIND as CAM
from brnf.config.experiment import Experiment
from brnf.config.fields import plain
from brnf.config.renamed import PRECISION_OF_AMP, with_new_names
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import CamMaps
from brnf.config.sections.segmentation import CrfLabels, SegmentationTest
from brnf.data.index import read_classes
from brnf.data.masks import colour_map
from brnf.errors import DamagedProduct, UserError
from brnf.segment.deeplab import KIND as SEGMENTATION
from brnf.store.networks import read_network
from brnf.store.tensors import write_tensors

__all__ = ["CamUse", "ModelFile", "SegmentationUse", "Use", "read_model", "write_model"]

STAGE = "write_segmentation_model or write_cam_model"


@dataclass(frozen=True)
class SegmentationUse:
    """How a segmenter predicts."""

    test: SegmentationTest = SegmentationTest()
    """How images are seen, and the dense CRF behind the network."""
    precision: Precision = "fp32"
    """In which the network computes."""


@dataclass(frozen=True)
class CamUse:
    """How the maps of a CAM network become a mask of an image whose labels are known."""

    cam: CamMaps = CamMaps()
    """Scales, rules and sizes of the maps."""
    product: str = "prototype"
    """Which of its maps becomes the mask."""
    pseudo_labels: CrfLabels = CrfLabels()
    """The dense CRF that refines them, and which pixels count."""
    precision: Precision = "fp32"
    """In which the network computes."""


Use: TypeAlias = SegmentationUse | CamUse
USES: Mapping[str, type[Use]] = {SEGMENTATION.name: SegmentationUse, CAM.name: CamUse}


@dataclass(frozen=True)
class ModelFile:
    """What a file of a model tells beside the network.

    Attributes:
        use: how images are predicted.
        classes: names of the C foreground classes.
        mask_values: value of each class in the data set's own mask files.
        palette: [1 + C] colours, RGB in 0..255, the background's first.
        note: what had to be assumed, "" for nothing.
    """

    use: Use
    classes: tuple[str, ...]
    mask_values: tuple[int, ...]
    palette: tuple[tuple[int, int, int], ...]
    note: str = ""


def write_model(
    network: Path, model: Path, use: Use, classes: Sequence[str], mask_values: Sequence[int]
) -> None:
    """Write a trained network together with how it is used; equal content gives equal bytes.

    Arguments:
        network: file of the trained network.
        model: the file to write.
        use: how images are predicted.
        classes: that the network must have been trained for.
        mask_values: of the classes in the data set's own mask files, in their order.

    Raises:
        UserError: the network cannot be read, is of the other kind, or of other classes.
    """
    kind = SEGMENTATION if isinstance(use, SegmentationUse) else CAM
    content = read_network(network, kind, classes=classes)
    masks = {"values": list(mask_values), "palette": colour_map(len(classes) + 1).tolist()}
    write_tensors(model, {**content, "use": plain(use), "masks": masks})


def read_model(path: Path) -> ModelFile:
    """Read how a trained network is used.

    Of a network's own file it is what ``config.yaml`` of its results says, or the defaults.

    Arguments:
        path: ``model.pt`` or ``network.pt`` of a segmenter or a CAM network.

    Raises:
        UserError: the file is missing, damaged, or of another kind.
    """
    content = read_network(path, SEGMENTATION, CAM)
    kind = USES[content["kind"]]
    try:
        classes = tuple(str(name) for name in content["classes"])
        if "use" not in content:
            return _of_network(path, kind, classes)
        masks = content["masks"]
        return ModelFile(
            msgspec.convert(_with_precision(content["use"]), kind),
            classes,
            msgspec.convert(masks["values"], tuple[int, ...]),
            msgspec.convert(masks["palette"], tuple[tuple[int, int, int], ...]),
        )
    except (LookupError, TypeError, msgspec.ValidationError) as error:
        fault = f"damaged, does not say how it is used ({error})"
        raise DamagedProduct(path, fault, STAGE) from error


def _of_network(path: Path, kind: type[Use], classes: tuple[str, ...]) -> ModelFile:
    """Return how a network is used whose file does not tell it."""
    colours = colour_map(len(classes) + 1).tolist()
    palette = tuple((red, green, blue) for red, green, blue in colours)
    known = classes, tuple(range(1, len(classes) + 1)), palette
    above = path.absolute().parents  # results/<name>/<model>/seed<k>/segmentation/network.pt
    config = above[3] / "config.yaml" if len(above) > 3 else Path()
    if not config.is_file():
        note = f"{path}: no model.pt, and no config.yaml in its results; taking default options"
        return ModelFile(kind(), *known, note=note)
    model = above[2].name
    try:
        experiment = Experiment(with_new_names(yaml.safe_load(config.read_text()), quiet=True))
        use = _of_experiment(experiment.at(model), kind, model)
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        fault = f"does not tell how the network is used ({reason})"
        raise UserError(f"{config}: {fault}; give model.pt") from error
    index = config.parent / "index"
    if (index / "classes.csv").is_file() and read_classes(index)[0] == classes:
        known = classes, read_classes(index)[1], known[2]
    return ModelFile(use, *known)


def _of_experiment(experiment: Experiment, kind: type[Use], model: str) -> Use:
    """Return the use that the rules of the workflow write into ``model.pt``."""
    settings: Mapping[str, Any] = experiment.settings
    if kind is SegmentationUse:
        found = {"test": settings["segmentation"]["test"]}
    else:
        found = {key: settings[key] for key in ("cam", "pseudo_labels")}
        found["product"] = experiment.seed_map(model)
    return msgspec.convert({**found, "precision": _with_precision(settings)["precision"]}, kind)


def _with_precision(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the precision that the key of an earlier version meant."""
    found = dict(settings)
    if "amp" in found:
        found.setdefault("precision", PRECISION_OF_AMP[found.pop("amp")])
    return found
