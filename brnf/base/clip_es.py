"""CLIP-ES: maps from CLIP by softmax Grad-CAM, refined by its own attention (`docs/method.md`
section 3).
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.base.clip_model import Clip, Encoded, finish_block
from brnf.cam.inference import ImageMaps
from brnf.config.sections.cam import ClipRefinement

__all__ = [
    "attention_walk",
    "box_mask",
    "clip_maps",
    "gradient_maps",
    "refined_map",
    "unit_range",
]

EPSILON = 1e-7
BALANCING = 3
"""Rounds in which columns, then rows of the attention are divided by their sums."""


def clip_maps(
    clip: Clip,
    image: Tensor,
    classes: Tensor,
    background: Tensor,
    size: tuple[int, int],
    options: ClipRefinement,
) -> ImageMaps:
    """Return Grad-CAM before and after its refinement, each with 1 minus its maximum as background.

    Arguments:
        clip: the model.
        image: [3, H, W] in 0..255 RGB.
        classes: directions of the image's classes, [k, E].
        background: directions of the background words, [B, E].
        size: (height, width) of the maps to return.
        options: how maps are refined.

    Returns:
        ``classifier`` before and ``prototype`` after the refinement, [1 + k, *size].
    """
    if not len(classes):
        nothing = torch.ones(1, *size, device=image.device)
        return ImageMaps(nothing, nothing)
    encoded = clip.encode(image)
    maps, attention = gradient_maps(clip, encoded, classes, background)
    walk = attention_walk((*encoded.attention, attention), options.attention_maps)
    refined = torch.stack([refined_map(one, walk, options.box_threshold) for one in maps])
    return ImageMaps(_with_background(maps, size), _with_background(refined, size))


def gradient_maps(
    clip: Clip, encoded: Encoded, classes: Tensor, background: Tensor
) -> tuple[Tensor, Tensor]:
    """Return softmax Grad-CAM at the output of the last block's first normalisation.

    The score of a class is its softmax probability among the image's classes and all background
    words, so that classes compete. ``w = mean_i dp_c / da_i``; ``M_c(i) = relu(w . a_i)`` over the
    patches i, stretched to 0..1.

    Arguments:
        clip: the model.
        encoded: the image before the last block.
        classes: directions of the image's classes, [k, E].
        background: directions of the background words, [B, E].

    Returns:
        M: [k, h, w], and the last block's attention [1 + h * w, 1 + h * w].
    """
    block = clip.visual.transformer.resblocks[-1]
    with torch.enable_grad():
        activation = block.ln_1(encoded.tokens).detach().requires_grad_()
        tokens, attention = finish_block(block, encoded.tokens, activation)
        similarity = clip.image_direction(tokens) @ torch.cat([classes, background]).T
        probabilities = (clip.model.logit_scale.exp() * similarity).softmax(1)[0]
        gradients = [
            torch.autograd.grad(probabilities[place], activation, retain_graph=True)[0]
            for place in range(len(classes))
        ]
    weights = torch.stack([gradient[0, 1:].mean(0) for gradient in gradients])
    maps = (weights @ activation.detach()[0, 1:].T).relu().unflatten(1, encoded.grid)
    return unit_range(maps), attention[0].detach()


def unit_range(maps: Tensor) -> Tensor:
    """Stretch each map [..., h, w] to 0..1."""
    above = maps - maps.amin((-2, -1), keepdim=True)
    return above / (above.amax((-2, -1), keepdim=True) + EPSILON)


def attention_walk(attention: tuple[Tensor, ...], averaged: int) -> Tensor:
    """Turn attention into steps from patch to patch, as likely one way as the other.

    The mean of the last maps, without the class token; its columns, then its rows divided by their
    sums, three times; made symmetric; two steps at once.

    Arguments:
        attention: of all blocks in their order, [1 + N, 1 + N] each.
        averaged: how many of the last are averaged.

    Returns:
        [N, N].
    """
    steps = torch.stack(attention[-averaged:]).mean(0)[1:, 1:]
    for _ in range(BALANCING):
        steps = steps / steps.sum(0, keepdim=True)
        steps = steps / steps.sum(1, keepdim=True)
    steps = (steps + steps.T) / 2
    return steps @ steps


def box_mask(values: Tensor, threshold: float) -> Tensor:
    """Return the bounding boxes of all regions above a share of the map's maximum, filled.

    As in CLIP-ES, the map is compared in whole steps of 1/255, and boxes end before the last row
    and
    the last column: a region that lies in these alone has an empty box.

    Arguments:
        values: [h, w] in 0..1.
        threshold: share of the maximum, rounded down to whole steps as well.

    Returns:
        [h, w] bool.
    """
    steps = (values.detach().cpu().numpy() * 255).astype(np.uint8)
    above = (steps > int(threshold * int(steps.max()))).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    mask = torch.zeros_like(values, dtype=torch.bool)
    for left, top, width, height, _ in statistics[1:].tolist():
        mask[top : top + height, left : left + width] = True
    mask[-1:] = False
    mask[:, -1:] = False
    return mask


def refined_map(values: Tensor, walk: Tensor, threshold: float) -> Tensor:
    """Let a map flow along the attention, out of its own boxes only; stretched to 0..1.

    Arguments:
        values: [h, w] in 0..1.
        walk: [h * w, h * w], see :func:`attention_walk`.
        threshold: of :func:`box_mask`.
    """
    inside = values * box_mask(values, threshold)
    return unit_range((walk @ inside.flatten()).view_as(values))


def _with_background(maps: Tensor, size: tuple[int, int]) -> Tensor:
    enlarged = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].clamp(0, 1)
    return torch.cat([1 - enlarged.amax(0, keepdim=True), enlarged])
