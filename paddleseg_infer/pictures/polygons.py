"""Traces the regions of a label map, and writes them as a GeoJSON file of polygons."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.machine.optional import RASTERIO_HINT, gdal_errors, one_line, rasterio_module
from paddleseg_infer.pictures.files import GEOJSON_END, GEOJSON_SIZE
from paddleseg_infer.place import Place

CONNECTIVITY = 4  # pixels that touch only at a corner are in two regions
WGS84 = "EPSG:4326"
DECIMALS = 9  # of degrees; 1e-9 degrees are 0.1 mm


def encode_geojson(
    labels: np.ndarray, place: Place | None, names: Sequence[str], to_wgs84: bool
) -> bytes:
    """Returns such a file for an array, uint8 or uint16 [H, W], as bytes. Raises ImageError."""
    valid = place.valid if place else None
    size = labels.shape[0], labels.shape[1]
    return b"".join(geojson_of(labels, valid, size, place, names, to_wgs84))


def geojson_of(
    labels: Any,
    valid: Any,
    size: tuple[int, int],
    place: Place | None,
    names: Sequence[str],
    to_wgs84: bool,
) -> Iterator[bytes]:
    """Yields the parts of a GeoJSON file with a polygon for each connected region of one class id.

    `labels` is an array or a band of a raster of `size` (height, width). `valid` is the same or
    None; pixels where it is 0 are in no region. The coordinates are those of the transform in
    `place`, whose coordinate system is named in the member `crs`, or WGS 84 with `to_wgs84`.
    Without a transform they are pixels: x to the right and y down, from the upper left corner of
    the image. Raises ImageError.
    """
    has_grid = place is not None and place.transform is not None and not place.gcps
    grid = place if has_grid and place and not place.transform.is_identity else None
    crs = grid.crs if grid else None
    if to_wgs84 and crs is None:
        raise ImageError(
            "--wgs84 needs a coordinate system and a transform, which the image doesn't have: "
            "without --wgs84 the polygons have the coordinates that it has, or pixels"
        )
    head: dict[str, Any] = {"type": "FeatureCollection", GEOJSON_SIZE: list(size[::-1])}
    if crs is not None and not to_wgs84:
        authority = crs.to_authority()
        name = "urn:ogc:def:crs:{}::{}".format(*authority) if authority else crs.to_wkt()
        head["crs"] = {"type": "name", "properties": {"name": name}}
    yield (json.dumps(head)[:-1] + ', "features": [\n').encode()
    try:
        for number, feature in enumerate(_features(labels, valid, grid, names, to_wgs84)):
            line = json.dumps(feature, separators=(",", ":"))
            yield (",\n" if number else "").encode() + line.encode()
    except gdal_errors() as error:
        raise ImageError(f"its polygons can't be made: {one_line(error)}") from None
    yield GEOJSON_END


def check_min_area(smallest: int | None) -> None:
    """Raises ConfigError unless `sieved` can join regions of fewer than `smallest` pixels."""
    if smallest is None:
        return
    if not isinstance(smallest, int | np.integer) or isinstance(smallest, bool) or smallest < 1:
        raise ConfigError(f"min_area must be a whole number above 0, not {smallest!r}")
    if rasterio_module() is None:
        raise ConfigError(f"--min_area needs rasterio: {RASTERIO_HINT}")


def sieved(labels: np.ndarray, smallest: int, place: Place | None) -> np.ndarray:
    """Returns labels, uint8 or uint16 [H, W], in which small regions are joined: see `sieve`."""
    result = np.zeros_like(labels)
    sieve(labels, smallest, place.valid if place is not None else None, result)
    return result


def sieve(labels: Any, smallest: int, valid: Any, out: np.ndarray) -> None:
    """Joins the regions of fewer than `smallest` pixels, and writes the labels to `out`.

    `labels` and `valid`, where 0 means no data, are arrays or bands of rasters; `valid` may be
    None. Each region gets the label of its largest neighbour, by GDAL's sieve filter, which leaves
    a region as it is if that neighbour is small too. Pixels without data don't change, and are no
    neighbours.
    """
    size = min(smallest, out.size)
    rasterio_module().features.sieve(labels, size, out, valid, CONNECTIVITY)


def _features(
    labels: Any,
    valid: Any,
    grid: Place | None,
    names: Sequence[str],
    to_wgs84: bool,
) -> Iterator[dict[str, Any]]:
    rasterio = rasterio_module()
    is_projected = grid is not None and grid.crs is not None and grid.crs.is_projected
    pixel_area = abs(grid.transform.determinant) if grid else 0.0
    for shape, value in rasterio.features.shapes(labels, valid, CONNECTIVITY):
        rings = [np.array(ring) for ring in shape["coordinates"]]  # float64 [N, 2], closed
        class_id = int(value)
        # The first ring is the border; the others are holes.
        pixels = round(2 * abs(_area(rings[0])) - sum(abs(_area(ring)) for ring in rings))
        properties: dict[str, Any] = {
            "class": class_id,
            "name": (names[class_id] if class_id < len(names) else "") or str(class_id),
            "pixels": pixels,
        }
        if is_projected:
            properties["area"] = pixels * pixel_area
        if grid is not None:
            rings = [_placed(ring, grid.transform) for ring in rings]
        if to_wgs84 and grid is not None:
            rings = [_in_wgs84(ring, grid.crs) for ring in rings]
        # RFC 7946: counter-clockwise borders, clockwise holes
        turned = [
            ring if (_area(ring) > 0) == (number == 0) else ring[::-1]
            for number, ring in enumerate(rings)
        ]
        if grid is None:
            turned = [ring.astype(int) for ring in turned]
        coordinates = [ring.tolist() for ring in turned]
        geometry = {"type": "Polygon", "coordinates": coordinates}
        yield {"type": "Feature", "properties": properties, "geometry": geometry}


def _area(ring: np.ndarray) -> float:
    """Returns the area of a closed ring [N, 2], negative if it is clockwise (y upwards)."""
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]  # near 0, which keeps them exact
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _placed(ring: np.ndarray, transform: Any) -> np.ndarray:
    x, y = ring.T
    a, b, c, d, e, f = transform[:6]
    return np.column_stack([a * x + b * y + c, d * x + e * y + f])


def _in_wgs84(ring: np.ndarray, crs: Any) -> np.ndarray:
    x, y = rasterio_module().warp.transform(crs, WGS84, ring[:, 0], ring[:, 1])
    degrees = np.round(np.column_stack([x, y]), DECIMALS)
    if not np.isfinite(degrees).all():
        raise ImageError("a corner of its polygons can't be converted to WGS 84")
    longitudes = degrees[:, 0]
    if np.abs(longitudes).max() > 180 or np.abs(np.diff(longitudes)).max() > 180:
        raise ImageError(
            "its polygons cross the 180th meridian or contain a pole, where --wgs84 would spread "
            "them around the earth: remove --wgs84"
        )
    return degrees
