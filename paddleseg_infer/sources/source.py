"""The interface of all image sources, and the choice of a source for an image."""

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import PIL.Image

from paddleseg_infer.sources.array import ArraySource
from paddleseg_infer.sources.path import PathSource
from paddleseg_infer.sources.reading import ImageData, Reading
from paddleseg_infer.transforms.paddleseg import Transform

# A path; an array [H, W, C], three channels BGR; a Pillow image, whose EXIF orientation isn't
# applied.
Image = str | os.PathLike[str] | np.ndarray | PIL.Image.Image


class Source(Protocol):
    """One image that hasn't been read yet."""

    @property
    def name(self) -> str:
        """The image's name in messages, safe to print."""

    def size(self) -> tuple[int, int] | None:
        """Returns (height, width) of the image without decoding it; None if unknown."""

    def read(self, transforms: Sequence[Transform] | None = None) -> ImageData:
        """Returns the decoded image. Raises ImageError.

        `transforms` are the model's. If they are passed, an image for which the network needs too
        much memory is refused before it is decoded.
        """


def source_of(image: object, reading: Reading = Reading()) -> Source:
    """Returns the source of an image; of anything else, one whose `read` raises ImageError."""
    if isinstance(image, str | os.PathLike):
        return PathSource(image, reading)
    return ArraySource(image, reading)
