"""What a device has to do and to hold, counted on a pretended one: operations, bytes, memory."""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tests.pretended_device import ASKS_FOR_A_VALUE, DEVICE, counted, launches

__all__ = ["Card", "Kernel", "Work", "counted_work"]

LAUNCH_SECONDS = 10e-6
PRODUCT_SHARE = 0.5
BANDWIDTH_SHARE = 0.7
"""Assumed: that the host takes to launch a kernel, and what of a GPU's peak and bandwidth kernels
reach.
"""


@dataclass(frozen=True)
class Card:
    """A kind of GPU.

    Attributes:
        name: of it.
        peak: floating-point operations a second of products, by precision.
        bandwidth: bytes a second of its memory.
    """

    name: str
    peak: Mapping[str, float]
    bandwidth: float


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        operations: of products; a multiplication and an addition are two.
        moved: bytes of the tensors that it reads and writes.
        of_network: whether it is a convolution, which computes in the configured precision; all
            other products of the paper's experiments are float32 (docs/gpu.md).
    """

    operations: int
    moved: int
    of_network: bool


@dataclass
class Work:
    """What was counted.

    Attributes:
        kernels: all of them.
        alive: bytes of all tensors that are held now.
        peak: the most of that.
    """

    kernels: list[Kernel] = field(default_factory=list)
    alive: int = 0
    peak: int = 0

    @property
    def operations(self) -> int:
        """Return the operations of all products."""
        return sum(kernel.operations for kernel in self.kernels)

    @property
    def moved(self) -> int:
        """Return the bytes that all kernels read and write."""
        return sum(kernel.moved for kernel in self.kernels)

    def restart(self) -> None:
        """Forget all but what is held."""
        self.kernels.clear()
        self.peak = self.alive

    def seconds(self, card: Card, precision: str) -> float:
        """Return how long a card takes under the assumptions above.

        Each kernel takes the longer of its operations and its bytes, of which half precision has as
        many as float32; all together take at least as long as the host needs to launch them.
        """
        bandwidth = BANDWIDTH_SHARE * card.bandwidth
        busy = 0.0
        for kernel in self.kernels:
            peak = card.peak[precision if kernel.of_network else "fp32"]
            busy += max(kernel.operations / (PRODUCT_SHARE * peak), kernel.moved / bandwidth)
        return max(busy, LAUNCH_SECONDS * len(self.kernels))


class _Counting(TorchDispatchMode):
    """Note every kernel of the pretended device, and every tensor that lives there."""

    def __init__(self, found: Work) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        named = named or {}
        with self:
            result = function.decompose(*arguments, **named)
        if result is not NotImplemented:
            return result
        result = function(*arguments, **named)
        given, made = _there((arguments, named)), _there(result)
        for tensor in made:
            self._hold(tensor)
        name = function.__name__.split(".")[0]
        if (given or made) and name not in ASKS_FOR_A_VALUE:
            # One call on a list of tensors is several kernels, which share its work.
            count = launches(function, name, arguments)
            moved = sum(tensor.nbytes for tensor in [*given, *made])
            rule = flop_registry.get(function._overloadpacket)
            operations = int(rule(*arguments, **named, out_val=result)) if rule else 0
            kernel = Kernel(operations // max(count, 1), moved // max(count, 1), "conv" in name)
            self._found.kernels += [kernel] * count
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._held:
            return
        self._held[key] = storage.nbytes()
        self._found.alive += storage.nbytes()
        self._found.peak = max(self._found.peak, self._found.alive)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self._found.alive -= self._held.pop(key, 0)


def _there(values: Any) -> list[Tensor]:
    leaves = tree_leaves(values)
    return [one for one in leaves if isinstance(one, Tensor) and one.device == DEVICE]


@contextmanager
def counted_work() -> Iterator[Work]:
    """Count what the block does on :data:`tests.pretended_device.DEVICE`."""
    found = Work()
    with counted(), _Counting(found):
        yield found
