"""Makes rasters with rasterio for the tests."""

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin

from paddleseg_infer.sources.reading import Reading
from paddleseg_infer.sources.source import source_of

UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
# The kinds of grids, as options of rasterio.open
GRIDS = {
    "utm": UTM,
    "geographic": {"crs": "EPSG:4326", "transform": from_origin(14.5, 45.5, 0.001, 0.002)},
    "south-up": {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, 10, 4e6)},
    "rotated": {"crs": "EPSG:32633", "transform": Affine(8, 6, 5e5, 6, -8, 5e6)},
    "control points": {
        "crs": "EPSG:4326",
        "gcps": [
            GroundControlPoint(row, column, 14 + column / 99 + row / 999, 45 - row / 99, 12, f"{n}")
            for n, (row, column) in enumerate([(0, 0), (0, 60), (40, 0), (40, 60), (20, 30)])
        ],
    },
    "camera model": {
        "rpcs": RPC(
            *(300.0, 500.0, 45.0, 0.1),
            *([1e-3 * n for n in range(20)], [1.0, *[1e-4] * 19], 24.0, 48.0, 14.0, 0.2),
            *([2e-3 * n for n in range(20)], [1.0, *[2e-4] * 19], 32.0, 64.0),
        )
    },
    "no crs": {"transform": from_origin(100, 200, 0.5, 0.5)},
}


def values(count, height=48, width=64, dtype="uint16", seed=0):
    """Returns random bands [count, height, width] with smooth parts."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 200 if dtype in ("uint8", "int8") else 4000, (count, 8, 8))
    bands = coarse.repeat(-(-height // 8), 1).repeat(-(-width // 8), 2)[:, :height, :width]
    return (bands + random.integers(0, 50, bands.shape)).astype(dtype)


def raster(path, bands, mask=None, tags=(), **options):
    """Writes bands [C, H, W] to a TIFF and returns its path."""
    count, height, width = bands.shape
    options = {"driver": "GTiff", "dtype": bands.dtype.name, **options}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=count, height=height, width=width, **options) as file,
    ):
        file.update_tags(**dict(tags))
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
    return str(path)


def read(image, channels, **how):
    """Returns the pixels of an image for a model of so many channels."""
    return source_of(image, Reading(channels, **how)).read().pixels


HALF = np.zeros((48, 64), bool)  # the pixels with data in the masked rasters
HALF[:, 20:] = True


def with_nodata(bands, value):
    bands = bands.copy()
    bands[:, ~HALF] = value
    return bands
