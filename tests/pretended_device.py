"""A pretended accelerator: what is launched on it, and how often the host waits for it.

It is torch's device ``meta``, whose tensors have shapes and no values, so that a step of the
paper's size takes a second on any machine. Where code asks for a value, the answer is made up; what
has to be true for that is noted in :class:`Counted`.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["ASKS_FOR_A_VALUE", "DEVICE", "Counted", "counted", "launches", "masks_keep"]

DEVICE = torch.device("meta")
PACKAGE = str(Path(__file__).parents[1] / "brnf")
NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "_unsafe_view",
    "_reshape_alias",
    "lift_fresh",
}
"""Operations that compute nothing and whose schema does not say that they return a view."""
ASKS_FOR_A_SHAPE = {
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
}
ASKS_FOR_A_VALUE = {"_local_scalar_dense", "is_nonzero", "equal", "item"}
_KEPT: dict[int, int] = {}
"""How many values a mask of so many keeps, where that is not all."""
TENSORS_OF_A_LAUNCH, BLOCKS_OF_A_LAUNCH, NUMBERS_OF_A_BLOCK = (110, 64, 48, 36, 30), 320, 65536
"""What CUDA's kernels for lists of tensors take at once (ATen, MultiTensorApply.cuh), by the number
of lists.
"""


@dataclass
class Counted:
    """What a device was told to do, by the line of this project that told it.

    Attributes:
        kernels: operations that compute; those on lists of tensors as often as CUDA launches them.
            A convolution's gradient counts as one, whatever cuDNN makes of it.
        waits: of the host: values and shapes that it asked for, copies that it did not leave to go
            on beside it, either way.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return both totals, each line that waited, and those that launched most."""
        lines = [f"{self.kernels.total()} kernels, {self.waits.total()} waits"]
        lines += [f"  wait   {number:4} {place}" for place, number in self.waits.most_common()]
        lines += [f"  kernel {number:4} {place}" for place, number in self.kernels.most_common(30)]
        return "\n".join(lines)


class _AnyGenerator(torch.Generator):
    """A generator that the pretended device has, too: one of the CPU."""

    def __new__(cls, device: torch.device | str = "cpu") -> "_AnyGenerator":
        there = torch.device(device) == DEVICE
        kind = "cpu" if there else device
        return super().__new__(cls, kind)  # type: ignore[call-arg]


@contextmanager
def counted() -> Iterator[Counted]:
    """Count within the block, for which ``meta`` passes for a device that torch optimises for."""
    found = Counted()
    kinds = [*_foreach_utils._get_foreach_kernels_supported_devices(), DEVICE.type]
    autocast = torch.autocast

    def any_autocast(device_type: str, *arguments: Any, **named: Any) -> Any:
        if device_type != DEVICE.type:
            return autocast(device_type, *arguments, **named)
        return nullcontext()

    with (
        mock.patch.object(torch, "autocast", any_autocast),
        mock.patch.object(torch, "Generator", _AnyGenerator),
        mock.patch.object(_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: kinds),
        mock.patch.object(optimizer, "_get_foreach_kernels_supported_devices", lambda: kinds),
        mock.patch.object(optimizer, "_get_fused_kernels_supported_devices", lambda: kinds),
        _Counting(found),
    ):
        yield found


@contextmanager
def masks_keep(kept: Mapping[int, int]) -> Iterator[None]:
    """Let an index by a mask of so many values keep so many of them within the block."""
    with mock.patch.dict(_KEPT, kept):
        yield


class _Counting(TorchDispatchMode):
    """Count every operation that has a tensor of the device, and answer for it."""

    def __init__(self, found: Counted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        named = dict(named or {})
        tensors = [value for value in tree_leaves((arguments, named)) if isinstance(value, Tensor)]
        there = [value for value in tensors if value.device == DEVICE]
        goes_to = named.get("device")
        if not there and (goes_to is None or torch.device(goes_to) != DEVICE):
            return function(*arguments, **named)
        with self:  # in inference mode torch leaves it to others to take such operations apart
            parts = function.decompose(*arguments, **named)
        if parts is not NotImplemented:
            return parts
        name = function.__name__.split(".")[0]
        place = _place()
        if "generator" in named:
            named["generator"] = None
        strangers = [value for value in tensors if value.device != DEVICE and value.dim()]
        if name in ("_to_copy", "copy_"):
            return self._copied(function, place, arguments, named, there, goes_to)
        assert not strangers, f"{place}: {name} mixes devices"
        if name in ASKS_FOR_A_VALUE:
            self.found.waits[f"{place} {name}"] += 1
            return _some_value(arguments[0])
        asked = name in ASKS_FOR_A_SHAPE or _indexed_by_mask(name, arguments)
        if asked:
            self.found.waits[f"{place} {name}"] += 1
        self.found.kernels[place] += launches(function, name, arguments)
        if name == "_fused_sgd_":
            return None  # it works in place; torch forgot it on this device
        return (
            _of_some_shape(function, name, arguments, named)
            if asked
            else function(*arguments, **named)
        )

    def _copied(
        self,
        function: Any,
        place: str,
        arguments: Any,
        named: dict[str, Any],
        there: Sequence[Tensor],
        goes_to: torch.device | str | None,
    ) -> Any:
        """Count a copy; one between host and device waits unless it is told not to."""
        source = arguments[1] if function.__name__.startswith("copy_") else arguments[0]
        target = arguments[0].device if source is not arguments[0] else goes_to or source.device
        crosses = torch.device(target).type != source.device.type
        leaves = crosses and source.device == DEVICE
        others = arguments[2:] if source is not arguments[0] else ()
        beside = bool(named.get("non_blocking") or (others and others[0]))
        if crosses and (leaves or not beside):
            self.found.waits[f"{place} copy"] += 1
        if not crosses:
            self.found.kernels[place] += 1
        if not leaves:
            return function(*arguments, **named)
        if source is not arguments[0]:
            return arguments[0].fill_(1)
        return torch.ones(source.shape, dtype=named.get("dtype") or source.dtype)


def _place() -> str:
    """Return the innermost line of this project's package that is at work."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def launches(function: Any, name: str, arguments: Any) -> int:
    """Return how many kernels an operation is."""
    returns = function._schema.returns
    is_view = any(
        value.alias_info is not None and not value.alias_info.is_write for value in returns
    )
    if is_view or name in NO_KERNEL:
        return 0
    if not name.startswith(("_foreach_", "_fused_")):
        return 1
    lists = [value for value in arguments if isinstance(value, list) and value]
    lists = [value for value in lists if isinstance(value[0], Tensor)]
    depth = len(lists) if name[-1] == "_" or name.startswith("_fused_") else len(lists) + 1
    tensors = TENSORS_OF_A_LAUNCH[min(depth, len(TENSORS_OF_A_LAUNCH)) - 1]
    blocks = sum(-(-value.numel() // NUMBERS_OF_A_BLOCK) for value in lists[0])
    return int(max(-(-len(lists[0]) // tensors), -(-blocks // BLOCKS_OF_A_LAUNCH)))


def _indexed_by_mask(name: str, arguments: Any) -> bool:
    return name in ("index", "index_put_", "index_put", "_index_put_impl_") and any(
        isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)
        for value in arguments[1]
    )


def _some_value(source: Tensor) -> bool | int | float:
    """Return a value that lets a training go on: finite, and some of whatever is counted."""
    if source.dtype == torch.bool:
        return True
    return 1.0 if source.is_floating_point() else 1


def _of_some_shape(function: Any, name: str, arguments: Any, named: Any) -> Any:
    """Return what an operation would if a mask had nothing but true, and all values differed."""
    source = arguments[0]
    if name == "nonzero":
        return torch.empty(source.numel(), source.dim(), dtype=torch.int64, device=DEVICE)
    if name == "masked_select":
        return torch.empty(source.numel(), dtype=source.dtype, device=DEVICE)
    if name == "index":
        before = sum(value is None for value in arguments[1])
        mask = next(value for value in arguments[1] if value is not None)
        kept = _KEPT.get(mask.numel(), mask.numel())
        shape = (*source.shape[:before], kept, *source.shape[before + mask.dim() :])
        return torch.empty(shape, dtype=source.dtype, device=DEVICE)
    if name.startswith("index_put") or name == "_index_put_impl_":
        return source
    if name.startswith(("_unique", "unique")):
        inverse = source.shape if name == "_unique2" else (source.numel(),)
        shapes = ((source.numel(),), inverse, (source.numel(),))
        kinds = (source.dtype, torch.int64, torch.int64)
        return tuple(
            torch.empty(shape, dtype=kind, device=DEVICE)
            for shape, kind in zip(shapes, kinds, strict=True)
        )
    raise NotImplementedError(f"{name} asks a device for a shape")
