"""A source for an image in a file."""

import os
from collections.abc import Sequence

import numpy as np

from paddleseg_infer.errors import shown
from paddleseg_infer.formats.size import image_size
from paddleseg_infer.preprocess import read_image
from paddleseg_infer.transforms.paddleseg import Transform


class PathSource:
    """A `Source` for an image file."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)

    @property
    def name(self) -> str:
        return shown(self.path)

    def size(self) -> tuple[int, int] | None:
        size = image_size(self.path)
        return (size[1], size[0]) if size else None

    def pixels(self, transforms: Sequence[Transform] | None = None) -> np.ndarray:
        return read_image(self.path, transforms)
