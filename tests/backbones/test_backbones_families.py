"""The table of networks that work, held against timm, and what every family must keep to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from brnf.backbones import Backbone, build_backbone
from brnf.backbones.intermediates import Intermediates
from brnf.backbones.levels import stages_of_modules
from brnf.backbones.network import backbone_channels
from brnf.backbones.strides import _lower
from brnf.cam.network import CamNetwork, load_cam_network, save_cam_network
from brnf.config.networks import FAMILIES, can_dilate, family_of, stage_strides
from brnf.config.sections.cam import BackboneOptions
from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.errors import UserError
from brnf.segment.deeplab import build_deeplab, load_deeplab, save_deeplab

SMALLEST = (
    *("resnet18", "mobilenetv3_small_050", "regnetx_002", "nfnet_l0", "repvgg_a0", "cs3darknet_s"),
    *(
        "ese_vovnet19b_slim_dw",
        "xception41",
        "cspnext_tiny",
        "mobilevit_xxs",
        "densenet121",
        "dla46_c",
        "dpn48b",
    ),
    *("ghostnet_050", "selecsls42", "convnext_atto", "swin_tiny_patch4_window7_224"),
    *("swinv2_cr_tiny_ns_224", "pvt_v2_b0", "poolformer_s12", "focalnet_tiny_srf"),
    *("inception_next_atto", "mambaout_femto", "edgenext_xx_small", "fasternet_t0", "fastvit_t8"),
    *("hgnetv2_b0", "iformer_t", "repvit_m0_9", "swiftformer_xs", "tiny_vit_5m_224", "davit_tiny"),
    *("efficientvit_b0", "nextvit_small", "starnet_s050", "vit_tiny_patch16_224"),
)
"""The smallest network of each family."""
TRIED = (
    *("convnext_atto", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "vit_tiny_patch16_224"),
    *("vit_small_patch14_dinov2", "vit_xsmall_patch16_clip_224"),
)
"""Networks that go through all that is done with a backbone."""
ODD = (97, 130)


def built(name: str, stride: int = 32, stages: int = 1, dilated: bool = False) -> Backbone:
    torch.manual_seed(0)
    options = BackboneOptions(
        name=name, weights="none", stride=stride, trainable_stages=stages, dilated=dilated
    )
    return build_backbone(options)


def up(side: int, stride: int) -> int:
    return -(-side // stride)


def test_every_family_has_a_network_here_and_none_takes_anothers() -> None:
    assert [family_of(name) for name in SMALLEST] == list(FAMILIES)
    assert set(SMALLEST + TRIED) <= set(timm.list_models())


@pytest.mark.parametrize("name", SMALLEST)
def test_widths_and_strides_of_a_family_are_what_the_table_says(name: str) -> None:
    family = family_of(name)
    assert family is not None
    stride = max(family.smallest_stride, 16)
    backbone = built(name, stride, 0)
    with torch.no_grad():
        stages = backbone(torch.zeros(1, 3, 64, 96))
    assert tuple(stage.shape[1] for stage in stages) == backbone.channels
    strides = stage_strides(name, stride)
    assert [tuple(stage.shape[2:]) for stage in stages] == [(64 // s, 96 // s) for s in strides]


@pytest.mark.parametrize(
    "name", ["vgg16", "hrnet_w18", "efficientformerv2_s0", "vit_relpos_small_patch16_224", "xcit"]
)
def test_what_does_not_work_is_in_no_family(name: str) -> None:
    assert family_of(name) is None
    assert name == "xcit" or timm.is_model(name)


@pytest.mark.parametrize(
    ("name", "stride", "dilated"),
    [
        *((name, stride, False) for name in TRIED for stride in (8, 16, 32)),
        *(("convnext_atto", stride, True) for stride in (8, 16)),
    ],
)
def test_grids_cover_images_of_any_size(name: str, stride: int, dilated: bool) -> None:
    backbone = built(name, stride, 0, dilated)
    with torch.no_grad():
        stages = backbone(torch.rand(1, 3, *ODD))
    for stage, width, own in zip(
        stages, backbone.channels, stage_strides(name, stride), strict=True
    ):
        grid = [up(side, stride) * stride // own for side in ODD]
        assert tuple(stage.shape) == (1, width, *grid)


def parameters_by_stage(backbone: Backbone) -> dict[nn.Parameter, int]:
    pairs = stages_of_modules(backbone.network)
    return {one: stage for module, stage in pairs for one in module.parameters(recurse=False)}


@pytest.mark.parametrize("name", [*TRIED, "repvit_m0_9", "densenet121"])
def test_modules_belong_to_the_stage_that_they_compute(name: str) -> None:
    """A stage's output depends on its own parameters and on none of a later stage."""
    backbone = built(name, 16, 4)
    stages = parameters_by_stage(backbone)
    assert len(stages) == len(list(backbone.parameters()))
    if name.startswith("vit"):  # the last normalisation stands behind each of the four
        for parameter in backbone.network.network.norm.parameters():
            del stages[parameter]
    backbone.requires_grad_(True)
    outputs = backbone(torch.rand(1, 3, 64, 64))
    for number, output in enumerate(outputs, start=1):
        names = [*stages]
        found = torch.autograd.grad(
            output.square().sum(), names, retain_graph=True, allow_unused=True
        )
        used = {stages[p] for p, slope in zip(names, found, strict=True) if slope is not None}
        assert used == set(range(number + 1))


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("stages", [0, 2, 4])
def test_only_the_last_stages_learn(name: str, stages: int) -> None:
    network = CamNetwork(built(name, 16, stages), 2, (8, 8, 8, 8))
    network.train()
    network(torch.rand(1, 3, 64, 64) * 255).logits.square().sum().backward()
    belongs = parameters_by_stage(network.backbone)
    learnt = {stage for parameter, stage in belongs.items() if parameter.grad is not None}
    assert learnt == set(range(5 - stages, 5))
    assert network.backbone.training == (stages > 0)


@pytest.mark.parametrize("name", TRIED)
def test_cam_network_gives_maps_of_odd_images_and_of_several_scales(name: str) -> None:
    network = CamNetwork(built(name, 16, 0), 3, (8, 8, 8, 8)).eval()
    with torch.no_grad():
        output = network(torch.rand(2, 3, *ODD) * 255)
    assert output.logits.shape == (2, 3, 7, 9)
    assert output.features.shape == (2, 32, 7, 9)
    assert torch.isfinite(output.features).all()


class Mean(nn.Module):
    """Give the mean colour of each square, as a network would that knows nothing else."""

    feature_info = tuple(
        {"num_chs": 3, "reduction": 14, "module": f"blocks.{depth}"} for depth in range(4)
    )

    def prune_intermediate_layers(self, indices: list[int], prune_norm: bool) -> list[int]:
        return indices

    def forward_intermediates(self, images: Tensor, **_: object) -> list[Tensor]:
        return [nn.functional.avg_pool2d(images, 14)] * 4


def test_a_mirrored_image_has_the_mirrored_grid() -> None:
    network = Intermediates(Mean(), range(4), cell=14, stride=16)
    images = torch.rand(1, 3, *ODD, dtype=torch.float64)
    found, mirrored = network(images)[3], network(images.flip(3))[3].flip(3)
    assert found.shape == (1, 3, 7, 9)
    torch.testing.assert_close(found, mirrored)
    # With the right and lower border padded, the last columns would see nothing but the padding.
    ramp = torch.arange(130.0, dtype=torch.float64).expand(1, 3, 97, 130)
    middles = (torch.arange(9) + 0.5) * 130 / 9 - 0.5
    assert (network(ramp)[3][0, 0, 3] - middles).abs().max() < 0.1


def symmetric_halvings() -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield stages whose halving treats left and right alike, and features for them."""
    features = torch.rand(1, 4, 5, 6, dtype=torch.float64)
    convolution = nn.Conv2d(4, 2, 2, stride=2).double()
    wide = nn.Conv2d(4, 2, 3, stride=2, padding=1).double()
    merging = timm.models.swin_transformer.PatchMerging(4).double()
    with torch.no_grad():
        for layer in (convolution, wide):
            layer.weight.copy_((layer.weight + layer.weight.flip(3)) / 2)
        merging.reduction.weight.copy_(merging.reduction.weight[:, :4].repeat(1, 4))
    for layer, shape in ((convolution, features), (wide, features)):
        yield layer, shape
    yield merging, features.permute(0, 2, 3, 1)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("distance", [1, 2])
def test_a_halving_at_every_position_keeps_size_and_place(number: int, distance: int) -> None:
    torch.manual_seed(0)
    layer, features = list(symmetric_halvings())[number]
    stage = nn.Module()
    stage.downsample = nn.Sequential(layer)
    columns = 3 if isinstance(layer, nn.Conv2d) else 2
    assert _lower(stage, distance)
    found = stage.downsample(features)
    assert found.shape[columns] == 6 and found.shape[columns - 1] == 5
    torch.testing.assert_close(found, stage.downsample(features.flip(columns)).flip(columns))


def test_a_lowered_stride_sees_what_the_whole_stride_saw() -> None:
    """Every second position of an undivided halving is a position of the halving itself."""
    torch.manual_seed(0)
    layer, features = nn.Conv2d(4, 2, 2, stride=2), torch.rand(1, 4, 4, 6)
    expected = layer(features)
    stage = nn.Module()
    stage.downsample = nn.Sequential(layer)
    _lower(stage, 1)
    layer.distance = 1
    seen = nn.Conv2d(4, 2, 2)
    seen.load_state_dict(layer.state_dict())
    # The mean of the four neighbours of a position in between.
    all_positions = seen(nn.functional.pad(features, (1, 1, 1, 1), mode="replicate"))
    torch.testing.assert_close(layer(features), nn.functional.avg_pool2d(all_positions, 2, 1))
    torch.testing.assert_close(all_positions[:, :, 1::2, 1::2], expected)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "pvt_v2_b0", "cs3darknet_s"]
)
def test_weights_of_the_whole_network_are_loaded_from_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model(name, pretrained=False)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    options = BackboneOptions(name=name, weights=str(tmp_path / "weights.pth"), stride=32)
    backbone = build_backbone(options).eval()
    assert backbone.loaded.digest is not None
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found = backbone(images)[3]
        if name.startswith("vit"):
            whole = timm.create_model(name, pretrained=False, dynamic_img_size=True)
            whole.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
            patch = whole.patch_embed.patch_size[0]
            images = nn.functional.interpolate(
                images, (2 * patch, 3 * patch), mode="bilinear", antialias=True
            )
        tokens = whole.eval().forward_features(images)
    if name.startswith("vit"):
        tokens = tokens[:, whole.num_prefix_tokens :].unflatten(1, (2, 3)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, tokens, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "vit_tiny_patch16_224"])
def test_networks_come_back_equal_from_their_files(name: str, tmp_path: Path) -> None:
    image, cpu = torch.rand(1, 3, *ODD) * 255, torch.device("cpu")
    options = BackboneOptions(name=name, weights="none", stride=16)
    cam = CamNetwork(build_backbone(options), 2, (8, 8, 8, 8)).eval()
    save_cam_network(tmp_path / "cam.pt", cam, options, ("a", "b"))
    segmenter = build_deeplab(
        DeepLabNetwork(backbone=name, weights="none", output_stride=16, rates=(1, 2)), 3
    ).eval()
    save_deeplab(tmp_path / "deeplab.pt", segmenter, ("a", "b"))
    with torch.no_grad():
        assert torch.equal(
            load_cam_network(tmp_path / "cam.pt", cpu)(image).logits, cam(image).logits
        )
        again = load_deeplab(tmp_path / "deeplab.pt", cpu)
        assert torch.equal(again(image), segmenter(image))


def test_norms_of_a_pyramid_fold_away() -> None:
    backbone = built("repvit_m0_9", 16, 0)
    norms = [one for one in backbone.modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    images = torch.rand(1, 3, *ODD)
    with torch.no_grad():
        expected = backbone(images)
        backbone.fold()
        found = backbone(images)
    left = [one for one in backbone.modules() if isinstance(one, nn.BatchNorm2d)]
    assert len(left) < len(norms)
    for output, exact in zip(found, expected, strict=True):
        assert (output - exact).abs().max() < 1e-4 * exact.abs().max()


def test_a_segmenter_dilates_where_its_backbone_can() -> None:
    assert can_dilate("convnext_atto") and not can_dilate("pvt_v2_b0")
    for name in ("convnext_atto", "pvt_v2_b0", "vit_tiny_patch16_224"):
        options = DeepLabNetwork(backbone=name, weights="none", head="aspp_sum", rates=(1, 2))
        network = build_deeplab(options, 3).eval()
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 40, 64)).shape == (1, 3, 5, 8)
        dilated = {one.dilation for one in network.backbone.modules() if isinstance(one, nn.Conv2d)}
        assert dilated == ({(1, 1), (2, 2), (4, 4)} if name == "convnext_atto" else {(1, 1)})


def test_widths_are_known_without_weights() -> None:
    assert backbone_channels("pvt_v2_b0") == (32, 64, 160, 256)
    assert backbone_channels("vit_tiny_patch16_224") == (192,) * 4


def test_strides_that_cannot_be_made_are_refused() -> None:
    options = BackboneOptions(name="starnet_s050", weights="none", stride=16)
    with pytest.raises(UserError, match=r"backbone\.stride: 16 is not possible"):
        build_backbone(options)
    assert build_backbone(replace(options, stride=32)).channels[-1] == 128
