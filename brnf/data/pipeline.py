"""Readers, a device and writers at work at the same time, on images that stay in order.

Processes prepare images and finish what was made of them, the main thread has the device, and a
thread writes. Between them only so many images wait.
"""

import gc
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

import cv2

from brnf.errors import UserError

__all__ = ["WAITING", "Workers", "one_opencv_thread"]

Result = TypeVar("Result")
WAITING = 2
"""Items handed out for each process, so that none runs dry and memory stays bounded; and items that
wait for the writer.
"""


class Workers:
    """Processes that work on several items at once, in order, and a thread that writes.

    Processes, not threads: decoding, compressing and the dense CRF free Python's lock, but not what
    is done around them, and HDF5 works on one thing at a time in a process.

    Arguments:
        count: processes, used as a context manager; 0 does all in the stage's own thread, one item
            after the other.
        task: what the processes do, for the line that says that one died.
    """

    def __init__(self, count: int, task: str = "prepared images") -> None:
        self.count, self._task = count, task
        self._pool = ProcessPoolExecutor(count, initializer=_begin) if count else None
        self._closed = ExitStack()

    def __enter__(self) -> Self:
        if self._pool is not None:
            self._closed.enter_context(one_opencv_thread())  # the first item begins the processes
            self._closed.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.close()

    def map(
        self,
        function: Callable[..., Result],
        items: Iterable[tuple[Any, ...]],
        known: Callable[..., Result | None] = lambda *_: None,
    ) -> Iterator[Result]:
        """Yield ``function(*item)`` of each item, in their order.

        What items come from may itself be such results: all share the processes.

        Arguments:
            function: of a module, so that processes can find it; equal for equal items.
            items: its arguments; read no further ahead than two for each process.
            known: returns what is known of an item without handing it over, else None; is not
                asked where there are no processes.

        Raises:
            UserError: a process died; or whatever the function raises, in its turn.
        """
        if self._pool is None:
            for item in items:
                yield function(*item)
            return
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._handed_out(function, item, known(*item)))
            if len(waiting) > WAITING * self.count:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _handed_out(
        self, function: Callable[..., Result], item: tuple[Any, ...], found: Result | None
    ) -> Future[Result]:
        """Give an item to a process unless its result is known."""
        if found is None and self._pool is not None:
            try:
                return self._pool.submit(function, *item)
            except BrokenProcessPool as error:
                raise self._died() from error
        ready: Future[Result] = Future()
        ready.set_result(found)  # type: ignore[arg-type]
        return ready

    def _result(self, future: Future[Result]) -> Result:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise self._died() from error

    def _died(self) -> UserError:
        return UserError(
            f"a process that {self._task} died; ask for more memory or lower the key workers"
        )

    @contextmanager
    def writing(self, write: Callable[..., None]) -> Iterator[Callable[..., None]]:
        """Have a thread write in order while the next items are computed.

        Arguments:
            write: is called in the thread; in the caller's own without processes.

        Yields:
            What takes the arguments of ``write``. It waits while two items wait already.

        Raises:
            Exception: what ``write`` raised, at a later call or at the end; it goes before a
                mistake in the block, which is of a later item.
        """
        if self._pool is None:
            yield write
            return
        failed = threading.Event()

        def write_next(*arguments: Any) -> None:
            if failed.is_set():
                return
            try:
                write(*arguments)
            except BaseException:
                failed.set()
                raise

        waiting: deque[Future[None]] = deque()

        def hand_over(*arguments: Any) -> None:
            waiting.append(thread.submit(write_next, *arguments))
            while len(waiting) > WAITING:
                waiting.popleft().result()

        with ThreadPoolExecutor(1, "write") as thread:
            try:
                yield hand_over
            except Exception:
                _all_of(waiting)
                raise
            except BaseException:  # a signal: what was not begun is not written
                thread.shutdown(cancel_futures=True)
                raise
            _all_of(waiting)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """End OpenCV's threads, for as long as processes may be forked.

    A process that is forked while they live waits for ever as soon as it changes their number.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _all_of(waiting: deque[Future[None]]) -> None:
    """Wait for all futures in their order."""
    while waiting:
        waiting.popleft().result()


def _begin() -> None:
    """Prepare a process: signals from the terminal are its parent's, with whom it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)  # there are as many processes as cores
    gc.freeze()  # what it shares with its parent would be copied when searched for garbage

    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
