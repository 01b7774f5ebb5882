"""Multi-scale maps and single-scale pixel features of one image (`docs/method.md` 2, 4)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brnf.cam.affinity import propagate
from brnf.cam.network import CamNetwork, CamOutput
from brnf.cam.prototypes import (
    choose_seeds,
    classifier_maps,
    divide_by_maximum,
    present_classes,
    prototype_maps,
    prototypes,
)
from brnf.config.sections.bounds import Precision
from brnf.config.sections.cam import MapRules, MultiScaleMaps
from brnf.engine.precision import computing

__all__ = ["ImageMaps", "map_products", "multi_scale_maps", "pixel_features", "scaled_image"]


@dataclass(frozen=True)
class ImageMaps:
    """The maps of one image, channel 0 the background, then its labels in ascending order.

    Attributes:
        classifier: [1 + k, H, W] in 0..1.
        prototype: [1 + k, H, W] in 0..1.
    """

    classifier: Tensor
    prototype: Tensor


@torch.inference_mode()
def map_products(
    network: CamNetwork,
    image: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    options: MultiScaleMaps,
    precision: Precision = "fp32",
) -> dict[str, NDArray[np.float32]]:
    """Return the maps of :func:`multi_scale_maps` by the name of their product, [1 + k, H, W].

    Arguments: as there; ``precision`` is the network's.
    """
    with computing(precision, image.device):
        maps = multi_scale_maps(network, image, labels, size, options)
    return {
        "classifier": maps.classifier.float().cpu().numpy(),
        "prototype": maps.prototype.float().cpu().numpy(),
    }


def multi_scale_maps(
    network: CamNetwork,
    image: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    options: MultiScaleMaps,
) -> ImageMaps:
    """Sum the maps of all scales and divide them once by their maxima.

    At each scale the maps and features of the image and its mirror are summed before seeds and
    prototypes are made; the prototype maps are summed undivided. The classifier's maps of a network
    with an affinity (SFC) are those propagated by it, its background included, and seeds follow the
    plain rule.

    Arguments:
        network: in evaluation mode.
        image: [3, h, w] in 0..255, at scale 1.
        labels: [C] in {0, 1}.
        size: (H, W) of the maps to return.
        options: scales, and how seeds and prototypes are made.

    An autocast around the call holds for the network alone.
    """
    if not labels.any():
        nothing = torch.ones(1, *size, device=image.device)
        return ImageMaps(nothing, nothing)
    present = present_classes(labels[None])
    classifier = prototype = torch.zeros((), device=image.device)
    for scale in options.scales:
        pair = _mirrored_pair(network, scaled_image(image, scale))
        with torch.autocast(
            image.device.type, enabled=False
        ):  # in bfloat16 seeds and cosines would lose digits, too
            summed, activation = _maps_of_scale(pair, labels, present, options)
            classifier = classifier + _enlarge(summed, size)
            prototype = prototype + _enlarge(activation, size)
    classifier = divide_by_maximum(classifier)
    if pair.affinity is None:
        classifier = torch.cat([1 - classifier.amax(0, keepdim=True), classifier])
    return ImageMaps(classifier, divide_by_maximum(prototype))


def _maps_of_scale(
    pair: CamOutput, labels: Tensor, present: Tensor, options: MapRules
) -> tuple[Tensor, Tensor]:
    """Return the classifier's maps, with the background where an affinity propagates them, and the
    prototype maps, [1, ., h, w].
    """
    maps = classifier_maps(pair.logits, labels[None], options.background_over)
    if pair.affinity is not None:
        maps = propagate(maps, pair.affinity)
        summed = maps[:, present[0]]
    else:
        summed = pair.logits.relu()[:, labels.bool()]
    rule = options.seed_rule if pair.affinity is None else "plain"
    seeds = choose_seeds(maps, pair.features, present, rule, options.background_weight)
    # Prototypes of the image's own classes only: absent ones have no seed, and cost as much.
    return summed, prototype_maps(pair.features, prototypes(pair.features, seeds[:, present[0]]))


def pixel_features(network: CamNetwork, image: Tensor) -> Tensor:
    """Return the mean of an image's features and its mirror's, mirrored back.

    Arguments:
        network: in evaluation mode.
        image: [3, h, w] in 0..255, at scale 1.

    Returns:
        v: [D, h/16, w/16] float32.
    """
    return _mirrored_pair(network, image).features[0] / 2


def _mirrored_pair(network: CamNetwork, image: Tensor) -> CamOutput:
    """Return the outputs for an image and its mirror, added: maps [1, ., h, w] float32."""
    output = network(torch.stack([image, image.flip(-1)])).in_float32()
    logits, features, semantic = (
        maps[:1] + maps[1:].flip(-1) for maps in (output.logits, output.features, output.semantic)
    )
    affinity = (
        None if output.affinity is None else output.affinity[:1] + output.affinity[1:].flip(-1)
    )
    return CamOutput(logits, features, semantic, affinity)


def scaled_image(image: Tensor, scale: float) -> Tensor:
    """Return an image at a scale, resized as SIPE does with PIL: bicubic, rounded to grey values.

    Arguments:
        image: [3, H, W] in 0..255.
        scale: of both sides; 1 returns the image itself.

    Returns:
        [3, H * scale, W * scale] float32 in 0..255; the mean difference from PIL's is 0.2.
    """
    if scale == 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    resized = F.interpolate(image[None].float(), size, mode="bicubic", antialias=True)[0]
    return resized.round().clamp(0, 255)


def _enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)[0]
