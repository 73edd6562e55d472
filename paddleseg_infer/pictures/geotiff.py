"""Makes GeoTIFFs of label maps, with the grid of the image."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError
from paddleseg_infer.machine.optional import RASTERIO_HINT, one_line, rasterio_module
from paddleseg_infer.place import Place
from paddleseg_infer.settings import UNKNOWN


def encode_geotiff(
    labels: np.ndarray, place: Place, names: Sequence[str] = (), palette: bytes | None = None
) -> bytes:
    """Returns a tiled GeoTIFF whose pixel values are the class ids, uint8 or uint16 [H, W].

    `palette` becomes its colour table. The names are in the tags CLASS_0, CLASS_1, ... Raises
    ImageError.
    """
    rasterio = rasterio_module()
    height, width = labels.shape
    options: dict[str, Any] = {"nodata": UNKNOWN} if place.has_mask else {}
    if place.gcps:  # a GeoTIFF has either control points or a transform
        options |= {"gcps": place.gcps, "crs": place.gcps_crs}
    elif place.transform is not None and not place.transform.is_identity:
        options |= {"transform": place.transform, "crs": place.crs}
    else:
        options |= {"crs": place.crs}
    options |= {"count": 1, "width": width, "height": height, "dtype": labels.dtype.name}
    options |= {"tiled": True, "compress": "deflate", "BIGTIFF": "IF_SAFER", "rpcs": place.rpcs}
    tags = {f"CLASS_{number}": name for number, name in enumerate(names)}
    if place.is_point:
        tags["AREA_OR_POINT"] = "Point"
    try:
        with rasterio.io.MemoryFile() as memory:
            with memory.open(driver="GTiff", **options) as raster:
                raster.update_tags(**tags)
                if palette is not None:
                    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).tolist()
                    raster.write_colormap(1, dict(enumerate(map(tuple, colours))))
                raster.write(labels, 1)
            return bytes(memory.read())
    except rasterio.errors.RasterioError as error:
        raise ImageError(f"its GeoTIFF can't be made: {one_line(error)}") from None


def read_geotiff(path: str) -> np.ndarray:
    """Returns the class ids of a GeoTIFF that this program made, [H, W]. Raises ImageError."""
    rasterio = rasterio_module()
    if rasterio is None:
        raise ImageError(f"a GeoTIFF needs rasterio: {RASTERIO_HINT}")
    try:
        with rasterio.open(os.path.abspath(path), driver="GTiff") as raster:
            labels: np.ndarray = raster.read(1)
            return labels
    except rasterio.errors.RasterioError as error:
        raise ImageError(one_line(error)) from None
