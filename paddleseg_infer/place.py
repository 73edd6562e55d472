"""Where a raster lies on the earth, and which of its pixels contain data."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError
from paddleseg_infer.settings import UNKNOWN

MIXED = (
    f"it has pixels without data, whose id is {UNKNOWN}, but {UNKNOWN} is also a class of this "
    "model: remove the mask or the nodata value from the file"
)


@dataclass(frozen=True, eq=False)
class Place:
    """The grid of a TIFF, as `rasterio` reads it. Its label map gets the same grid."""

    name: str = ""  # the file's name, for messages
    crs: Any = None  # rasterio.crs.CRS
    transform: Any = None  # affine.Affine, from (column, row) to coordinates
    gcps: Any = ()  # rasterio.control.GroundControlPoint, whose coordinates are in `gcps_crs`
    gcps_crs: Any = None
    rpcs: Any = None  # rasterio.rpc.RPC
    is_point: bool = False  # whether the coordinates are those of the pixels' centres
    has_mask: bool = False  # whether the file has a mask, an alpha band or a nodata value
    valid: np.ndarray | None = None  # bool [H, W]: the pixels that contain data; None: all

    @property
    def is_georeferenced(self) -> bool:
        has_transform = self.transform is not None and not self.transform.is_identity
        return bool(self.crs or has_transform or self.gcps or self.rpcs)

    def for_labels(self, labels: np.ndarray, has_class_255: bool | None) -> "Place":
        """Returns the place of these labels [H, W], without a nodata value if 255 is a class.

        If `has_class_255` is None, the labels themselves decide whether it is. Raises ImageError if
        pixels without data would get the id of a class.
        """
        if has_class_255 is None or labels.dtype != np.uint8:
            known = labels if self.valid is None else labels[self.valid]
            has_class_255 = labels.dtype != np.uint8 or bool((known == UNKNOWN).any())
        if not has_class_255:
            return self
        if self.valid is not None:
            raise ImageError(MIXED)
        return replace(self, has_mask=False)

    def fill(self, values: np.ndarray, filling: int) -> None:
        """Sets `values` [H, W] to `filling` where the raster has no data."""
        if self.valid is not None:
            np.copyto(values, filling, where=~self.valid)
