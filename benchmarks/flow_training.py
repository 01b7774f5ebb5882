"""A training step of the flow."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.harness import Repeats, Row, compare
from benchmarks.reference_flow import ReferenceFlow
from brnf.config.sections.flow import FlowArchitecture, FlowTraining
from brnf.flow.density import TILE, FlowDensity
from brnf.flow.loss import mixture_loss
from brnf.flow.training import FlowTrainer

__all__ = ["FULL", "TINY", "Size", "measure", "reference_step"]


@dataclass(frozen=True)
class Size:
    """What is measured; the architecture is the default one."""

    rows: tuple[int, ...] = (2_048, 20_480)
    dimension: int = 256
    hidden: int = 256
    classes: int = 21


FULL = Size()
TINY = Size((300,), 16, 16, 4)


def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare steps of the optimiser, noise, loss, gradient and clipping included."""
    return [_compare(size, count, repeats) for count in size.rows]


def _compare(size: Size, count: int, repeats: Repeats) -> Row:
    flow = FlowDensity(size.dimension, size.classes, FlowArchitecture(hidden=size.hidden))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, size.dimension, generator=generator).half()
    targets = torch.randint(-1, size.classes, (count,), generator=generator)
    _assert_equal_gradients(flow, features[:TILE].double(), targets[:TILE])
    reference = reference_step(ReferenceFlow(flow), features, targets, flow.options.noise)
    trainer = FlowTrainer(flow, FlowTraining(), None)
    return compare(
        "flow training step",
        f"{count:,} × {size.dimension}, K {size.classes}, {flow.options.blocks} one-sided blocks",
        lambda: trainer.step((features, targets)),
        reference,
        repeats,
        limit=f"GEMM, tiles of {TILE:,}",
        bound=_products(flow, count),
        ratio=2.2,
    )


def reference_step(
    flow: ReferenceFlow, features: Tensor, targets: Tensor, noise: float
) -> Callable[[], None]:
    """Return a step with a plain Adam."""
    options = FlowTraining()
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(
        parameters, lr=options.learning_rate, betas=(options.beta1, options.beta2), foreach=False
    )

    def step() -> None:
        values = features.float()
        loss = flow.loss(values, targets, noise * torch.randn_like(values))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, options.clip_norm, foreach=False)
        assert torch.isfinite(loss)
        optimiser.step()

    return step


def _products(flow: FlowDensity, rows: int) -> Callable[[], None]:
    """Return the matrix products of a step: of the values, and of the gradients by inputs and by
    weights.
    """
    half, hidden = flow.dimension // 2, flow.options.hidden
    layers = [
        (half, hidden, flow.options.blocks),
        (hidden, flow.dimension, flow.options.blocks),
        (flow.dimension, flow.classes, 1),
    ]
    operands = [
        (torch.randn(TILE, wide), torch.randn(wide, out), torch.randn(TILE, out), number)
        for wide, out, number in layers
    ]

    def run() -> None:
        for start in range(0, rows, TILE):
            tile = min(TILE, rows - start)
            for inputs, weight, outputs, number in operands:
                for _ in range(number):
                    torch.mm(inputs[:tile], weight)
                    torch.mm(outputs[:tile], weight.T)
                    torch.mm(inputs[:tile].T, outputs[:tile])

    return run


def _assert_equal_gradients(flow: FlowDensity, features: Tensor, targets: Tensor) -> None:
    """Assert float64 equality of the loss and of all gradients, to 1e-9."""
    exact = FlowDensity(flow.dimension, flow.classes, flow.options).double()
    exact.load_state_dict(flow.state_dict())
    reference = ReferenceFlow(exact)
    noise = flow.options.noise * torch.randn(
        features.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    own = mixture_loss(exact.class_log_prob(features, noise), targets)
    theirs = reference.loss(features, targets, noise)
    torch.testing.assert_close(own, theirs, rtol=1e-9, atol=1e-9)
    found = torch.autograd.grad(
        own, [parameter for parameter in exact.network.parameters() if parameter.requires_grad]
    )
    expected = torch.autograd.grad(
        theirs,
        [parameter for parameter in reference.network.parameters() if parameter.requires_grad],
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
