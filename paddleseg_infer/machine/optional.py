"""Packages that the program can use but doesn't need."""

import logging
import os
import warnings
from functools import cache
from typing import Any

CACHE_MB = "64"
RASTERIO_HINT = "run pip install -r requirements/geo.txt"


@cache
def rasterio_module() -> Any:
    """Returns the module rasterio, or None if it isn't installed."""
    # By default GDAL keeps up to 5 % of the memory full of tiles, in each worker.
    os.environ.setdefault("GDAL_CACHEMAX", CACHE_MB)
    try:
        import rasterio  # type: ignore[import-untyped]
        import rasterio.enums  # type: ignore[import-untyped]
        import rasterio.errors  # type: ignore[import-untyped]
        import rasterio.features  # type: ignore[import-untyped]
        import rasterio.io  # type: ignore[import-untyped]
        import rasterio.shutil  # type: ignore[import-untyped]
        import rasterio.warp  # type: ignore[import-untyped]
        import rasterio.windows  # type: ignore[import-untyped]
    except ImportError:
        return None
    # Ordinary TIFFs are no reason for a warning, and this program reports GDAL's errors itself.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    logging.getLogger("rasterio").setLevel(logging.CRITICAL + 1)
    return rasterio


def gdal_errors() -> tuple[type[Exception], ...]:
    """Returns the errors of rasterio and of GDAL, which have no common base class."""
    import rasterio._err  # type: ignore[import-untyped]

    return rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError


def one_line(error: BaseException) -> str:
    """Returns GDAL's own message of a rasterio error, in one line."""
    return " ".join(str(error.__cause__ or error).split()) or type(error).__name__
