"""Cuts large images into windows, and joins the windows' results to one segmentation.

tiling.py computes the windows' positions. Scores are averaged over the windows, as in PaddleSeg's
own sliding window, or with weights that are largest in the middle of a window. Labels can't be
averaged: each pixel gets the label of the window whose centre is nearest.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakSet

import cv2
import numpy as np

from paddleseg_infer.batching import Item, Result, failed
from paddleseg_infer.blending import WEIGHTS, Band, check_memory
from paddleseg_infer.errors import ImageError
from paddleseg_infer.outcomes import Ran, Times, Windows
from paddleseg_infer.pictures.kinds import Segmentation
from paddleseg_infer.postprocess import Maps
from paddleseg_infer.sources.array import WindowSource
from paddleseg_infer.sources.large import LargeWindow
from paddleseg_infer.sources.reading import ImageData
from paddleseg_infer.sources.source import Source
from paddleseg_infer.strips import Strips
from paddleseg_infer.tiling import Grid, Size, Tiling, grid_of

SECONDS_BETWEEN_CALLS = 1.0  # of on_windows
NO_MEMORY = "there is not enough memory to join its windows"


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowItem(Item):
    """A window of an image; its source is a view of the image's pixels."""

    mosaic: "Mosaic"  # the image that the window belongs to
    number: int  # the window's number in the image's grid


class WholeLabels:
    """The labels of an image in memory. `Strips` has the same methods for files."""

    def __init__(self, size: Size):
        self.labels = np.zeros(size, np.uint8)

    def put(self, rows: slice, columns: slice, labels: np.ndarray) -> None:
        """Puts labels, uint8 or uint16, in their place."""
        if labels.dtype.itemsize > self.labels.itemsize:
            self.labels = self.labels.astype(labels.dtype)
        self.labels[rows, columns] = labels

    def complete(self, stop: int) -> None:
        """Is called when all rows above `stop` are final."""


@dataclass(frozen=True)
class Cutter:
    """Cuts images into windows."""

    tiling: Tiling
    read_scores: Callable[[np.ndarray], Maps]  # returns the maps of scores [C, H, W]
    keeps_images: bool  # whether a mosaic keeps its image for a picture
    # Returns where a large image's labels are written row by row; None for one that is read whole.
    strips_of: Callable[[Item, Tiling], Strips | None]
    # Called about once per second, and when all windows of an image are done.
    on_windows: Callable[[Windows], None]
    _open: "WeakSet[Strips]" = field(default_factory=WeakSet)

    def close(self) -> None:
        """Closes the files of all images, also of those that weren't finished."""
        for strips in list(self._open):
            strips.close()

    def windows(self, items: Iterable[Item]) -> Iterator[WindowItem | Result]:
        """Yields the windows of each image, row by row, or a failed Result if it can't be read.

        If a window has failed, the image's remaining windows are left out.
        """
        for item in items:
            started = time.perf_counter()
            try:
                mosaic, first, source_of = self._begun(item)
            except ImageError as error:
                yield failed(item, error)
                continue
            except MemoryError:
                yield failed(item, ImageError(NO_MEMORY))
                continue
            mosaic.took(Times(preprocess=time.perf_counter() - started))
            for number in range(first, len(mosaic.grid)):
                if mosaic.has_failed:
                    break
                source = source_of(*mosaic.grid.slices(number))
                yield WindowItem(source, item.name, mosaic=mosaic, number=number)

    def _begun(self, item: Item) -> "tuple[Mosaic, int, Callable[[slice, slice], Source]]":
        """Returns an image's Mosaic, its first window, and what makes the source of a window."""
        assert item.source is not None
        strips = self.strips_of(item, self.tiling)
        if strips is not None:
            self._open.add(strips)
            grid = grid_of(strips.size, self.tiling)
            first = grid.first_row_below(strips.done) * len(grid.lefts)
            mosaic = Mosaic(item, None, grid, self, strips, first)
            return mosaic, first, partial(LargeWindow, strips.large)
        data = item.source.read()
        grid = grid_of((data.pixels.shape[0], data.pixels.shape[1]), self.tiling)
        image_bgr = data.view() if self.keeps_images else None
        item = replace(item, place=data.place)
        mosaic = Mosaic(item, image_bgr, grid, self, WholeLabels(grid.image), 0)
        return mosaic, 0, lambda *where: WindowSource(ImageData(data.pixels[where]))


def put_together(results: Iterable[Result]) -> "Iterator[Mosaic | Result]":
    """Yields each image once: its complete Mosaic, or a failed Result if a window failed."""
    for result in results:
        if not isinstance(result.item, WindowItem):
            yield result
            continue
        mosaic = result.item.mosaic
        if mosaic.has_failed:
            continue
        error = result.error or mosaic.add(result.item.number, result)
        if error:
            mosaic.fail()
            yield failed(mosaic.item, error)
        elif mosaic.is_whole:
            yield mosaic


class Mosaic:
    """One image to which the results of its windows are added, in order."""

    def __init__(
        self,
        item: Item,
        image_bgr: np.ndarray | None,
        grid: Grid,
        cutter: Cutter,
        rows: WholeLabels | Strips,
        first: int,
    ):
        """`first` is the number of the first window that is added."""
        self.has_failed = False
        self.grid = grid
        self.rows = rows
        self._item = replace(item, source=None)
        self._image_bgr = image_bgr
        self._cutter = cutter
        self._added = first  # number of windows
        self._told = time.monotonic()  # when `on_windows` was called
        self._times = item.times
        self._ran: set[Ran] = set()
        self._score: np.ndarray | None = None
        self._probability: np.ndarray | None = None
        self._band: Band | None = None

    @property
    def is_whole(self) -> bool:
        return self._added == len(self.grid)

    @property
    def item(self) -> Item:
        """The image, with the time that it and its windows have taken, and what has run them."""
        return replace(self._item, times=self._times, ran=tuple(sorted(self._ran)))

    def segmentation(self) -> Segmentation:
        """Returns the whole segmentation of an image that is in memory."""
        assert isinstance(self.rows, WholeLabels)
        return Segmentation(
            self.rows.labels, self._score, self._image_bgr, self._probability, self._item.place
        )

    def fail(self) -> None:
        """Marks the image as failed, so that its remaining windows are left out."""
        self.has_failed = True
        if isinstance(self.rows, Strips):
            self.rows.close()

    def took(self, times: Times) -> None:
        self._times = self._times.plus(*times)

    def add(self, number: int, result: Result) -> ImageError | None:
        """Adds the next window's labels [H, W] or scores [C, H, W].

        Returns None, or an ImageError if there is not enough memory.
        """
        started = time.perf_counter()
        try:
            if result.labels is not None:
                self._add_labels(number, result.labels)
            elif result.scores is not None:
                self._add_scores(number, result.scores)
        except (MemoryError, cv2.error):
            return ImageError(NO_MEMORY)
        except ImageError as error:
            return error
        self._added += 1
        if time.monotonic() - self._told > SECONDS_BETWEEN_CALLS or self.is_whole:
            self._told = time.monotonic()
            self._cutter.on_windows(Windows(self._item.name, self._added, len(self.grid)))
        self._ran.update(result.item.ran)
        self.took(result.item.times.plus(postprocess=time.perf_counter() - started))
        return None

    def _add_labels(self, number: int, labels: np.ndarray) -> None:
        rows, columns = self.grid.slices(number)
        own_rows, own_columns = self.grid.nearest(number)
        inner = (
            slice(own_rows.start - rows.start, own_rows.stop - rows.start),
            slice(own_columns.start - columns.start, own_columns.stop - columns.start),
        )
        self.rows.put(own_rows, own_columns, labels[inner])
        if (number + 1) % len(self.grid.lefts) == 0:
            self.rows.complete(own_rows.stop)

    def _add_scores(self, number: int, scores: np.ndarray) -> None:
        row, column = divmod(number, len(self.grid.lefts))
        if self._band is None:
            check_memory(len(scores), self.grid)
            weights = WEIGHTS[self._cutter.tiling.blend](self.grid.window)
            self._band = Band(len(scores), self.grid, weights, self.grid.tops[row])
        self._band.add(*self.grid.slices(number), scores)
        if column + 1 < len(self.grid.lefts):
            return
        is_last = row + 1 == len(self.grid.tops)
        below = self.grid.image[0] if is_last else self.grid.tops[row + 1]
        for rows, mean in self._band.means(below):
            maps = self._cutter.read_scores(mean)
            self.rows.put(rows, slice(None), maps.labels)
            if maps.score is not None:
                if self._score is None:
                    self._score = np.zeros(self.grid.image, np.uint8)
                self._score[rows] = maps.score
            if maps.probability is not None:
                if self._probability is None:
                    shape = len(maps.probability), *self.grid.image
                    self._probability = np.zeros(shape, np.float16)
                self._probability[:, rows] = maps.probability
        self.rows.complete(below)
