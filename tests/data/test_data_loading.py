"""Loading processes: their mistakes and their loss arrive in one line."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import Dataset

from brnf.data.loading import BatchLoader, one_ahead
from brnf.errors import DamagedProduct, UserError

ROOT = Path(__file__).parents[2]


class Numbers(Dataset[int]):
    """Twenty numbers, of which 13 does something else."""

    def __init__(self, thirteen: Callable[[], None]) -> None:
        self._thirteen = thirteen

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        if index == 13:
            self._thirteen()
        return index


def nothing() -> None:
    pass


def mistake() -> None:
    raise UserError("photo.jpg: is damaged; restore it")


def damage() -> None:
    raise DamagedProduct(Path("maps.h5"), "is damaged", "compute_cams")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fault() -> None:
    raise ValueError("of the program")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers: int) -> None:
    loader = BatchLoader(Numbers(nothing), list, workers, batch_size=6)
    assert len(loader) == 4
    assert [number for batch in loader for number in batch] == list(range(20))


@pytest.mark.timeout(60)
def test_processes_begin_while_opencv_has_threads() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (9, 9), 2)  # begins the threads
        loader = BatchLoader(
            Numbers(nothing), list, 2, worker_init_fn=partial(_set_threads, 1), batch_size=6
        )
        assert [number for batch in loader for number in batch] == list(range(20))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def _set_threads(count: int, _: int) -> None:
    cv2.setNumThreads(count)


def test_the_next_batch_is_made_while_one_is_used() -> None:
    made: list[int] = []
    second = threading.Event()

    def source() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    before = threading.enumerate()
    batches = one_ahead(source())
    assert next(batches) == 0
    assert second.wait(10), "nothing was made while the first was used"
    assert next(batches) == 1
    batches.close()  # type: ignore[attr-defined]
    assert made == [0, 1, 2]
    assert set(threading.enumerate()) <= set(before), "its thread outlives it"


def test_what_a_source_raises_arrives_in_its_turn() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise UserError("photo.jpg: is damaged; restore it")

    seen = []
    with pytest.raises(UserError, match=r"^photo\.jpg"):
        for number in one_ahead(source()):
            seen.append(number)
    assert seen == [1, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(UserError, match=r"^photo\.jpg: is damaged; restore it$"):
        list(BatchLoader(Numbers(mistake), list, workers, batch_size=6))
    with pytest.raises(DamagedProduct) as error:
        list(BatchLoader(Numbers(damage), list, workers, batch_size=6))
    assert error.value.path == Path("maps.h5")


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(
        UserError,
        match=r"^a loading process was lost \(DataLoader worker [^\n]+\); run again, [^\n]+$",
    ):
        list(BatchLoader(Numbers(kill), list, 1, batch_size=6))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_the_program_stays_one(workers: int) -> None:
    with pytest.raises(ValueError, match="of the program"):
        list(BatchLoader(Numbers(fault), list, workers, batch_size=6))


LONG_FOLDER = """
import sys
import torch
from brnf.data.loading import BatchLoader

loader = BatchLoader([torch.ones(1), torch.ones(1)], torch.stack, 2, batch_size=2)
print([batch.tolist() for batch in loader])
"""


@pytest.mark.parametrize("length", [70, 71, 200])
def test_a_long_temporary_folder_loses_no_batch(length: int) -> None:
    """A loading process of torch hands over its tensors by a socket in that folder."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short, "x" * (length - len(short) - 1))
        folder.mkdir()
        words = [sys.executable, "-c", LONG_FOLDER]
        environment = {**os.environ, "TMPDIR": str(folder)}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "[[[1.0], [1.0]]]\n"), done.stderr
    assert ("TMPDIR has more than 70 bytes" in done.stderr) == (length > 70)
