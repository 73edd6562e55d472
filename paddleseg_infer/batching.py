"""Reads images in several threads and groups them into batches, in a fixed order."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ImageError
from paddleseg_infer.outcomes import Job, Outcome, Pixels, Ran, Times
from paddleseg_infer.place import Place
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.sources.source import Source
from paddleseg_infer.transforms.frame import Frame, Padded, Resized


@dataclass(frozen=True, eq=False)
class Item:
    """One image on its way through the program, up to its Result."""

    source: Source | None  # None after reading, so that a Result keeps no pixels in memory
    name: str  # the source's name, for messages
    index: int = 0  # position among the images of a call, from 0
    job: Job | None = None  # None if no pictures are saved
    frame: Frame | None = None  # set after reading; None again once the tensor is made
    image_bgr: np.ndarray | None = None  # uint8 [H, W, 3], only if a picture needs it
    place: Place | None = None  # of a TIFF, set after reading
    undo: Sequence[Resized | Padded] = ()  # the steps to undo, in the order they were applied
    times: Times = Times()
    ran: tuple[Ran, ...] = ()  # more than one if its windows were run differently


@dataclass(frozen=True, eq=False)
class Result:
    """The result for one image or window.

    Only `error` is set if it failed. Otherwise a label map for the caller is in `labels`, a
    window's output is in `labels` or `scores`, and an image whose pictures were saved has a `size`.
    """

    item: Item
    error: ImageError | None = None
    labels: np.ndarray | None = None  # uint8 or uint16 [H, W]
    scores: np.ndarray | None = None  # float32 [C, H, W]
    size: tuple[int, int] | None = None  # (width, height) of the saved label map
    pixels: Pixels | None = None  # of the saved label map
    suffix: str = ".png"  # of the saved mask and label map

    @property
    def index(self) -> int:
        """The image's position among the images of the call, from 0."""
        return self.item.index

    @property
    def times(self) -> Times | None:
        """The seconds that each stage took; None if the image failed."""
        return None if self.error else self.item.times

    @property
    def outcome(self) -> Outcome:
        """The outcome of the item's job."""
        item = self.item
        assert item.job is not None
        if self.error:
            return Outcome(item.job, "failed", str(self.error), ran=item.ran)
        return Outcome(
            item.job,
            "done",
            size=self.size,
            times=item.times,
            ran=item.ran,
            suffix=self.suffix,
            pixels=self.pixels,
        )


@dataclass(frozen=True)
class Batch:
    """Images whose tensors have the same shape."""

    items: Sequence[Item]
    # float32 [N, C, H, W]. If the graph's batch size is fixed, copies of the last image fill it.
    tensor_nchw: np.ndarray


@dataclass
class _Waiting:
    """Images of one size that wait until their batch is full."""

    since: int  # how many images had been read when the first of these arrived
    items: list[Item] = field(default_factory=list)


class BatchReader:
    """Reads images for the model of `deploy`, at most `ahead` of them at the same time.

    If `keeps_images` is true, an item keeps its pixels in `image_bgr`.
    """

    def __init__(self, deploy: DeployConfig, batch_size: int, ahead: int, keeps_images: bool):
        self._deploy = deploy
        self._batch_size = batch_size
        self._ahead = ahead
        self._keeps_images = keeps_images

    def batches(
        self, items: Iterable[Item | Result], pool: ThreadPoolExecutor
    ) -> Iterator[Batch | Result]:
        """Yields each batch when it is full, and a Result for each image that fails.

        Also yields the Results that are among `items`. All tensors of a batch have the same shape.
        A batch that isn't full is yielded when the images end, or after `4 * batch_size` more
        images have been read, so that memory stays bounded.
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
            data = item.source.read(self._deploy.transforms)
            frame = prepare(data.pixels, self._deploy.transforms)
            self._deploy.check_size(*frame.size)
            image_bgr = data.view() if self._keeps_images else None
        except ImageError as error:
            return failed(item, error)
        except MemoryError:
            return failed(item, ImageError("there is not enough memory to read it"))
        return replace(
            item,
            source=None,
            frame=frame,
            image_bgr=image_bgr,
            place=data.place,
            times=item.times.plus(preprocess=time.perf_counter() - started),
        )

    def _batched(self, group: Sequence[Item]) -> Iterator[Batch | Result]:
        """Yields one batch, or each image alone if there is not enough memory for the batch.

        Yields a failed Result if there is not enough memory for one image.
        """
        started = time.perf_counter()
        frames = [item.frame for item in group if item.frame]
        height, width = frames[0].size
        try:
            shape = self._slots(len(frames)), frames[0].channels, height, width
            tensor_nchw = np.empty(shape, np.float32)
            for slot, frame in enumerate(frames):
                frame.tensor(out=tensor_nchw[slot])
            tensor_nchw[len(frames) :] = tensor_nchw[len(frames) - 1]
        except (MemoryError, ValueError):  # ValueError: larger than numpy allows
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
        """Yields the two halves of a batch, each filled up if the graph's batch size is fixed."""
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
    """Returns the Result of an image that failed, without its pixels."""
    return Result(replace(item, source=None, frame=None, image_bgr=None, place=None), error)


def _in_batch(item: Item, frame: Frame, seconds: float) -> Item:
    """Returns the item without its pixels, which are now in the batch's tensor.

    `seconds` is the item's share of the time that it took to make the tensor.
    """
    # The network's output may be smaller than its input, so a resize is undone first.
    undo = (*frame.undo, Resized(*frame.size))
    return replace(item, frame=None, undo=undo, times=item.times.plus(preprocess=seconds))
