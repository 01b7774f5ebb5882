"""Multi-scale inference against a plain rewriting of docs/method.md section 2."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from brnf.cam.inference import multi_scale_maps, pixel_features, scaled_image
from brnf.cam.network import CamOutput
from brnf.config.sections.cam import MultiScaleMaps


class Toy(nn.Module):
    """A stride-16 network whose outputs depend on the pixels."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = torch.randn(classes + 6, 3, generator=generator)

    def forward(self, images: torch.Tensor) -> CamOutput:
        pooled = F.avg_pool2d(images.float() / 255 - 0.5, 16, ceil_mode=True)
        maps = torch.einsum("od,ndhw->nohw", self.weight, pooled)
        return CamOutput(maps[:, :-6], maps[:, -6:], maps[:, -6:])


IMAGE = torch.randint(
    0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
)
LABELS = torch.tensor([1.0, 0.0, 1.0])


def plain_maps(
    network: nn.Module, scales: tuple[float, ...], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Walk through section 2's inference with loops over classes and pixels."""
    classifier, prototype = torch.zeros(2, *size), torch.zeros(3, *size)
    for scale in scales:
        image = scaled_image(IMAGE, scale)
        one, two = network(image[None]), network(image.flip(-1)[None])
        cam = (one.logits + two.logits.flip(-1))[0]
        v = (one.features + two.features.flip(-1))[0]
        a = cam.relu() / (cam.relu().amax((1, 2), keepdim=True) + 1e-5)
        a = torch.cat([1 - a.amax(0, keepdim=True), a])
        flat, f = a.flatten(1), F.normalize(v.flatten(1).T, dim=1)
        similarity = (f @ f.T).relu()
        intersection = flat @ similarity.T
        overlap = intersection / (
            similarity.sum(1) + flat.sum(1, keepdim=True) - intersection + 1e-5
        )
        overlap[0] *= 0.5
        winner = overlap.argmax(0)
        for channel, k in enumerate((0, 1, 3)):
            pixels = winner == k
            if pixels.any():
                centre = v.flatten(1)[:, pixels].mean(1)
                activation = (
                    F.cosine_similarity(v.flatten(1), centre[:, None], dim=0)
                    .relu()
                    .view(v.shape[1:])
                )
                prototype[channel] += F.interpolate(activation[None, None], size, mode="bilinear")[
                    0, 0
                ]
        classifier += F.interpolate(cam.relu()[[0, 2]][None], size, mode="bilinear")[0]
    classifier = classifier / (classifier.amax((1, 2), keepdim=True) + 1e-5)
    return torch.cat([1 - classifier.amax(0, keepdim=True), classifier]), prototype / (
        prototype.amax((1, 2), keepdim=True) + 1e-5
    )


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.5])
def test_images_are_resized_as_by_pil(scale: float) -> None:
    smooth = F.interpolate(IMAGE[None, :, ::8, ::8].float(), (61, 97), mode="bilinear")[0]
    image = smooth.round().to(torch.uint8)
    height, width = (round(side * scale) for side in image.shape[1:])
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
    expected = np.asarray(pixels.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    difference = scaled_image(image, scale).permute(1, 2, 0).numpy() - expected
    assert difference.shape == (height, width, 3)
    assert np.abs(difference).mean() < 0.3 and np.abs(difference).max() <= 2  # PIL rounds twice


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
def test_maps_equal_the_plain_rewriting(scales: tuple[float, ...]) -> None:
    maps = multi_scale_maps(Toy(), IMAGE, LABELS, (64, 96), MultiScaleMaps(scales=scales))
    classifier, prototype = plain_maps(Toy(), scales, (64, 96))
    torch.testing.assert_close(maps.classifier, classifier, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps.prototype, prototype, atol=1e-3, rtol=1e-3)


def test_the_mirrored_image_has_mirrored_maps() -> None:
    options = MultiScaleMaps(scales=(1.0, 2.0))
    maps = multi_scale_maps(Toy(), IMAGE, LABELS, (64, 96), options)
    mirrored = multi_scale_maps(Toy(), IMAGE.flip(-1), LABELS, (64, 96), options)
    torch.testing.assert_close(mirrored.prototype.flip(-1), maps.prototype)
    torch.testing.assert_close(mirrored.classifier.flip(-1), maps.classifier)
    torch.testing.assert_close(
        pixel_features(Toy(), IMAGE.flip(-1)).flip(-1), pixel_features(Toy(), IMAGE)
    )


def test_an_image_without_labels_is_background() -> None:
    maps = multi_scale_maps(Toy(), IMAGE, torch.zeros(3), (64, 96), MultiScaleMaps(scales=(1.0,)))
    assert maps.classifier.shape == maps.prototype.shape == (1, 64, 96)
    assert maps.classifier.min() == 1


class Float32Toy(Toy):
    """The same, whatever autocast is around it."""

    def forward(self, images: torch.Tensor) -> CamOutput:
        with torch.autocast("cpu", enabled=False):
            return super().forward(images)


def test_autocast_holds_for_the_network_alone() -> None:
    expected = multi_scale_maps(
        Float32Toy(), IMAGE, LABELS, (64, 96), MultiScaleMaps(scales=(0.5, 1.0))
    )
    with torch.autocast("cpu", torch.bfloat16):
        maps = multi_scale_maps(
            Float32Toy(), IMAGE, LABELS, (64, 96), MultiScaleMaps(scales=(0.5, 1.0))
        )
    assert torch.equal(maps.classifier, expected.classifier)
    assert torch.equal(maps.prototype, expected.prototype)
