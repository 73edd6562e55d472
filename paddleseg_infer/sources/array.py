"""A source for an image in memory."""

from collections.abc import Sequence

import numpy as np

from paddleseg_infer.errors import ImageError
from paddleseg_infer.transforms.paddleseg import Transform


class ArraySource:
    """A `Source` for an array, uint8 BGR [H, W, 3]."""

    name = "array"

    def __init__(self, image_bgr: np.ndarray):
        self._image_bgr = image_bgr

    def size(self) -> tuple[int, int] | None:
        return self._image_bgr.shape[0], self._image_bgr.shape[1]

    def pixels(self, transforms: Sequence[Transform] | None = None) -> np.ndarray:
        image = self._image_bgr
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f"an array must be uint8 BGR [H, W, 3], not {image.dtype} {list(image.shape)}"
            )
        return image
