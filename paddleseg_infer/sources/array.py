"""A source for an image in memory."""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from paddleseg_infer.errors import ImageError
from paddleseg_infer.transforms.paddleseg import Transform

PILLOW_MODES = ("RGB", "RGBA", "L", "P")


class ArraySource:
    """A `Source` for an array, uint8 BGR [H, W, 3], or a Pillow image of one of PILLOW_MODES.

    `pixels` refuses anything else.
    """

    def __init__(self, image: object):
        self._image = image
        self.name = "array" if isinstance(image, np.ndarray) else type(image).__name__

    def size(self) -> tuple[int, int] | None:
        image = self._image
        if isinstance(image, PIL.Image.Image):
            return image.height, image.width
        if not isinstance(image, np.ndarray) or image.ndim != 3:
            return None
        return image.shape[0], image.shape[1]

    def pixels(self, transforms: Sequence[Transform] | None = None) -> np.ndarray:
        image = self._image
        if image is None:
            raise ImageError("it is None, which cv2.imread returns for a file that it can't read")
        if isinstance(image, PIL.Image.Image) and image.mode in PILLOW_MODES:
            try:
                return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
            except (OSError, SyntaxError, ValueError, AssertionError) as error:
                raise ImageError(f"Pillow can't decode it: {error}") from None
        if not isinstance(image, np.ndarray):
            mode = f" of mode {image.mode}" if hasattr(image, "mode") else ""
            raise ImageError(
                f"it is {type(image).__name__}{mode}: give a path, an array uint8 BGR [H, W, 3] or "
                "a Pillow image of mode RGB, RGBA, L or P"
            )
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f"an array must be uint8 BGR [H, W, 3], not {image.dtype} {list(image.shape)}"
            )
        return image
