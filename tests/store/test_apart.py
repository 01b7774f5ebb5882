"""HDF5's own part of the memory."""

import multiprocessing
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brnf.store.hdf5 import apart
from brnf.store.maps import MapReader, write_maps

PIECES = """
import ctypes
from pathlib import Path
from brnf.store.hdf5 import apart

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
heap = next(line for line in Path("/proc/self/maps").read_text().splitlines() \
if line.endswith("[heap]"))
first, last = (int(end, 16) for end in heap.split()[0].split("-"))
print(*(sum(first <= call() < last for _ in range(100)) \
for call in (lambda: library.malloc(100), lambda: apart(library.malloc, 100))))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other parts")
def test_its_small_pieces_do_not_lie_between_others() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PIECES],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    main, own = map(int, done.stdout.split())
    assert main > 50 and own == 0


def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        apart(divmod, 1, 0)


def test_a_forked_process_reads_and_writes_though_its_parent_has_done_so(tmp_path: Path) -> None:
    def write_and_read(name: str) -> None:
        values = np.full((2, 3, 3), 0.5, np.float32)
        with write_maps(tmp_path / name, 20) as writer:
            writer.write("image", np.array([4]), {"prototype": values})
        assert np.array_equal(MapReader([tmp_path / name], "prototype")["image"].values, values)

    write_and_read("parent.h5")
    child = multiprocessing.get_context("fork").Process(target=write_and_read, args=("child.h5",))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
