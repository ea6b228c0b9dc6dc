"""Work that is done in threads while the network computes: reading ahead, and encoding."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class InOrder:
    """Makes calls one after another in a thread, in the order in which they were given.

    Args:
        waiting: The largest number of calls that may wait. With more, the caller waits.
    """

    def __init__(self, waiting: int) -> None:
        self._calls: queue.Queue[tuple[Callable, tuple] | None] = queue.Queue(waiting)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Add a call of ``function``. If an earlier call failed, raise its error here."""
        self._raise()
        self._calls.put((function, arguments))

    def finish(self) -> None:
        """Wait for all calls, and raise the error of one that failed. May be called again."""
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._failure is None:  # after a failure the rest is dropped
                try:
                    call[0](*call[1])
                except BaseException as error:
                    self._failure = error


def read_ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, which a thread takes up to ``count`` ahead.

    Closing the iterator ends the thread. What the items raise is raised here.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def take() -> None:
        try:
            for item in items:
                offer(item, None)
                if stopped.is_set():
                    return
            offer(None, StopIteration())
        except BaseException as error:
            offer(None, error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()
