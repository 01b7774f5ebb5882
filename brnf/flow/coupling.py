"""FrEIA's coupling layers with the way forwards and its gradient written out, for speed alone.

Parameters, inverse and files stay FrEIA's. Its forward pass costs about twice its matrix products:
it picks columns one by one and leaves temporary tensors to autograd. Here pixels lie along the
second axis, [D, N], so that a half of the dimensions is one piece of memory and a permutation
copies whole rows.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, GLOWCouplingBlock, PermuteRandom
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["AffineCoupling", "Step", "arc_tangent", "invert", "steps_of", "transform"]

ATAN_FACTOR = 0.636
"""About 2 / pi, as FrEIA writes it: the log scale stays within the clamp."""


@dataclass(frozen=True)
class AffineCoupling:
    """``active * exp(s) + t`` with ``(u, t) = W2 relu(W1 passive + b1) + b2`` and ``s = clamp *
    0.636 * atan(u)``.
    """

    passive: slice
    active: slice
    first: nn.Linear
    second: nn.Linear
    clamp: float

    @property
    def layers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weight and bias of both layers; the biases as columns."""
        return (
            self.first.weight,
            self.first.bias.unsqueeze(1),
            self.second.weight,
            self.second.bias.unsqueeze(1),
        )


Step: TypeAlias = PermuteRandom | AffineCoupling


def steps_of(network: SequenceINN) -> tuple[Step, ...]:
    """Return what the network does, one after the other, with its own parameters.

    Arguments:
        network: of one-sided or GLOW couplings with two linear layers, and of permutations.
    """
    return tuple(step for module in network for step in _steps_of_module(module))


def _steps_of_module(module: nn.Module) -> tuple[Step, ...]:
    if isinstance(module, PermuteRandom):
        return (module,)
    first, second = slice(0, module.split_len1), slice(module.split_len1, None)
    if isinstance(module, GLOWCouplingBlock):
        return (
            _coupling(second, first, module.subnet2, module.clamp),
            _coupling(first, second, module.subnet1, module.clamp),
        )
    assert isinstance(module, AffineCouplingOneSided)
    return (_coupling(first, second, module.subnet, module.clamp),)


def _coupling(passive: slice, active: slice, subnet: nn.Sequential, clamp: float) -> AffineCoupling:
    first, second = (layer for layer in subnet if isinstance(layer, nn.Linear))
    return AffineCoupling(passive, active, first, second, clamp)


def transform(steps: Iterable[Step], points: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the network of the steps returns: z [N, D] and the log-determinant [N].

    Arguments:
        steps: of :func:`steps_of`.
        points: [N, D].
    """
    state = points.T.clone(memory_format=torch.contiguous_format)
    z, log_determinant = (
        _with_gradient(steps, state) if torch.is_grad_enabled() else _in_place(steps, state)
    )
    return z.T, log_determinant


def _with_gradient(steps: Iterable[Step], state: Tensor) -> tuple[Tensor, Tensor]:
    log_determinant = state.new_zeros(state.shape[1])
    for step in steps:
        if isinstance(step, PermuteRandom):
            state = _Permutation.apply(state, step.perm, step.perm_inv)
        else:
            state, change = _CouplingFunction.apply(
                state, *step.layers, step.passive, step.active, step.clamp
            )
            log_determinant = log_determinant + change
    return state, log_determinant


def _in_place(steps: Iterable[Step], state: Tensor) -> tuple[Tensor, Tensor]:
    """Overwrite the state and two further pieces of memory in turn: fresh ones would have to come
    into the cache first.

    The first bias moves behind the ReLU, ``relu(h + b1) = max(h, -b1) + b1``, and from there
    through the second layer into its bias; t is added to the state by its own product. Each spares
    a pass over memory.
    """
    log_determinant = state.new_zeros(state.shape[1])
    spare, spare_half = torch.empty_like(state), torch.empty_like(state[len(state) // 2 :])
    for step in steps:
        if isinstance(step, PermuteRandom):
            torch.index_select(state, 0, step.perm, out=spare)
            state, spare = spare, state
            continue
        weight1, bias1, weight2, bias2 = step.layers
        passive, active = state[step.passive], state[step.active]
        width = weight1.shape[0]
        room = spare[:width] if width <= spare.shape[0] else None
        hidden = torch.mm(weight1, passive, out=room).clamp_min_(-bias1)
        weight_u, weight_t = weight2.chunk(2)
        bias_u, bias_t = torch.addmm(bias2, weight2, bias1).chunk(2)
        u = torch.mm(weight_u, hidden, out=spare_half[: len(active)]).add_(bias_u)
        log_scale = arc_tangent(u, out=u).mul_(ATAN_FACTOR * step.clamp)
        log_determinant += log_scale.sum(0)
        torch.addcmul(bias_t, active, log_scale.exp_(), out=active).addmm_(weight_t, hidden)
    return state, log_determinant


@torch.no_grad()
def invert(steps: Sequence[Step], z: Tensor) -> Tensor:
    """Return the points [N, D] that the network of the steps maps to z [N, D], without gradient.

    FrEIA's own inverse is 15 calls a coupling; these are 8, which is what counts on a GPU.

    Arguments:
        steps: of :func:`steps_of`.
        z: [N, D].
    """
    state = z.T.clone(memory_format=torch.contiguous_format)
    spare = torch.empty_like(state)
    for step in reversed(steps):
        if isinstance(step, PermuteRandom):
            torch.index_select(state, 0, step.perm_inv, out=spare)
            state, spare = spare, state
            continue
        weight1, bias1, weight2, bias2 = step.layers
        hidden = torch.addmm(bias1, weight1, state[step.passive]).relu_()
        u, shift = torch.addmm(bias2, weight2, hidden).chunk(2)
        base = math.exp(-ATAN_FACTOR * step.clamp)  # its power is one call, exp of a product two
        unscale = torch.pow(base, torch.atan(u, out=u), out=u)
        state[step.active].sub_(shift).mul_(unscale)
    return state.T


def arc_tangent(values: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the arc tangent, without gradient.

    Arguments:
        values: of any shape.
        out: gets the result when given; may be ``values``.
    """
    if values.dtype == torch.float32 and values.device.type == "cpu" and _numpy_is_vectorised():
        result = torch.empty_like(values) if out is None else out
        np.arctan(values.numpy(), out=result.numpy())
        return result
    return torch.atan(values, out=out)


@cache
def _numpy_is_vectorised() -> bool:
    """Return whether numpy brings an arc tangent for AVX-512, nine times as fast as torch's;
    elsewhere it asks the C library.
    """
    return sys.platform == "linux" and torch.backends.cpu.get_cpu_capability() == "AVX512"


class _CouplingFunction(torch.autograd.Function):
    """The state [D, N] with its active rows changed by what the passive ones say, and the
    log-determinant [N].
    """

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
        # what is added in place is still in the cache; addmm would copy the bias into fresh memory
        hidden = torch.mm(weight1, state[passive]).add_(bias1).relu_()
        (weight_u, weight_t), (bias_u, bias_t) = weight2.chunk(2), bias2.chunk(2)
        u = torch.mm(weight_u, hidden).add_(bias_u)
        log_scale = arc_tangent(u).mul_(ATAN_FACTOR * clamp)
        log_determinant = log_scale.sum(0)
        scale = log_scale.exp_()
        result = torch.empty_like(state)
        result[passive] = state[passive]
        torch.addcmul(bias_t, state[active], scale, out=result[active])
        result[active].addmm_(weight_t, hidden)
        ctx.save_for_backward(state, weight1, weight2, hidden, u, scale)
        ctx.passive, ctx.active, ctx.clamp = passive, active, clamp
        return result, log_determinant

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_result: Tensor, by_log_determinant: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Turn the gradients by both results into those by all arguments."""
        state, weight1, weight2, hidden, u, scale = ctx.saved_tensors
        by_state = torch.empty_like(state)
        by_active = torch.mul(by_result[ctx.active], scale, out=by_state[ctx.active])
        by_log_scale = torch.addcmul(by_log_determinant, by_active, state[ctx.active])
        half = len(u)
        weight_u, weight_t = weight2.chunk(2)
        by_t = by_result[ctx.active]
        by_u = by_log_scale.mul_(ATAN_FACTOR * ctx.clamp).div_(u.square().add_(1))
        by_hidden = (weight_t.T @ by_t).addmm_(weight_u.T, by_u)
        torch.ops.aten.threshold_backward(by_hidden, hidden, 0, grad_input=by_hidden)
        torch.mm(weight1.T, by_hidden, out=by_state[ctx.passive]).add_(by_result[ctx.passive])
        by_weight2, by_bias2 = torch.empty_like(weight2), weight2.new_empty(2 * half, 1)
        torch.mm(by_u, hidden.T, out=by_weight2[:half])
        torch.mm(by_t, hidden.T, out=by_weight2[half:])
        torch.sum(by_u, 1, keepdim=True, out=by_bias2[:half])
        torch.sum(by_t, 1, keepdim=True, out=by_bias2[half:])
        by_layers = (
            by_hidden @ state[ctx.passive].T,
            by_hidden.sum(1, keepdim=True),
            by_weight2,
            by_bias2,
        )
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
