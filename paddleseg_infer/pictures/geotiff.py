"""Makes GeoTIFFs of label maps, with the grid of the image."""

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError
from paddleseg_infer.machine.optional import gdal_errors, one_line, rasterio_module
from paddleseg_infer.pictures.files import SOFTWARE
from paddleseg_infer.place import Place
from paddleseg_infer.settings import UNKNOWN

# The most frequent id is the only mean of class ids that is one of them.
CLOUD_OPTIMIZED = {
    "compress": "deflate",
    "overview_compress": "deflate",
    "overview_resampling": "mode",
    "bigtiff": "if_safer",
}

log = logging.getLogger("paddleseg_infer")


def encode_geotiff(
    labels: np.ndarray,
    place: Place,
    names: Sequence[str] = (),
    palette: bytes | None = None,
    overviews: bool = False,
) -> bytes:
    """Returns a tiled GeoTIFF whose pixel values are the class ids, uint8 or uint16 [H, W].

    `palette` becomes its colour table. The names are in the tags CLASS_0, CLASS_1, ... With
    `overviews` it is a Cloud Optimized GeoTIFF. Raises ImageError.
    """
    rasterio = rasterio_module()
    options = _options(place, labels.shape, labels.dtype.name)
    try:
        with rasterio.io.MemoryFile() as memory:
            with memory.open(driver="GTiff", **options) as raster:
                _describe(raster, place, names, palette)
                raster.write(labels, 1)
            data = _cloud_optimized(memory) if overviews else bytes(memory.read())
        # From other memory, where GDAL doesn't find the second file that it may have written
        with rasterio.io.MemoryFile(data) as memory, memory.open(driver="GTiff") as raster:
            _check_crs(raster, place)
        return data
    except gdal_errors() as error:
        raise ImageError(f"its GeoTIFF can't be made: {one_line(error)}") from None


def write_geotiff(
    path: str,
    rows: Iterable[np.ndarray],
    size: tuple[int, ...],
    dtype: str,
    place: Place,
    names: Sequence[str] = (),
    palette: bytes | None = None,
) -> None:
    """Writes such a GeoTIFF of `size` (height, width) to a file, from parts of a few rows each.

    Raises ImageError.
    """
    rasterio = rasterio_module()
    beside = path + ".aux.xml"
    errors: tuple[type[Exception], ...] = (*gdal_errors(), OSError)
    try:
        with rasterio.open(path, "w", driver="GTiff", **_options(place, size, dtype)) as raster:
            _describe(raster, place, names, palette)
            top = 0
            for part in rows:
                window = rasterio.windows.Window(0, top, size[1], len(part))
                raster.write(part.astype(dtype, copy=False), 1, window=window)
                top += len(part)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        with rasterio.open(path, driver="GTiff") as raster:
            _check_crs(raster, place)
    except errors as error:
        raise ImageError(f"its GeoTIFF can't be made: {one_line(error)}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


def write_cloud_optimized(plain: str, path: str) -> None:
    """Writes a GeoTIFF to a second file, with overviews. Raises ImageError.

    GDAL needs a complete GeoTIFF for that, because the overviews are in front of the pixels. It
    copies one tile after the other. Its own temporary files are beside `path`.
    """
    try:
        rasterio_module().shutil.copy(plain, path, driver="COG", **CLOUD_OPTIMIZED)
    except gdal_errors() as error:
        raise ImageError(f"its overviews can't be made: {one_line(error)}") from None


def _cloud_optimized(memory: Any) -> bytes:
    """Returns the Cloud Optimized GeoTIFF of a GeoTIFF in a MemoryFile."""
    with rasterio_module().io.MemoryFile(ext=".tif") as copy:
        write_cloud_optimized(memory.name, copy.name)
        return bytes(copy.read())


def _options(place: Place, size: tuple[int, ...], dtype: str) -> dict[str, Any]:
    options: dict[str, Any] = {"nodata": UNKNOWN} if place.has_mask else {}
    options |= {"crs": place.gcps_crs if place.gcps else place.crs}
    if place.gcps:  # a GeoTIFF has either control points or a transform
        options |= {"gcps": place.gcps}
    elif place.transform is not None and not place.transform.is_identity:
        options |= {"transform": place.transform}
    options |= {"count": 1, "height": size[0], "width": size[1], "dtype": dtype}
    return options | {
        "tiled": True,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
        "rpcs": place.rpcs,
    }


def _describe(raster: Any, place: Place, names: Sequence[str], palette: bytes | None) -> None:
    """Writes the names of the program and the classes, and the colours."""
    tags = {f"CLASS_{number}": name for number, name in enumerate(names)}
    tags["TIFFTAG_SOFTWARE"] = SOFTWARE
    if place.is_point and not place.gcps:  # GDAL 3.10 moves control points if it finds this tag
        tags["AREA_OR_POINT"] = "Point"
    raster.update_tags(**tags)
    if palette is not None:
        colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).tolist()
        raster.write_colormap(1, dict(enumerate(map(tuple, colours))))


def _check_crs(raster: Any, place: Place) -> None:
    """Logs a line if a GeoTIFF has lost its coordinate system.

    GDAL keeps a system that doesn't fit into the file in a second file, which isn't saved.
    """
    wanted, found = (place.gcps_crs, raster.gcps[1]) if place.gcps else (place.crs, raster.crs)
    if wanted != found:
        log.warning("%s: its coordinate system can't be kept in a GeoTIFF", place.name)
