"""Processes and the writer change neither order nor values, hand over mistakes, and read no further
ahead than they need.
"""

import os
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from brnf.config.sections.segmentation import Crf
from brnf.data.pipeline import WAITING, Workers
from brnf.errors import DamagedProduct, UserError
from brnf.segment.crf import dense_crf


def refuse_three(number: int) -> int:
    if number == 3:
        raise UserError("image 3: damaged")
    return number * number


def sleep_first(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return number


@pytest.mark.parametrize("count", [0, 1, 3])
def test_order_and_results_do_not_depend_on_the_number_of_processes(count: int) -> None:
    with Workers(count) as workers:
        found = workers.map(pow, [(number, 2) for number in range(20)])
        assert list(found) == [number**2 for number in range(20)]
        assert list(workers.map(sleep_first, [(number,) for number in range(9)])) == [*range(9)]


@pytest.mark.timeout(60)
def test_processes_begin_while_opencv_has_threads() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (9, 9), 2)  # begins the threads
        with Workers(2) as workers:
            assert list(workers.map(abs, [(-1,), (-2,)])) == [1, 2]
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("count", [0, 2])
def test_a_mistake_comes_out_as_it_went_in_and_in_its_turn(count: int) -> None:
    seen = []
    with Workers(count) as workers, pytest.raises(UserError, match=r"^image 3: damaged$"):
        for found in workers.map(refuse_three, [(number,) for number in range(9)]):
            seen.append(found)
    assert seen == [0, 1, 4]


def test_items_are_read_as_they_are_needed() -> None:
    read = []

    def items() -> Iterator[tuple[int]]:
        for number in range(100):
            read.append(number)
            yield (number,)

    with Workers(2) as workers:
        found = workers.map(abs, items())
        assert next(found) == 0 and len(read) <= WAITING * 2 + 1
    assert len(read) <= WAITING * 2 + 1


def test_what_is_known_is_not_handed_out() -> None:
    with Workers(1) as workers:
        found = workers.map(os._exit, [(9,)] * 3, known=lambda code: code + 1)
        assert list(found) == [10, 10, 10]


def test_a_process_that_dies_ends_in_one_line() -> None:
    with (
        Workers(1, "read images") as workers,
        pytest.raises(UserError, match=r"^a process that read images died; [^\n]+key workers$"),
    ):
        list(workers.map(os._exit, [(9,)] * 9))


def test_the_crf_gives_equal_bits_in_other_processes() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 30, 3), np.uint8)
    probability = random.dirichlet(np.ones(4), (20, 30)).transpose(2, 0, 1).astype(np.float32)
    with Workers(2) as workers:
        for found in workers.map(dense_crf, [(image, probability, Crf())] * 3):
            np.testing.assert_array_equal(found, dense_crf(image, probability, Crf()))


@pytest.mark.parametrize("count", [0, 1])
def test_all_is_written_in_order(count: int) -> None:
    written: list[tuple[int, str]] = []
    threads = set()

    def write(number: int) -> None:
        threads.add(threading.current_thread())
        time.sleep(0.01 if number % 3 == 0 else 0)
        written.append((number, str(number)))

    with Workers(count) as workers, workers.writing(write) as hand_over:
        for number in range(20):
            hand_over(number)
    assert written == [(number, str(number)) for number in range(20)]
    assert len(threads) == 1 and (threading.current_thread() in threads) == (count == 0)
    assert all(thread is threading.current_thread() for thread in threads if thread.is_alive())


def test_few_items_wait_for_the_writer() -> None:
    goes_on = threading.Event()
    handed: list[int] = []

    def work() -> None:
        with Workers(1) as workers, workers.writing(lambda _: goes_on.wait(20)) as hand_over:
            for number in range(9):
                hand_over(number)
                handed.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    end = time.monotonic() + 20
    while len(handed) < WAITING and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    waiting = len(handed)
    goes_on.set()
    thread.join()
    assert waiting == WAITING and handed == [*range(9)]


def test_a_writer_that_fails_writes_nothing_more_and_is_told_before_what_comes_later() -> None:
    written = []

    def write(number: int) -> None:
        if number == 1:
            raise DamagedProduct("maps.h5", "full", "compute_cams")  # type: ignore[arg-type]
        written.append(number)

    def work() -> None:
        with Workers(1) as workers, workers.writing(write) as hand_over:
            for number in range(3):
                hand_over(number)
            raise UserError("image 3: damaged")

    with pytest.raises(UserError, match=r"^maps\.h5: full"):
        work()
    assert written == [0]
    with (
        pytest.raises(UserError, match=r"^maps\.h5: full"),
        Workers(1) as workers,
        workers.writing(write) as hand_over,
    ):
        hand_over(1)


def test_what_was_not_begun_when_a_signal_came_is_not_written() -> None:
    written = []
    begun = threading.Event()

    def write(number: int) -> None:
        begun.set()
        time.sleep(0.2)
        written.append(number)

    with (
        pytest.raises(SystemExit),
        Workers(1) as workers,
        workers.writing(write) as hand_over,
    ):
        hand_over(0)
        hand_over(1)
        begun.wait(20)
        raise SystemExit(143)
    assert written == [0]
