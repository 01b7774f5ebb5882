"""HSC's head against a plain reimplementation, its size, and what of it learns."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from brnf.segment.heads import AsppHead

RATES = (1, 2, 3)


def plain(head: AsppHead, features: Tensor, training: bool) -> Tensor:
    """Compute the head from its tensors alone, without dropout."""
    state = {name: value.clone() for name, value in head.state_dict().items()}

    def block(name: str, values: Tensor, rate: int) -> Tensor:
        weight = state[f"{name}.0.weight"]
        values = F.conv2d(values, weight, padding=rate * (weight.shape[-1] // 2), dilation=rate)
        return F.batch_norm(
            values,
            state[f"{name}.1.running_mean"],
            state[f"{name}.1.running_var"],
            training=training,
        ).relu()

    parts = [block(f"branches.{number}", features, rate) for number, rate in enumerate(RATES)]
    mean = block("mean_branch", F.adaptive_avg_pool2d(features, 1), 1)
    parts.append(F.interpolate(mean, size=features.shape[2:], mode="bilinear", align_corners=True))
    fused = block("fuse", torch.cat(parts, 1), 1)
    return F.conv2d(fused, state["classifier.weight"], state["classifier.bias"])


@pytest.fixture
def head() -> AsppHead:
    torch.manual_seed(0)
    head = AsppHead(5, 3, RATES, width=8, momentum=0.1).double()
    for name, buffer in head.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return head


@pytest.mark.parametrize("training", [False, True])
def test_the_head_equals_a_plain_reimplementation(head: AsppHead, training: bool) -> None:
    features = torch.randn(2, 5, 7, 9, dtype=torch.float64)
    head.train(training)
    head.dropout.eval()
    expected = plain(head, features, training)
    torch.testing.assert_close(head(features), expected)


def test_dropout_keeps_a_quarter_of_the_fused_channels_in_training_only(head: AsppHead) -> None:
    ones = torch.ones(1, 1, 200, 200)
    assert abs((head.train().dropout(ones) > 0).float().mean().item() - 0.25) < 0.01
    assert torch.equal(head.eval().dropout(ones), ones)


def test_hscs_head_has_the_published_size() -> None:
    with torch.device("meta"):
        head = AsppHead(2048, 21, (6, 12, 18, 24), width=256, momentum=0.0003)
    named = head.named_parameters()
    learning = {name: value.numel() for name, value in named if value.requires_grad}
    assert learning.pop("classifier.bias") == 21
    dilated, rest = 4 * 9 * 2048 * 256, 2048 * 256 + 5 * 256 * 256 + 256 * 21
    assert sum(learning.values()) == dilated + rest
    assert all(name.endswith("weight") for name in learning)


def test_statistics_follow_at_the_momentum_while_scale_and_shift_stay(head: AsppHead) -> None:
    before = {name: value.clone() for name, value in head.state_dict().items()}
    features = torch.randn(4, 5, 6, 6, dtype=torch.float64)
    head.train()(features).sum().backward()
    norm, convolution = head.branches[0][1], head.branches[0][0]
    seen = F.conv2d(features, convolution.weight, padding=1).mean((0, 2, 3))
    torch.testing.assert_close(
        norm.running_mean, 0.9 * before["branches.0.1.running_mean"] + 0.1 * seen.detach()
    )
    norms = [module for module in head.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == len(RATES) + 2
    for norm in norms:
        assert (
            norm.weight.grad is None
            and norm.bias.grad is None
            and norm.weight.eq(1).all()
            and not norm.bias.any()
        )
    kept = [value.clone() for value in (norms[0].running_mean, norms[0].running_var)]
    head.eval()(features)
    assert torch.equal(norms[0].running_mean, kept[0]) and torch.equal(
        norms[0].running_var, kept[1]
    )


def test_the_mean_of_the_image_reaches_every_position(head: AsppHead) -> None:
    features = torch.zeros(1, 5, 31, 31, dtype=torch.float64, requires_grad=True)
    head.eval()(features)[0, :, 15, 15].sum().backward()
    assert features.grad is not None and bool(features.grad[0, :, 0, 0].any())
