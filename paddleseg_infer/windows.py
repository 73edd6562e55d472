"""Large images in windows: where they lie, and one segmentation out of theirs.

Scores are averaged over the windows, as PaddleSeg's own sliding window does; of labels, which can't
be averaged, those of the window count whose centre is nearest.
"""

import time
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from paddleseg_infer.batching import Result
from paddleseg_infer.errors import ImageError
from paddleseg_infer.outcomes import Times
from paddleseg_infer.pictures.kinds import Segmentation
from paddleseg_infer.sources.array import ArraySource
from paddleseg_infer.sources.source import Source
from paddleseg_infer.tiling import Grid, Tiling, grid_of

NO_MEMORY = "there is not enough memory to put its windows together"
ROWS_AT_ONCE = 32

ReadScores = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class Windows:
    """The windows of images, to be iterated over, and what comes of them put together."""

    def __init__(self, images: Iterable[Source], tiling: Tiling, read_scores: ReadScores):
        """`read_scores(scores)` gives labels and score map of [C, H, W]."""
        self._images, self._tiling, self._read_scores = images, tiling, read_scores
        # By the windows' place among all: the mosaic, or the number of an image without one.
        self._places: dict[int, tuple[Mosaic | int, int]] = {}

    def __iter__(self) -> Iterator[ArraySource | ImageError]:
        """Each window; an ImageError for an image that can't be read."""
        place = 0
        for index, source in enumerate(self._images):
            started = time.perf_counter()
            try:
                image_bgr = source.pixels()
                grid = grid_of((image_bgr.shape[0], image_bgr.shape[1]), self._tiling)
                mosaic = Mosaic(index, image_bgr, grid, self._read_scores)
            except (ImageError, MemoryError) as error:
                self._places[place] = index, 0
                place += 1
                yield error if isinstance(error, ImageError) else ImageError(NO_MEMORY)
                continue
            mosaic.took(Times(time.perf_counter() - started, 0.0, 0.0))
            for number in range(len(grid)):
                if mosaic.has_failed:
                    break
                self._places[place] = mosaic, number
                place += 1
                yield ArraySource(image_bgr[grid.slices(number)])

    def put_together(self, results: Iterable[Result]) -> "Iterator[Mosaic | Result]":
        """Each image once: its mosaic when that is whole, a Result when a window has failed."""
        for result in results:
            mosaic, number = self._places.pop(result.index)
            if isinstance(mosaic, int):
                yield Result(mosaic, error=result.error)
                continue
            if mosaic.has_failed:
                continue
            error = result.error
            if not error:
                try:
                    mosaic.add(number, result)
                except (MemoryError, cv2.error):
                    error = ImageError(NO_MEMORY)
            if error:
                mosaic.has_failed = True
                yield Result(mosaic.index, error=error)
            elif number + 1 == len(mosaic.grid):
                yield mosaic


class Mosaic:
    """One image, as its windows come together, in order."""

    def __init__(self, index: int, image_bgr: np.ndarray, grid: Grid, read_scores: ReadScores):
        self.index, self.grid = index, grid
        self.has_failed = False
        self.times = Times(0.0, 0.0, 0.0)
        self._image_bgr = image_bgr
        self._read_scores = read_scores
        self._labels = np.zeros(grid.image, np.uint8)
        self._score: np.ndarray | None = None
        self._band: _Band | None = None

    def segmentation(self) -> Segmentation:
        return Segmentation(self._labels, self._score, self._image_bgr)

    def took(self, times: Times) -> None:
        self.times = Times(*map(sum, zip(self.times, times, strict=True)))

    def add(self, number: int, result: Result) -> None:
        """The next window's labels [H, W] or scores [C, H, W]."""
        started = time.perf_counter()
        if result.labels is not None:
            self._add_labels(number, result.labels)
        elif result.scores is not None:
            self._add_scores(number, result.scores)
        if result.times:
            self.took(result.times)
        self.took(Times(0.0, 0.0, time.perf_counter() - started))

    def _add_labels(self, number: int, labels: np.ndarray) -> None:
        rows, columns = self.grid.slices(number)
        own_rows, own_columns = self.grid.nearest(number)
        inner = (
            slice(own_rows.start - rows.start, own_rows.stop - rows.start),
            slice(own_columns.start - columns.start, own_columns.stop - columns.start),
        )
        if labels.dtype.itemsize > self._labels.itemsize:
            self._labels = self._labels.astype(labels.dtype)
        self._labels[own_rows, own_columns] = labels[inner]

    def _add_scores(self, number: int, scores: np.ndarray) -> None:
        if self._band is None:
            self._band = _Band(len(scores), self.grid)
        self._band.add(*self.grid.slices(number), scores)
        row, column = divmod(number, len(self.grid.lefts))
        if column + 1 == len(self.grid.lefts):
            is_last = row + 1 == len(self.grid.tops)
            below = self.grid.image[0] if is_last else self.grid.tops[row + 1]
            for rows, mean in self._band.means(below):
                labels, score = self._read_scores(mean)
                if labels.dtype.itemsize > self._labels.itemsize:
                    self._labels = self._labels.astype(labels.dtype)
                self._labels[rows] = labels
                if score is not None:
                    if self._score is None:
                        self._score = np.zeros(self.grid.image, np.uint8)
                    self._score[rows] = score


class _Band:
    """Sums of scores, of the rows only that windows to come may touch.

    In float64, as PaddleSeg sums them: near ties are then decided as there.
    """

    def __init__(self, classes: int, grid: Grid):
        self._top = 0  # of its first row in the image
        self._sums = np.zeros((classes, grid.window[0], grid.image[1]))
        # Over a pixel there are as many windows as over its row, times those over its column.
        self._over_rows = np.zeros(grid.image[0])
        self._over_columns = np.zeros(grid.image[1])
        for top in grid.tops:
            self._over_rows[top : top + grid.window[0]] += 1
        for left in grid.lefts:
            self._over_columns[left : left + grid.window[1]] += 1

    def add(self, rows: slice, columns: slice, scores: np.ndarray) -> None:
        self._sums[:, rows.start - self._top : rows.stop - self._top, columns] += scores

    def means(self, below: int) -> Iterator[tuple[slice, np.ndarray]]:
        """The means [C, rows, W] above `below`, a few rows each; the band then begins there."""
        done = below - self._top
        for start in range(0, done, ROWS_AT_ONCE):
            here = slice(start, min(start + ROWS_AT_ONCE, done))
            rows = slice(self._top + here.start, self._top + here.stop)
            counts = self._over_rows[rows, None] * self._over_columns
            mean = self._sums[:, here]
            if counts.max() > 1:
                mean /= counts
            yield rows, mean
        kept = self._sums.shape[1] - done
        for plane in self._sums:
            plane[:kept] = plane[done:].copy()
            plane[kept:] = 0
        self._top = below
