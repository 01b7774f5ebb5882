"""Records on the disk beside a memory map of the same file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from brnf.store.records import Records, write_records

LAYOUTS = (
    np.dtype([("stage", np.float32, (2, 3)), ("labels", np.uint8, (5,)), ("valid", np.bool_)]),
    np.dtype(np.float32),
)
READING = """
import sys
from pathlib import Path
import numpy as np
from brnf.engine.memory import peak_memory
from brnf.store.records import Records

records = Records(Path(sys.argv[1]))
before = peak_memory()
for position in range(len(records)):
    records[np.array([position])]
print(peak_memory() - before)
"""


def drawn(layout: np.dtype[Any], count: int, seed: int) -> NDArray[Any]:
    """Return random records of a layout."""
    generator = np.random.default_rng(seed)
    records = np.zeros((count,) if layout.names else (count, 2, 4), layout)
    for name in layout.names or (...,):
        records[name] = generator.integers(0, 256, records[name].shape)
    return records


@given(
    blocks=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 99),
    chosen=st.lists(st.integers(0, 10**6), max_size=6),
)
def test_any_positions_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[int],
    layout: np.dtype[Any],
    seed: int,
    chosen: list[int],
) -> None:
    path = tmp_path_factory.mktemp("records") / "records.npy"
    content = drawn(layout, sum(blocks), seed)
    write_records(path, len(content), np.split(content, np.cumsum(blocks)[:-1]))
    records, positions = Records(path), np.array(chosen, np.int64) % len(content)
    assert len(records) == len(content)
    found = records[positions]
    assert found.dtype == content.dtype and np.array_equal(found, content[positions])
    assert np.array_equal(np.load(path), content)


def test_blocks_may_be_views(tmp_path: Path) -> None:
    content = drawn(LAYOUTS[1], 6, 0)
    write_records(tmp_path / "records.npy", 3, [content[::2].transpose(0, 2, 1)])
    assert np.array_equal(
        Records(tmp_path / "records.npy")[np.array([2, 0])], content[[4, 0]].transpose(0, 2, 1)
    )


def test_a_file_that_was_cut_off_is_not_read_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "records.npy"
    write_records(path, 3, [drawn(LAYOUTS[1], 3, 0)])
    path.write_bytes(path.read_bytes()[:-1])
    assert len(Records(path)[np.array([1])]) == 1
    with pytest.raises(EOFError, match="ends before record 2"):
        Records(path)[np.array([2])]


def test_what_was_read_does_not_count_as_memory(tmp_path: Path) -> None:
    path, mebibyte = tmp_path / "records.npy", np.zeros((1, 2**20), np.uint8)
    write_records(path, 200, (mebibyte for _ in range(200)))
    done = subprocess.run(
        [sys.executable, "-c", READING, str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20 * 2**20
