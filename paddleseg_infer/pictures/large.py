"""Makes the pictures of a label map that is too large for the memory: it is in a file."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError
from paddleseg_infer.label_maps import LabelMap, in_memory, opened_label_map
from paddleseg_infer.machine.optional import gdal_errors, one_line, rasterio_module
from paddleseg_infer.pictures.files import GEOTIFF, move_whole, target_of, whole_tiff, written
from paddleseg_infer.pictures.geotiff import write_cloud_optimized, write_geotiff
from paddleseg_infer.pictures.kinds import Pictures
from paddleseg_infer.pictures.overlay import legend_names
from paddleseg_infer.pictures.polygons import geojson_of, sieve
from paddleseg_infer.place import Place

KINDS = ("mask", "label", "geojson")  # the others need the whole label map


@dataclass(frozen=True)
class Folder:
    """A folder in the output folder `save_dir`, for the files of one image."""

    path: str
    save_dir: str

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def write(
        self,
        name: str,
        parts: Iterable[np.ndarray],
        size: tuple[int, int],
        dtype: str,
        place: Place,
        names: tuple[str, ...] = (),
        palette: bytes | None = None,
    ) -> None:
        """Writes a GeoTIFF: see `write_geotiff`. Raises ImageError or RunError."""
        path = self.file(name)
        with written(path, self.save_dir):
            write_geotiff(path, parts, size, dtype, place, names, palette)
            _check_tiles(path)


@dataclass(frozen=True)
class LargeLabels:
    """A finished label map in a file."""

    ids: LabelMap
    source: Any  # the same for GDAL: a band of a raster, or an array
    valid: Any  # which pixels have data: a band or an array of uint8; None: all
    place: Place  # its grid, without `valid`
    folder: Folder  # for temporary files


@contextlib.contextmanager
def opened_labels(folder: Folder, place: Place) -> Iterator[LargeLabels]:
    """Opens the TIFFs `labels` and, if `place` has a mask, `valid` for the block.

    Raises ImageError.
    """
    with contextlib.ExitStack() as opened:
        ids = opened.enter_context(opened_label_map(folder.file("labels")))
        names = ("labels", "valid") if place.has_mask else ("labels",)
        try:
            source, *valid = (
                opened.enter_context(rasterio_module().open(folder.file(name), driver="GTiff"))
                for name in names
            )
        except gdal_errors() as error:
            raise ImageError(f"its labels can't be read: {one_line(error)}") from None
        band = rasterio_module().band
        yield LargeLabels(ids, band(source, 1), band(valid[0], 1) if valid else None, place, folder)


def sieved_labels(large: LargeLabels, smallest: int) -> LargeLabels:
    """Returns labels in which small regions are joined: see `polygons.sieve`."""
    path, ids = large.folder.file("sieved"), large.ids
    # rasterio's sieve writes only to an array, so that array is in a file.
    with written(path, large.folder.save_dir):
        with open(path, "wb") as file:  # with space on the disk: a lack of it is an error here
            os.posix_fallocate(file.fileno(), 0, ids.dtype.itemsize * ids.size[0] * ids.size[1])
        result = np.memmap(path, ids.dtype, "r+", shape=ids.size)
        sieve(large.source, smallest, large.valid, out=result)
    return replace(large, ids=in_memory(result), source=result)


def save_picture(kind: str, large: LargeLabels, pictures: Pictures, stem: str) -> None:
    """Saves one of KINDS. Raises ImageError or RunError."""
    folder = large.folder
    path = folder.file(kind)
    if kind == "geojson":
        names = legend_names(pictures.names, pictures.of_unknown)
        how = large.ids.size, large.place, names, pictures.to_wgs84
        with written(path, folder.save_dir), open(path, "wb") as file:
            file.writelines(geojson_of(large.source, large.valid, *how))
    else:
        _write_picture(kind, large, pictures)
    move_whole(path, folder.save_dir, target_of(kind, stem, GEOTIFF))


def _write_picture(kind: str, large: LargeLabels, pictures: Pictures) -> None:
    ids, folder = large.ids, large.folder
    parts = (ids.rows(part) for part in ids.parts())
    palette = pictures.palette if kind == "mask" else None
    plain = f"{kind}.plain" if pictures.overviews else kind
    names = tuple(pictures.names)
    folder.write(plain, parts, ids.size, ids.dtype.name, large.place, names, palette)
    if pictures.overviews:
        path = folder.file(kind)
        with written(path, folder.save_dir):
            write_cloud_optimized(folder.file(plain), path)
            _check_tiles(path)
        os.unlink(folder.file(plain))


def _check_tiles(path: str) -> None:
    """Raises ImageError if tiles of a TIFF are missing: GDAL may not notice a full disk."""
    if whole_tiff(path) is None:
        raise ImageError("its GeoTIFF can't be made: the disk may be full")
