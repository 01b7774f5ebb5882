"""DeepLabV2 of deeplab-pytorch and HSC's head: what their code computed (`deeplab.npz`)."""

import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brnf.config.sections.segmentation import DeepLabNetwork, SegmentationOptimiser
from brnf.segment.deeplab import DeepLab, build_deeplab
from brnf.segment.heads import AsppHead
from brnf.segment.loss import enlarged, multi_scale_logits, multi_scale_loss, segmentation_loss
from brnf.segment.training import rate_share
from tests.reference.recipe import load, normal, reference_value

EXPECTED = load("deeplab")
OPTIONS = DeepLabNetwork(
    backbone="resnet50",
    weights="none",
    head="aspp_sum",
    layout="caffe",
    frozen_batch_norm=True,
    align_corners=False,
)
SCALES = (0.5, 0.75)
PARTS = {"1": "reduce", "2": "conv3x3", "3": "increase"}


def peer_name(own: str) -> str:
    """Return deeplab-pytorch's name of a tensor."""
    if own.startswith("head."):
        return re.sub(r"^head\.convolutions\.", "aspp.c", own)
    own = own.removeprefix("backbone.network.")
    if found := re.match(r"^(conv|bn)1\.(\w+)$", own):
        return "layer1.conv1.{}.{}".format(*found.groups())
    stage, block, rest = re.match(r"^layer(\d)\.(\d+)\.(.+)$", own).groups()
    if found := re.match(r"^downsample\.(\d)\.(\w+)$", rest):
        part, kind, value = "shortcut", ("conv", "bn")[int(found[1])], found[2]
    else:
        kind, number, value = re.match(r"^(conv|bn)(\d)\.(\w+)$", rest).groups()
        part = PARTS[number]
    return f"layer{int(stage) + 1}.block{int(block) + 1}.{part}.{kind}.{value}"


def fill(module: nn.Module, named: Callable[[str], str]) -> None:
    """Give every tensor the value that its peer's name stands for."""
    state = module.state_dict()
    values = {name: reference_value(named(name), tuple(state[name].shape)) for name in state}
    module.load_state_dict(values)


def largest_difference(found: Tensor, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected value."""
    error = np.abs(found.detach().double().numpy() - expected).max()
    return float(error / np.abs(expected).max())


@pytest.fixture(scope="module")
def network() -> DeepLab:
    network = build_deeplab(OPTIONS, 5)
    network.backbone.mean.zero_()  # the stored input is what the network sees
    network.backbone.std.fill_(1)
    fill(network, peer_name)
    return network.eval()


@pytest.fixture(scope="module")
def seen(network: DeepLab) -> list[Tensor]:
    return multi_scale_logits(network, normal("deeplab.image", (1, 3, 97, 97)), SCALES)


NAMES = ("logits", "half_logits", "three_quarter_logits", "largest_logits")


@pytest.mark.parametrize("number", range(4))
def test_logits_at_each_scale_and_their_maximum(seen: list[Tensor], number: int) -> None:
    assert largest_difference(seen[number], EXPECTED[NAMES[number]]) < 1e-5


def test_logits_without_a_gradient(network: DeepLab) -> None:
    with torch.no_grad():
        found = network(normal("deeplab.image", (1, 3, 97, 97)))
    assert largest_difference(found, EXPECTED["logits"]) < 1e-5


def test_the_loss_of_all_scales_and_its_gradients(network: DeepLab, seen: list[Tensor]) -> None:
    loss = multi_scale_loss(seen, torch.from_numpy(EXPECTED["labels"]).long())
    assert loss.item() == pytest.approx(float(EXPECTED["loss_f64"]), rel=1e-6)
    groups = [group["params"] for group in network.parameter_groups(1.0, 0.0)]
    body, head, _ = (torch.autograd.grad(loss, group, retain_graph=True) for group in groups)
    assert [norm(body), norm(head)] == pytest.approx(EXPECTED["gradient_norms_f64"], rel=1e-4)


def norm(gradients: Iterable[Tensor]) -> float:
    return float(torch.stack([gradient.double().norm() for gradient in gradients]).norm())


def test_groups_hold_the_same_tensors_at_the_same_rates(network: DeepLab) -> None:
    groups = network.parameter_groups(1.0, 0.5)
    multiples, decays = ([group[key] for group in groups] for key in ("lr", "weight_decay"))
    assert multiples == EXPECTED["group_multiples"].tolist() and decays == [0.5, 0.5, 0.0]
    held = [group["params"] for group in groups]
    sizes = [[len(values), sum(value.numel() for value in values)] for values in held]
    assert sizes == EXPECTED["group_sizes"].tolist()
    known = {id(value) for values in held for value in values}
    rest = [name for name, value in network.named_parameters() if id(value) not in known]
    assert len(rest) == EXPECTED["norm_tensors_in_no_group"]
    assert all(".bn" in name or ".downsample.1." in name for name in rest)


@pytest.mark.parametrize("number", [0, 1])
def test_deeplab_pytorchs_schedule(number: int) -> None:
    total = int(EXPECTED["schedule_totals"][number])
    options = SegmentationOptimiser(
        iterations=total, learning_rate=2.5e-4, schedule_every=10, schedule_beyond=0
    )
    assert_rates(EXPECTED["schedule_f64"][number], options, (1, 10, 20))


def test_hscs_schedule() -> None:
    # What it trains with is the default.
    options = SegmentationOptimiser(iterations=20_000, learning_rate=1e-3)
    assert_rates(EXPECTED["hsc_schedule_f64"], options, EXPECTED["hsc_group_multiples"].tolist())


def assert_rates(
    expected: np.ndarray, options: SegmentationOptimiser, multiples: Iterable[int]
) -> None:
    steps = EXPECTED["schedule_steps"].tolist()
    rates = np.array([options.learning_rate * rate_share(options, step) for step in steps])
    np.testing.assert_allclose(np.outer(rates, list(multiples)), expected, rtol=1e-9)


HSC_NAMES = {
    "mean_branch.0": "branch5_conv",
    "mean_branch.1": "branch5_bn",
    "fuse": "conv_cat",
}


def hsc_name(own: str) -> str:
    """Return HSC's name of a tensor of the head."""
    if own.startswith("classifier."):
        return own.replace("classifier", "cls_conv")
    for ours, theirs in HSC_NAMES.items():
        if own.startswith(f"{ours}."):
            return f"aspp.{theirs}{own.removeprefix(ours)}"
    return re.sub(r"^branches\.(\d)", lambda found: f"aspp.branch{int(found[1]) + 1}", own)


@pytest.fixture(scope="module")
def hsc_logits() -> Tensor:
    head = AsppHead(64, 5, (6, 12, 18, 24), width=256, momentum=0.0003)
    fill(head, hsc_name)
    with torch.no_grad():
        return head.eval()(normal("hsc.features", (2, 64, 17, 17)))


def test_hscs_head(hsc_logits: Tensor) -> None:
    assert largest_difference(hsc_logits, EXPECTED["hsc_logits"]) < 1e-5


def test_hscs_logits_are_enlarged_with_aligned_corners(hsc_logits: Tensor) -> None:
    found = enlarged(hsc_logits, (129, 129), align_corners=True)[..., ::8, ::8]
    assert largest_difference(found, EXPECTED["hsc_enlarged"]) < 1e-5


def test_hscs_loss(hsc_logits: Tensor) -> None:
    labels = torch.from_numpy(EXPECTED["hsc_labels"]).long()
    loss = segmentation_loss(hsc_logits, labels).item()
    assert loss == pytest.approx(float(EXPECTED["hsc_loss_f64"]), rel=1e-6)


def test_hscs_head_has_the_same_groups() -> None:
    with torch.device("meta"):
        network = build_deeplab(DeepLabNetwork(backbone="resnet50", weights="none"), 5, load=False)
    groups = network.parameter_groups(1.0, 0.5)
    assert [group["lr"] for group in groups] == [1, 10, 20]  # 2 has nothing in a ResNet
    sizes = [len(group["params"]) for group in groups[1:]]
    assert sizes == EXPECTED["hsc_head_group_sizes"].tolist()
