"""Dictionaries of arrays of other code bases: read from every numpy and protocol, never obeyed."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brnf.errors import UserError
from brnf.store.safe_pickle import read_array_dictionary

HEADER = io.BytesIO()
np.lib.format.write_array_header_1_0(HEADER, {"descr": "|O", "fortran_order": False, "shape": ()})


def outer(content: Any) -> np.ndarray:
    array = np.empty((), object)
    array[()] = content
    return array


def write(
    path: Path,
    content: Any,
    protocol: int = 4,
    rename: Callable[[bytes], bytes] = lambda data: data,
) -> Path:
    """Write what ``np.save`` of some version would; ``rename`` brings the pickle into the form of
    another numpy.
    """
    path.write_bytes(HEADER.getvalue() + rename(pickle.dumps(outer(content), protocol)))
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError, match=r"^[^\n]+; make it again$") as error:
        read_array_dictionary(path, "make it again")
    return str(error.value)


def old_numpy(data: bytes) -> bytes:
    """Name numpy's modules as before version 2; from protocol 4 on lengths stand in front of the
    names and of the frame.
    """
    for name in (b"multiarray", b"numeric"):
        new, old = b"numpy._core." + name, b"numpy.core." + name
        data = data.replace(
            b"\x8c" + bytes([len(new)]) + new, b"\x8c" + bytes([len(old)]) + old
        ).replace(b"c" + new, b"c" + old)
    return (
        data[:3] + (len(data) - 11).to_bytes(8, "little") + data[11:]
        if data[2:3] == b"\x95"
        else data
    )


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("rename", [lambda data: data, old_numpy])
def test_maps_of_the_code_bases(
    tmp_path: Path, protocol: int, rename: Callable[[bytes], bytes]
) -> None:
    random = np.random.default_rng(0)
    content = {
        "keys": np.array([3, 11]),
        "IS_CAM": random.random((2, 5, 7), np.float32),
        "attn_highres": np.asfortranarray(random.random((2, 5, 7)).astype(np.float16)),
        "big": random.random(4).astype(">f8"),
        "names": np.array(["cat", "dog"]),
        "empty": np.zeros((0, 3)),
        "score": np.float32(0.25),
        "list": [1, np.int64(2)],
        "number": 7,
        5: random.random((3, 4)).T,  # SEAM: class indices for keys
    }
    found = read_array_dictionary(write(tmp_path / "a.npy", content, protocol, rename), "")
    assert list(found) == list(content)
    for name, expected in content.items():
        np.testing.assert_array_equal(
            found[name], expected, strict=isinstance(expected, np.ndarray)
        )
    found["IS_CAM"][0] = 0  # the caller's own


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_of_irn_become_arrays(tmp_path: Path, protocol: int) -> None:
    strided = torch.arange(24.0).reshape(2, 3, 4)[:, :, ::2]
    content = {
        "keys": torch.tensor([0, 14]),
        "cam": strided,
        "high_res": np.ones((2, 3, 4), np.float32),
        "half": strided.bfloat16(),
    }
    found = read_array_dictionary(write(tmp_path / "a.npy", content, protocol), "")
    np.testing.assert_array_equal(found["keys"], [0, 14], strict=True)
    np.testing.assert_array_equal(found["cam"], strided.numpy(), strict=True)
    assert found["half"].dtype == np.float32


@settings(max_examples=100, deadline=None)
@given(
    array=arrays.arrays(
        arrays.scalar_dtypes().filter(lambda kind: kind.kind in "biufc" and kind.itemsize <= 8),
        arrays.array_shapes(min_dims=0, min_side=0),
    ),
    protocol=st.integers(0, 5),
)
def test_any_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, protocol: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npy"
    np.testing.assert_array_equal(
        read_array_dictionary(write(path, {"x": array}, protocol), "")["x"], array
    )


def test_what_numpy_itself_writes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {"keys": np.arange(2)}, allow_pickle=True)
    np.savez_compressed(tmp_path / "b.npz", keys=np.arange(3))
    assert read_array_dictionary(tmp_path / "a.npy", "")["keys"].tolist() == [0, 1]
    assert read_array_dictionary(tmp_path / "b.npz", "")["keys"].tolist() == [0, 1, 2]
    ragged = np.empty(2, object)
    ragged[:] = [np.arange(2), "two"]
    found = read_array_dictionary(write(tmp_path / "c.npy", {"x": ragged}), "")["x"]
    assert found[0].tolist() == [0, 1] and found[1] == "two"


class Obeyed:
    """What calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["value", "in array", "in list", "key"])
def test_a_pickle_that_runs_something_runs_nothing(
    tmp_path: Path, protocol: int, place: str
) -> None:
    mark = tmp_path / "mark"
    evil = Obeyed(os.mkdir, str(mark))
    array = np.empty(1, object)
    array[0] = evil
    content = {
        "value": {"x": evil},
        "in array": {"x": array},
        "in list": {"x": [evil]},
        "key": {evil: 1},
    }[place]
    assert "mkdir is not admitted" in refused(write(tmp_path / "a.npy", content, protocol))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        Obeyed(np.zeros, 10**12),
        Obeyed(np.dtype, [("a", "O")]),
        Obeyed(eval, "1"),
        Obeyed(getattr, 1, "real"),
        {"a": {"b": 1}},
        None,
        np.zeros(3, [("a", "f4")]),
        np.datetime64("2020-01-01"),
        b"bytes",
        {1},
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any) -> None:
    refused(write(tmp_path / "a.npy", {"x": content}))


def test_sizes_that_are_not_there(tmp_path: Path) -> None:
    """A few bytes that claim terabytes end in an error, not in memory."""
    good = pickle.dumps(outer({"x": np.zeros(3, np.int8)}), 4)
    assert b"K\x03\x85" in good
    shape = b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85"
    path = tmp_path / "a.npy"
    for data in (
        good.replace(b"K\x03\x85", shape),
        good.replace(b"K\x03\x85", b"J\xff\xff\xff\xff\x85"),
        good[:2] + b"r\xff\xff\xff\x7f" + good[2:],  # memo place 2**31 - 1
        good[:2] + b"\x8e" + (2**60).to_bytes(8, "little") + good[2:],
        b"\x80\x04" + b"(" * 10**6 + b"l" * 10**6 + b".",
        pickle.dumps(outer({"x": torch.zeros(1).expand(1)}), 4).replace(b"K\x01\x85", shape),
    ):
        path.write_bytes(HEADER.getvalue() + data)
        refused(path)
    many = read_array_dictionary(write(path, {"x": [np.zeros(10**5)] * 10**5}), "")["x"]
    assert many.dtype == object and many[0] is many[-1]
    loop = np.empty(1, object)
    loop[0] = loop
    refused(write(path, {"x": loop}))


def test_the_admitted_names_cannot_be_changed(tmp_path: Path) -> None:
    """BUILD would otherwise set attributes of whatever a name stands for, for all later files."""
    for name in (b"numpy\ndtype", b"numpy\nndarray", b"_codecs\nencode"):
        (tmp_path / "a.npy").write_bytes(
            HEADER.getvalue() + b"\x80\x02c" + name + b"\n}X\x05\x00\x00\x00_callNsb."
        )
        refused(tmp_path / "a.npy")
    assert read_array_dictionary(write(tmp_path / "a.npy", {"x": np.ones(1)}, 2), "")["x"] == 1


def test_files_of_another_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=outer({1: 2}))
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("PK or not")
    (tmp_path / "deep.npy").write_bytes(b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 0x2000)
    os.mkfifo(tmp_path / "pipe.npy")
    for name in (
        "plain.npy",
        "objects.npz",
        "empty.npy",
        "text.npy",
        "deep.npy",
        "pipe.npy",
        "missing.npy",
    ):
        assert name in refused(tmp_path / name)
