"""The coupling layers of the flow, from FrEIA (docs/method.md section 5)."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, GLOWCouplingBlock, PermuteRandom
from torch import nn

from brnf.config.sections.flow import FlowArchitecture

__all__ = ["build_real_nvp"]

INITIAL_SCALE = 0.05


def build_real_nvp(dimension: int, options: FlowArchitecture, seed: int) -> SequenceINN:
    """Build affine couplings, each followed by a fixed random permutation.

    ``s <- clamp * 0.636 * atan(s)`` and parameters 0.05 * randn follow DDFP's code; FrEIA's modules
    hold lambdas, so the network is to be saved as its ``state_dict``.

    Arguments:
        dimension: D, even, so that both halves are equal.
        options: couplings, their number, clamp, and width of the subnet Linear-ReLU-Linear that
            gives s and t.
        seed: of permutations and initial parameters; no global generator is touched.

    Returns:
        A module that maps [N, D] to ([N, D], log-determinant [N]), and back with ``rev=True``.

    Raises:
        ValueError: the dimension is odd.
    """
    if dimension % 2 or dimension < 2:
        raise ValueError(
            f"the flow splits features in halves: their dimension must be even, it is {dimension}"
        )

    def subnet(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs, options.hidden), nn.ReLU(), nn.Linear(options.hidden, outputs)
        )

    kinds = {"one_sided": AffineCouplingOneSided, "glow": GLOWCouplingBlock}
    network = SequenceINN(dimension)
    with _global_generators_untouched():
        for block in range(options.blocks):
            network.append(kinds[options.coupling], subnet_constructor=subnet, clamp=options.clamp)
            network.append(
                PermuteRandom, seed=int(np.random.SeedSequence([seed, block]).generate_state(1)[0])
            )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.copy_(INITIAL_SCALE * torch.randn(parameter.shape, generator=generator))
    return network


@contextmanager
def _global_generators_untouched() -> Iterator[None]:
    """Put the global generators of numpy and torch back: ``PermuteRandom(seed)`` reseeds numpy's,
    ``nn.Linear`` draws from torch's.
    """
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(state)
