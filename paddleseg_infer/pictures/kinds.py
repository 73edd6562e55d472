"""What can be saved of a segmented image: PNGs, GeoTIFFs, and probabilities as an .npz file."""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.machine.optional import RASTERIO_HINT, rasterio_module
from paddleseg_infer.pictures.files import GEOTIFF, PNG, PROBABILITY_ENTRY
from paddleseg_infer.pictures.geotiff import encode_geotiff
from paddleseg_infer.pictures.overlay import legend_names, overlay
from paddleseg_infer.pictures.palettes import CLASSES, PADDLESEG
from paddleseg_infer.pictures.polygons import encode_geojson
from paddleseg_infer.place import Place

log = logging.getLogger("paddleseg_infer")


@dataclass(frozen=True)
class Segmentation:
    """One image's labels, and its other maps and pixels if needed. All have the same size."""

    labels: np.ndarray  # class ids, uint8 or uint16 [H, W]
    score: np.ndarray | None = None  # uint8 [H, W]: the class's probability, 255 means 1
    image_bgr: np.ndarray | None = None  # uint8 [H, W, 3]
    probability: np.ndarray | None = None  # of all classes, float16 [C, H, W]
    place: Place | None = None  # of a TIFF, whose grid is that of the labels

    @property
    def suffix(self) -> str:
        """The suffix of the files of its mask and its label map."""
        return GEOTIFF if self.place and self.place.is_georeferenced else PNG


@dataclass(frozen=True)
class Pictures:
    """The kinds of pictures to make of each image, and the classes' colours and names."""

    kinds: Sequence[str] = ("mask",)  # keys of KINDS, in the order of encoding
    palette: bytes = PADDLESEG  # 256 colours, RGB
    names: Sequence[str] = ()  # the classes' names, for the legend
    to_wgs84: bool = False  # whether polygons have the coordinates of WGS 84
    of_unknown: str = ""  # the legend's name of pixels of no class
    overviews: bool = False  # whether GeoTIFFs have overviews

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(KINDS)
        if unknown or isinstance(self.kinds, str):
            raise ConfigError(
                f"kinds must be one or more of {', '.join(KINDS)}, not {self.kinds!r}"
            )
        if "geojson" in self.kinds and rasterio_module() is None:
            raise ConfigError(f"--save geojson needs rasterio: {RASTERIO_HINT}")
        if self.overviews and rasterio_module() is None:
            raise ConfigError(f"--overviews needs rasterio: {RASTERIO_HINT}")
        if len(self.palette) != 3 * CLASSES:
            raise ConfigError(f"a palette has {CLASSES} colours of 3 bytes")

    def check(self, kind: str, classes: int) -> None:
        """Raises ConfigError if these pictures can't be made from a model's output.

        `kind` is a result of `forms.output_kind`. `classes` is the number of classes; it is
        used only for scores.
        """
        for needy in ("score", "probability"):
            if kind == "labels" and needy in self.kinds:
                raise ConfigError(
                    f"--save {needy} needs probabilities, but this model gives only labels: export "
                    f"it with --output_op softmax, or leave {needy} out"
                )
        if kind == "scores" and classes > CLASSES and "mask" in self.kinds:
            raise ConfigError(
                f"the model has {classes} classes, but a mask has 8 bits per pixel, for {CLASSES}: "
                "use --save label, which has 16"
            )

    def encoded(self, segmentation: Segmentation) -> Iterator[tuple[str, bytes]]:
        """Yields each kind and its file as bytes. Raises ImageError."""
        for kind in self.kinds:
            yield kind, KINDS[kind](segmentation, self)


def encode_mask(
    labels: np.ndarray, palette: bytes = PADDLESEG, transparent: int | None = None
) -> bytes:
    """Returns a palette PNG whose pixel values are the class ids, uint8 [H, W].

    Pixels of the id `transparent` have no colour. Raises ImageError for labels of another dtype.
    """
    check_has_8_bits(labels.dtype)
    mask = Image.fromarray(labels)
    mask.putpalette(palette)
    return _png(mask, **({} if transparent is None else {"transparency": transparent}))


def check_has_8_bits(dtype: np.dtype[Any]) -> None:
    """Raises ImageError if labels of this dtype don't fit into a mask."""
    if dtype != np.uint8:
        raise ImageError(
            f"the model gave it ids above {CLASSES - 1}, and a mask has 8 bits, which hold 0 to "
            f"{CLASSES - 1}: use --save label, with 16 bits"
        )


def _mask(segmentation: Segmentation, pictures: Pictures) -> bytes:
    labels, place = segmentation.labels, segmentation.place
    if place is not None and place.is_georeferenced:
        check_has_8_bits(labels.dtype)
        return encode_geotiff(labels, place, pictures.names, pictures.palette, pictures.overviews)
    return encode_mask(labels, pictures.palette)


def _label(segmentation: Segmentation, pictures: Pictures) -> bytes:
    """Returns a grey picture of the class ids, with 8 bits, or 16 bits if the labels are uint16."""
    labels, place = segmentation.labels, segmentation.place
    if place is not None and place.is_georeferenced:
        return encode_geotiff(labels, place, pictures.names, overviews=pictures.overviews)
    return _png(Image.fromarray(segmentation.labels))


def _png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    # Masks consist of runs of equal pixels, which suits zlib's Z_RLE (3). On masks of 0.4 to
    # 12 megapixels it took a third to a half of the default's time. Files grew only for small,
    # smooth masks (7 kB instead of 5).
    image.save(buffer, "PNG", compress_level=1, compress_type=3, **options)
    return buffer.getvalue()


def _score(segmentation: Segmentation, pictures: Pictures) -> bytes:
    """Returns a grey PNG of 8 bits: 255 times the probability of each pixel's class."""
    assert segmentation.score is not None
    return _png_of_photo(segmentation.score)


def _probability(segmentation: Segmentation, pictures: Pictures) -> bytes:
    """Returns a compressed .npz file, which `numpy.load` reads, with the array `probability`."""
    import zipfile  # takes 6 ms, which the start of other runs doesn't need

    assert segmentation.probability is not None
    buffer = io.BytesIO()
    # np.savez_compressed uses zlib's default level, which took twice as long for files as large.
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(PROBABILITY_ENTRY, "w", force_zip64=True) as entry,
    ):
        np.lib.format.write_array(entry, segmentation.probability)
    return buffer.getvalue()


def _png_of_photo(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _overlay(segmentation: Segmentation, pictures: Pictures) -> bytes:
    """Returns a PNG of the image with its mask over it, the boundaries, and the legend below."""
    assert segmentation.image_bgr is not None
    has_nothing = segmentation.place is not None and segmentation.place.valid is not None
    of_unknown = [pictures.of_unknown] if pictures.of_unknown else []
    names = legend_names(pictures.names, ", ".join(["no data"] * has_nothing + of_unknown))
    picture = overlay(segmentation.image_bgr, segmentation.labels, names, pictures.palette)
    return _png_of_photo(picture)


def _geojson(segmentation: Segmentation, pictures: Pictures) -> bytes:
    """Returns a GeoJSON file of the regions of each class."""
    names = legend_names(pictures.names, pictures.of_unknown)
    return encode_geojson(segmentation.labels, segmentation.place, names, pictures.to_wgs84)


KINDS = {
    "mask": _mask,
    "label": _label,
    "overlay": _overlay,
    "score": _score,
    "probability": _probability,
    "geojson": _geojson,
}
