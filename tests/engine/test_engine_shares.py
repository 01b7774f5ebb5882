"""Shares of any size: whatever the numbers of images and processes, the mean over the processes of
a loss and of its gradient are those of the whole batch.

Threads stand for the processes, a barrier for what these send each other.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from brnf.base.sfc import SfcObjective
from brnf.cam.contrast import info_nce, region_features
from brnf.cam.network import CamOutput
from brnf.cam.objective import BrnfObjective, base_loss
from brnf.config.sections.cam import BrnfLoss, MapRules, Sfc
from brnf.config.sections.flow import FlowInTraining
from brnf.engine import distributed
from brnf.flow.density import FlowDensity
from brnf.flow.loss import add_gradient
from brnf.segment.loss import multi_scale_loss, segmentation_loss

Result = TypeVar("Result")
CLASSES, DIMENSION, GRID = 3, 6, (4, 6)
FEW = settings(max_examples=60, deadline=None)


class Together:
    """Threads that compute means together as the processes of a training do.

    Arguments:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count, self._barrier = count, threading.Barrier(count, timeout=60)
        self._sent: list[Tensor] = [torch.zeros(())] * count
        self._own = threading.local()

    def run(self, work: Callable[[], Result]) -> list[Result]:
        """Return what each of them makes of the same work."""

        def one(rank: int) -> Result:
            self._own.rank = rank
            try:
                return work()
            except BaseException:
                self._barrier.abort()
                raise

        with ExitStack() as stack, ThreadPoolExecutor(self._count) as pool:
            for name, value in (("processes", lambda: self._count), ("mean", self._mean)):
                stack.enter_context(patch.object(distributed, name, value))
            rank = patch.object(distributed.dist, "get_rank", lambda: self._own.rank)
            stack.enter_context(rank)
            return list(pool.map(one, range(self._count)))

    def _mean(self, value: Tensor) -> Tensor:
        self._sent[self._own.rank] = value.detach().clone().float()
        self._barrier.wait()
        found = torch.stack(self._sent).mean(0)
        self._barrier.wait()
        return found


class Scenes:
    """A batch of random outputs of a network and what they are compared with.

    Arguments:
        images: N.
        seed: of everything in it.
    """

    def __init__(self, images: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.rand(images, *shape, generator=generator)

        self.logits, self.features = drawn(CLASSES, *GRID) - 0.5, drawn(DIMENSION, *GRID) - 0.5
        self.labels = (drawn(CLASSES) < 0.5).float()
        self.valid, self.seeds = drawn(1, *GRID) < 0.8, drawn(1 + CLASSES, *GRID)
        self.masks = (drawn(8, 12) * CLASSES).long()
        self.masks[drawn(8, 12) < 0.3] = 255

    def part(self, chosen: slice) -> "Scenes":
        """Return some of the images, whose outputs have gradients of their own."""
        found = Scenes(0, 0)
        for name, values in vars(self).items():
            setattr(found, name, values[chosen].clone())
        for leaf in (found.logits, found.features):
            leaf.requires_grad_()
        return found

    def output(self, step: int = 1) -> CamOutput:
        """Return what a network says, every so many pixels of it."""
        logits, features = self.logits[..., ::step, ::step], self.features[..., ::step, ::step]
        return CamOutput(logits, features, features.detach())


def base(batch: Scenes) -> dict[str, Tensor]:
    return base_loss(batch.output(), batch.labels, batch.valid, MapRules())


def sfc(batch: Scenes) -> dict[str, Tensor]:
    objective = SfcObjective(Sfc(), MapRules(), torch.tensor([0.5, 1.0, 1.5]))
    return objective(batch.output(), batch.output(2), batch.labels, batch.valid)


def brnf(batch: Scenes) -> dict[str, Tensor]:
    objective = BrnfObjective(BrnfLoss(ccnf=False, fscl=False), MapRules(), None, None)
    return objective(batch.output(), batch.labels, batch.valid, batch.seeds, False)


def fscl(batch: Scenes) -> dict[str, Tensor]:
    chosen = batch.labels[:, :, None, None].bool() & batch.valid
    anchors, classes = region_features(batch.features, batch.seeds[:, 1:], chosen, 0.7)
    bank = nn.functional.normalize(torch.arange(30.0).view(5, DIMENSION).cos(), dim=1)
    return {"contrast": info_nce(anchors, classes, bank, torch.tensor([0, 0, 1, 1, 2]))}


def segmentation(batch: Scenes) -> dict[str, Tensor]:
    grids = (batch.logits, batch.logits[..., ::2, ::2])
    return {
        "plain": segmentation_loss(batch.logits, batch.masks),
        "balanced": segmentation_loss(batch.logits, batch.masks, balanced=True),
        "scales": multi_scale_loss(grids, batch.masks),
    }


def loss_and_gradients(
    loss: Callable[[Scenes], dict[str, Tensor]], batch: Scenes
) -> tuple[Tensor, list[Tensor]]:
    """Return the terms and the gradients of their sum by logits and features, image by image."""
    terms = torch.stack(list(loss(batch).values()))
    leaves = [batch.logits, batch.features]
    found = torch.autograd.grad(terms.sum(), leaves, allow_unused=True, materialize_grads=True)
    return terms.detach(), list(found)


@pytest.mark.parametrize("loss", [base, sfc, brnf, fscl, segmentation])
@FEW
@given(images=st.integers(1, 11), processes=st.integers(1, 6), seed=st.integers(0, 1000))
def test_shares_of_a_batch_have_its_loss_and_its_gradient(
    loss: Callable[[Scenes], dict[str, Tensor]], images: int, processes: int, seed: int
) -> None:
    processes, batch = min(processes, images), Scenes(images, seed)
    terms, gradients = loss_and_gradients(loss, batch.part(slice(None)))

    def share() -> tuple[Tensor, list[Tensor]]:
        return loss_and_gradients(loss, batch.part(distributed.share(images)))

    found = Together(processes).run(share)
    torch.testing.assert_close(
        torch.stack([own for own, _ in found]).mean(0), terms, rtol=1e-4, atol=1e-6
    )
    for number, expected in enumerate(gradients):
        parts = torch.cat([own[number] for _, own in found]) / processes
        torch.testing.assert_close(parts, expected, rtol=1e-4, atol=1e-6)


@FEW
@given(rows=st.integers(1, 9), processes=st.integers(1, 6), seed=st.integers(0, 1000))
def test_processes_with_few_rows_or_none_have_the_gradient_of_the_flow(
    rows: int, processes: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    options = FlowInTraining(blocks=2, hidden=8)
    density = FlowDensity(4, 2, options, seed)
    features, noise = (torch.randn(rows, 4, generator=generator) for _ in range(2))
    targets = torch.randint(-1, 2, (rows,), generator=generator)

    def part() -> tuple[Tensor, list[Any]]:
        own = deepcopy(density)
        loss = add_gradient(own, features, noise, targets, tile_rows=2)
        return loss, [parameter.grad for parameter in own.parameters()]

    loss, gradients = part()
    found = Together(processes).run(part)
    for own, parts in found:
        torch.testing.assert_close(own, loss, rtol=1e-4, atol=1e-6)
        assert len(parts) == len(gradients)
    for number, expected in enumerate(gradients):
        parts = [own[number] for _, own in found if own[number] is not None]
        if expected is None:
            assert not parts
        else:
            total = torch.stack(parts).sum(0) / processes
            torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)


@given(images=st.integers(1, 40), processes=st.integers(1, 8))
def test_shares_are_whole_and_differ_by_one_image_at_most(images: int, processes: int) -> None:
    processes = min(processes, images)
    found = Together(processes).run(lambda: distributed.share(images))
    assert [place for share in found for place in range(images)[share]] == list(range(images))
    lengths = [share.stop - share.start for share in found]
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1
