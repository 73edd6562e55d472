"""Work in other threads: an iterator that is filled ahead of its reader, and results told."""

import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from paddleseg_infer.errors import RunError

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterates over `items`, which a thread takes from their source before they are asked for.

    At once, and at most `depth` of them. An exception of the source is raised where its item would
    have come. To be closed (`with`), or the thread may stay. Helps where the source and what
    happens to its items spend their time in C++ code that frees Python's lock.
    """

    def __init__(self, items: Iterator[T], depth: int):
        self._free = threading.Semaphore(depth)
        self._filled: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._fill, args=(items,), daemon=True)
        self._thread.start()

    def _fill(self, items: Iterator[T]) -> None:
        try:
            while self._free.acquire() and not self._closed:
                self._filled.put((next(items), None))
        except BaseException as error:  # StopIteration too; the reader raises it
            self._filled.put((None, error))

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._filled.get()
            if isinstance(error, StopIteration):
                return
            if error:
                raise error
            self._free.release()
            yield item  # type: ignore[misc]

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._free.release()
        self._thread.join()


def told(futures: deque[Future[T]], count: int) -> Iterator[T]:
    """Results of the first `count` futures; all of them before a RunError is raised.

    What was saved beside the picture that couldn't be is told so.
    """
    failure = None
    while futures and (count > 0 or failure):
        count -= 1
        try:
            yield futures.popleft().result()
        except RunError as error:
            failure = error
    if failure:
        raise failure
