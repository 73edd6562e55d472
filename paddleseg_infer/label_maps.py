"""Label maps of class ids: in memory, or in PNG and TIFF files."""

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import PngImagePlugin

from paddleseg_infer.errors import ImageError, brief, reason
from paddleseg_infer.formats.known import PNG_SIGNATURE, TIFF_SIGNATURES
from paddleseg_infer.machine.optional import RASTERIO_HINT, gdal_errors, one_line, rasterio_module
from paddleseg_infer.settings import MAX_LABEL

PIXELS_AT_ONCE = 1 << 24
ROWS_OF_TILES = 512  # parts end at the borders of tiles with up to so many rows
BIT_DEPTH_AT = 24  # the place of a PNG's number of bits per value, which is in its first chunk
MODES = ("1", "L", "P", "I", "I;16")  # Pillow's names of images with one number per pixel
# What Pillow raises for a damaged PNG
DAMAGED = (OSError, SyntaxError, ValueError, LookupError, struct.error, zlib.error)


@dataclass(frozen=True)
class LabelMap:
    """Class ids of which some rows can be read without the others."""

    size: tuple[int, int]  # height, width
    dtype: np.dtype[Any]  # uint8 or uint16
    rows: Callable[[slice], np.ndarray]  # returns rows [rows, W]; raises ImageError

    def parts(self) -> Iterator[slice]:
        """Yields all rows in parts of about PIXELS_AT_ONCE pixels, from the top to the bottom."""
        height, width = self.size
        at_once = max(1, PIXELS_AT_ONCE // width // ROWS_OF_TILES) * ROWS_OF_TILES
        for top in range(0, height, at_once):
            yield slice(top, min(top + at_once, height))


def in_memory(labels: np.ndarray) -> LabelMap:
    """Returns the LabelMap of an array, uint8 or uint16 [H, W]."""
    return LabelMap((labels.shape[0], labels.shape[1]), labels.dtype, labels.__getitem__)


@contextlib.contextmanager
def opened_label_map(path: str) -> Iterator[LabelMap]:
    """Opens a PNG or TIFF file for the block. Raises ImageError.

    The class ids are the pixel values of a grey picture, and the indices of a palette. A PNG is
    read into the memory as a whole. TIFFs need rasterio.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(PNG_SIGNATURE))
            data = start + file.read() if start == PNG_SIGNATURE else b""
    except OSError as error:
        raise ImageError(f"it can't be read: {reason(error)}") from None
    if start.startswith(TIFF_SIGNATURES):
        with _opened_tiff(path) as label_map:
            yield label_map
    elif data:
        yield in_memory(_ids_of_png(data))
    else:
        raise ImageError("it is neither a PNG nor a TIFF")


def _ids_of_png(data: bytes) -> np.ndarray:
    if b"acTL" in data[: data.find(b"IDAT")]:
        raise ImageError("it is an animation: save its ids as a PNG of one picture")
    try:
        # Not Image.open, which refuses images of more than 179 megapixels.
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        ids = np.asarray(image)
    except DAMAGED as error:
        raise ImageError(f"it is cut off or damaged ({brief(str(error))})") from None
    if image.mode not in MODES:
        raise ImageError(
            f"it has several values per pixel ({image.mode}), not one class id: save the ids as a "
            "grey PNG, or as a palette PNG"
        )
    bits = data[BIT_DEPTH_AT]
    if image.mode == "L" and bits < 8:  # Pillow spreads these values over 0 to 255
        ids = ids // (255 // ((1 << bits) - 1))
    return ids.astype(_unsigned(ids.dtype), copy=False)


@contextlib.contextmanager
def _opened_tiff(path: str) -> Iterator[LabelMap]:
    rasterio = rasterio_module()
    if rasterio is None:
        raise ImageError(f"it is a TIFF, which needs rasterio: {RASTERIO_HINT}")
    errors: tuple[type[Exception], ...] = (*gdal_errors(), OSError, ValueError, LookupError)

    def rows(part: slice) -> np.ndarray:
        window = rasterio.windows.Window.from_slices(part, slice(0, raster.width))
        try:
            ids: np.ndarray = raster.read(1, window=window)
        except errors as error:
            raise ImageError(f"it is cut off or damaged ({one_line(error)})") from None
        if ids.min() < 0 or ids.max() > MAX_LABEL:
            raise ImageError(
                f"it has values from {ids.min()} to {ids.max()}, but a class id is 0 to "
                f"{MAX_LABEL}: give pixels of no class such an id, and name it with --ignore_index"
            )
        return ids.astype(dtype, copy=False)

    with contextlib.ExitStack() as opened:
        try:
            raster = opened.enter_context(rasterio.open(os.path.abspath(path), driver="GTiff"))
            bands, kind = raster.count, raster.dtypes[0]
        except errors as error:
            raise ImageError(f"it is cut off or damaged ({one_line(error)})") from None
        if bands != 1 or not kind.startswith(("int", "uint")):
            raise ImageError(
                f"its bands are {bands} of {kind}, not one of whole numbers: save the class ids in "
                "one band"
            )
        dtype = _unsigned(np.dtype(kind))
        yield LabelMap(raster.shape, dtype, rows)


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8 if dtype.itemsize == 1 else np.uint16)
