"""Joins the scores of overlapping windows, one row of windows after the other."""

import logging
from collections.abc import Iterator

import numpy as np

from paddleseg_infer.errors import ImageError
from paddleseg_infer.machine.limits import available_memory
from paddleseg_infer.tiling import Grid, Size

log = logging.getLogger("paddleseg_infer")

ROWS_AT_ONCE = 32
SMALLEST_WEIGHT = 1e-3
SUM_BYTES = 8  # of a sum in float64
MUCH = 1e9  # bytes


def equal_weights(window: Size) -> np.ndarray:
    """Returns the weight 1 for each pixel of a window, float64 [H, W]."""
    return np.ones(window)


def gaussian_weights(window: Size) -> np.ndarray:
    """Returns weights, float64 [H, W], that fall from the middle of a window to its borders.

    The formula is that of `compute_importance_map` in MONAI: the product of a normal distribution
    over the rows and one over the columns, whose deviations are an eighth of the side. No weight is
    less than SMALLEST_WEIGHT.
    """
    rows, columns = (
        np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / (2 * (side / 8) ** 2))
        for side in window
    )
    return np.maximum(np.outer(rows, columns), SMALLEST_WEIGHT)


def check_memory(classes: int, grid: Grid) -> None:
    """Raises ImageError if there isn't enough memory for the sums of one row of windows.

    Logs a line if they need much. The system would give the memory, and end the process later.
    """
    (rows, _), (_, width) = grid.window, grid.image
    needed = (classes + 1) * rows * width * SUM_BYTES
    available = available_memory()
    what = f"the scores of {classes} classes in a row of windows, {width}x{rows} pixels, need "
    if needed > available:
        raise ImageError(
            f"{what}{needed / 1e9:.1f} GB of memory, but only {available / 1e9:.1f} GB are "
            "available: use a --crop_size of less height"
        )
    if needed > MUCH:
        log.info("%s%.1f GB of memory", what, needed / 1e9)


WEIGHTS = {"mean": equal_weights, "gaussian": gaussian_weights}


class Band:
    """The sums of scores, float64 [C, rows, W], only of the rows that later windows may overlap.

    PaddleSeg also sums in float64, so classes with nearly equal scores are decided in the same way.
    """

    def __init__(self, classes: int, grid: Grid, weights: np.ndarray, top: int = 0):
        self._top = top  # the row of the image where the band begins
        self._sums = np.zeros((classes, grid.window[0], grid.image[1]))
        self._total = np.zeros((1, grid.window[0], grid.image[1]))  # of the weights
        self._weights = weights
        self._are_equal = bool((weights == 1).all())

    def add(self, rows: slice, columns: slice, scores: np.ndarray) -> None:
        here = slice(rows.start - self._top, rows.stop - self._top)
        self._sums[:, here, columns] += scores if self._are_equal else scores * self._weights
        self._total[:, here, columns] += self._weights

    def means(self, below: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields slices of a few rows and their mean scores [C, rows, W], up to row `below`.

        Afterwards the band begins at `below`.
        """
        done = below - self._top
        for start in range(0, done, ROWS_AT_ONCE):
            here = slice(start, min(start + ROWS_AT_ONCE, done))
            mean, total = self._sums[:, here], self._total[:, here]
            if (total != 1).any():
                mean /= total
            yield slice(self._top + here.start, self._top + here.stop), mean
        kept = self._sums.shape[1] - done
        for plane in (*self._sums, *self._total):
            plane[:kept] = plane[done:].copy()
            plane[kept:] = 0
        self._top = below
