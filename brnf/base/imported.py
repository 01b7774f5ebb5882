"""Maps that other code wrote, as base maps; and base maps as SFC would write them (`docs/method.md`
section 3, import).

A file holds ``keys`` [k] and an array [k, h, w] whose name tells what the keys mean. Class numbers
are those of the data set's mask files, so that maps of all twenty VOC classes serve an index of
six.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from brnf.errors import UserError
from brnf.store.maps import CamMaps

__all__ = ["LAYOUTS", "base_maps", "foreign_maps"]

LAYOUTS = {"IS_CAM": 0, "maps": 0, "attn_highres": 1, "high_res": 1}
"""Name of the array -> what is added to its keys to make 0 the background: SIPE and SFC, a plain
``.npz``, CLIP-ES, IRN.
"""
CLASSIFIER = "IS_CAM1"
"""SFC's second array, the classifier's maps beside the prototypes' of IS_CAM."""


def base_maps(
    content: Mapping[Any, NDArray[Any]],
    labels: Sequence[int],
    mask_values: Sequence[int],
    image_size: tuple[int, int],
    size: tuple[int, int],
    where: str,
) -> dict[str, NDArray[np.float32]]:
    """Return the maps of one image, as ``compute_cams`` would write them.

    A missing background is 1 minus the largest map. Maps that exceed 1 (SFC adds two of them up)
    are divided by the largest value of all channels, which keeps their order. Maps of another size
    are resized bilinearly. Classes outside the index are left out.

    Arguments:
        content: the file's arrays by name.
        labels: class indices 1..C of the image, ascending.
        mask_values: number of each class in the data set, in the order of the index.
        image_size: height and width of the image in pixels.
        size: height and width of the maps to return.
        where: the file, for messages.

    Returns:
        ``prototype`` and ``classifier``, each [1 + len(labels), *size] in 0..1; the same map twice
        where the file holds only one.

    Raises:
        UserError: the arrays do not fit each other, the image or its labels, or are no maps.
    """
    name = next((name for name in LAYOUTS if name in content), None)
    if name is None or "keys" not in content:
        held = ", ".join(map(str, content)) or "nothing"
        raise UserError(
            f"{where}: holds {held}; save an array keys and one of {', '.join(LAYOUTS)}"
        )
    channels = _channels(content["keys"], LAYOUTS[name], labels, mask_values, where)
    prototype = _maps(
        content[name], channels, len(content["keys"]), image_size, size, f"{where}: {name}"
    )
    classifier = prototype
    if name == "IS_CAM" and CLASSIFIER in content:
        classifier = _maps(
            content[CLASSIFIER],
            channels,
            len(content["keys"]),
            image_size,
            size,
            f"{where}: {CLASSIFIER}",
        )
    return {"classifier": classifier, "prototype": prototype}


def foreign_maps(
    prototype: CamMaps, classifier: CamMaps, mask_values: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """Return the maps of one image in SFC's format.

    Arguments:
        prototype: become ``IS_CAM``.
        classifier: become ``IS_CAM1``.
        mask_values: number of each class in the data set, in the order of the index.
    """
    keys = np.array([0, *(mask_values[label - 1] for label in prototype.classes)], np.int64)
    return {"keys": keys, "IS_CAM": prototype.values, CLASSIFIER: classifier.values}


def _channels(
    keys: NDArray[Any], shift: int, labels: Sequence[int], mask_values: Sequence[int], where: str
) -> tuple[int | None, tuple[int, ...]]:
    """Return the places of the background, if there is one, and of each label among the keys."""
    if (
        keys.ndim != 1
        or keys.dtype.kind not in "iu"
        or len(np.unique(keys)) != len(keys)
        or (len(keys) and keys.min() < 0)
    ):
        raise UserError(
            f"{where}: keys {_shown(keys)} are no list of different class numbers; save one for "
            "each map"
        )
    place = {int(key) + shift: position for position, key in enumerate(keys)}
    background = place.pop(0, None)
    index = {value: label for label, value in enumerate(mask_values, 1)}
    found = {index[value]: position for value, position in place.items() if value in index}
    if missing := [label for label in labels if label not in found]:
        raise UserError(
            f"{where}: keys {_shown(keys)} lack class {mask_values[missing[0] - 1] - shift}, a "
            "label of the image; make its map, too"
        )
    if wrong := [label for label in found if label not in labels]:
        raise UserError(
            f"{where}: keys {_shown(keys)} name class {mask_values[wrong[0] - 1] - shift}, which "
            "is no label of the image; leave it out"
        )
    return background, tuple(found[label] for label in labels)


def _maps(
    values: NDArray[Any],
    channels: tuple[int | None, tuple[int, ...]],
    count: int,
    image_size: tuple[int, int],
    size: tuple[int, int],
    where: str,
) -> NDArray[np.float32]:
    """Choose, check, normalise and resize the channels of an array of maps."""
    if values.ndim != 3 or len(values) != count or 0 in values.shape[1:]:
        raise UserError(
            f"{where} has the shape {values.shape}, which does not fit its {count} keys; save one "
            "map [h, w] for each"
        )
    _check_size(values.shape[1:], image_size, where)
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise UserError(f"{where} holds values that are not finite numbers; make the maps again")
    background, places = channels
    chosen = values[list(places)].astype(np.float32)
    behind = None if background is None else values[background].astype(np.float32)
    largest = max(chosen.max(initial=0.0), 0.0 if behind is None else float(behind.max()))
    if min(chosen.min(initial=0.0), 0.0 if behind is None else float(behind.min())) < 0:
        raise UserError(
            f"{where} holds values below 0; cut them off at 0 (relu) before they are saved"
        )
    if largest > 1:
        chosen, behind = chosen / largest, None if behind is None else behind / largest
    if behind is None:
        behind = 1 - chosen.max(0, initial=0.0)
    maps = np.concatenate([behind[None], chosen])
    if maps.shape[1:] == size:
        return maps
    return np.stack(
        [
            cv2.resize(channel, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
            for channel in maps
        ]
    ).astype(np.float32)


def _check_size(size: tuple[int, ...], image_size: tuple[int, int], where: str) -> None:
    """Refuse maps whose sides are not the image's divided by one number, up to rounding."""
    (height, width), (image_height, image_width) = size, image_size
    ratio = image_width / image_height
    if abs(width - height * ratio) > 1 + ratio or height > image_height or width > image_width:
        raise UserError(
            f"{where} is {width}x{height}, which is no grid of an image of "
            f"{image_width}x{image_height}; are these the maps of this image?"
        )


def _shown(keys: NDArray[Any]) -> str:
    text = str(keys.tolist())
    return text if len(text) <= 60 else text[:57] + "..."
