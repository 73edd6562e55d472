"""Reads TIFFs with rasterio: bands of any number and depth, the grid, and the mask."""

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError, shown
from paddleseg_infer.formats.checks import check_tiff_file
from paddleseg_infer.formats.tags import ORIENTATION, Tags, is_georeferenced
from paddleseg_infer.machine.optional import RASTERIO_HINT, one_line, rasterio_module
from paddleseg_infer.place import Place
from paddleseg_infer.preprocess import check_is_file, check_memory
from paddleseg_infer.sources.reading import COLOURS, RGB, ImageData, Reading
from paddleseg_infer.transforms.paddleseg import Transform

log = logging.getLogger("paddleseg_infer")

GREATEST = 1e30  # larger values of pixels without data overflow in the network
_noted: set[str] = set()  # what this process has logged a line about
GEOLOCATION = "GEOLOCATION"  # GDAL's name of a grid of coordinates, which a GeoTIFF can't hold


def read_bands(
    path: str, reading: Reading, transforms: Sequence[Transform] | None = None
) -> ImageData:
    """Reads bands of a TIFF as they are: `reading.bands`, or the first ones.

    Where the file's mask says that there is no data, values that the network can't use become 0.
    Raises ImageError.
    """
    check_is_file(path)
    if rasterio_module() is None:
        raise ImageError(
            f"it is a TIFF for a model of {reading.channels} channels, or its bands "
            f"were named, which needs rasterio: {RASTERIO_HINT}"
        )
    check_tiff_file(path)
    with _opened(path) as raster:
        bands = list(reading.bands or range(1, reading.channels + 1))
        if max(bands) > raster.count:
            raise ImageError(
                f"the TIFF has {raster.count} bands, but band {max(bands)} is needed: name other "
                "bands with --bands, or use another model"
            )
        if reading.bands is None and raster.count > len(bands):
            _note_once(
                "bands",
                f"{shown(path)} has {raster.count} bands: of this and similar files the first "
                f"{len(bands)} are used; --bands selects others",
            )
        dtype = np.dtype(raster.dtypes[0]) if "complex" not in raster.dtypes[0] else None
        if dtype is None:
            raise ImageError(
                f"the TIFF has complex numbers ({raster.dtypes[0]}): save their magnitude in a file"
            )
        height, width = raster.shape
        check_memory(width, height, len(bands) * dtype.itemsize + 1, transforms)
        pixels = np.empty((height, width, len(bands)), dtype)
        raster.read(bands, out=pixels.transpose(2, 0, 1))
        place = _place_of(raster, bands)
        bgr = _colours_of(raster, bands)
    if pixels.dtype.kind == "f":
        pixels = _usable(pixels, place)
    if reading.channels == COLOURS:  # three channels are BGR in this program
        return ImageData(pixels[..., ::-1], place)
    return ImageData(pixels, place, bgr)


def place_of_picture(path: str, data: bytes, shape: tuple[int, ...]) -> Place | None:
    """Returns the place of a TIFF that OpenCV has decoded to [H, W, ...]; None if it has none.

    Logs a line if the file has a place that can't be used.
    """
    if not is_georeferenced(io.BytesIO(data), path):
        return None
    if rasterio_module() is None:
        _note_once(
            "rasterio",
            "georeferenced TIFFs get ordinary PNGs as masks, because rasterio is not installed: "
            + RASTERIO_HINT,
        )
        return None
    try:
        with _opened(path) as raster:
            turned = Tags(io.BytesIO(data)).first(ORIENTATION, 1) > 1
            if turned or raster.shape != shape[:2]:
                raise ImageError("its orientation tag turns the image, and GDAL ignores that")
            return _place_of(raster, range(1, raster.count + 1))
    except ImageError as error:
        log.warning("%s: its place can't be kept: %s", shown(path), error)
        return None


def check_finite(pixels: np.ndarray) -> None:
    """Raises ImageError if an array contains NaN or infinite numbers."""
    if pixels.dtype.kind == "f" and (bad := pixels.size - np.count_nonzero(np.isfinite(pixels))):
        raise ImageError(
            f"{bad} of its {pixels.size} values are NaN or infinite: replace them, or mark them as "
            "nodata in a TIFF"
        )


def _usable(pixels: np.ndarray, place: Place) -> np.ndarray:
    """Returns floating-point pixels as float32, with 0 for unusable values without data.

    Raises ImageError for unusable values elsewhere.
    """
    with np.errstate(over="ignore"):
        pixels = pixels.astype(np.float32, copy=False)
    if place.valid is not None:
        nothing = pixels[~place.valid]
        nothing[~(np.abs(nothing) < GREATEST)] = 0  # this is also true for NaN
        pixels[~place.valid] = nothing
    check_finite(pixels)
    return pixels


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Opens a TIFF. Turns rasterio's errors, also those of the caller's reads, to ImageError."""
    rasterio = rasterio_module()
    try:
        # Only this driver, and an absolute path, so that no path means something else to GDAL.
        with rasterio.open(os.path.abspath(path), driver="GTiff") as raster:
            yield raster
    except rasterio.errors.RasterioError as error:
        raise ImageError(f"the TIFF can't be read: {one_line(error)}") from None


def _place_of(raster: Any, bands: Sequence[int]) -> Place:
    if GEOLOCATION in raster.tag_namespaces():
        log.warning("%s: its geolocation arrays can't be kept in the mask", shown(raster.name))
    flags = {flag for band in raster.mask_flag_enums for flag in band}
    mask_flags = rasterio_module().enums.MaskFlags
    has_mask = bool(flags - {mask_flags.all_valid})
    valid = None
    if has_mask:
        # A mask or an alpha band is the same for all bands; a nodata value is not.
        looked_at = bands if mask_flags.nodata in flags else bands[:1]
        valid = np.zeros(raster.shape, bool)
        for band in looked_at:
            valid |= raster.read_masks(band) > 0
    gcps, gcps_crs = raster.gcps
    return Place(
        raster.crs,
        raster.transform,
        tuple(gcps),
        gcps_crs,
        raster.rpcs,
        raster.tags().get("AREA_OR_POINT") == "Point",
        has_mask,
        None if valid is None or valid.all() else valid,
    )


def _colours_of(raster: Any, bands: Sequence[int]) -> tuple[int, int, int]:
    """Returns which of the bands are blue, green and red: as the file says, else 3, 2 and 1."""
    names = [raster.colorinterp[band - 1].name for band in bands]
    if {"blue", "green", "red"} <= set(names):
        return names.index("blue"), names.index("green"), names.index("red")
    return RGB


def _note_once(about: str, line: str) -> None:
    if about not in _noted:
        _noted.add(about)
        log.info("%s", line)
