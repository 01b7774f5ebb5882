"""Under autocast the sums of few products stay exact, the others are rounded."""

import copy

import pytest
import torch
from torch import nn

from brnf.backbones import build_backbone
from brnf.backbones.precision import keep_small_sums_in_float32
from brnf.config.sections.cam import BackboneOptions


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (nn.Conv2d(32, 32, 3, groups=32), True),
        (nn.Conv2d(32, 32, 5, groups=32, bias=False), True),
        (nn.Conv2d(3, 8, 3, stride=2), True),
        (nn.Conv2d(3, 8, 7), False),
        (nn.Conv2d(16, 8, 1), False),
        (nn.Conv2d(8, 8, 3), False),
    ],
)
def test_which_layers_are_kept(layer: nn.Conv2d, kept: bool) -> None:
    network = nn.Sequential(copy.deepcopy(layer))
    keep_small_sums_in_float32(network)
    values = torch.randn(2, layer.in_channels, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(values)
        assert found.dtype == (torch.float32 if kept else torch.bfloat16)
        assert torch.equal(network(values.bfloat16()), network(values.bfloat16().float())), (
            "what comes from a rounding layer is taken"
        )
    assert torch.equal(network(values), layer(values)) and torch.equal(
        copy.deepcopy(network)(values), layer(values)
    )
    assert not kept or torch.equal(found, layer(values))
    assert repr(network[0]) == repr(layer) and list(network.state_dict()) == [
        f"0.{name}" for name in layer.state_dict()
    ]


def test_gradients_reach_a_kept_layer_and_what_is_before_it() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
    keep_small_sums_in_float32(network)
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(1, 4, 5, 5)).sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in network.parameters()
    )


def test_a_backbones_depthwise_convolutions_are_kept_with_and_without_norms() -> None:
    backbone = build_backbone(BackboneOptions(name="tf_efficientnet_lite0", weights="none")).eval()
    images = backbone.normalise(torch.randint(0, 256, (1, 3, 64, 64)))
    for _ in range(2):
        seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

        def note(
            module: nn.Conv2d,
            _: object,
            output: torch.Tensor,
            seen: dict[bool, set[torch.dtype]] = seen,
        ) -> None:
            seen[module.groups > 1 or module.in_channels == 3].add(output.dtype)

        hooks = [
            module.register_forward_hook(note)
            for module in backbone.modules()
            if isinstance(module, nn.Conv2d)
        ]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            backbone(images)
        assert seen == {True: {torch.float32}, False: {torch.bfloat16}}
        for hook in hooks:
            hook.remove()
        backbone.fold()
