"""Batches that are made while others are used: in processes, whose mistakes and whose loss arrive
in one line, or in a thread.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from brnf.data.pipeline import one_opencv_thread
from brnf.errors import UserError

__all__ = ["BatchLoader", "one_ahead"]

Batch = TypeVar("Batch")
END = object()
LOST = "DataLoader worker"
"""How torch begins when a loading process has died; what a living one raises begins otherwise."""
LONGEST_FOLDER = 70
"""Bytes of the temporary folder's path: a loading process hands its tensors over by a socket in it,
whose path Linux ends at 107. Where it is longer, batches are lost and the training waits for ever.
"""


def one_ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches in their order; while one is used, a thread makes the next.

    Reading, decoding and copying give up Python's lock, so that a training whose cores are not all
    at work waits for nothing.

    Arguments:
        batches: what is made depends on nothing that its user does meanwhile.

    Raises:
        Exception: what making a batch raised, in its turn.
    """
    source = iter(batches)
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, source, END)
        while (batch := following.result()) is not END:
            following = thread.submit(next, source, END)
            yield batch  # type: ignore[misc]


def possible_workers(workers: int) -> int:
    """Return how many loading processes to use: none, with a note, if ``TMPDIR`` is long."""
    folder = tempfile.gettempdir()
    if not workers or len(folder.encode()) <= LONGEST_FOLDER:
        return workers
    line = (
        f"TMPDIR has more than {LONGEST_FOLDER} bytes, too long for loading processes;"
        " going on without"
    )
    print(line, file=sys.stderr, flush=True)
    return 0


class BatchLoader(Generic[Batch]):
    """Load batches of a data set, one ahead in a thread or more in processes of their own.

    Arguments:
        dataset: its items may raise :class:`~brnf.errors.UserError`.
        collate: makes a batch of a list of items.
        workers: loading processes; 0 loads in a thread, and so does any number under a long
            ``TMPDIR``.
        settings: further ones of torch's ``DataLoader``.

    Raises:
        UserError: while batches are drawn: what an item raised, or a loading process was lost.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Batch],
        workers: int,
        **settings: Any,
    ) -> None:
        # A generator of its own: the loader must not draw from the global one, whose state a
        # checkpoint keeps.
        settings = {"generator": torch.Generator(), **settings}
        settings["num_workers"] = possible_workers(workers)
        self._loader = DataLoader(_HandedOver(dataset), collate_fn=_Collate(collate), **settings)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self._batches():
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if not str(error).startswith(LOST):
                raise
            reason = str(error).splitlines()[0].strip().rstrip(".")
            raise UserError(
                f"a loading process was lost ({reason}); run again, with fewer workers if memory "
                "was short"
            ) from error

    def _batches(self) -> Iterator[Batch]:
        if not self._loader.num_workers:
            return one_ahead(self._loader)
        with one_opencv_thread():
            return iter(self._loader)


class _HandedOver(Dataset[Any]):
    """Hand errors over as items: raised in a loading process, they arrive as a traceback."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        try:
            return self._dataset[index]
        except UserError as error:
            return error


class _Collate:
    """Make a batch of items, or return the first mistake among them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[Any]) -> Any:
        return next((item for item in items if isinstance(item, UserError)), None) or self._collate(
            items
        )
