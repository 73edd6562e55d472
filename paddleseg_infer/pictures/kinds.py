"""What can be saved of a segmented image: PNGs, GeoTIFFs, and probabilities as an .npz file."""

import functools
import io
import logging
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paddleseg_infer.errors import ConfigError, ImageError, brief
from paddleseg_infer.evaluation import histogram
from paddleseg_infer.pictures.files import GEOTIFF, PNG, PROBABILITY_ENTRY
from paddleseg_infer.pictures.geotiff import encode_geotiff
from paddleseg_infer.pictures.palettes import CLASSES, PADDLESEG
from paddleseg_infer.place import Place
from paddleseg_infer.settings import UNKNOWN

log = logging.getLogger("paddleseg_infer")

IMAGE_WEIGHT = 0.5  # the image's weight in an overlay; the mask has the rest
LINE_SHARE = 1 / 1200  # thickness of a boundary, as a share of the longer side
FONT_SHARE, FONT_SIZES = 1 / 50, (12, 72)  # share of the longer side; limits in pixels
WHITE, BLACK = 255, 0
ROWS_AT_ONCE = 256
MAX_NAME = 40  # letters of a class name in the legend


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

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(KINDS)
        if unknown or isinstance(self.kinds, str):
            raise ConfigError(
                f"kinds must be one or more of {', '.join(KINDS)}, not {self.kinds!r}"
            )
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


def encode_mask(labels: np.ndarray, palette: bytes = PADDLESEG) -> bytes:
    """Returns a palette PNG whose pixel values are the class ids, uint8 [H, W].

    Raises ImageError for labels of another dtype.
    """
    _check_has_8_bits(labels)
    mask = Image.fromarray(labels)
    mask.putpalette(palette)
    return _png(mask)


def _check_has_8_bits(labels: np.ndarray) -> None:
    if labels.dtype != np.uint8:
        raise ImageError(
            f"the model gave it labels up to {labels.max()}, and a mask has 8 bits, which hold 0 "
            f"to {CLASSES - 1}: use --save label, with 16 bits"
        )


def _mask(segmentation: Segmentation, pictures: Pictures) -> bytes:
    labels, place = segmentation.labels, segmentation.place
    if place is not None and place.is_georeferenced:
        _check_has_8_bits(labels)
        return encode_geotiff(labels, place, pictures.names, pictures.palette)
    return encode_mask(labels, pictures.palette)


def _label(segmentation: Segmentation, pictures: Pictures) -> bytes:
    """Returns a grey picture of the class ids, with 8 bits, or 16 bits if the labels are uint16."""
    labels, place = segmentation.labels, segmentation.place
    if place is not None and place.is_georeferenced:
        return encode_geotiff(labels, place, pictures.names)
    return _png(Image.fromarray(segmentation.labels))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Masks consist of runs of equal pixels, which suits zlib's Z_RLE (3). On masks of 0.4 to
    # 12 megapixels it took a third to a half of the default's time. Files grew only for small,
    # smooth masks (7 kB instead of 5).
    image.save(buffer, "PNG", compress_level=1, compress_type=3)
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


# ---- the overlay -------------------------------------------------------------------------------


def _overlay(segmentation: Segmentation, pictures: Pictures) -> bytes:
    """Returns a PNG of the image with its mask over it, the boundaries, and the legend below."""
    assert segmentation.image_bgr is not None
    labels = segmentation.labels
    below = legend(labels, pictures)
    height, width = labels.shape
    canvas = np.full((height + below.shape[0], max(width, below.shape[1]), 3), WHITE, np.uint8)
    for top in range(0, height, ROWS_AT_ONCE):  # in bands, to avoid a second copy of the image
        rows = slice(top, min(top + ROWS_AT_ONCE, height))
        blended = blend(segmentation.image_bgr[rows], labels[rows], pictures.palette)
        canvas[rows, :width] = blended
    draw_boundaries(canvas[:height, :width], labels)
    canvas[height:, : below.shape[1]] = below
    return _png_of_photo(canvas)


def blend(image_bgr: np.ndarray, labels: np.ndarray, palette: bytes) -> np.ndarray:
    """Returns the mean of the image and the classes' colours, uint8 BGR [H, W, 3].

    The colours repeat after 256 classes.
    """
    colours_bgr = np.frombuffer(palette, np.uint8).reshape(CLASSES, 3)[:, ::-1]
    colours = colours_bgr[labels.astype(np.uint8, copy=False)]  # uint16 ids modulo 256
    return cv2.addWeighted(image_bgr, IMAGE_WEIGHT, colours, 1 - IMAGE_WEIGHT, 0)


def draw_boundaries(image_bgr: np.ndarray, labels: np.ndarray) -> None:
    """Draws white lines with black edges between classes into the image, uint8 BGR [H, W, 3].

    Such lines are visible on any colour.
    """
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    thickness = max(1, round(max(labels.shape) * LINE_SHARE))
    for wide, colour in ((3 * thickness, BLACK), (thickness, WHITE)):
        line = cv2.dilate(edge, np.ones((wide, wide), np.uint8))
        np.copyto(image_bgr, colour, where=line[..., None] > 0)


def legend(labels: np.ndarray, pictures: Pictures) -> np.ndarray:
    """Returns the legend, uint8 BGR [height, width, 3]: the classes in `labels` and their shares.

    The largest class is first. The legend is as wide as the labels, or as one entry if that is
    wider.
    """
    low, high = FONT_SIZES
    size = min(max(round(max(labels.shape) * FONT_SHARE), low), high)
    font = _font(size)
    entries = legend_entries(labels, pictures.names)
    gap = size // 2
    cell_width = 2 * size + 2 * gap + max(round(font.getlength(text)) for _, text in entries)
    cell_height = size + gap
    columns = max(1, (labels.shape[1] - gap) // cell_width)
    rows = -(-len(entries) // columns)
    width = max(labels.shape[1], gap + columns * cell_width)
    picture = Image.new("RGB", (width, gap + rows * cell_height), (WHITE,) * 3)
    draw = ImageDraw.Draw(picture)
    for number, (class_id, text) in enumerate(entries):
        left = gap + number // rows * cell_width
        top = gap // 2 + number % rows * cell_height
        first = 3 * (class_id % CLASSES)
        colour = tuple(pictures.palette[first : first + 3])
        box = (left, top + gap // 2, left + round(1.5 * size), top + gap // 2 + size)
        draw.rectangle(box, colour, (BLACK,) * 3)
        middle = (left + 2 * size, top + (gap + size) // 2 + gap // 4)
        draw.text(middle, text, (BLACK,) * 3, font, anchor="lm")
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])


def legend_entries(labels: np.ndarray, names: Sequence[str]) -> list[tuple[int, str]]:
    """Returns the class ids in `labels` and the legend's text for each, largest class first."""
    return [
        (class_id, f"{class_name(class_id, names)}  {_percent(thousandths)}")
        for class_id, thousandths in shares(labels)
    ]


def legend_names(names: Sequence[str], has_unknown: bool) -> Sequence[str]:
    """Returns the classes' names, with "unknown" for pixels of no class if there may be some."""
    return (*names, *[""] * (UNKNOWN - len(names)), "unknown") if has_unknown else names


def shares(labels: np.ndarray) -> list[tuple[int, int]]:
    """Returns the class ids in `labels` and their shares in thousandths, the largest first.

    The shares are rounded with the largest-remainder method, so that they add up to 1000.
    """
    counts = histogram(labels)
    classes = np.flatnonzero(counts)
    thousandths, remainders = np.divmod(counts[classes] * 1000, labels.size)
    most_left = np.argsort(-remainders, kind="stable")
    thousandths[most_left[: 1000 - thousandths.sum()]] += 1
    order = np.argsort(-counts[classes], kind="stable")
    return [(int(classes[at]), int(thousandths[at])) for at in order]


def _percent(thousandths: int) -> str:
    return f"{thousandths / 10:.1f} %" if thousandths else "<0.1 %"


def class_name(class_id: int, names: Sequence[str]) -> str:
    """Returns the class's name, shortened to MAX_NAME letters.

    Returns its number if it has no name, or if the font lacks a letter of the name.
    """
    name = names[class_id] if class_id < len(names) else ""
    name = textwrap.shorten(name, MAX_NAME, placeholder="...")
    return name if name.strip() and _can_be_drawn(name) else str(class_id)


@functools.cache
def _can_be_drawn(name: str) -> bool:
    font = _font(FONT_SIZES[0])
    missing = bytes(font.getmask("\uffff"))
    if any(bytes(font.getmask(letter)) == missing for letter in name):
        log.info(
            "the legend's font lacks letters of the class name %s: the legend shows the class's "
            "number",
            brief(name),
        )
        return False
    return True


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)  # Pillow's own font: ASCII only, but always installed
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


KINDS = {
    "mask": _mask,
    "label": _label,
    "overlay": _overlay,
    "score": _score,
    "probability": _probability,
}
