"""Work on several images at once, in processes of their own."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from brnf.errors import UserError

__all__ = ["map_in_order"]

Result = TypeVar("Result")
WAITING = 2
"""Items handed out for each process, so that none runs dry and memory stays bounded."""


def map_in_order(
    function: Callable[..., Result], items: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[Result]:
    """Yield ``function(*item)`` of each item, in their order.

    Processes, not threads: the dense CRF frees Python's lock, but not what is done around it.

    Arguments:
        function: of a module, so that processes can find it; equal for equal items.
        items: its arguments; read no further ahead than two for each process.
        workers: processes; 0 works here.

    Raises:
        UserError: a process died; or whatever the function raises.
    """
    if workers == 0:
        for item in items:
            yield function(*item)
        return
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, *item))
                if len(waiting) > WAITING * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that refined labels died; ask for more memory or lower the key workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
