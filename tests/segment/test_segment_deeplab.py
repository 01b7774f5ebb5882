"""DeepLabV2's head, parameter groups and files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.errors import UserError
from brnf.segment.deeplab import KIND, DeepLab, build_deeplab, load_deeplab, save_deeplab
from brnf.segment.heads import AtrousHead
from brnf.store.networks import read_network
from brnf.store.tensors import write_tensors

SMALL = DeepLabNetwork(
    backbone="mobilenetv3_small_050",
    weights="none",
    rates=(1, 2),
    frozen_batch_norm=True,
    head="aspp_sum",
    head_width=8,
)


@pytest.fixture(scope="module")
def network() -> DeepLab:
    torch.manual_seed(0)
    return build_deeplab(SMALL, 3)


@pytest.mark.parametrize(
    ("size", "rates"), [((9, 11), (6, 12, 18, 24)), ((5, 2), (1, 2)), ((1, 1), (3,))]
)
def test_the_head_and_its_gradient_are_those_of_the_sum_of_its_atrous_convolutions(
    size: tuple[int, int], rates: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    head = AtrousHead(5, 3, rates).double()
    for convolution in head.convolutions:
        torch.nn.init.normal_(convolution.bias)
    features = torch.randn(2, 5, *size, dtype=torch.float64, requires_grad=True)
    expected = sum(
        F.conv2d(features, convolution.weight, convolution.bias, padding=rate, dilation=rate)
        for convolution, rate in zip(head.convolutions, rates, strict=True)
    )
    found = head(features)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(head(features), expected)
    arguments, weights = [features, *head.parameters()], torch.randn_like(expected)
    gradients = (torch.autograd.grad(result, arguments, weights) for result in (found, expected))
    torch.testing.assert_close(*gradients)


def test_the_head_sees_exactly_the_eight_neighbours_at_each_rate_and_the_centre() -> None:
    head = AtrousHead(1, 1, (6, 12, 18, 24))
    for convolution in head.convolutions:
        torch.nn.init.ones_(convolution.weight)
    features = torch.zeros(1, 1, 61, 61, requires_grad=True)
    head(features)[0, 0, 30, 30].backward()
    seen = {
        (int(r) - 30, int(c) - 30): float(features.grad[0, 0, r, c])
        for r, c in features.grad[0, 0].nonzero()
    }
    expected = {
        (a * rate, b * rate): 1.0
        for rate in (6, 12, 18, 24)
        for a in (-1, 0, 1)
        for b in (-1, 0, 1)
    }
    expected[0, 0] = 4.0
    assert seen == expected


def test_the_head_starts_small_and_unbiased() -> None:
    torch.manual_seed(0)
    head = AtrousHead(256, 21, (6, 12))
    for convolution in head.convolutions:
        assert abs(convolution.weight.std().item() - 0.01) < 2e-4 and not convolution.bias.any()


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_logits_come_at_an_eighth_of_the_image(network: DeepLab, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = network.eval()(torch.zeros(1, 3, *size))
    assert logits.shape == (1, 3, -(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize(
    ("trainable_stages", "frozen", "head"),
    [
        (4, True, "aspp_sum"),
        (4, False, "aspp_concat"),
        (2, True, "aspp_concat"),
        (2, False, "aspp_sum"),
        (0, True, "aspp_concat"),
        (0, True, "aspp_sum"),
    ],
)
def test_groups_hold_every_learning_parameter_once_with_its_rate(
    trainable_stages: int, frozen: bool, head: Any
) -> None:
    learns = {"trainable_stages": trainable_stages, "frozen_batch_norm": frozen, "head": head}
    options = replace(SMALL, **learns)
    network = build_deeplab(options, 3)
    groups = network.parameter_groups(0.5, 0.1)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    learning = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    assert len(found) == len(set(found)) and set(found) == learning
    rate_of = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert name.startswith("backbone.") or ".1." in name  # a norm of the head
        elif name.startswith("backbone."):
            bias = name.endswith("bias")  # of the convolutions that weigh channels
            assert rate_of[id(parameter)] == ((1.0, 0.0) if bias else (0.5, 0.1))
        else:
            assert rate_of[id(parameter)] == ((10.0, 0.0) if name.endswith("bias") else (5.0, 0.1))
    learning_backbone = sum(parameter.requires_grad for parameter in network.backbone.parameters())
    assert (learning_backbone == 0) == (trainable_stages == 0)


def norms(network: DeepLab) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def test_statistics_stay_or_follow_as_chosen_while_scale_and_shift_stay(network: DeepLab) -> None:
    assert not any(norm.training for norm in norms(network.train()))
    following = build_deeplab(replace(SMALL, frozen_batch_norm=False), 3).train()
    assert all(norm.training for norm in norms(following))
    options = replace(SMALL, frozen_batch_norm=False, trainable_stages=1)
    part = build_deeplab(options, 3).train()
    flags = [norm.training for norm in norms(part)]
    assert flags == sorted(flags) and not flags[0] and flags[-1]
    assert not any(norm.training for norm in norms(following.eval()))
    for one in (network, following, part):
        learning = [value.requires_grad for norm in norms(one) for value in norm.parameters()]
        assert learning and not any(learning)


def test_a_saved_network_comes_back_the_same_and_in_equal_bytes(
    network: DeepLab, tmp_path: Path
) -> None:
    network.eval().backbone.restore(replace(network.backbone.loaded, mean=(1.0, 2.0, 3.0)))
    save_deeplab(tmp_path / "a.pt", network, ["dog", "cat"])
    save_deeplab(tmp_path / "b.pt", network, ["dog", "cat"])
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    again = load_deeplab(tmp_path / "a.pt", torch.device("cpu"), ["dog", "cat"])
    assert not again.training and again.options == SMALL
    image = torch.randint(0, 256, (1, 3, 64, 64)).float()
    with torch.no_grad():
        torch.testing.assert_close(again(image), network(image), rtol=0, atol=0)


@pytest.mark.parametrize(("earlier", "head"), [("sum", "aspp_sum"), ("aspp", "aspp_concat")])
def test_a_file_of_an_earlier_version_is_read(earlier: str, head: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_deeplab(replace(SMALL, head=head, head_width=8), 3).eval()
    network.backbone.restore(replace(network.backbone.loaded, std=(1.0, 2.0, 3.0)))
    save_deeplab(tmp_path / "a.pt", network, ["dog", "cat"])
    content = read_network(tmp_path / "a.pt", KIND)
    content["options"]["network"]["head"] = earlier
    content["options"]["weights"]["deviation"] = content["options"]["weights"].pop("std")
    write_tensors(tmp_path / "a.pt", content)
    again = load_deeplab(tmp_path / "a.pt", torch.device("cpu"))
    image = torch.randint(0, 256, (1, 3, 64, 64)).float()
    with torch.no_grad():
        assert again.options == network.options and torch.equal(again(image), network(image))


def test_the_head_aspp_concat_is_saved_with_its_statistics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_deeplab(replace(SMALL, head="aspp_concat", head_width=8, norm_momentum=0.5), 3)
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    network.train()(images)
    save_deeplab(tmp_path / "a.pt", network.eval(), ["dog", "cat"])
    again = load_deeplab(tmp_path / "a.pt", torch.device("cpu"))
    with torch.no_grad():
        assert again.options == network.options and torch.equal(again(images), network(images))


def test_mistakes_about_the_backbone_name_the_keys_of_this_section(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"^segmentation\.weights: .*weights\.pth"):
        build_deeplab(DeepLabNetwork(backbone="resnet18", weights=str(tmp_path / "weights.pth")), 3)
    with pytest.raises(UserError, match=r"^segmentation\.backbone: "):
        build_deeplab(DeepLabNetwork(backbone="resnet1800", weights="none"), 3)


def test_caffes_layout_differs_in_strides_pooling_and_first_dilations() -> None:
    def convolutions(layout: Any) -> dict[str, tuple[Any, Any, Any]]:
        options = replace(SMALL, backbone="resnet50", layout=layout)
        with torch.device("meta"):
            network = build_deeplab(options, 3, load=False).backbone.network
        assert network.maxpool.ceil_mode == (layout == "caffe")
        found = {name: one for name, one in network.named_modules() if isinstance(one, nn.Conv2d)}
        return {name: (one.stride, one.padding, one.dilation) for name, one in found.items()}

    torchvision, caffe = convolutions("torchvision"), convolutions("caffe")
    moved = {name: caffe[name] for name in caffe if caffe[name] != torchvision[name]}
    assert moved == {
        "layer2.0.conv1": ((2, 2), (0, 0), (1, 1)),
        "layer2.0.conv2": ((1, 1), (1, 1), (1, 1)),
        "layer3.0.conv2": ((1, 1), (2, 2), (2, 2)),
        "layer4.0.conv2": ((1, 1), (4, 4), (4, 4)),
    }


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "resnet18"])
def test_caffes_layout_needs_bottlenecks(backbone: str) -> None:
    with pytest.raises(UserError, match=r"^segmentation\.layout: caffe needs a ResNet") as caught:
        build_deeplab(replace(SMALL, backbone=backbone, layout="caffe"), 3)
    assert "\n" not in str(caught.value)
