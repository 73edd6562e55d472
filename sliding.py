"""Large images in windows: where they lie, and one segmentation out of theirs.

Scores are averaged over the windows, as PaddleSeg's own sliding window does; of labels, which can't
be averaged, those of the window count whose centre is nearest.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from batches import Result, Source, Times, read
from errors import ImageError
from grid import Grid, Tiling, grid_of
from pictures import Segmentation

ReadScores = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class Windows:
    """The windows of images, to be iterated over, and what comes of them put together."""

    def __init__(self, images: Iterable[Source], tiling: Tiling, read_scores: ReadScores):
        """`read_scores(scores)` gives labels and score map of [C, H, W]."""
        self._images, self._tiling, self._read_scores = images, tiling, read_scores
        self._places: dict[int, tuple[Mosaic, int]] = {}  # by the windows' place among all

    def __iter__(self) -> Iterator[np.ndarray | ImageError]:
        """Each window, uint8 BGR [H, W, 3]; an ImageError for an image that can't be read."""
        place = 0
        for index, source in enumerate(self._images):
            try:
                image_bgr = read(source)
            except ImageError as error:
                self._places[place] = Mosaic(index, None, None, self._read_scores), 0
                place += 1
                yield error
                continue
            grid = grid_of((image_bgr.shape[0], image_bgr.shape[1]), self._tiling)
            mosaic = Mosaic(index, image_bgr, grid, self._read_scores)
            for number in range(len(grid)):
                if mosaic.has_failed:
                    break
                self._places[place] = mosaic, number
                place += 1
                yield image_bgr[grid.slices(number)]

    def put_together(self, results: Iterable[Result]) -> "Iterator[Mosaic | Result]":
        """Each image once: its mosaic when that is whole, a Result when a window has failed."""
        for result in results:
            mosaic, number = self._places.pop(result.index)
            if mosaic.has_failed:
                continue
            error = result.error
            if not error:
                try:
                    mosaic.add(number, result)
                except MemoryError:
                    error = ImageError("there is not enough memory to put its windows together")
            if error:
                mosaic.has_failed = True
                yield Result(mosaic.index, error=error)
            elif number + 1 == len(mosaic.grid):
                yield mosaic


class Mosaic:
    """One image, as its windows come together, in order."""

    def __init__(
        self, index: int, image_bgr: np.ndarray | None, grid: Grid | None, read_scores: ReadScores
    ):
        self.index = index
        self.has_failed = False
        self.grid = grid or grid_of((0, 0), Tiling((0, 0), (1, 1)))
        self.times = Times(0.0, 0.0, 0.0)
        self._image_bgr = image_bgr
        self._read_scores = read_scores
        self._labels = np.zeros(self.grid.image, np.uint8)
        self._score: np.ndarray | None = None
        self._band: _Band | None = None

    def segmentation(self) -> Segmentation:
        return Segmentation(self._labels, self._score, self._image_bgr)

    def add(self, number: int, result: Result) -> None:
        """The next window's labels [H, W] or scores [C, H, W]."""
        if result.times:
            pairs = zip(self.times, result.times, strict=True)
            self.times = Times(*(sum(pair) for pair in pairs))
        row, column = divmod(number, len(self.grid.lefts))
        rows, columns = self.grid.slices(number)
        if result.labels is not None:
            own_rows, own_columns = self.grid.nearest(number)
            inner = (
                slice(own_rows.start - rows.start, own_rows.stop - rows.start),
                slice(own_columns.start - columns.start, own_columns.stop - columns.start),
            )
            self._put(own_rows, own_columns, result.labels[inner])
            return
        assert result.scores is not None
        if self._band is None:
            self._band = _Band(len(result.scores), self.grid)
        self._band.add(rows, columns, result.scores)
        if column + 1 == len(self.grid.lefts):
            is_last = row + 1 == len(self.grid.tops)
            below = self.grid.image[0] if is_last else self.grid.tops[row + 1]
            finished = slice(self._band.top, below)
            labels, score = self._read_scores(self._band.taken(below))
            self._put(finished, slice(None), labels)
            if score is not None:
                if self._score is None:
                    self._score = np.zeros(self.grid.image, np.uint8)
                self._score[finished] = score

    def _put(self, rows: slice, columns: slice, labels: np.ndarray) -> None:
        if labels.dtype.itemsize > self._labels.itemsize:
            self._labels = self._labels.astype(labels.dtype)
        self._labels[rows, columns] = labels


class _Band:
    """Sums of scores, of the rows only that windows to come may touch.

    In float64, as PaddleSeg sums them: near ties are then decided as there.
    """

    def __init__(self, classes: int, grid: Grid):
        self.top = 0  # of its first row in the image
        self._sums = np.zeros((classes, grid.window[0], grid.image[1]))
        self._counts = np.zeros(self._sums.shape[1:], np.int32)

    def add(self, rows: slice, columns: slice, scores: np.ndarray) -> None:
        here = slice(rows.start - self.top, rows.stop - self.top)
        self._sums[:, here, columns] += scores
        self._counts[here, columns] += 1

    def taken(self, below: int) -> np.ndarray:
        """The means [C, rows, W] of the rows above `below`, where the band then begins."""
        done = below - self.top
        means = self._sums[:, :done] / self._counts[:done]
        kept = len(self._counts) - done
        for plane in (*self._sums, self._counts):
            plane[:kept] = plane[done:].copy()
            plane[kept:] = 0
        self.top = below
        return means
