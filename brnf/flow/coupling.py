"""FrEIA's coupling layers with the way forwards and its gradient written out, for speed alone.

Parameters, inverse and files stay FrEIA's. Its forward pass costs about twice its matrix products: it picks columns one by one
and leaves temporary tensors to autograd. Here pixels lie along the second axis, [D, N], so that a half of the dimensions is one
piece of memory and a permutation copies whole rows.
"""

from typing import Any

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, GLOWCouplingBlock, PermuteRandom
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["transform"]

ATAN_FACTOR = 0.636
"""About 2 / pi, as FrEIA writes it: the log scale stays within the clamp."""


def transform(network: SequenceINN, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``network(points)`` returns: z [N, D] and the log-determinant [N].

    Arguments:
        network: of one-sided or GLOW couplings with two linear layers, and of permutations.
        points: [N, D].
    """
    state = points.T.clone(memory_format=torch.contiguous_format)
    log_determinant = points.new_zeros(len(points))
    for module in network:
        if isinstance(module, PermuteRandom):
            state = _Permutation.apply(state, module.perm, module.perm_inv)
            continue
        first, second = slice(0, module.split_len1), slice(module.split_len1, None)
        if isinstance(module, GLOWCouplingBlock):
            steps = [(second, first, module.subnet2), (first, second, module.subnet1)]
        else:
            assert isinstance(module, AffineCouplingOneSided)
            steps = [(first, second, module.subnet)]
        for passive, active, subnet in steps:
            state, change = _couple(state, passive, active, subnet, module.clamp)
            log_determinant = log_determinant + change
    return state.T.contiguous(), log_determinant


def _couple(state: Tensor, passive: slice, active: slice, subnet: nn.Sequential, clamp: float) -> tuple[Tensor, Tensor]:
    """Return the state with ``active * exp(s) + t`` as its active rows, and the sum of s [N]; s and t come from the passive rows."""
    first, second = (layer for layer in subnet if isinstance(layer, nn.Linear))
    layers = (first.weight, first.bias, second.weight, second.bias)
    if not torch.is_grad_enabled():  # in place
        _, _, shift, scale, log_determinant = _scale_and_shift(state[passive], *layers, clamp)
        torch.addcmul(shift, state[active], scale, out=state[active])
        return state, log_determinant
    return _AffineCoupling.apply(state, *layers, passive, active, clamp)


def _scale_and_shift(
    passive: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, clamp: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return h, u, t, exp(s) and the sum of s: ``h = relu(W1 passive + b1)``, ``(u, t) = W2 h + b2``, ``s = clamp * 0.636 * atan(u)``."""
    hidden = torch.addmm(bias1.unsqueeze(1), weight1, passive).relu_()
    u, shift = torch.addmm(bias2.unsqueeze(1), weight2, hidden).chunk(2)
    log_scale = u.atan().mul_(ATAN_FACTOR * clamp)
    log_determinant = log_scale.sum(0)
    return hidden, u, shift, log_scale.exp_(), log_determinant


class _AffineCoupling(torch.autograd.Function):
    """The state [D, N] with its active rows changed by what the passive ones say, and the log-determinant [N]."""

    @staticmethod
    def forward(
        ctx: Any,
        state: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        passive: slice,
        active: slice,
        clamp: float,
    ) -> tuple[Tensor, Tensor]:
        hidden, u, shift, scale, log_determinant = _scale_and_shift(state[passive], weight1, bias1, weight2, bias2, clamp)
        result = torch.empty_like(state)
        result[passive] = state[passive]
        torch.addcmul(shift, state[active], scale, out=result[active])
        ctx.save_for_backward(state, weight1, weight2, hidden, u, scale)
        ctx.passive, ctx.active, ctx.clamp = passive, active, clamp
        return result, log_determinant

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_result: Tensor, by_log_determinant: Tensor) -> tuple[Tensor | None, ...]:
        """Turn the gradients by both results into those by all arguments."""
        state, weight1, weight2, hidden, u, scale = ctx.saved_tensors
        by_state = torch.empty_like(state)
        by_active = torch.mul(by_result[ctx.active], scale, out=by_state[ctx.active])
        by_log_scale = torch.addcmul(by_log_determinant, by_active, state[ctx.active])
        by_outputs = torch.empty(len(weight2), state.shape[1], dtype=state.dtype, device=state.device)  # of the subnet: u, then t
        torch.div(by_log_scale.mul_(ATAN_FACTOR * ctx.clamp), u.square().add_(1), out=by_outputs[: len(u)])
        by_outputs[len(u) :] = by_result[ctx.active]
        by_hidden = torch.ops.aten.threshold_backward(weight2.T @ by_outputs, hidden, 0)
        torch.addmm(by_result[ctx.passive], weight1.T, by_hidden, out=by_state[ctx.passive])
        by_layers = (by_hidden @ state[ctx.passive].T, by_hidden.sum(1), by_outputs @ hidden.T, by_outputs.sum(1))
        return (by_state, *by_layers, None, None, None)


class _Permutation(torch.autograd.Function):
    """Copy rows [D, N] into another order; autograd's own gradient of an index adds them up."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return state.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_result: Tensor) -> tuple[Tensor | None, ...]:
        """Copy the rows back."""
        return by_result.index_select(0, ctx.inverse), None, None
