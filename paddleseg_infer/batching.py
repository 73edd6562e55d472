"""Images to batches, each a tensor for the network: read by several threads, in a fixed order."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ImageError, RunError
from paddleseg_infer.outcomes import Times
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.sources.source import Source
from paddleseg_infer.transforms.frame import Frame, Padded, Resized

T = TypeVar("T")
Undo = Sequence[Resized | Padded]


@dataclass(frozen=True)
class Batch:
    """Images whose tensors have one shape."""

    indices: Sequence[int]  # of the images among those given
    undos: Sequence[Undo]
    seconds: Sequence[float]  # that each image's reading and transforms took
    images: Sequence[np.ndarray | None]  # uint8 BGR [H, W, 3], where they were asked for
    tensor_nchw: np.ndarray  # float32; where the network takes full batches only, copies fill it


@dataclass(frozen=True)
class Result:
    """What became of one image: either `labels` or `error` is set, or of a window `scores`."""

    index: int  # of the image among those given
    labels: np.ndarray | None = None  # uint8 [H, W], or uint16
    scores: np.ndarray | None = None  # float32 [C, H, W]
    error: ImageError | None = None
    times: Times | None = None  # of one that didn't fail
    size: tuple[int, int] | None = None  # width and height of what was saved


_Read = tuple[int, Frame, float, np.ndarray | None]


class BatchReader:
    """Reads images for the model of `deploy`, up to `ahead` of them at once."""

    def __init__(self, deploy: DeployConfig, batch_size: int, ahead: int):
        self._deploy = deploy
        self._batch_size = batch_size
        self._ahead = ahead

    def batches(
        self, images: Iterable[Source | ImageError], pool: ThreadPoolExecutor, keep: bool = False
    ) -> Iterator[Batch | Result]:
        """Batches as they fill, and a Result for each image that fails; an ImageError is one.

        With `keep` a batch has its images too.
        Only tensors of one shape meet in a batch. A batch that isn't full comes when the images
        end, or once `4 * batch_size` more have been read, so memory stays bounded.
        """
        waiting: dict[tuple[int, int], list[_Read]] = {}  # by size, oldest first
        for index, reading in self._read_ahead(images, pool):
            try:
                frame, seconds, image = reading.result()
            except ImageError as error:
                yield Result(index, error=error)
                continue
            group = waiting.setdefault(frame.size, [])
            group.append((index, frame, seconds, image if keep else None))
            if len(group) == self._batch_size:
                yield from self._batched(waiting.pop(frame.size))
            oldest = next(iter(waiting), None)
            if oldest and index - waiting[oldest][0][0] >= 4 * self._batch_size:
                yield from self._batched(waiting.pop(oldest))
        for group in waiting.values():
            yield from self._batched(group)

    def _read_ahead(
        self, images: Iterable[Source | ImageError], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[int, Future[tuple[Frame, float, np.ndarray]]]]:
        reading: deque[tuple[int, Future[tuple[Frame, float, np.ndarray]]]] = deque()
        for item in enumerate(images):
            reading.append((item[0], pool.submit(self._timed_frame, item[1])))
            if len(reading) == self._ahead:
                yield reading.popleft()
        yield from reading

    def _timed_frame(self, source: Source | ImageError) -> tuple[Frame, float, np.ndarray]:
        if isinstance(source, ImageError):
            raise source
        started = time.perf_counter()
        image_bgr = source.pixels(self._deploy.transforms)
        return self.frame(image_bgr), time.perf_counter() - started, image_bgr

    def frame(self, image_bgr: np.ndarray) -> Frame:
        """The image as the network is given it. Raises ImageError."""
        frame = prepare(image_bgr, self._deploy.transforms)
        self._deploy.check_size(*frame.size)
        return frame

    def _batched(self, group: Sequence[_Read]) -> Iterator[Batch | Result]:
        """One batch; where memory doesn't hold it, each image by itself."""
        indices, frames, seconds, images = zip(*group, strict=True)
        started = time.perf_counter()
        try:
            tensor_nchw = np.empty((self._slots(len(frames)), 3, *frames[0].size), np.float32)
            for slot, frame in enumerate(frames):
                frame.tensor(out=tensor_nchw[slot])
            tensor_nchw[len(frames) :] = tensor_nchw[len(frames) - 1]
        except (MemoryError, ValueError):  # ValueError: beyond what an array may hold
            if len(group) > 1:
                for item in group:
                    yield from self._batched([item])
                return
            height, width = frames[0].size
            refusal = f"there is not enough memory for its tensor of {width}x{height}"
            yield Result(indices[0], error=ImageError(refusal))
            return
        # What the network gives may be smaller than what it is given.
        undos = [(*frame.undo, Resized(*frame.size)) for frame in frames]
        shared = (time.perf_counter() - started) / len(frames)
        yield Batch(indices, undos, [each + shared for each in seconds], images, tensor_nchw)

    def halves(self, batch: Batch) -> Iterator[Batch]:
        """The batch in two."""
        count = len(batch.indices)
        for here in (slice(count // 2), slice(count // 2, count)):
            tensor_nchw = batch.tensor_nchw[here]
            if missing := self._slots(len(tensor_nchw)) - len(tensor_nchw):
                filling = tensor_nchw[-1:].repeat(missing, axis=0)
                tensor_nchw = np.concatenate([tensor_nchw, filling])
            yield Batch(
                *(batch.indices[here], batch.undos[here], batch.seconds[here], batch.images[here]),
                tensor_nchw=tensor_nchw,
            )

    def _slots(self, images: int) -> int:
        return images if self._deploy.input_shape[0] == -1 else self._deploy.input_shape[0]


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
