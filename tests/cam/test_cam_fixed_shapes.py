"""BRNF's loss as a GPU computes it, in shapes that labels and padding tell, is the CPU's."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brnf.cam.batch import Places
from brnf.cam.contrast import ContrastBank
from brnf.cam.network import CamOutput
from brnf.cam.objective import BrnfObjective
from brnf.config.sections.cam import BrnfLoss, MapRules, Online
from brnf.config.sections.flow import FlowInTraining, Tau
from brnf.flow.online import OnlineFlow

DIMENSION = 6


def objective(classes: int, fixed_shapes: bool) -> BrnfObjective:
    """Return a loss whose flow draws nothing that matters: both ways draw other numbers."""
    flow = OnlineFlow(
        DIMENSION,
        classes + 1,
        FlowInTraining(blocks=2, hidden=8, noise=0.0, tau=Tau(high=0.5)),
        Online(),
        updates=1000,
    )
    options = BrnfLoss(sample_std=0.0, samples_per_step=3)
    bank = ContrastBank(classes + 1, DIMENSION, 3, 2)
    return BrnfObjective(options, MapRules(), flow, bank, fixed_shapes=fixed_shapes)


def result(
    chosen: BrnfObjective, parts: list[Tensor], labels: Tensor, valid: Tensor, seeds: Tensor
) -> tuple[dict[str, Tensor], list[Tensor | None]]:
    """Return the terms of a step, and the gradients of their sum by logits and features."""
    logits, features, semantic = (part.clone() for part in parts)
    logits.requires_grad_()
    features.requires_grad_()
    output = CamOutput(logits, features, semantic)
    terms = chosen(output, labels, valid, seeds, True, Places.of(labels, valid))
    torch.stack([term for term in terms.values() if term.requires_grad]).sum().backward()
    return {name: term.detach() for name, term in terms.items()}, [logits.grad, features.grad]


@settings(max_examples=25)
@given(
    images=st.integers(1, 3),
    classes=st.integers(1, 4),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_both_ways_find_the_same(
    images: int, classes: int, height: int, width: int, share: float, seed: int
) -> None:
    """Among the batches are some without any label, of one pixel, of classes that come later, and
    with classes that win no pixel; the bank is empty at first and overflows in the end.
    """
    generator = torch.Generator().manual_seed(seed)
    ways = objective(classes, False), objective(classes, True)
    for _ in range(4):
        labels = (torch.rand(images, classes, generator=generator) < share).float()
        valid = torch.rand(images, 1, height, width, generator=generator) < 0.7
        valid[:, 0, 0, 0] = True
        parts = [
            torch.randn(images, channels, height, width, generator=generator)
            for channels in (classes, DIMENSION, 5)
        ]
        seeds = torch.rand(images, classes + 1, height, width, generator=generator)
        (terms, gradients), (others, other_gradients) = (
            result(way, parts, labels, valid, seeds) for way in ways
        )
        torch.testing.assert_close(others, terms, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other_gradients, gradients, rtol=1e-3, atol=1e-5)
    banks = [way.bank.contents() for way in ways if way.bank]
    assert torch.equal(banks[0][1], banks[1][1])
    torch.testing.assert_close(banks[0][0], banks[1][0], rtol=1e-4, atol=1e-4)
