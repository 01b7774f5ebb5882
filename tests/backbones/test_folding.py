"""Folded BatchNorms change nothing but the way it is computed."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from brnf.backbones import build_backbone
from brnf.backbones.folding import FoldedNorms, folded
from brnf.config.sections.cam import BackboneOptions
from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.segment.deeplab import build_deeplab


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def _randomise(network: nn.Module) -> None:
    for norm in _norms(network):
        for values in (norm.weight, norm.running_var):
            nn.init.uniform_(values, 0.5, 1.5)
        for values in (norm.bias, norm.running_mean):
            nn.init.uniform_(values, -0.5, 0.5)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_outputs_stay_and_no_norm_is_left(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneOptions(name=name, weights="none", stride=16)).eval()
    _randomise(backbone.network)
    images = backbone.normalise(torch.randint(0, 256, (2, 3, 96, 80)))
    with torch.inference_mode():
        expected = backbone.network.double()(images.double())
        backbone.float().fold()
        found = backbone(images)
    assert not _norms(backbone)
    for output, exact in zip(found, expected[-4:], strict=True):
        assert (output - exact).abs().max() < 1e-4 * exact.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_gradients_are_those_of_the_network(name: str) -> None:
    torch.manual_seed(0)
    network = build_backbone(
        BackboneOptions(name=name, weights="none", stride=16, trainable_stages=4)
    ).network.double()
    _randomise(network)
    # a pass in float32 on other parameters came first
    computed = FoldedNorms(build_backbone(BackboneOptions(name=name, weights="none")).network)
    images = torch.randn(2, 3, 96, 80, dtype=torch.float64)
    learning = [value for value in network.parameters() if value.requires_grad]
    expected_outputs = network(images)
    asked = _norms_asked(network)
    results = [expected_outputs, computed(network, images)]
    assert not asked
    weights = [torch.randn_like(output) for output in results[0]]
    sums = [
        sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
        for outputs in results
    ]
    expected, found = (torch.autograd.grad(value, learning) for value in sums)
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def _norms_asked(network: nn.Module) -> list[nn.Module]:
    """Return a list that gets every BatchNorm that computes something from now on."""
    found: list[nn.Module] = []
    for norm in _norms(network):
        norm.register_forward_pre_hook(lambda module, _: found.append(module))
    return found


@pytest.mark.parametrize("frozen", [True, False])
def test_only_a_segmenter_of_frozen_norms_learns_without_them(frozen: bool) -> None:
    options = DeepLabNetwork(
        backbone="resnet18", weights="none", head="aspp_sum", frozen_batch_norm=frozen
    )
    network = build_deeplab(options, 3).train()
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    network(images)  # the first pass looks at a copy of the network
    asked = _norms_asked(network)
    network(images).sum().backward()
    assert bool(asked) is not frozen
    with torch.no_grad():
        network(images)
    assert asked


def test_the_networks_own_parameters_stay() -> None:
    network = build_backbone(BackboneOptions(name="resnet18", weights="none")).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert folded(network) is not network
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class BeforeTheBlock(nn.Module):
    """Normalises before a residual block: the convolution's output is needed as it is, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        shortcut = self.stem(images)
        return [shortcut + self.convolution(self.norm(shortcut).relu())]


def test_a_norm_that_shares_its_input_is_left_alone() -> None:
    torch.manual_seed(0)
    network = BeforeTheBlock().eval()
    _randomise(network)
    assert folded(network) is network
    assert len(_norms(network)) == 1


def test_the_rounding_of_a_device_does_not_decide() -> None:
    torch.manual_seed(0)
    network = build_backbone(BackboneOptions(name="resnet18", weights="none")).network.eval()
    _randomise(network)
    found = folded(network.to(torch.bfloat16))  # rounds more than TF32 does
    assert not _norms(found)
    assert {value.dtype for value in found.parameters()} == {torch.bfloat16}


def test_a_network_without_norms_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    assert folded(network) is network
