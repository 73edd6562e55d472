"""What becomes of a segmentation, in other threads: a label map, or pictures in files."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from paddleseg_infer.batching import Item, Result, failed
from paddleseg_infer.errors import ImageError, RunError
from paddleseg_infer.pictures.files import prepare_save_dir, target_of, write_whole
from paddleseg_infer.pictures.kinds import Pictures, Segmentation


class Goal(Protocol):
    """What is made of each image's segmentation."""

    @property
    def pictures(self) -> Pictures:
        """The pictures that are needed."""

    def prepare(self) -> None:
        """Called once, when the engine is loaded. Raises ConfigError."""

    def finish(self, item: Item, segmentation: Segmentation) -> Result:
        """Called in some thread. Raises ImageError and RunError."""


class LabelMaps:
    """A label map for the caller."""

    pictures = Pictures(kinds=())

    def prepare(self) -> None:
        pass

    def finish(self, item: Item, segmentation: Segmentation) -> Result:
        return Result(item, labels=segmentation.labels)


@dataclass(frozen=True)
class SavedPictures:
    """Pictures in files below `save_dir`.

    That folder is made first, unless it is among the `prepared` ones: one that vanishes later isn't
    made again.
    """

    pictures: Pictures
    save_dir: str
    prepared: set[str]
    on_run_error: Callable[[RunError], None]

    def prepare(self) -> None:
        if self.save_dir not in self.prepared:
            prepare_save_dir(self.save_dir)
            self.prepared.add(self.save_dir)

    def finish(self, item: Item, segmentation: Segmentation) -> Result:
        assert item.job is not None
        try:
            # The mask comes last, and nothing is written before all could be made.
            for kind, data in reversed(list(self.pictures.encoded(segmentation))):
                write_whole(data, self.save_dir, target_of(kind, item.job.target))
        except RunError as error:
            self.on_run_error(error)
            raise
        return Result(item, size=segmentation.labels.shape[::-1])


@dataclass(frozen=True)
class Output:
    """What the network gave for one image."""

    item: Item
    values: np.ndarray  # labels [H, W] or [1, H, W], or scores [C, H, W]


def timed(item: Item, make: Callable[[], Result]) -> Result:
    """What `make` returns, with its time and without the image's pixels; or why it failed."""
    started = time.perf_counter()
    try:
        result = make()
    except ImageError as error:
        return failed(item, error)
    except (MemoryError, cv2.error) as error:
        return failed(item, ImageError(f"its mask can't be made: {error}"))
    times = item.times.plus(postprocess=time.perf_counter() - started)
    return replace(result, item=replace(item, image_bgr=None, times=times))


def results_of(finishing: deque[Future[Result]], count: int) -> Iterator[Result]:
    """Yields the first `count` results; after a RunError every other one, then raises it."""
    failure = None
    while finishing and (count > 0 or failure):
        count -= 1
        try:
            yield finishing.popleft().result()
        except RunError as error:
            failure = error
    if failure:
        raise failure
