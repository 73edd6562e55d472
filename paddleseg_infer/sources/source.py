"""What every source of an image has, and which kind of source a caller has given."""

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from paddleseg_infer.sources.array import ArraySource
from paddleseg_infer.sources.path import PathSource
from paddleseg_infer.transforms.paddleseg import Transform

Image = (
    str | os.PathLike[str] | np.ndarray
)  # what a caller may give: a path, or uint8 BGR [H, W, 3]


class Source(Protocol):
    """One image, not read yet."""

    @property
    def name(self) -> str:
        """The image's name in a message."""

    def size(self) -> tuple[int, int] | None:
        """Height and width as `pixels` will have them, without decoding; None if unknown."""

    def pixels(self, transforms: Sequence[Transform] | None = None) -> np.ndarray:
        """The image, uint8 BGR [H, W, 3]. Raises ImageError.

        With the model's `transforms`, an image that the network can't hold in memory is refused
        before it is decoded.
        """


def source_of(image: Image) -> Source:
    return ArraySource(image) if isinstance(image, np.ndarray) else PathSource(image)
