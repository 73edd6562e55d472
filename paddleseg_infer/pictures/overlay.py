"""The picture of an image with its mask over it, and its legend."""

import functools
import logging
import textwrap
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paddleseg_infer.errors import brief
from paddleseg_infer.evaluation import histogram
from paddleseg_infer.pictures.palettes import CLASSES
from paddleseg_infer.settings import UNKNOWN

log = logging.getLogger("paddleseg_infer")

IMAGE_WEIGHT = 0.5  # the image's weight in an overlay; the mask has the rest
LINE_SHARE = 1 / 1200  # thickness of a boundary, as a share of the longer side
FONT_SHARE, FONT_SIZES = 1 / 50, (12, 72)  # share of the longer side; limits in pixels
WHITE, BLACK = 255, 0
ROWS_AT_ONCE = 256
MAX_NAME = 40  # letters of a class name in the legend


def overlay(
    image_bgr: np.ndarray, labels: np.ndarray, names: Sequence[str], palette: bytes
) -> np.ndarray:
    """Returns an image, uint8 BGR, with its mask over it, the boundaries, and the legend below."""
    below = legend(labels, names, palette)
    height, width = labels.shape
    canvas = np.full((height + below.shape[0], max(width, below.shape[1]), 3), WHITE, np.uint8)
    for top in range(0, height, ROWS_AT_ONCE):  # in bands, to avoid a second copy of the image
        rows = slice(top, min(top + ROWS_AT_ONCE, height))
        canvas[rows, :width] = blend(image_bgr[rows], labels[rows], palette)
    draw_boundaries(canvas[:height, :width], labels)
    canvas[height:, : below.shape[1]] = below
    return canvas


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


def legend(labels: np.ndarray, names: Sequence[str], palette: bytes) -> np.ndarray:
    """Returns the legend, uint8 BGR [height, width, 3]: the classes in `labels` and their shares.

    The largest class is first. The legend is as wide as the labels, or as one entry if that is
    wider.
    """
    low, high = FONT_SIZES
    size = min(max(round(max(labels.shape) * FONT_SHARE), low), high)
    font = _font(size)
    entries = legend_entries(labels, names)
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
        colour = tuple(palette[first : first + 3])
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


def legend_names(names: Sequence[str], of_unknown: str) -> Sequence[str]:
    """Returns the classes' names, and `of_unknown` for pixels of no class unless it is ""."""
    return (*names, *[""] * (UNKNOWN - len(names)), of_unknown) if of_unknown else names


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
