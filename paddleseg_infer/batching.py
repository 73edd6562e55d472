"""Images to batches, each a tensor for the network: read by several threads, in a fixed order."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ImageError
from paddleseg_infer.outcomes import Job, Times
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.sources.source import Source
from paddleseg_infer.transforms.frame import Frame, Padded, Resized


@dataclass(frozen=True, eq=False)
class Item:
    """One image, from when it is taken up until its outcome."""

    source: Source | None  # None once its pixels were taken, so that results keep no image alive
    name: str  # of the source, for messages
    index: int = 0  # its place among the images of a call
    job: Job | None = None  # where its pictures go, if any are saved
    frame: Frame | None = None  # once it was read, until its tensor is made
    image_bgr: np.ndarray | None = None  # uint8 [H, W, 3], where a picture needs it
    undo: Sequence[Resized | Padded] = ()  # of the transforms, in the order they were applied
    times: Times = Times()


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one image.

    An image that failed has an `error`. A label map is in `labels`. A window has `labels` or
    `scores`. A saved image has a `size`.
    """

    item: Item
    error: ImageError | None = None
    labels: np.ndarray | None = None  # uint8 [H, W], or uint16
    scores: np.ndarray | None = None  # float32 [C, H, W]
    size: tuple[int, int] | None = None  # width and height of what was saved

    @property
    def index(self) -> int:
        """The image's place among those of the call."""
        return self.item.index

    @property
    def times(self) -> Times | None:
        """Seconds, of an image that didn't fail."""
        return None if self.error else self.item.times


@dataclass(frozen=True)
class Batch:
    """Images whose tensors have one shape."""

    items: Sequence[Item]
    tensor_nchw: np.ndarray  # float32; where the network takes full batches only, copies fill it


@dataclass
class _Waiting:
    """Images of one size that wait for others to fill their batch."""

    since: int  # how many images had been read
    items: list[Item] = field(default_factory=list)


class BatchReader:
    """Reads images for the model of `deploy`, up to `ahead` of them at once.

    With `keeps_images` an item has its `image_bgr` too.
    """

    def __init__(self, deploy: DeployConfig, batch_size: int, ahead: int, keeps_images: bool):
        self._deploy = deploy
        self._batch_size = batch_size
        self._ahead = ahead
        self._keeps_images = keeps_images

    def batches(
        self, items: Iterable[Item | Result], pool: ThreadPoolExecutor
    ) -> Iterator[Batch | Result]:
        """Batches as they fill, and a Result for each image that fails, or that is one already.

        Only tensors of one shape meet in a batch. A batch that isn't full comes when the images
        end, or once `4 * batch_size` more have been read, so memory stays bounded.
        """
        waiting: dict[tuple[int, int], _Waiting] = {}  # by size, oldest first
        for count, item in enumerate(self._read_ahead(items, pool)):
            if isinstance(item, Result):
                yield item
                continue
            assert item.frame is not None
            size = item.frame.size
            waiting.setdefault(size, _Waiting(count)).items.append(item)
            if len(waiting[size].items) == self._batch_size:
                yield from self._batched(waiting.pop(size).items)
            oldest = next(iter(waiting), None)
            if oldest and count - waiting[oldest].since >= 4 * self._batch_size:
                yield from self._batched(waiting.pop(oldest).items)
        for group in waiting.values():
            yield from self._batched(group.items)

    def _read_ahead(
        self, items: Iterable[Item | Result], pool: ThreadPoolExecutor
    ) -> Iterator[Item | Result]:
        reading: deque[Future[Item | Result]] = deque()
        for item in items:
            reading.append(pool.submit(self._read, item))
            if len(reading) == self._ahead:
                yield reading.popleft().result()
        while reading:
            yield reading.popleft().result()

    def _read(self, item: Item | Result) -> Item | Result:
        if isinstance(item, Result):
            return item
        started = time.perf_counter()
        assert item.source is not None
        try:
            image_bgr = item.source.pixels(self._deploy.transforms)
            frame = prepare(image_bgr, self._deploy.transforms)
            self._deploy.check_size(*frame.size)
        except ImageError as error:
            return failed(item, error)
        return replace(
            item,
            source=None,
            frame=frame,
            image_bgr=image_bgr if self._keeps_images else None,
            times=item.times.plus(preprocess=time.perf_counter() - started),
        )

    def _batched(self, group: Sequence[Item]) -> Iterator[Batch | Result]:
        """One batch; where memory doesn't hold it, each image by itself."""
        started = time.perf_counter()
        frames = [item.frame for item in group if item.frame]
        height, width = frames[0].size
        try:
            tensor_nchw = np.empty((self._slots(len(frames)), 3, height, width), np.float32)
            for slot, frame in enumerate(frames):
                frame.tensor(out=tensor_nchw[slot])
            tensor_nchw[len(frames) :] = tensor_nchw[len(frames) - 1]
        except (MemoryError, ValueError):  # ValueError: beyond what an array may hold
            if len(group) > 1:
                for item in group:
                    yield from self._batched([item])
                return
            why = f"there is not enough memory for its tensor of {width}x{height}"
            yield failed(group[0], ImageError(why))
            return
        shared = (time.perf_counter() - started) / len(group)
        yield Batch(
            [_in_batch(item, frame, shared) for item, frame in zip(group, frames, strict=True)],
            tensor_nchw,
        )

    def halves(self, batch: Batch) -> Iterator[Batch]:
        """The batch in two."""
        count = len(batch.items)
        for half in (slice(count // 2), slice(count // 2, count)):
            tensor_nchw = batch.tensor_nchw[half]
            if missing := self._slots(len(tensor_nchw)) - len(tensor_nchw):
                filling = tensor_nchw[-1:].repeat(missing, axis=0)
                tensor_nchw = np.concatenate([tensor_nchw, filling])
            yield Batch(batch.items[half], tensor_nchw)

    def _slots(self, images: int) -> int:
        return images if self._deploy.input_shape[0] == -1 else self._deploy.input_shape[0]


def failed(item: Item, error: ImageError) -> Result:
    """The result of an image that failed, without its pixels."""
    return Result(replace(item, source=None, frame=None, image_bgr=None), error)


def _in_batch(item: Item, frame: Frame, seconds: float) -> Item:
    """The item without its pixels, which are in the batch's tensor now."""
    # What the network gives may be smaller than what it is given.
    undo = (*frame.undo, Resized(*frame.size))
    return replace(item, frame=None, undo=undo, times=item.times.plus(preprocess=seconds))
