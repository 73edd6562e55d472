"""Cuts large images into windows, and joins the windows' results to one segmentation.

tiling.py computes the windows' positions. Scores are averaged over the windows, as in PaddleSeg's
own sliding window, or with weights that are largest in the middle of a window. Labels can't be
averaged: each pixel gets the label of the window whose centre is nearest.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from paddleseg_infer.batching import Item, Result, failed
from paddleseg_infer.blending import WEIGHTS, Band, check_memory
from paddleseg_infer.errors import ImageError
from paddleseg_infer.outcomes import Ran, Times
from paddleseg_infer.pictures.kinds import Segmentation
from paddleseg_infer.postprocess import Maps
from paddleseg_infer.sources.array import WindowSource
from paddleseg_infer.sources.reading import ImageData
from paddleseg_infer.tiling import Grid, Tiling, grid_of

NO_MEMORY = "there is not enough memory to join its windows"

ReadScores = Callable[[np.ndarray], Maps]


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowItem(Item):
    """A window of an image; its source is a view of the image's pixels."""

    mosaic: "Mosaic"  # the image that the window belongs to
    number: int  # the window's number in the image's grid


def windows_of(
    items: Iterable[Item], tiling: Tiling, read_scores: ReadScores, keeps_images: bool
) -> Iterator[WindowItem | Result]:
    """Yields the windows of each image, row by row, or a failed Result if it can't be read.

    `read_scores` returns the maps of scores [C, H, W]. If `keeps_images` is true, a mosaic keeps
    its image for a picture. If a window has failed, the image's remaining windows are left out.
    """
    for item in items:
        started = time.perf_counter()
        assert item.source is not None
        try:
            data = item.source.read()
            pixels = data.pixels
            grid = grid_of((pixels.shape[0], pixels.shape[1]), tiling)
            image_bgr = data.view() if keeps_images else None
            mosaic = Mosaic(
                replace(item, place=data.place), image_bgr, grid, read_scores, tiling.blend
            )
        except ImageError as error:
            yield failed(item, error)
            continue
        except MemoryError:
            yield failed(item, ImageError(NO_MEMORY))
            continue
        mosaic.took(Times(preprocess=time.perf_counter() - started))
        for number in range(len(grid)):
            if mosaic.has_failed:
                break
            window = WindowSource(ImageData(pixels[grid.slices(number)]))
            yield WindowItem(window, item.name, mosaic=mosaic, number=number)


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
        read_scores: ReadScores,
        blend: str,
    ):
        self.has_failed = False
        self._item = replace(item, source=None)
        self._image_bgr = image_bgr
        self._grid = grid
        self._read_scores = read_scores
        self._blend = blend
        self._added = 0  # number of windows
        self._times = item.times
        self._ran: set[Ran] = set()
        self._labels = np.zeros(grid.image, np.uint8)
        self._score: np.ndarray | None = None
        self._probability: np.ndarray | None = None
        self._band: Band | None = None

    @property
    def is_whole(self) -> bool:
        return self._added == len(self._grid)

    @property
    def item(self) -> Item:
        """The image, with the time that it and its windows have taken, and what has run them."""
        return replace(self._item, times=self._times, ran=tuple(sorted(self._ran)))

    def segmentation(self) -> Segmentation:
        return Segmentation(
            self._labels, self._score, self._image_bgr, self._probability, self._item.place
        )

    def fail(self) -> None:
        """Marks the image as failed, so that its remaining windows are left out."""
        self.has_failed = True

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
        self._ran.update(result.item.ran)
        self.took(result.item.times.plus(postprocess=time.perf_counter() - started))
        return None

    def _add_labels(self, number: int, labels: np.ndarray) -> None:
        rows, columns = self._grid.slices(number)
        own_rows, own_columns = self._grid.nearest(number)
        inner = (
            slice(own_rows.start - rows.start, own_rows.stop - rows.start),
            slice(own_columns.start - columns.start, own_columns.stop - columns.start),
        )
        self._make_room_for(labels)
        self._labels[own_rows, own_columns] = labels[inner]

    def _add_scores(self, number: int, scores: np.ndarray) -> None:
        if self._band is None:
            check_memory(len(scores), self._grid)
            self._band = Band(len(scores), self._grid, WEIGHTS[self._blend](self._grid.window))
        self._band.add(*self._grid.slices(number), scores)
        row, column = divmod(number, len(self._grid.lefts))
        if column + 1 < len(self._grid.lefts):
            return
        is_last = row + 1 == len(self._grid.tops)
        below = self._grid.image[0] if is_last else self._grid.tops[row + 1]
        for rows, mean in self._band.means(below):
            maps = self._read_scores(mean)
            self._make_room_for(maps.labels)
            self._labels[rows] = maps.labels
            if maps.score is not None:
                if self._score is None:
                    self._score = np.zeros(self._grid.image, np.uint8)
                self._score[rows] = maps.score
            if maps.probability is not None:
                if self._probability is None:
                    shape = len(maps.probability), *self._grid.image
                    self._probability = np.zeros(shape, np.float16)
                self._probability[:, rows] = maps.probability

    def _make_room_for(self, labels: np.ndarray) -> None:
        """Converts the image's labels to uint16 if those of a window are uint16."""
        if labels.dtype.itemsize > self._labels.itemsize:
            self._labels = self._labels.astype(labels.dtype)
