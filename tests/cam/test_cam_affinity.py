"""PCM against loops, and by hand; where SFC's network measures the similarity of pixels."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from brnf.backbones import build_backbone
from brnf.cam.affinity import propagate
from brnf.cam.inference import multi_scale_maps
from brnf.cam.network import CamNetwork, CamOutput, load_cam_network, save_cam_network
from brnf.cam.objective import training_maps
from brnf.cam.prototypes import classifier_maps, plain_seeds, prototype_maps, prototypes
from brnf.config.sections.cam import BackboneOptions, MapRules, MultiScaleMaps


def plain_propagate(maps: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Apply PCM twice with loops over pixels, one image [K, h, w], [S, h, w]."""
    flat, f = maps.flatten(1), features.flatten(1)
    count = flat.shape[1]
    weights = torch.zeros(count, count)
    for i in range(count):
        for j in range(count):
            weights[i, j] = max(0.0, float(F.cosine_similarity(f[:, i], f[:, j], dim=0)))
    weights = weights / (weights.sum(0) + 1e-5)
    for _ in range(2):
        flat = torch.stack(
            [sum(flat[:, i] * weights[i, j] for i in range(count)) for j in range(count)], 1
        )
    return flat.view_as(maps)


def test_propagation_equals_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, features = (
        torch.rand(2, 3, 2, 3, generator=generator),
        torch.randn(2, 5, 2, 3, generator=generator),
    )
    expected = torch.stack([plain_propagate(*pair) for pair in zip(maps, features, strict=True)])
    torch.testing.assert_close(propagate(maps, features), expected, atol=1e-5, rtol=1e-4)


def test_propagation_by_hand() -> None:
    """Two alike pixels share their value, the pixel orthogonal to both keeps its own."""
    maps = torch.tensor([[[[1.0, 0.0, 0.8]]]])
    features = torch.tensor([[[[2.0, 5.0, 0.0]], [[0.0, 0.0, 3.0]]]])
    assert propagate(maps, features).flatten().tolist() == pytest.approx([0.5, 0.5, 0.8], abs=1e-4)


@pytest.fixture(scope="module")
def network() -> CamNetwork:
    torch.manual_seed(0)
    backbone = build_backbone(
        BackboneOptions(name="tf_efficientnet_lite0", weights="none", trainable_stages=1)
    )
    return CamNetwork(backbone, 2, (8, 8, 8, 8), affinity=True).eval()


def test_similarity_is_measured_on_the_small_image_and_the_last_stage(network: CamNetwork) -> None:
    images = torch.randint(
        0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    colours = network.backbone.normalise(images)
    last = network.backbone(colours)[3]
    assert network.affinity is not None and network.affinity.weight.shape[:2] == (
        last.shape[1],
        3 + last.shape[1],
    )
    joined = torch.cat(
        [F.interpolate(colours, last.shape[2:], mode="bilinear", align_corners=True), last], 1
    )
    expected = torch.einsum("os,nshw->nohw", network.affinity.weight[:, :, 0, 0], joined)
    torch.testing.assert_close(network(images).affinity, expected, atol=1e-4, rtol=1e-4)


def test_the_maps_teach_backbone_classifier_and_affinity(network: CamNetwork) -> None:
    images = torch.randint(
        0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    output = network(images)
    detached = CamOutput(output.logits.detach(), output.features, output.semantic, output.affinity)
    maps = training_maps(
        detached, torch.ones(1, 2), torch.ones(1, 1, 4, 4, dtype=torch.bool), MapRules()
    )
    network.zero_grad()
    maps.classifier.square().sum().backward()  # through the affinity alone
    assert (
        network.affinity is not None
        and network.affinity.weight.grad.any()
        and network.classifier.weight.grad is None
    )
    assert any(
        parameter.grad is not None and parameter.grad.any()
        for parameter in network.backbone_parameters()
    )
    assert all(side.weight.grad is None for side in network.sides)
    assert any(parameter is network.affinity.weight for parameter in network.head_parameters())


def test_the_affinity_is_saved_with_the_network(network: CamNetwork, tmp_path: Path) -> None:
    options = BackboneOptions(name="tf_efficientnet_lite0", weights="none", trainable_stages=1)
    save_cam_network(tmp_path / "cam.pt", network, options, ("a", "b"))
    again = load_cam_network(tmp_path / "cam.pt", torch.device("cpu"), ("a", "b"))
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(again(images).affinity, network(images).affinity)


def test_inference_propagates_the_sum_of_image_and_mirror(network: CamNetwork) -> None:
    image = torch.randint(
        0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )
    labels, present = torch.tensor([0.0, 1.0]), torch.tensor([[True, False, True]])
    with torch.inference_mode():
        maps = multi_scale_maps(
            network, image, labels, (64, 96), MultiScaleMaps(scales=(1.0,), seed_rule="structure")
        )
        one, two = network(image[None]), network(image.flip(-1)[None])
        logits, features = (
            a + b.flip(-1) for a, b in ((one.logits, two.logits), (one.features, two.features))
        )
        refined = plain_propagate(
            classifier_maps(logits, labels[None])[0], (one.affinity + two.affinity.flip(-1))[0]
        )[None]
        centres = prototypes(features, plain_seeds(refined, present))
        for found, grid in (
            (maps.classifier, refined),
            (maps.prototype, prototype_maps(features, centres)),
        ):
            large = F.interpolate(grid[:, [0, 2]], (64, 96), mode="bilinear")[0]
            torch.testing.assert_close(
                found, large / (large.amax((1, 2), keepdim=True) + 1e-5), atol=1e-3, rtol=1e-3
            )
