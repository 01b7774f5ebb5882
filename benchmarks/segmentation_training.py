"""A training step of DeepLabV2."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Repeats, Row, bfloat16_unit, compare
from benchmarks.networks import convolutions_as_products
from brnf.config.sections.segmentation import DeepLabNetwork, SegmentationOptimiser
from brnf.segment.deeplab import DeepLab, build_deeplab
from brnf.segment.heads import AtrousHead
from brnf.segment.training import SegmentationTrainer, rate_share
from brnf.store.label_type import ignored_value

__all__ = ["FULL", "TINY", "Size", "measure", "plain_trainer"]

OPTIMISER = SegmentationOptimiser(iterations=10**6, learning_rate=1e-9)
"""Of the training that the steps are taken from; they are so small that random weights stay what
they are.
"""

IGNORED = ignored_value(20)


@dataclass(frozen=True)
class Size:
    """What is measured; the weights are random, which takes the same time."""

    backbone: str = "resnet101"
    crop: int = 321
    batch: int = 4
    classes: int = 21


FULL = Size()
TINY = Size("test_resnet", 33, 2, 4)


def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare channels last, in float32 and where supported bfloat16, with float32 planes."""
    torch.manual_seed(0)
    options = DeepLabNetwork(
        backbone=size.backbone, weights="none", head="aspp_sum", frozen_batch_norm=True
    )
    network = build_deeplab(options, size.classes)
    images = torch.randint(0, 256, (size.batch, 3, size.crop, size.crop), dtype=torch.uint8)
    labels = torch.randint(0, size.classes, (size.batch, size.crop, size.crop), dtype=torch.uint8)
    labels[:, :5] = IGNORED
    reference = _plain_step(network, images, labels)
    kinds = {False: torch.float32} | ({True: torch.bfloat16} if bfloat16_unit() else {})
    steps = {amp: _step(network, images, labels, amp) for amp in kinds}
    _assert_equal_losses(steps, reference)
    shape = f"{size.batch} crops of {size.crop}, {size.backbone}, output stride 8"
    rows = []
    for amp, kind in kinds.items():
        rows.append(
            compare(
                f"DeepLabV2 step, bfloat16 ({bfloat16_unit()})"
                if amp
                else "DeepLabV2 step, float32",
                shape,
                steps[amp],
                reference,
                repeats,
                limit=f"GEMM of the convolutions, {str(kind).split('.')[1]}",
                bound=convolutions_as_products(network, images.float(), kind),
                bound_share=1 / 3,  # a forward pass; the two gradients cost as much each
                ratio=3 if amp else None,
            )
        )
    return rows


def _step(network: DeepLab, images: Tensor, labels: Tensor, amp: bool) -> Callable[[], float]:
    trainer = SegmentationTrainer(
        copy.deepcopy(network), OPTIMISER, torch.device("cpu"), precision="bf16" if amp else "fp32"
    )
    return lambda: trainer.step((images, labels))["loss"]


def plain_trainer(
    network: DeepLab, options: SegmentationOptimiser
) -> Callable[[Tensor, Tensor], float]:
    """Return what takes a step on images [N, 3, H, W] and labels [N, H, W], in planes and float32,
    and returns its loss.

    Arguments:
        network: trained in place; in planes, with the head that is a sum and frozen statistics.
        options: learning rate and its decay, momentum, weight decay.
    """
    assert isinstance(network.head, AtrousHead)
    backbone, convolutions = network.train().backbone, network.head.convolutions
    groups = network.parameter_groups(options.learning_rate, options.weight_decay)
    optimiser = torch.optim.SGD(
        groups, lr=options.learning_rate, momentum=options.momentum, foreach=False
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(rate_share, options))
    align = network.options.align_corners

    def step(images: Tensor, labels: Tensor) -> float:
        normal = ((images.float() - backbone.mean) / backbone.std).contiguous()
        features = backbone.network(normal)[-1]
        logits = convolutions[0](features)
        for convolution in convolutions[1:]:
            logits = logits + convolution(features)
        size = labels.shape[1:]
        enlarged = F.interpolate(logits, size=size, mode="bilinear", align_corners=align)
        loss = F.cross_entropy(enlarged, labels.long(), ignore_index=IGNORED)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        return loss.item()

    return step


def _plain_step(network: DeepLab, images: Tensor, labels: Tensor) -> Callable[[], float]:
    """Return a step in planes [N, C, H, W] and float32."""
    planes = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    step = plain_trainer(planes, OPTIMISER)
    return lambda: step(images, labels)


def _assert_equal_losses(
    steps: dict[bool, Callable[[], float]], reference: Callable[[], float]
) -> None:
    """Assert losses equal to 1e-4 in float32 and to 2 % in bfloat16."""
    expected = reference()
    for amp, step in steps.items():
        assert abs(step() / expected - 1) < (0.02 if amp else 1e-4), amp
