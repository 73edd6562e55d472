"""Turns segmentations into Results: label maps for the caller, or pictures in files."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import cv2
import numpy as np

from paddleseg_infer.batching import Item, Result, failed
from paddleseg_infer.errors import ImageError, RunError
from paddleseg_infer.evaluation import Judge
from paddleseg_infer.label_maps import in_memory
from paddleseg_infer.outcomes import Windows, nothing
from paddleseg_infer.pictures.files import GEOTIFF, target_of, write_whole
from paddleseg_infer.pictures.kinds import Pictures, Segmentation, check_has_8_bits
from paddleseg_infer.pictures.large import KINDS as LARGE_KINDS
from paddleseg_infer.pictures.large import LargeLabels, save_picture, sieved_labels
from paddleseg_infer.pictures.polygons import sieved
from paddleseg_infer.postprocess import OutputReader, label_map, restore
from paddleseg_infer.settings import UNKNOWN
from paddleseg_infer.strips import StripMaker, Strips
from paddleseg_infer.tiling import Tiling


class Goal(Protocol):
    """Makes a Result from each image's segmentation."""

    @property
    def pictures(self) -> Pictures:
        """The pictures to make of each image."""

    @property
    def on_batch(self) -> Callable[[], None]:
        """Is called before each batch."""

    @property
    def on_windows(self) -> Callable[[Windows], None]:
        """Is called about once per second while the windows of an image are run, and at the end."""

    @property
    def on_run_error(self) -> Callable[[RunError], None]:
        """Is called before a RunError is raised in a thread that makes Results."""

    def check(self, kind: str, channels: int) -> None:
        """Raises ConfigError if this can't be made from the model's output.

        `kind` is a result of `forms.output_kind`. `channels` are those of scores.
        """

    def prepare(self) -> None:
        """Prepares the output. It is called after the engine is loaded. Raises ConfigError."""

    def finish(self, item: Item, segmentation: Segmentation) -> Result:
        """Makes the Result of one image, in any thread. Raises ImageError or RunError."""

    def strips_of(self, item: Item, tiling: Tiling) -> Strips | None:
        """Returns where the labels of a large image go row by row; None if it is read whole.

        Raises ImageError.
        """

    def finish_large(self, item: Item, large: LargeLabels) -> Result:
        """Makes the Result of a large image. Raises ImageError or RunError."""


class LabelMaps:
    """Returns label maps to the caller and saves nothing."""

    pictures = Pictures(kinds=())
    on_batch = on_windows = on_run_error = staticmethod(nothing)

    def check(self, kind: str, channels: int) -> None:
        pass

    def prepare(self) -> None:
        pass

    def finish(self, item: Item, segmentation: Segmentation) -> Result:
        return Result(item, labels=segmentation.labels)

    def strips_of(self, item: Item, tiling: Tiling) -> Strips | None:
        return None

    def finish_large(self, item: Item, large: LargeLabels) -> Result:
        raise NotImplementedError  # a caller gets label maps in memory


@dataclass(frozen=True)
class SavedPictures:
    """Saves pictures in files below `save_dir`. Its Results have the pixels that `judge` counts.

    `prepare` makes that folder with `make_save_dir`, which must not make a folder again that has
    vanished.
    """

    pictures: Pictures
    save_dir: str
    judge: Judge
    make_strips: StripMaker
    make_save_dir: Callable[[str], None]
    on_batch: Callable[[], None]
    on_windows: Callable[[Windows], None]
    on_run_error: Callable[[RunError], None]

    def check(self, kind: str, channels: int) -> None:
        self.pictures.check(kind, channels)
        self.judge.check(kind, channels)

    def prepare(self) -> None:
        self.make_save_dir(self.save_dir)

    def finish(self, item: Item, segmentation: Segmentation) -> Result:
        assert item.job is not None
        pixels = self.judge.pixels(item.job, in_memory(segmentation.labels))
        # All pictures are encoded before the first is written. The order of writing is reversed, so
        # that the mask, which is the first kind, is written last.
        for kind, data in reversed(list(self.pictures.encoded(segmentation))):
            target = target_of(kind, item.job.stem, segmentation.suffix)
            write_whole(data, self.save_dir, target)
        size = segmentation.labels.shape[::-1]
        return Result(item, size=size, pixels=pixels, suffix=segmentation.suffix)

    def strips_of(self, item: Item, tiling: Tiling) -> Strips | None:
        if set(self.pictures.kinds) <= set(LARGE_KINDS):
            return self.make_strips(item, tiling)
        return None

    def finish_large(self, item: Item, large: LargeLabels) -> Result:
        assert item.job is not None
        if "mask" in self.pictures.kinds:
            check_has_8_bits(large.ids.dtype)  # before the first picture is saved
        pixels = self.judge.pixels(item.job, large.ids)
        for kind in reversed(self.pictures.kinds):
            save_picture(kind, large, self.pictures, item.job.stem)
        return Result(item, size=large.ids.size[::-1], pixels=pixels, suffix=GEOTIFF)


@dataclass(frozen=True)
class Output:
    """The network's output for one image."""

    item: Item
    values: np.ndarray  # labels [H, W] or [1, H, W], or scores [C, H, W]


@dataclass(frozen=True)
class Finisher:
    """Makes Results of the network's outputs, in any thread."""

    reads: OutputReader
    network_size: bool  # whether the pictures keep the size of the network's output
    has_class_255: bool | None  # None if only the labels show it
    min_area: int | None = None  # pixels: smaller regions get the label of a neighbour

    def image(self, goal: Goal, output: Output) -> Result:
        """Returns the Result that the goal makes from one image's output."""
        return timed(goal, output.item, partial(self._image, goal, output))

    def _image(self, goal: Goal, output: Output) -> Result:
        item, place = output.item, output.item.place
        maps = self.reads(output.values, goal.pictures.kinds)
        if self.network_size:
            place = None  # its grid would be another
        else:
            maps = maps.restored(item.undo)
        images = maps.labels, maps.score, item.image_bgr, maps.probability
        return self._finished(goal, item, Segmentation(*images, place))

    def strips(self, goal: Goal, item: Item, strips: Strips) -> Result:
        """Returns the Result of a large image whose labels are in files."""
        return timed(goal, item, partial(self._strips, goal, item, strips))

    def _strips(self, goal: Goal, item: Item, strips: Strips) -> Result:
        with strips.finished() as large:
            if self.min_area is not None:
                large = sieved_labels(large, self.min_area)
            return goal.finish_large(item, large)

    def mosaic(self, goal: Goal, item: Item, segmentation: Segmentation) -> Result:
        """Returns the Result of an image whose windows are joined."""
        return timed(goal, item, partial(self._finished, goal, item, segmentation))

    def _finished(self, goal: Goal, item: Item, segmentation: Segmentation) -> Result:
        if segmentation.place is not None:
            place = segmentation.place.for_labels(segmentation.labels, self.has_class_255)
            segmentation = replace(segmentation, place=place)
            place.fill(segmentation.labels, UNKNOWN)
            if segmentation.score is not None:
                place.fill(segmentation.score, 0)
        if self.min_area is not None:
            labels = sieved(segmentation.labels, self.min_area, segmentation.place)
            segmentation = replace(segmentation, labels=labels)
        return goal.finish(item, segmentation)

    def window(self, goal: Goal, output: Output) -> Result:
        """Returns a window's labels [H, W] or raw scores [C, H, W], in the window's size."""
        return timed(goal, output.item, partial(self._window, output))

    def _window(self, output: Output) -> Result:
        item = output.item
        if self.reads.kind == "labels":
            return Result(item, labels=restore(label_map(output.values, "labels"), item.undo))
        return Result(item, scores=restore(self.reads.scores(output.values), item.undo))


def timed(goal: Goal, item: Item, make: Callable[[], Result]) -> Result:
    """Returns the Result of `make()` with its time added, without the image's pixels.

    If there is an ImageError, a MemoryError or an OpenCV error, returns a failed Result instead.
    Raises RunError.
    """
    started = time.perf_counter()
    try:
        result = make()
    except ImageError as error:
        return failed(item, error)
    except (MemoryError, cv2.error) as error:
        return failed(item, ImageError(f"its mask can't be made: {error}"))
    except RunError as error:
        goal.on_run_error(error)
        raise
    times = item.times.plus(postprocess=time.perf_counter() - started)
    return replace(result, item=replace(item, image_bgr=None, place=None, times=times))


def results_of(finishing: deque[Future[Result]], count: int) -> Iterator[Result]:
    """Yields the first `count` results in order, and removes them from `finishing`.

    After a RunError, yields all other results first, then raises the last RunError.
    """
    failure = None
    while finishing and (count > 0 or failure):
        count -= 1
        try:
            yield finishing.popleft().result()
        except RunError as error:
            failure = error
    if failure:
        raise failure
