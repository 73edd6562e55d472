"""Computes the positions of a large image's windows.

Imports only the standard library, so that it loads fast.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from paddleseg_infer.errors import ConfigError, brief
from paddleseg_infer.settings import BLENDS

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Tiling:
    """The size of the windows and the distance between them, each (height, width) in pixels."""

    crop: Size
    stride: Size
    blend: str = "mean"  # one of settings.BLENDS

    def check(self, kind: str) -> None:
        """Raises ConfigError if such windows can't be joined. For `kind` see forms.output_kind."""
        if self.blend != "mean" and kind == "labels":
            raise ConfigError(
                f"--blend {self.blend} needs scores, but this model gives only labels, which can't "
                "be averaged: export it with --output_op softmax, or leave out --blend"
            )


def checked_tiling(
    crop_size: Sequence[int] | None, stride: Sequence[int] | None, blend: str = "mean"
) -> Tiling | None:
    """Returns the Tiling for a crop size and a stride, each (width, height) in pixels.

    Returns None without a crop size. Raises ConfigError if a side is below 1, if the stride is
    larger than the crop size, for a stride without a crop size, or for an unknown `blend`.
    """
    if blend not in BLENDS:
        raise ConfigError(f"blend must be one of {', '.join(BLENDS)}, not {brief(blend)}")
    if crop_size is None:
        if stride is not None:
            raise ConfigError("--stride has no effect without --crop_size")
        return None
    crop = _sides("crop_size", crop_size)
    steps = crop if stride is None else _sides("stride", stride)
    if steps[0] > crop[0] or steps[1] > crop[1]:
        raise ConfigError(
            "--stride is larger than --crop_size, so there would be gaps between the windows"
        )
    return Tiling((crop[1], crop[0]), (steps[1], steps[0]), blend)


def _sides(name: str, sides: Sequence[int]) -> tuple[int, int]:
    try:
        width, height = map(operator.index, sides)
    except (TypeError, ValueError):
        width = height = 0
    if width < 1 or height < 1:
        raise ConfigError(f"--{name} needs a width and a height above 0, not {brief(sides)}")
    return width, height


def check_sizes(
    tiling: Tiling | None, network_size: bool, kinds: Sequence[str], wgs84: bool = False
) -> None:
    """Raises ConfigError for options that contradict --network_size."""
    if tiling and network_size:
        raise ConfigError("--crop_size makes masks of the image's size: leave out --network_size")
    if "overlay" in kinds and network_size:
        raise ConfigError(
            "--save overlay makes pictures of the image's size: leave out --network_size"
        )

    if wgs84 and "geojson" in kinds and network_size:
        raise ConfigError(
            "--wgs84 needs the coordinates of the image, which masks of --network_size don't have: "
            "leave out one of them"
        )


@dataclass(frozen=True)
class Grid:
    """The windows of one image, numbered from 0, row by row."""

    image: Size
    window: Size  # no larger than the image
    tops: list[int]  # the first row of the windows in each row of the grid
    lefts: list[int]  # the first column of the windows in each column of the grid

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def slices(self, number: int) -> tuple[slice, slice]:
        """Returns the rows and columns of a window."""
        row, column = divmod(number, len(self.lefts))
        top, left = self.tops[row], self.lefts[column]
        return slice(top, top + self.window[0]), slice(left, left + self.window[1])

    def first_row_below(self, done: int) -> int:
        """Returns the first row of the grid whose windows contain rows of the image from `done`."""
        ends = [top + self.window[0] for top in self.tops]
        return next((row for row, end in enumerate(ends) if end > done), len(ends) - 1)

    def nearest(self, number: int) -> tuple[slice, slice]:
        """Returns the rows and columns that are nearer to this window's centre than to others.

        If two centres are equally near, the pixel belongs to the window with the lower number.
        """
        row, column = divmod(number, len(self.lefts))
        (height, width), (window_height, window_width) = self.image, self.window
        return (
            _nearest_rows(self.tops, row, window_height, height),
            _nearest_rows(self.lefts, column, window_width, width),
        )


def _nearest_rows(starts: Sequence[int], at: int, length: int, side: int) -> slice:
    # The first row that is nearer to the next centre; a centre is start + (length - 1) / 2.
    def middle(first: int) -> int:
        return (starts[first] + starts[first + 1] + length + 1) // 2

    return slice(middle(at - 1) if at else 0, middle(at) if at + 1 < len(starts) else side)


def grid_of(image: Size, tiling: Tiling) -> Grid:
    """Returns the windows of an image, one at every stride.

    The last windows are moved back so that they end at the image's border.
    """
    window = (min(image[0], tiling.crop[0]), min(image[1], tiling.crop[1]))
    tops, lefts = (
        [min(start, side - length) for start in range(0, side - length + stride, stride)]
        for side, length, stride in zip(image, window, tiling.stride, strict=True)
    )
    return Grid(image, window, tops, lefts)
