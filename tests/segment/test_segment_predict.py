"""Prediction over scales and mirror images."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brnf.config.sections.segmentation import DeepLabNetwork, PredictionViews
from brnf.segment.deeplab import DeepLab, build_deeplab
from brnf.segment.predict import predict_logits, predict_probability, seen_size

CPU = torch.device("cpu")


class SizeProbe(nn.Module):
    """Stand for a network and note the images that it sees; the logits are two colours, averaged
    over 4x4 pixels.
    """

    def __init__(self, align_corners: bool = True) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.options = DeepLabNetwork(align_corners=align_corners)

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return F.avg_pool2d(images[:, :2].float(), 4, ceil_mode=True)


@pytest.fixture(scope="module")
def network() -> DeepLab:
    torch.manual_seed(0)
    options = DeepLabNetwork(
        backbone="mobilenetv3_small_050", weights="none", rates=(1, 2), head="aspp_sum"
    )
    return build_deeplab(options, 3).eval()


def photograph(height: int = 48, width: int = 72) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_each_scale_is_seen_at_its_size_with_its_mirror_image() -> None:
    probe = SizeProbe()
    predict_logits(probe, photograph(), PredictionViews(scales=(0.5, 1.0, 1.75)), CPU)
    assert [tuple(images.shape) for images in probe.seen] == [
        (2, 3, 24, 36),
        (2, 3, 48, 72),
        (2, 3, 84, 126),
    ]
    assert all(torch.equal(images[0], images[1].flip(-1)) for images in probe.seen)
    np.testing.assert_array_equal(probe.seen[1][0].permute(1, 2, 0).numpy(), photograph())


def test_the_long_side_sets_the_size_of_scale_one() -> None:
    assert seen_size(375, 500, 1.0, None) == (375, 500)
    assert seen_size(375, 500, 1.0, 288) == (216, 288)
    assert seen_size(500, 375, 0.5, 288) == (144, 108)
    assert seen_size(1, 500, 0.1, None) == (1, 50)


@pytest.mark.parametrize("align", [False, True])
def test_the_maximum_over_scales_is_taken_on_the_largest_grid(align: bool) -> None:
    probe = SizeProbe(align)
    options = PredictionViews(scales=(0.5, 1.0, 0.75), flip=False, merge="max")
    found = predict_logits(probe, photograph(), options, CPU)
    small = [F.avg_pool2d(images[:, :2], 4, ceil_mode=True) for images in probe.seen]
    assert [tuple(logits.shape[2:]) for logits in small] == [(6, 9), (12, 18), (9, 14)]
    largest = torch.stack([enlarge(logits, (12, 18), align) for logits in small]).max(0).values
    torch.testing.assert_close(found, enlarge(largest, (48, 72), align)[0])


def enlarge(logits: Tensor, size: tuple[int, int], align: bool) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align)


def test_images_are_resized_as_chosen() -> None:
    image = photograph()
    for name, flag in (("bicubic", cv2.INTER_CUBIC), ("bilinear", cv2.INTER_LINEAR)):
        probe = SizeProbe()
        options = PredictionViews(
            scales=(0.5,),
            flip=False,
            interpolation=name,  # type: ignore[arg-type]
        )
        predict_logits(probe, image, options, CPU)
        expected = cv2.resize(image.astype(np.float32), (36, 24), interpolation=flag)
        np.testing.assert_allclose(probe.seen[0][0].permute(1, 2, 0), expected, atol=1e-4)


@pytest.mark.parametrize("align", [False, True])
def test_logits_are_the_mean_over_scales_and_mirror_images(align: bool) -> None:
    options = PredictionViews(scales=(0.5, 1.0), flip=True)
    probe, image = SizeProbe(align), photograph()
    found = predict_logits(probe, image, options, CPU)
    terms = []
    for images in probe.seen:
        for view, mirrored in ((images[:1], False), (images[1:], True)):
            logits = F.avg_pool2d(view[:, :2].float(), 4, ceil_mode=True)
            large = enlarge(logits, image.shape[:2], align)
            terms.append(large.flip(-1) if mirrored else large)
    torch.testing.assert_close(found, torch.cat(terms).mean(0), rtol=1e-4, atol=1e-3)


def test_a_mirrored_image_gives_the_mirrored_prediction(network: DeepLab) -> None:
    image = photograph()
    options = PredictionViews(scales=(0.75, 1.0))
    straight = predict_probability(network, image, options, CPU)
    mirrored = predict_probability(network, image[:, ::-1], options, CPU)
    np.testing.assert_allclose(straight, mirrored[:, :, ::-1], atol=1e-4)
    np.testing.assert_allclose(straight.sum(0), 1, atol=1e-5)
    without = PredictionViews(scales=(0.75, 1.0), flip=False)
    one_sided = predict_logits(network, image, without, CPU)
    assert not torch.allclose(
        one_sided, predict_logits(network, image[:, ::-1], without, CPU).flip(-1), atol=1e-4
    )


def test_a_constant_image_gives_a_symmetrical_prediction(network: DeepLab) -> None:
    image = np.full((40, 56, 3), 130, np.uint8)
    logits = predict_logits(network, image, PredictionViews(scales=(0.5, 1.0, 1.5)), CPU)
    assert logits.shape == (3, 40, 56)
    torch.testing.assert_close(logits, logits.flip(-1), rtol=1e-4, atol=1e-5)


def test_a_photograph_of_a_few_pixels_is_no_error(network: DeepLab) -> None:
    assert predict_probability(
        network, photograph(1, 3), PredictionViews(scales=(0.5, 1.0)), CPU
    ).shape == (3, 1, 3)
