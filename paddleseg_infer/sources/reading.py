"""How files and arrays become the channels of the network's input."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, ImageError, brief
from paddleseg_infer.formats.npy import TYPES
from paddleseg_infer.place import Place

COLOURS = 3
BGR, RGB = (0, 1, 2), (2, 1, 0)  # the places of blue, green and red
SCALES = (1e-12, 1e12)  # beyond them, values of float32 become 0 or infinite
VIEW_PERCENTILES = (2, 98)  # the values that are black and white in the picture of a raster


@dataclass(frozen=True)
class Reading:
    """The channels of the model, and which values of a file they get."""

    channels: int = COLOURS
    bands: Sequence[int] | None = None  # of a TIFF, counted from 1, in the tensor's order
    scale: float | None = None  # multiplies the values

    @property
    def uses_bands(self) -> bool:
        """Whether TIFFs are read band by band, and not as pictures of 8 bits in three colours."""
        return self.channels != COLOURS or self.bands is not None

    def checked(self, array: np.ndarray) -> np.ndarray:
        """Returns an array as [H, W, C]. Raises ImageError unless it fits the model."""
        if array.ndim == 2 and self.channels == 1:
            array = array[..., None]
        if (
            array.dtype.name not in TYPES
            or array.ndim != 3
            or array.shape[2] != self.channels
            or not array.size
        ):
            order = " BGR" if self.channels == COLOURS else ""
            is_chw = array.ndim == 3 and array.shape[0] == self.channels
            advice = ": turn it with np.moveaxis(array, 0, 2)" if is_chw else ""
            raise ImageError(
                f"an array must be [H, W, {self.channels}]{order} of {', '.join(TYPES)}, not "
                f"{array.dtype} {list(array.shape)}{advice}"
            )
        if self.bands is not None:
            raise ImageError(
                "--bands selects bands of a TIFF, and this is an array: select its channels before"
            )
        return array


def reading_for(
    deploy: DeployConfig, bands: Sequence[int] | None, pixel_scale: float | None
) -> Reading:
    """Returns the Reading for a model and its options. Raises ConfigError if they don't fit."""
    channels = deploy.channels
    if bands is not None:
        try:
            bands = tuple(int(operator.index(band)) for band in bands)
        except TypeError:
            bands = (0,)
        if min(bands, default=0) < 1:
            raise ConfigError("bands must be a list of whole numbers from 1")
        if len(bands) != channels:
            raise ConfigError(
                f"--bands names {len(bands)} bands, but the model takes {channels} channels: "
                "name one band for each channel"
            )
    if pixel_scale is None:
        return Reading(channels, bands)
    is_number = isinstance(pixel_scale, Real) and not isinstance(pixel_scale, bool)
    low, high = SCALES
    if not (is_number and low <= pixel_scale <= high):
        raise ConfigError(
            f"pixel_scale must be a number from {low:g} to {high:g}, not {brief(pixel_scale)}"
        )
    return Reading(channels, bands, float(pixel_scale))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A decoded image."""

    pixels: np.ndarray  # numbers [H, W, C]; three channels are BGR
    place: Place | None = None
    bgr: tuple[int, int, int] = BGR  # the channels that are blue, green and red for the eye
    unscaled: np.ndarray | None = None  # the pixels before --pixel_scale, for the eye

    def scaled(self, scale: float | None) -> "ImageData":
        """Returns the image with its values multiplied by `scale`, in float32."""
        if scale is None:
            return self
        pixels = self.pixels.astype(np.float32)
        pixels *= scale
        return ImageData(pixels, self.place, self.bgr, self.pixels)

    def view(self) -> np.ndarray:
        """Returns the image for the eye, uint8 BGR [H, W, 3].

        This is the image itself if it is uint8 BGR. Of fewer than three channels, the first one
        becomes grey. Values of more than 8 bits are stretched between their percentiles.
        """
        pixels = self.pixels if self.unscaled is None else self.unscaled
        if pixels.shape[2] < COLOURS:
            pixels = np.repeat(pixels[..., :1], COLOURS, axis=2)
        elif pixels.shape[2] > COLOURS or self.bgr != BGR:
            pixels = pixels[..., list(self.bgr)]
        if pixels.dtype == np.uint8:
            return np.ascontiguousarray(pixels)
        valid = self.place.valid if self.place else None
        known = pixels if valid is None else pixels[valid]
        shown = np.zeros(pixels.shape, np.uint8)
        for channel in range(COLOURS) if known.size else ():
            low, high = np.percentile(known[..., channel], VIEW_PERCENTILES)
            stretched = (pixels[..., channel] - low) * (255 / max(high - low, 1e-12))
            shown[..., channel] = stretched.clip(0, 255)
        return shown
