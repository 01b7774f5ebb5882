"""Processes change neither order nor values, hand over mistakes, and read no further ahead than
they need.
"""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from brnf.config.sections.segmentation import Crf
from brnf.errors import UserError
from brnf.segment.crf import dense_crf
from brnf.segment.processes import map_in_order


def refuse_three(number: int) -> int:
    if number == 3:
        raise UserError("image 3: damaged")
    return number * number


def test_order_and_results_do_not_depend_on_the_number_of_processes() -> None:
    for workers in (0, 1, 3):
        assert list(map_in_order(pow, [(number, 2) for number in range(20)], workers)) == [
            number**2 for number in range(20)
        ]


def test_a_mistake_comes_out_as_it_went_in() -> None:
    for workers in (0, 2):
        found = map_in_order(refuse_three, [(number,) for number in range(9)], workers)
        with pytest.raises(UserError, match=r"^image 3: damaged$"):
            list(found)


def test_items_are_read_as_they_are_needed() -> None:
    read = []

    def items() -> Iterator[tuple[int]]:
        for number in range(100):
            read.append(number)
            yield (number,)

    found = map_in_order(abs, items(), 2)
    assert next(found) == 0 and len(read) <= 5
    found.close()  # type: ignore[attr-defined]
    assert len(read) <= 5


def test_a_process_that_dies_ends_in_one_line() -> None:
    with pytest.raises(UserError, match="lower the key workers"):
        list(map_in_order(os._exit, [(9,)] * 3, 1))


def test_the_crf_gives_equal_bits_in_other_processes() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 30, 3), np.uint8)
    probability = random.dirichlet(np.ones(4), (20, 30)).transpose(2, 0, 1).astype(np.float32)
    refined = map_in_order(dense_crf, [(image, probability, Crf())] * 3, 2)
    for found in refined:
        np.testing.assert_array_equal(found, dense_crf(image, probability, Crf()))
