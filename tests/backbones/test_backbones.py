"""Strides, frozen parts and weights of the backbones."""

import pytest
import torch
from torch import nn

from brnf.backbones import BackboneOptions, build_backbone
from brnf.backbones.weights import packaged_file
from brnf.cam.network import CamNetwork, pack_network, side_widths, unpack_network
from brnf.errors import UserError

SIPE = BackboneOptions("resnet50", "none", stride=16, dilated=False, trainable_stages=2)


@pytest.fixture(scope="module")
def sipe() -> CamNetwork:
    torch.manual_seed(0)
    return CamNetwork(build_backbone(SIPE), classes=20, widths=(128, 128, 256, 256))


def test_sipe_shapes(sipe: CamNetwork) -> None:
    with torch.no_grad():
        output = sipe(torch.zeros(1, 3, 97, 130))
    assert output.logits.shape == (1, 20, 7, 9)
    assert output.features.shape == (1, 768, 7, 9)
    assert output.semantic.shape == (1, 2048, 7, 9)
    assert sipe.backbone.channels == (256, 512, 1024, 2048)


def test_sipe_last_stage_has_stride_one_and_no_dilation(sipe: CamNetwork) -> None:
    convolutions = [module for name, module in sipe.backbone.network.named_modules() if "layer4" in name and isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 10
    assert all(conv.stride == (1, 1) and conv.dilation == (1, 1) for conv in convolutions)
    strides = [
        module.stride for name, module in sipe.backbone.network.named_modules() if "layer3" in name and isinstance(module, nn.Conv2d)
    ]
    assert (2, 2) in strides


def test_gradients_stop_after_stage_two(sipe: CamNetwork) -> None:
    sipe.train()
    output = sipe(torch.rand(2, 3, 64, 64) * 255)
    output.logits.sum().backward()
    learning = {name for name, parameter in sipe.backbone.network.named_parameters() if parameter.grad is not None}
    assert learning and all(name.startswith(("layer3.", "layer4.")) and "bn" not in name for name in learning)
    assert not any(module.training for module in sipe.backbone.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(side.weight.grad is None for side in sipe.sides)  # the classifier's loss does not reach the side branches


def test_side_convolutions_do_not_train_the_backbone(sipe: CamNetwork) -> None:
    sipe.zero_grad()
    sipe(torch.rand(1, 3, 64, 64) * 255).features.square().mean().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in sipe.backbone.parameters())


def test_features_are_four_unit_blocks_where_nothing_is_interpolated() -> None:
    backbone = build_backbone(BackboneOptions("resnet50", "none", stride=16))
    network = CamNetwork(backbone, classes=2, widths=(8, 8, 8, 8))
    stages = [torch.randn(1, channels, 3, 3) for channels in backbone.channels]
    blocks = network.heads(stages).features.view(1, 4, 8, 3, 3)
    torch.testing.assert_close(blocks.norm(dim=2), torch.ones(1, 4, 3, 3))


@pytest.mark.parametrize(("stride", "grid"), [(8, (13, 17)), (16, (7, 9)), (32, (4, 5))])
def test_dilated_strides(stride: int, grid: tuple[int, int]) -> None:
    backbone = build_backbone(BackboneOptions("tf_efficientnet_lite0", "none", stride=stride, dilated=True, trainable_stages=4))
    with torch.no_grad():
        stages = backbone(torch.zeros(1, 3, 97, 130))
    assert backbone.channels == (24, 40, 112, 320)
    assert stages[-1].shape[2:] == grid


@pytest.mark.parametrize("stages", [0, 1, 2, 3, 4])
def test_trainable_stages_of_a_network_with_other_names(stages: int) -> None:
    backbone = build_backbone(BackboneOptions("tf_efficientnet_lite0", "none", dilated=True, trainable_stages=stages))
    first = {0: 99, 1: 5, 2: 3, 3: 2, 4: 1}[stages]  # blocks.5-6 are stage 4, 3-4 stage 3, 2 stage 2, 1 stage 1
    for name, parameter in backbone.network.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("blocks") else 0
        assert parameter.requires_grad == (block >= first and "bn" not in name), name


def test_packaged_weights_give_the_packages_own_logits() -> None:
    import timm
    from efficientnet_lite_pytorch import EfficientNet

    from brnf.backbones.weights import _in_order

    own = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(packaged_file("efficientnet_lite0"))).eval()
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours.load_state_dict(_in_order("tf_efficientnet_lite0", "efficientnet_lite0"), strict=False)
    images = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0)).float()
    backbone = build_backbone(BackboneOptions("tf_efficientnet_lite0", "efficientnet_lite0", dilated=True))
    prepared = backbone.normalise(images)
    with torch.no_grad():
        assert torch.equal(ours(prepared.contiguous()), own((images - 127) / 128))
        torch.testing.assert_close(backbone(prepared)[0], ours.forward_intermediates(prepared)[1][1], atol=1e-3, rtol=1e-3)


def test_weights_from_a_file(tmp_path) -> None:
    source = build_backbone(SIPE)
    file = tmp_path / "resnet50.pth"
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in source.network.state_dict().items()} | {"fc.weight": torch.zeros(1)}}, file
    )
    loaded = build_backbone(BackboneOptions("resnet50", str(file)))
    assert torch.equal(loaded.network.layer1[0].conv1.weight, source.network.layer1[0].conv1.weight)


def test_wrong_weights_are_one_line(tmp_path) -> None:
    file = tmp_path / "weights.pth"
    for content in (b"", b"rubbish", b"PK\x03\x04 broken"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.pth"):
            build_backbone(BackboneOptions("resnet50", str(file)))
    with pytest.raises(UserError, match="no such file"):
        build_backbone(BackboneOptions("resnet50", str(tmp_path / "missing.pth")))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(UserError, match="missing"):
        build_backbone(BackboneOptions("resnet50", str(file)))
    with pytest.raises(UserError, match="cannot be built"):
        build_backbone(BackboneOptions("resnet5000", "none"))


def test_side_widths_never_exceed_their_stage() -> None:
    assert side_widths((128, 128, 256, 256), (256, 512, 1024, 2048)) == (128, 128, 256, 256)
    assert side_widths((128, 128, 256, 256), (24, 40, 112, 320)) == (24, 40, 112, 256)
    assert side_widths((7, 8, 8, 8), (24, 40, 112, 320)) == (7, 8, 8, 7)


def test_a_packed_network_comes_back_equal(sipe: CamNetwork) -> None:
    again = unpack_network(pack_network(sipe, SIPE, ["class"] * 20)).eval()
    sipe.eval()
    image = torch.rand(1, 3, 48, 48) * 255
    with torch.no_grad():
        assert torch.equal(again(image).features, sipe(image).features)
