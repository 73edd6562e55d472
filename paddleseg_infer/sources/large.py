"""Reads the windows of a large TIFF from its file, so that it is never in memory as a whole."""

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from paddleseg_infer.errors import ImageError, shown
from paddleseg_infer.formats import tags
from paddleseg_infer.formats.checks import check_tiff_file
from paddleseg_infer.machine.optional import rasterio_module
from paddleseg_infer.place import Place
from paddleseg_infer.preprocess import check_is_file
from paddleseg_infer.sources import raster
from paddleseg_infer.sources.reading import COLOURS, ImageData, Reading
from paddleseg_infer.transforms.paddleseg import Transform

LARGE = 1 << 24  # pixels; smaller images are read whole
RGB_BANDS = (1, 2, 3)
BESIDE = ("", ".msk", ".aux.xml")  # suffixes of the image's file, and of files that belong to it


class LargeRaster:
    """An open TIFF. Several threads may read its windows."""

    def __init__(self, path: str, reading: Reading, has_place: bool = True):
        """Raises ImageError if the file is damaged, or doesn't fit the model.

        Without `has_place`, its grid and its pixels without data are ignored.
        """
        check_tiff_file(path)
        self._path, self.stamps = path, _stamps(path)
        self._reading = reading
        self._turn = threading.Lock()  # GDAL's datasets aren't safe for several threads at once
        self._bands = list(reading.bands or range(1, reading.channels + 1))
        self._raster = raster.opened_for_long(path)
        with raster.errors_as_image_errors():
            raster.check_bands(path, self._raster, reading, self._bands)
            self.size: tuple[int, int] = self._raster.shape
            self.place = Place(shown(path))
            if has_place:
                corner = slice(0, 1), slice(0, 1)
                has_mask = raster.valid_pixels(self._raster, self._bands, corner) is not None
                self.place = replace(raster.grid_of(path, self._raster), has_mask=has_mask)

    def window(self, rows: slice, columns: slice) -> ImageData:
        """Returns the pixels of a window. Raises ImageError."""
        with self._turn, raster.errors_as_image_errors():
            window = raster.window_of(rows, columns)
            shape = rows.stop - rows.start, columns.stop - columns.start, len(self._bands)
            pixels = np.empty(shape, self._raster.dtypes[0])
            self._raster.read(self._bands, out=pixels.transpose(2, 0, 1), window=window)
            valid = raster.valid_pixels(self._raster, self._bands, (rows, columns))
        if pixels.dtype.kind == "f":
            pixels = raster.usable(pixels, Place(valid=valid), "a window's")
        if self._reading.channels == COLOURS:  # three channels are BGR in this program
            pixels = pixels[..., ::-1]
        return ImageData(pixels).scaled(self._reading.scale)

    def valid(self, rows: slice) -> np.ndarray | None:
        """Returns which pixels of some rows have data, bool [rows, W]; None: all."""
        if not self.place.has_mask:
            return None
        with self._turn, raster.errors_as_image_errors():
            where = rows, slice(0, self.size[1])
            valid = raster.valid_pixels(self._raster, self._bands, where)
        return None if valid is None or valid.all() else valid

    @property
    def is_changed(self) -> bool:
        """Whether the file has been written to since it was opened."""
        return _stamps(self._path) != self.stamps

    def close(self) -> None:
        with self._turn:
            self._raster.close()


def _stamps(path: str) -> list[tuple[int, int]]:
    """Returns the size and the time of the image's file and of those beside it, if they exist."""
    found = []
    for suffix in BESIDE:
        with contextlib.suppress(OSError):
            status = os.stat(path + suffix)
            found.append((status.st_size, status.st_mtime_ns))
    return found


class LargeWindow:
    """A `Source` for a window of a LargeRaster."""

    name = "window"

    def __init__(self, large: LargeRaster, rows: slice, columns: slice):
        self._large, self._rows, self._columns = large, rows, columns

    def size(self) -> tuple[int, int] | None:
        return self._rows.stop - self._rows.start, self._columns.stop - self._columns.start

    def read(self, transforms: Sequence[Transform] | None = None) -> ImageData:
        return self._large.window(self._rows, self._columns)


def large_raster(path: str, reading: Reading) -> LargeRaster | None:
    """Opens a file, if its windows can be read one by one and give the same pixels as the whole.

    Returns None for a small image, for another format than TIFF, and for pictures that rasterio and
    OpenCV may decode to other values. Raises ImageError.
    """
    try:
        check_is_file(path)
        with open(path, "rb") as file:
            tiff = tags.Tags(file)
            size = tiff.first(tags.WIDTH), tiff.first(tags.HEIGHT)
            is_rgb = (
                tiff.all(tags.BITS) == (8, 8, 8)
                and tiff.first(tags.PHOTOMETRIC) == tags.RGB
                and tiff.first(tags.ORIENTATION, 1) <= 1
                and tiff.first(tags.VALUES, 1) == 1
                and tiff.first(tags.COMPRESSION, 1) not in tags.JPEGS
            )
            has_place = tags.is_georeferenced(file, path)
    except (*tags.DAMAGED, OSError, ImageError):
        return None  # the other way of reading reports it
    if size[0] * size[1] < LARGE or rasterio_module() is None:
        return None
    if reading.uses_bands:
        return LargeRaster(path, reading)
    if not is_rgb:
        return None
    # As for pictures that are read whole: only a georeferenced one has pixels without data.
    return LargeRaster(path, replace(reading, bands=RGB_BANDS), has_place)
