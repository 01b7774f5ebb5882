"""Balanced and multi-scale losses against loops over pixels and Pillow's nearest neighbours."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from brnf.segment.loss import multi_scale_logits, multi_scale_loss, segmentation_loss


def batch(classes: int = 4, size: tuple[int, int] = (6, 9)) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(0, classes, (2, *size))
    labels[torch.rand(2, *size) < 0.3] = 255
    return torch.randn(2, classes, *size, dtype=torch.float64), labels


def means(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean losses of the background and of the foreground, pixel by pixel."""
    parts: dict[bool, list[float]] = {True: [], False: []}
    for (image, row, column), label in np.ndenumerate(labels.numpy()):
        if label != 255:
            scores = logits[image, :, row, column].tolist()
            parts[label == 0].append(
                math.log(sum(math.exp(score) for score in scores)) - scores[label]
            )
    return float(np.mean(parts[True])), float(np.mean(parts[False]))


def test_balanced_loss_is_half_of_each_mean() -> None:
    logits, labels = batch()
    background, foreground = means(logits, labels)
    assert segmentation_loss(logits, labels, balanced=True).item() == pytest.approx(
        (background + foreground) / 2, rel=1e-5
    )


def test_the_shares_of_background_and_foreground_do_not_weigh_in_the_balanced_loss() -> None:
    logits, labels = batch()
    background, foreground = (
        (labels == 0).nonzero()[0],
        ((labels != 0) & (labels != 255)).nonzero()[0],
    )
    few = torch.full_like(labels, 255)
    for place in (background, foreground):
        few[tuple(place)] = labels[tuple(place)]
    each = F.cross_entropy(logits, few, ignore_index=255, reduction="none").float()
    expected = (each[tuple(background)] + each[tuple(foreground)]) / 2
    torch.testing.assert_close(segmentation_loss(logits, few, balanced=True), expected)


@pytest.mark.parametrize("absent", ["background", "foreground", "both"])
def test_an_absent_half_is_zero_and_no_nan(absent: str) -> None:
    logits, labels = batch()
    background, foreground = means(logits, labels)
    if absent != "foreground":
        labels[labels == 0] = 255
    if absent != "background":
        labels[(labels != 0) & (labels != 255)] = 255
    expected = {"background": foreground / 2, "foreground": background / 2, "both": 0.0}[absent]
    logits.requires_grad_(True)
    loss = segmentation_loss(logits, labels, balanced=True)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert (
        bool(logits.grad.isfinite().all())
        and not logits.grad[(labels == 255)[:, None].expand_as(logits)].any()
    )


def blur(images: Tensor) -> Tensor:
    """Stand for a network of stride 8 whose logits are two mixtures of the colours."""
    return F.avg_pool2d(
        torch.stack([images[:, 0] - images[:, 1], 2 * images[:, 2]], 1), 8, ceil_mode=True
    )


def test_every_scale_is_seen_and_the_maximum_lies_on_the_largest_grid() -> None:
    images = torch.randint(0, 256, (2, 3, 45, 67), dtype=torch.uint8)
    sizes = []

    def network(seen: Tensor) -> Tensor:
        sizes.append(tuple(seen.shape[2:]))
        return blur(seen)

    found = multi_scale_logits(network, images, (0.75, 0.5))
    assert sizes == [(45, 67), (33, 50), (22, 33)]
    # By the factor: every second pixel of a ramp lies between two, whatever the size rounds to.
    ramp = torch.arange(67.0).expand(1, 3, 45, 67)
    halves: list[Tensor] = []
    multi_scale_logits(lambda shown: halves.append(shown) or blur(shown), ramp, (0.5,))
    torch.testing.assert_close(halves[1][0, 0, 0], 2 * torch.arange(33.0) + 0.5)
    assert [tuple(logits.shape) for logits in found] == [
        (2, 2, 6, 9),
        (2, 2, 5, 7),
        (2, 2, 3, 5),
        (2, 2, 6, 9),
    ]
    expected = found[0].clone()
    for logits in found[1:3]:
        enlarged = F.interpolate(logits, size=(6, 9), mode="bilinear", align_corners=False)
        expected = torch.where(enlarged > expected, enlarged, expected)
    torch.testing.assert_close(found[3], expected)
    assert not torch.allclose(found[3], found[0])


@pytest.mark.parametrize("balanced", [False, True])
def test_the_loss_is_the_sum_over_scales_with_pillows_nearest_labels(balanced: bool) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 45, 67))
    labels[torch.rand(2, 45, 67) < 0.2] = 255
    logits = [
        torch.randn(2, 3, *size, dtype=torch.float64) for size in ((6, 9), (5, 7), (3, 5), (6, 9))
    ]
    expected = 0.0
    for one in logits:
        size = (one.shape[3], one.shape[2])
        nearest = [
            np.asarray(
                Image.fromarray(label.numpy().astype(np.uint8)).resize(
                    size, Image.Resampling.NEAREST
                )
            )
            for label in labels
        ]
        reduced = torch.from_numpy(np.stack(nearest)).long()
        background, foreground = means(one, reduced)
        counts = (reduced == 0).sum().item(), ((reduced != 0) & (reduced != 255)).sum().item()
        shares = (1, 1) if balanced else counts
        expected += (shares[0] * background + shares[1] * foreground) / sum(shares)
    assert multi_scale_loss(logits, labels, balanced).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
def test_very_many_classes_have_the_loss_and_gradient_of_few(balanced: bool) -> None:
    few, labels = batch(classes=4, size=(3, 4))
    # Further classes of logit minus infinity take no part, but another way and ignored value.
    many = torch.cat([few, few.new_full((2, 300, 3, 4), -1e4)], 1)
    wide = labels.where(labels != 255, 65535)
    found = []
    for logits, one in ((few.float(), labels), (many.float(), wide)):
        logits.requires_grad_()
        loss = segmentation_loss(logits, one, balanced)
        loss.backward()
        found.append((loss.item(), logits.grad))
    (loss, gradient), (wide_loss, wide_gradient) = found
    assert wide_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(wide_gradient[:, :4], gradient)
    assert not wide_gradient[:, 4:].any()
    nothing = segmentation_loss(many, torch.full_like(wide, 65535), balanced)
    assert nothing.item() == 0
