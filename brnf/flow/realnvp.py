"""The coupling layers of the flow, from FrEIA (docs/method.md section 5)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, GLOWCouplingBlock, PermuteRandom
from torch import nn

__all__ = ["Coupling", "build_real_nvp"]

Coupling = Literal["one_sided", "glow"]
INITIAL_SCALE = 0.05


def build_real_nvp(
    dimension: int, coupling: Coupling, blocks: int, hidden: int, clamp: float, seed: int
) -> SequenceINN:
    """Build affine couplings, each followed by a fixed random permutation.

    ``s <- clamp * 0.636 * atan(s)`` and parameters 0.05 * randn follow DDFP's code; FrEIA's modules
    hold lambdas, so the network is to be saved as its ``state_dict``.

    Arguments:
        dimension: D, even, so that both halves are equal.
        coupling: ``one_sided`` changes one half in each block (the paper), ``glow`` both (DDFP).
        blocks: number of couplings.
        hidden: width of the subnet Linear-ReLU-Linear that gives s and t.
        clamp: largest |log scale| of a coupling.
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
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    kinds = {"one_sided": AffineCouplingOneSided, "glow": GLOWCouplingBlock}
    network = SequenceINN(dimension)
    with _global_generators_untouched():
        for block in range(blocks):
            network.append(kinds[coupling], subnet_constructor=subnet, clamp=clamp)
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
