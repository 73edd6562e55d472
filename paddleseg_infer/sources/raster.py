"""Reads TIFFs with rasterio: bands of any number and depth, the grid, and the mask."""

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError, shown
from paddleseg_infer.formats import tags
from paddleseg_infer.formats.checks import check_tiff_file
from paddleseg_infer.machine.optional import RASTERIO_HINT, gdal_errors, one_line, rasterio_module
from paddleseg_infer.place import Place
from paddleseg_infer.preprocess import check_is_file, check_memory
from paddleseg_infer.sources.reading import BGR, COLOURS, RGB, ImageData, Reading
from paddleseg_infer.transforms.paddleseg import Transform

log = logging.getLogger("paddleseg_infer")

GREATEST = 1e30  # larger values overflow in the network
FLOAT_BYTES = 4  # of a value that is converted to float32
GEOLOCATION = "GEOLOCATION"  # GDAL's name of a grid of coordinates, which a GeoTIFF can't hold
_noted: set[str] = set()  # what this process has logged a line about


def read_bands(
    path: str, reading: Reading, transforms: Sequence[Transform] | None = None
) -> ImageData:
    """Reads bands of a TIFF as they are: `reading.bands`, or the first ones.

    Where the file's mask says that there is no data, values that the network can't use become 0.
    Raises ImageError.
    """
    check_is_file(path)
    if rasterio_module() is None:
        what = "--bands" if reading.bands else f"a TIFF for {reading.channels} channels"
        raise ImageError(f"{what} needs rasterio: {RASTERIO_HINT}")
    check_tiff_file(path)
    with _opened(path) as raster:
        bands = list(reading.bands or range(1, reading.channels + 1))
        check_bands(path, raster, reading, bands)
        dtype = np.dtype(raster.dtypes[0])
        height, width = raster.shape
        held = dtype.itemsize + (FLOAT_BYTES if dtype != np.uint8 else 0)
        check_memory(width, height, len(bands) * held + 1, transforms)
        pixels = np.empty((height, width, len(bands)), dtype)
        raster.read(bands, out=pixels.transpose(2, 0, 1))
        place = _place_of(path, raster, bands)
        bgr = _colours_of(raster, bands)
    if pixels.dtype.kind == "f":
        pixels = usable(pixels, place)
    if reading.channels == COLOURS:  # three channels are BGR in this program
        blue, green, red = (COLOURS - 1 - each for each in bgr)
        return ImageData(pixels[..., ::-1], place, (blue, green, red))
    return ImageData(pixels, place, bgr)


def place_of_picture(path: str, data: bytes, shape: tuple[int, ...]) -> Place | None:
    """Returns the place of a TIFF that OpenCV has decoded to [H, W, 3]; None if it has none.

    Logs a line if the file has a place that can't be used.
    """
    if not tags.is_georeferenced(io.BytesIO(data), path):
        return None
    if rasterio_module() is None:
        _note_once(
            "rasterio",
            "georeferenced TIFFs get ordinary PNGs as masks, without nodata, because rasterio is "
            f"not installed: {RASTERIO_HINT}",
        )
        return None
    try:
        with _opened(path) as raster:
            turned = tags.Tags(io.BytesIO(data)).first(tags.ORIENTATION, 1) > 1
            if turned or raster.shape != shape[:2]:
                raise ImageError("its orientation tag turns the image, and GDAL ignores that")
            place = _place_of(path, raster, range(1, min(raster.count, COLOURS) + 1))
            return place if place.is_georeferenced else None
    except ImageError as error:
        log.warning("%s: its georeference can't be kept: %s", shown(path), error)
        return None


def note_losses(path: str, data: bytes) -> None:
    """Logs a line, once, if a TIFF loses bits or bands because it is read as a picture."""
    try:
        tiff = tags.Tags(io.BytesIO(data))
        bits, bands = tiff.first(tags.BITS, 1), tiff.first(tags.BANDS, 1)
        is_grey = tiff.first(tags.PHOTOMETRIC) in (tags.WHITE_IS_0, tags.BLACK_IS_0)
    except tags.DAMAGED:
        return
    if is_grey and bands >= COLOURS:
        _note_once(
            "grey",
            f"{shown(path)} has {bands} bands that it doesn't call colours: such TIFFs are read as "
            "grey pictures of the first band, as in PaddleSeg; --bands 1 2 3 reads three bands",
        )
    if bits > 8:
        _note_once(
            "bits",
            f"{shown(path)} has {bits} bits per value: such TIFFs are read as pictures of 8 bits; "
            "--bands 1 2 3 reads the values as they are",
        )


def check_finite(pixels: np.ndarray, advice: str = "replace them", whose: str = "its") -> None:
    """Raises ImageError if an array contains values that the network can't compute with.

    `whose` and `advice` are parts of the message.
    """
    if pixels.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        bad = pixels.size - np.count_nonzero(np.abs(pixels) < GREATEST)
    if bad:
        raise ImageError(
            f"{bad} of {whose} {pixels.size} values are NaN, infinite or above {GREATEST:g}: "
            f"{advice}"
        )


def check_bands(path: str, raster: Any, reading: Reading, bands: Sequence[int]) -> None:
    """Raises ImageError if the bands can't be read. Logs a line if there are more of them."""
    if max(bands) > raster.count:
        raise ImageError(
            f"the TIFF has {raster.count} bands, but --bands names band {max(bands)}"
            if reading.bands
            else f"the TIFF has {raster.count} bands, but the model takes {len(bands)} channels"
        )
    if "complex" in raster.dtypes[0]:
        raise ImageError(
            f"the TIFF has complex numbers ({raster.dtypes[0]}): save their magnitude in a file"
        )
    if reading.bands is None and raster.count > len(bands):
        _note_once(
            "bands",
            f"{shown(path)} has {raster.count} bands: of this and similar files the first "
            f"{len(bands)} are used; --bands selects others",
        )


def usable(pixels: np.ndarray, place: Place, whose: str = "its") -> np.ndarray:
    """Returns floating-point pixels as float32, with 0 for unusable values without data.

    Raises ImageError for unusable values elsewhere; `whose` is a part of the message.
    """
    with np.errstate(over="ignore"):
        pixels = pixels.astype(np.float32, copy=False)
    if place.valid is not None:
        nothing = pixels[~place.valid]
        nothing[~(np.abs(nothing) < GREATEST)] = 0  # this is also true for NaN
        pixels[~place.valid] = nothing
    advice = "replace them, or mark them as nodata in all bands that are used"
    check_finite(pixels, advice, whose)
    return pixels


@contextmanager
def errors_as_image_errors() -> Iterator[None]:
    """Turns the errors of rasterio in the block to ImageError."""
    # rasterio raises others than its own errors too, for example for damaged metadata.
    others = OSError, ValueError, LookupError, TypeError
    errors: tuple[type[Exception], ...] = (*gdal_errors(), *others)
    try:
        yield
    except errors as error:
        raise ImageError(f"the TIFF can't be read: {one_line(error)}") from None


def opened_for_long(path: str) -> Any:
    """Opens a TIFF, which the caller closes. Raises ImageError."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise ImageError(
            "its path isn't UTF-8, and GDAL opens only such paths: rename it"
        ) from None
    with errors_as_image_errors():
        # Only this driver, and an absolute path, so that no path means something else to GDAL.
        return rasterio_module().open(os.path.abspath(path), driver="GTiff")


def small_view(path: str, longest: int) -> np.ndarray:
    """Returns a TIFF of any bands for the eye, uint8 BGR [H, W, 3]: see `ImageData.view`.

    No side is longer than `longest`; of a larger raster, only so many pixels are read. Raises
    ImageError.
    """
    if rasterio_module() is None:
        raise ImageError(f"a TIFF needs rasterio: {RASTERIO_HINT}")
    with _opened(path) as raster:
        bands = range(1, raster.count + 1)
        chosen = [bands[at] for at in _colours_of(raster, bands)] if len(bands) > 2 else [1]
        scale = min(1, longest / max(raster.shape))
        height, width = (max(1, round(scale * side)) for side in raster.shape)
        pixels = raster.read(chosen, out_shape=(len(chosen), height, width))
        valid = raster.dataset_mask(out_shape=(height, width)) > 0
        if pixels.dtype.kind == "f":
            pixels = np.nan_to_num(pixels, posinf=0, neginf=0)
        return ImageData(np.moveaxis(pixels, 0, 2), Place(valid=valid)).view()


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Opens a TIFF. Turns rasterio's errors, also those of the caller's reads, to ImageError."""
    with opened_for_long(path) as raster, errors_as_image_errors():
        yield raster


def grid_of(path: str, raster: Any) -> Place:
    """Returns the place of a TIFF, without its mask."""
    if GEOLOCATION in raster.tag_namespaces():
        log.warning("%s: its geolocation arrays can't be kept in the mask", shown(path))
    gcps, gcps_crs = raster.gcps
    is_point = raster.tags().get("AREA_OR_POINT") == "Point"
    return Place(
        shown(path), raster.crs, raster.transform, tuple(gcps), gcps_crs, raster.rpcs, is_point
    )


def _place_of(path: str, raster: Any, bands: Sequence[int]) -> Place:
    valid = valid_pixels(raster, bands)
    kept = None if valid is None or valid.all() else valid
    return replace(grid_of(path, raster), has_mask=valid is not None, valid=kept)


def window_of(rows: slice, columns: slice) -> Any:
    """Returns rasterio's window of these rows and columns."""
    return rasterio_module().windows.Window.from_slices(rows, columns)


def valid_pixels(
    raster: Any, bands: Sequence[int], where: tuple[slice, slice] | None = None
) -> np.ndarray | None:
    """Returns which pixels [H, W] have data; None if the file says nothing about it.

    With `where`, only those rows and columns are read. The alpha band has no data where it is 0.
    (GDAL itself regards it as a mask only beside one or three other bands.) A mask and a nodata
    value count where all of `bands` have it, but alpha.
    """
    window = window_of(*where) if where else None
    alphas = [at for at, each in enumerate(raster.colorinterp, 1) if each.name == "alpha"]
    valid = raster.read(alphas[0], window=window) > 0 if alphas else None
    colours = [band for band in bands if band not in alphas] or list(bands)
    names = {flag.name for band in colours for flag in raster.mask_flag_enums[band - 1]}
    if names == {"all_valid"} or (alphas and "alpha" in names):  # that mask is the alpha band
        return valid
    # A mask of the whole file is the same for all bands.
    looked_at = colours[:1] if "per_dataset" in names else colours
    some = np.logical_or.reduce([raster.read_masks(b, window=window) > 0 for b in looked_at])
    return some if valid is None else some & valid


def _colours_of(raster: Any, bands: Sequence[int]) -> tuple[int, int, int]:
    """Returns which of the bands are blue, green and red: as the file says, else 3, 2 and 1."""
    names = [raster.colorinterp[band - 1].name for band in bands]
    if {"blue", "green", "red"} <= set(names):
        return names.index("blue"), names.index("green"), names.index("red")
    return RGB if len(bands) >= COLOURS else BGR


def _note_once(about: str, line: str) -> None:
    if about not in _noted:
        _noted.add(about)
        log.info("%s", line)
