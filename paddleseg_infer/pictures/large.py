"""Makes the pictures of a label map that is too large for the memory: it is in a file."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError
from paddleseg_infer.label_maps import LabelMap, in_memory, opened_label_map
from paddleseg_infer.machine.optional import rasterio_module
from paddleseg_infer.pictures.files import GEOTIFF, move_whole, target_of, whole_tiff, written
from paddleseg_infer.pictures.geotiff import write_cloud_optimized, write_geotiff
from paddleseg_infer.pictures.kinds import Pictures
from paddleseg_infer.pictures.overlay import legend_names
from paddleseg_infer.pictures.polygons import geojson_of, sieve
from paddleseg_infer.place import Place

KINDS = ("mask", "label", "geojson")  # the others need the whole label map


@dataclass(frozen=True)
class LargeLabels:
    """A finished label map in a file."""

    ids: LabelMap
    source: Any  # the same for GDAL: a band of a raster, or an array
    valid: Any  # which pixels have data: a band or an array of uint8; None: all
    place: Place  # its grid, without `valid`
    folder: str  # for temporary files, in the output folder


@contextlib.contextmanager
def opened_labels(path: str, valid_path: str | None, place: Place) -> Iterator[LargeLabels]:
    """Opens TIFFs of class ids and of the pixels with data for the block. Raises ImageError."""
    rasterio = rasterio_module()
    with contextlib.ExitStack() as opened:
        ids = opened.enter_context(opened_label_map(path))
        source, valid = (
            each and rasterio.band(opened.enter_context(rasterio.open(each, driver="GTiff")), 1)
            for each in (path, valid_path)
        )
        yield LargeLabels(ids, source, valid, place, os.path.dirname(path))


def sieved_labels(large: LargeLabels, smallest: int) -> LargeLabels:
    """Returns labels in which small regions are joined: see `polygons.sieve`."""
    path = os.path.join(large.folder, "sieved")
    dtype = large.ids.rows(slice(0, 1)).dtype
    with written(path):
        # A file that the system maps to addresses of memory: GDAL can't write to a raster here.
        result = np.memmap(path, dtype, "w+", shape=large.ids.size)
        sieve(large.source, smallest, large.valid, out=result)
    return replace(large, ids=in_memory(result), source=result)


def save_picture(
    kind: str, large: LargeLabels, pictures: Pictures, save_dir: str, stem: str
) -> None:
    """Saves one of KINDS. Raises ImageError or RunError."""
    path = os.path.join(large.folder, kind)
    if kind == "geojson":
        names = legend_names(pictures.names, pictures.of_unknown)
        how = large.ids.size, large.place, names, pictures.to_wgs84
        with written(path), open(path, "wb") as file:
            file.writelines(geojson_of(large.source, large.valid, *how))
    else:
        _write_geotiff(path, large, pictures, pictures.palette if kind == "mask" else None)
    move_whole(path, save_dir, target_of(kind, stem, GEOTIFF))


def _write_geotiff(
    path: str, large: LargeLabels, pictures: Pictures, palette: bytes | None
) -> None:
    ids = large.ids
    parts = (ids.rows(part) for part in ids.parts())
    dtype = ids.rows(slice(0, 1)).dtype.name
    if palette is not None and dtype != "uint8":
        raise ImageError(
            "a mask holds 256 classes, and an id is above 255: use --save label, and --resume"
        )
    plain = f"{path}.plain" if pictures.overviews else path
    with written(plain):
        write_geotiff(plain, parts, ids.size, dtype, large.place, pictures.names, palette)
        check_tiles(plain)
    if pictures.overviews:
        with written(path):
            write_cloud_optimized(plain, path)
            check_tiles(path)
        os.unlink(plain)


def check_tiles(path: str) -> None:
    """Raises ImageError if tiles of a TIFF are missing: GDAL may not notice a full disk."""
    if whole_tiff(path) is None:
        raise ImageError("its GeoTIFF can't be made: the disk may be full")
