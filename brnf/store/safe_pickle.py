"""Dictionaries of arrays that other code bases wrote, read without ever running code from them.

SIPE, SFC, CLIP-ES and IRN keep the maps of an image by ``np.save(path, {"keys": ..., "IS_CAM":
...})``: a pickle, which the ordinary reader would obey like a program. Here nothing that the pickle
names is called. Arrays, their types and torch's tensors are met by stand-ins that check every size
against the bytes that are there; any other name ends the reading.
"""

import io
import math
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brnf.errors import UserError

__all__ = ["read_array_dictionary"]

LARGEST_FILE = 2**31
"""Bytes of the largest file, and of what an .npz may hold unpacked: the maps of one image take a
few hundred MB at most.
"""
PLAIN_TYPE = re.compile(r"[biufc]\d{1,2}|[SU][1-9]\d{0,4}")
ORDERS = ("<", ">", "=", "|")
"""Byte orders; the last stands for types that have none."""
# What makes objects of classes, looks things up elsewhere or multiplies: plain data and arrays
# never need it.
REFUSED = frozenset(
    (
        "INST",
        "OBJ",
        "NEWOBJ",
        "NEWOBJ_EX",
        "EXT1",
        "EXT2",
        "EXT4",
        "PERSID",
        "BINPERSID",
        "NEXT_BUFFER",
        "READONLY_BUFFER",
        "DUP",
    )
)
OPCODES = frozenset(opcode.name for opcode in pickletools.opcodes if opcode.proto <= 5) - REFUSED


def read_array_dictionary(path: Path, remedy: str) -> dict[str | int, NDArray[Any]]:
    """Read a dictionary of arrays: a pickled one in an ``.npy`` file, or a plain ``.npz``.

    Arguments:
        path: written by ``np.save(path, dictionary)`` of any numpy, in any pickle protocol, or by
            ``np.savez``.
        remedy: what the user can do when it cannot be read.

    Returns:
        The arrays by name. Numbers, strings and torch's tensors become arrays too, and so do flat
        lists: of numbers as such, of anything else as an array of objects.

    Raises:
        UserError: the file is missing, damaged, too large, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise pickle.UnpicklingError(f"larger than {LARGEST_FILE} bytes")
        data = path.read_bytes()
        return _unpack(data) if data.startswith(b"PK") else _unpickle(data)
    except Exception as error:  # damaged bytes cause whatever they happen to cause
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"{path}: no dictionary of arrays, or damaged ({reason}); {remedy}"
        ) from error


def _unpack(data: bytes) -> dict[str | int, NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_FILE:
            raise pickle.UnpicklingError(f"larger than {LARGEST_FILE} bytes when unpacked")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    if other := [name for name, value in found.items() if not isinstance(value, np.ndarray)]:
        raise pickle.UnpicklingError(f"'{other[0]}' is no array")
    return found


def _unpickle(data: bytes) -> dict[str | int, NDArray[Any]]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, kind = read_header(file)
    if kind != np.dtype(object) or shape != ():
        raise pickle.UnpicklingError(f"holds an array of {kind} {shape} instead")
    content = data[file.tell() :]
    _check_opcodes(content)
    outer = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    entries = outer.entries if isinstance(outer, _Array) else None
    if entries is None or len(entries) != 1 or not isinstance(entries[0], dict):
        raise pickle.UnpicklingError("holds something else")
    return {_key(key): _plain(value) for key, value in entries[0].items()}


def _check_opcodes(data: bytes) -> None:
    """Refuse what plain data never need, and memo places beyond the number of values: the unpickler
    would make room for all.
    """
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"{opcode.name} is not admitted")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (
            not isinstance(argument, int) or not 0 <= argument <= number
        ):
            raise pickle.UnpicklingError(f"memo place {argument} after {number} steps")


class _StandIn:
    """An object that a pickle can neither change nor use for anything but what its class does."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for something that has none")


class _Function(_StandIn):
    """What a pickle gets for a name that it may call."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class _Type(_StandIn):
    """Stand-in for ``numpy.dtype``: numbers, strings or objects, without fields."""

    __slots__ = ("_name", "_order")

    def __init__(self, name: Any, *_: Any) -> None:
        self._name, self._order = str(name), "="

    def __setstate__(self, state: Any) -> None:
        self._order = state[1]
        if self._order not in ORDERS or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("array type with fields or parts")

    def resolve(self) -> np.dtype[Any]:
        """Return the type, or the object type for ``O``."""
        if self._name in ("O", "O8", "O4"):
            return np.dtype(object)
        if not PLAIN_TYPE.fullmatch(self._name):
            raise pickle.UnpicklingError(f"array of type {self._name[:20]!r}")
        return np.dtype(self._name) if self._order == "|" else np.dtype(self._order + self._name)


class _Array(_StandIn):
    """Stand-in for ``numpy.ndarray``; has ``values``, or the ``entries`` of an object array."""

    __slots__ = ("entries", "shape", "values")

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = values
        self.entries: list[Any] | None = None
        self.shape: tuple[int, ...] = ()

    def __setstate__(self, state: Any) -> None:
        shape, kind, fortran, content = state[-4:]
        self._fill(content, kind, shape, "F" if fortran else "C")

    def _fill(self, content: Any, kind: Any, shape: Any, order: str) -> None:
        if not isinstance(kind, _Type) or not isinstance(shape, tuple) or len(shape) > 32:
            raise pickle.UnpicklingError("array without a type or a shape")
        if not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError(f"array of shape {str(shape)[:60]}")
        dtype, count = kind.resolve(), math.prod(shape)
        if dtype == np.dtype(object):
            if not isinstance(content, list) or len(content) != count:
                raise pickle.UnpicklingError(f"array of shape {shape} without its values")
            self.entries, self.shape, self.values = content, shape, None
            return
        raw = content.encode("latin1") if isinstance(content, str) else content  # str from Python 2
        if not isinstance(raw, bytes | bytearray) or len(raw) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"array of shape {shape} without its bytes")
        self.values = np.frombuffer(bytearray(raw), dtype).reshape(
            shape, order="F" if order == "F" else "C"
        )

    @classmethod
    def of_buffer(
        cls, buffer: Any, kind: Any, shape: Any, order: Any, axes: Any = None
    ) -> "_Array":
        """Stand in for numpy's ``_frombuffer`` (protocol 5)."""
        array = cls()
        array._fill(buffer, kind, shape, str(order))
        if axes is not None and array.values is not None:
            array.values = array.values.transpose(axes)
        return array

    @classmethod
    def of_scalar(cls, kind: Any, content: Any) -> "_Array":
        """Stand in for numpy's ``scalar``."""
        array = cls()
        array._fill(content, kind, (), "C")
        return array

    @classmethod
    def of_tensor(cls, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> "_Array":
        """Stand in for torch's ``_rebuild_tensor_v2``."""
        import torch

        if not isinstance(storage, _Storage) or math.prod(size) > len(storage.values):
            raise pickle.UnpicklingError("tensor without its values")
        tensor = torch.as_strided(storage.values, size, stride, offset)
        return cls(
            (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
        )


class _Storage(_StandIn):
    """The numbers behind a tensor, a flat tensor themselves."""

    __slots__ = ("values",)

    def __init__(self, content: Any) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            self.values = torch.empty(0, dtype=storage.dtype).set_(storage)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("latin1")


def _nothing(kind: Callable[[], Any]) -> _Function:
    """Return what makes an empty value, whatever the pickle passes along."""
    return _Function(lambda *_: kind())


ADMITTED: dict[str, _StandIn] = {
    "numpy.dtype": _Function(_Type),
    "numpy.ndarray": _StandIn(),
    "_codecs.encode": _Function(_encode),
    "builtins.bytes": _nothing(bytes),
    "__builtin__.bytes": _nothing(bytes),
    "collections.OrderedDict": _nothing(dict),  # the hooks of a tensor
    "torch._utils._rebuild_tensor_v2": _Function(_Array.of_tensor),
    "torch.storage._load_from_bytes": _Function(_Storage),
}
for _core in ("numpy.core", "numpy._core"):
    ADMITTED[f"{_core}.multiarray._reconstruct"] = _nothing(_Array)
    ADMITTED[f"{_core}.multiarray.scalar"] = _Function(_Array.of_scalar)
    ADMITTED[f"{_core}.numeric._frombuffer"] = _Function(_Array.of_buffer)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (found := ADMITTED.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return found


def _key(key: Any) -> str | int:
    if not isinstance(key, str | int):
        raise pickle.UnpicklingError(f"key of type {type(key).__name__}")
    return key


def _plain(value: Any) -> NDArray[Any]:
    """Return a value of the dictionary as an array."""
    if isinstance(value, _Array) and value.entries is not None:
        return _objects(value.entries).reshape(value.shape)
    if isinstance(value, list | tuple):
        entries = _objects(value)
        # A place in a list costs two bytes, however large what it refers to: only numbers are
        # copied.
        numbers = all(
            isinstance(entry, bool | int | float | complex) or getattr(entry, "shape", None) == ()
            for entry in entries
        )
        return np.asarray(entries.tolist()) if numbers else entries
    return np.asarray(_single(value))


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    """Return numbers, strings and arrays as they are, [n]."""
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = _single(value)
    return array


def _single(value: Any) -> Any:
    """Return a number, a string or an array of them."""
    if isinstance(value, _Array) and value.values is not None:
        return value.values
    if isinstance(value, bool | int | float | complex | str):
        return value
    raise pickle.UnpicklingError(f"value of type {type(value).__name__.lstrip('_')}")
