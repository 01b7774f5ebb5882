"""Log-densities of pixel features under the flow."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Repeats, Row, compare
from benchmarks.reference_flow import ReferenceFlow
from brnf.config.sections.flow import FlowArchitecture
from brnf.flow.density import TILE, FlowDensity

__all__ = ["FULL", "TINY", "Size", "measure"]


@dataclass(frozen=True)
class Size:
    """What is measured; the architecture is the default one."""

    rows: tuple[int, ...] = (16_384, 65_536)
    dimension: int = 256
    hidden: int = 256
    classes: int = 21


FULL = Size()
TINY = Size((300,), 16, 16, 4)


@torch.no_grad()
def measure(size: Size, repeats: Repeats) -> list[Row]:
    """Compare log-densities, and the couplings alone, tile by tile with one whole batch."""
    flow = FlowDensity(
        size.dimension, size.classes, FlowArchitecture(hidden=size.hidden)
    ).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    flow.fit_standardisation(
        torch.randn(size.dimension, generator=generator),
        0.5 + torch.rand(size.dimension, generator=generator),
    )
    reference = ReferenceFlow(flow).requires_grad_(False)
    _assert_equal(
        flow, torch.randn(min(size.rows[0], TILE + 5), size.dimension, generator=generator)
    )
    return [
        row for count in size.rows for row in _compare(flow, reference, count, generator, repeats)
    ]


def _compare(
    flow: FlowDensity,
    reference: ReferenceFlow,
    count: int,
    generator: torch.Generator,
    repeats: Repeats,
) -> list[Row]:
    features = torch.randn(count, flow.dimension, generator=generator)
    shape = (
        f"{count:,} × {flow.dimension}, K {flow.classes}, {flow.options.blocks} one-sided blocks"
    )
    return [
        compare(
            "flow log-density",
            shape,
            lambda: flow.log_prob(features),
            lambda: reference.log_prob(features),
            repeats,
            limit=f"GEMM, tiles of {TILE:,}",
            bound=_products(flow, count),
            ratio=3,
            share=0.7,
        ),
        compare(
            "flow couplings alone",
            shape,
            lambda: [flow.latent(tile) for tile in features.split(TILE)],
            lambda: reference.latent(features),
            repeats,
        ),
    ]


def _products(flow: FlowDensity, rows: int) -> Callable[[], None]:
    """Return the matrix products of all tiles, and nothing else."""
    half, hidden = flow.dimension // 2, flow.options.hidden
    inputs = [torch.randn(TILE, width) for width in (half, hidden, flow.dimension)]
    weights = [
        torch.randn(half, hidden),
        torch.randn(hidden, flow.dimension),
        torch.randn(flow.dimension, flow.classes),
    ]

    def run() -> None:
        for start in range(0, rows, TILE):
            tile = min(TILE, rows - start)
            for _ in range(flow.options.blocks):
                torch.mm(inputs[0][:tile], weights[0])
                torch.mm(inputs[1][:tile], weights[1])
            torch.mm(inputs[2][:tile], weights[2])

    return run


def _assert_equal(flow: FlowDensity, features: Tensor) -> None:
    """Assert equality to 1e-9 of float64 and 1e-4 (or 0.01 nats) of float32 values."""
    exact = FlowDensity(flow.dimension, flow.classes, flow.options).double()
    exact.load_state_dict(flow.state_dict())
    expected = ReferenceFlow(exact).log_prob(features.double())
    torch.testing.assert_close(
        exact.class_log_prob(features.double()), expected, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(flow.log_prob(features).double(), expected, rtol=1e-4, atol=1e-2)
