"""A source for an image in a file."""

import os
from collections.abc import Sequence

from paddleseg_infer.errors import ImageError, shown
from paddleseg_infer.formats import npy
from paddleseg_infer.formats.size import image_size
from paddleseg_infer.preprocess import check_memory, decode_image, read_file
from paddleseg_infer.sources import raster
from paddleseg_infer.sources.reading import BGR, COLOURS, RGB, ImageData, Reading
from paddleseg_infer.transforms.paddleseg import Transform

TIFF_MARKS = (b"II", b"MM")
FLOAT_BYTES = 4


class PathSource:
    """A `Source` for an image file: a picture, a TIFF of bands, or an array in a .npy file."""

    def __init__(self, path: str | os.PathLike[str], reading: Reading = Reading()):
        self.path = os.fspath(path)
        self._reading = reading

    @property
    def name(self) -> str:
        return shown(self.path)

    def size(self) -> tuple[int, int] | None:
        size = image_size(self.path, is_turned=not self._reading.uses_bands)
        return (size[1], size[0]) if size else None

    def read(self, transforms: Sequence[Transform] | None = None) -> ImageData:
        return self._decoded(transforms).scaled(self._reading.scale)

    def _decoded(self, transforms: Sequence[Transform] | None) -> ImageData:
        reading = self._reading
        if reading.uses_bands and read_file(self.path, 2) in TIFF_MARKS:
            return raster.read_bands(self.path, reading, transforms)
        data = read_file(self.path)
        if data.startswith(npy.SIGNATURE):
            pixels = npy.array_of(data)
            check_memory(
                pixels.shape[1], pixels.shape[0], FLOAT_BYTES * reading.channels, transforms
            )
            pixels = reading.checked(pixels)
            raster.check_finite(pixels)
            return ImageData(pixels, bgr=BGR if reading.channels == COLOURS else RGB)
        if reading.bands is not None:
            raise ImageError(
                "--bands selects bands of a TIFF, and this file is none: segment TIFFs and other "
                "files in two runs"
            )
        pixels = decode_image(data, self.path, transforms, reading.channels)
        if data.startswith(TIFF_MARKS):
            raster.note_losses(self.path, data)
            return ImageData(pixels, raster.place_of_picture(self.path, data, pixels.shape))
        return ImageData(pixels)
