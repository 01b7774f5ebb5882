"""The couplings in few calls, for devices on which a call costs more than its numbers.

All couplings are one function of autograd, which does what `brnf.flow.coupling` does one coupling
after the other: same layout [D, N], same formulas. Whatever the gradient needs lies in one piece of
memory a kind, [couplings, rows, N], so that it takes one call for all couplings where one does not
wait for the other. The gradient overwrites it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from FrEIA.modules import PermuteRandom
from torch import Tensor
from torch.autograd.function import once_differentiable

from brnf.flow.coupling import ATAN_FACTOR, AffineCoupling, Step

__all__ = ["transform"]


@dataclass(frozen=True)
class _Layer:
    """A coupling and the permutation of rows that follows it, if any."""

    coupling: AffineCoupling
    permutation: PermuteRandom | None


def _layers(steps: Iterable[Step]) -> list[_Layer]:
    layers: list[_Layer] = []
    for step in steps:
        if isinstance(step, AffineCoupling):
            layers.append(_Layer(step, None))
        else:
            assert layers and layers[-1].permutation is None
            layers[-1] = _Layer(layers[-1].coupling, step)
    return layers


def transform(steps: Iterable[Step], points: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the network of the steps returns: z [N, D] and the log-determinant [N].

    Arguments:
        steps: of :func:`brnf.flow.coupling.steps_of`: couplings of one shape and clamp, each
            followed by a permutation or by none.
        points: [N, D].
    """
    layers = _layers(steps)
    if torch.is_grad_enabled():
        parameters = [
            parameter
            for layer in layers
            for linear in (layer.coupling.first, layer.coupling.second)
            for parameter in (linear.weight, linear.bias)
        ]
        z, log_determinant = _Couplings.apply(layers, points, *parameters)
    else:
        z, log_determinant = _forwards(layers, points, _Memory.overwritten(layers, points))
    return z.T, log_determinant


@dataclass(frozen=True)
class _Memory:
    """Values of each coupling. A kind with fewer pieces than couplings is used in turn.

    Attributes:
        states: [n, D, N], that a coupling gets; afterwards, with what it made of the active rows.
        hidden: [n, H, N], of its subnet.
        outputs: [n, D, N], of its subnet: u, then t.
        scales: [n, D/2, N], by which it multiplies the active rows.
    """

    states: Tensor
    hidden: Tensor
    outputs: Tensor
    scales: Tensor

    @classmethod
    def kept(cls, layers: Sequence[_Layer], points: Tensor) -> "_Memory":
        """Return memory that holds everything for the gradient."""
        count, (rows, dimension) = len(layers), points.shape
        width = layers[0].coupling.first.out_features
        return cls(
            points.new_empty(count, dimension, rows),
            points.new_empty(count, width, rows),
            points.new_empty(count, dimension, rows),
            points.new_empty(count, dimension // 2, rows),
        )

    @classmethod
    def overwritten(cls, layers: Sequence[_Layer], points: Tensor) -> "_Memory":
        """Return memory that each coupling overwrites; the scale takes the place of u."""
        rows, dimension = points.shape
        width = layers[0].coupling.first.out_features
        outputs = points.new_empty(1, dimension, rows)
        return cls(
            points.new_empty(2, dimension, rows),
            points.new_empty(1, width, rows),
            outputs,
            outputs[:, : dimension // 2],
        )

    def of(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return state, hidden values, u, t and scale of the coupling of a number."""
        state, hidden, outputs, scale = (
            kind[number % len(kind)]
            for kind in (self.states, self.hidden, self.outputs, self.scales)
        )
        u, shift = outputs.chunk(2)
        return state, hidden, u, shift, scale


def _forwards(layers: Sequence[_Layer], points: Tensor, memory: _Memory) -> tuple[Tensor, Tensor]:
    """Return z [D, N] and the log-determinant [N], and fill the memory."""
    factor = ATAN_FACTOR * layers[0].coupling.clamp
    assert all(ATAN_FACTOR * layer.coupling.clamp == factor for layer in layers)
    memory.states[0].copy_(points.T)
    arcs = points.new_empty(len(layers), len(points))  # sums of arc tangents
    z = torch.empty_like(memory.states[0])
    for number, layer in enumerate(layers):
        coupling = layer.coupling
        state, hidden, u, shift, scale = memory.of(number)
        weight1, bias1, weight2, bias2 = coupling.layers
        torch.addmm(bias1, weight1, state[coupling.passive], out=hidden).relu_()
        torch.addmm(bias2, weight2, hidden, out=memory.outputs[number % len(memory.outputs)])
        torch.atan(u, out=scale)
        torch.sum(scale, 0, out=arcs[number])
        torch.pow(math.exp(factor), scale, out=scale)
        active = state[coupling.active]
        torch.addcmul(shift, active, scale, out=active)
        last = number + 1 == len(layers)
        following = z if last else memory.states[(number + 1) % len(memory.states)]
        if layer.permutation is None:
            following.copy_(state)
        else:
            torch.index_select(state, 0, layer.permutation.perm, out=following)
    return z, factor * arcs.sum(0)


class _Couplings(torch.autograd.Function):
    """z [D, N] and the log-determinant [N] of points [N, D]."""

    @staticmethod
    def forward(
        ctx: Any, layers: Sequence[_Layer], points: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.layers, ctx.memory = layers, _Memory.kept(layers, points)
        ctx.save_for_backward(*parameters)
        return _forwards(layers, points, ctx.memory)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_z: Tensor, by_log_determinant: Tensor) -> tuple[Tensor | None, ...]:
        """Turn the gradients by both results into those by points and parameters."""
        layers, memory, weights = ctx.layers, ctx.memory, ctx.saved_tensors[::2]
        ctx.memory = None
        if memory is None:
            raise RuntimeError("this gradient overwrites what it needs: it is taken once")
        factor = ATAN_FACTOR * layers[0].coupling.clamp
        by_arcs, one = factor * by_log_determinant, by_z.new_ones(())
        gradient, by_weight2 = by_z, []
        for number, layer in reversed(list(enumerate(layers))):
            coupling = layer.coupling
            state, hidden, u, shift, scale = memory.of(number)
            gradient = (
                gradient.clone(memory_format=torch.contiguous_format)
                if layer.permutation is None
                else gradient.index_select(0, layer.permutation.perm_inv)
            )
            by_active = gradient[coupling.active]
            scaled = torch.sub(state[coupling.active], shift, out=shift)  # active rows by scale
            by_arc = torch.addcmul(by_arcs, by_active, scaled, value=factor, out=shift)
            torch.div(by_arc, torch.addcmul(one, u, u, out=u), out=u)
            shift.copy_(by_active)
            by_active.mul_(scale)
            by_outputs = memory.outputs[number]
            by_weight2.append(by_outputs @ hidden.T)
            by_hidden = weights[2 * number + 1].T @ by_outputs
            torch.ops.aten.threshold_backward.grad_input(by_hidden, hidden, 0, grad_input=hidden)
            by_passive = gradient[coupling.passive]
            torch.addmm(by_passive, weights[2 * number].T, hidden, out=by_passive)
        by_parameters = zip(
            _by_weight1(layers, memory),
            memory.hidden.sum(2),
            reversed(by_weight2),
            memory.outputs.sum(2),
            strict=True,
        )
        return None, gradient.T, *(value for of_layer in by_parameters for value in of_layer)


def _by_weight1(layers: Sequence[_Layer], memory: _Memory) -> list[Tensor]:
    """Return the gradients by the first weights, of which all with one passive half are a product.

    Arguments:
        layers: whose passive halves come in turn: one, or first the one, then the other.
        memory: with the states, and the gradients by the hidden values in their place.
    """
    halves = len({layer.coupling.passive.start for layer in layers})
    found: list[Tensor] = [memory.hidden] * len(layers)
    for half in range(halves):
        passive = memory.states[half::halves, layers[half].coupling.passive]
        found[half::halves] = torch.bmm(memory.hidden[half::halves], passive.mT).unbind()
    return found
