"""Sources for images in memory."""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from paddleseg_infer.errors import ImageError
from paddleseg_infer.sources.raster import check_finite
from paddleseg_infer.sources.reading import BGR, COLOURS, RGB, ImageData, Reading
from paddleseg_infer.transforms.paddleseg import Transform

PILLOW_MODES = {1: ("L", "I;16"), COLOURS: ("RGB", "RGBA", "L", "P"), 4: ("RGBA",)}


class ArraySource:
    """A `Source` for an array [H, W, C], three channels BGR, or a Pillow image of a mode that fits.

    `read` refuses anything else.
    """

    def __init__(self, image: object, reading: Reading = Reading()):
        self._image, self._reading = image, reading
        self.name = "array" if isinstance(image, np.ndarray) else type(image).__name__

    def size(self) -> tuple[int, int] | None:
        image = self._image
        if isinstance(image, PIL.Image.Image):
            return image.height, image.width
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            return None
        return image.shape[0], image.shape[1]

    def read(self, transforms: Sequence[Transform] | None = None) -> ImageData:
        pixels = self._reading.checked(self._array())
        check_finite(pixels)
        bgr = BGR if pixels.shape[2] <= 4 else RGB  # OpenCV decodes to BGR or BGRA
        return ImageData(pixels, bgr=bgr).scaled(self._reading.scale)

    def _array(self) -> np.ndarray:
        image = self._image
        if isinstance(image, np.ma.MaskedArray):
            raise ImageError("it is a masked array: give a TIFF with a mask, or fill the array")
        if image is None:
            raise ImageError("it is None, which cv2.imread returns for a file that it can't read")
        channels = self._reading.channels
        modes = PILLOW_MODES.get(channels, ())
        if isinstance(image, PIL.Image.Image) and image.mode in modes:
            try:
                if channels == 1:
                    return np.asarray(image)
                if channels == COLOURS:
                    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
                return np.ascontiguousarray(np.asarray(image)[..., [2, 1, 0, 3]])
            except (OSError, SyntaxError, ValueError, AssertionError) as error:
                raise ImageError(f"Pillow can't decode it: {error}") from None
        if not isinstance(image, np.ndarray):
            mode = f" of mode {image.mode}" if hasattr(image, "mode") else ""
            pillow = f" or a Pillow image of mode {' or '.join(modes)}" if modes else ""
            raise ImageError(
                f"it is {type(image).__name__}{mode}: give a path, an array "
                f"[H, W, {channels}]{pillow}"
            )
        return image


class WindowSource:
    """A `Source` for a part of an image that is already read."""

    name = "window"

    def __init__(self, data: ImageData):
        self._data = data

    def size(self) -> tuple[int, int] | None:
        return self._data.pixels.shape[0], self._data.pixels.shape[1]

    def read(self, transforms: Sequence[Transform] | None = None) -> ImageData:
        return self._data
