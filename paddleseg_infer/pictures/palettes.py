"""Palettes: the colours of 256 classes, as RGB bytes.

Imports only the standard library, so that --custom_color can be checked before slow imports.
"""

import re
from collections.abc import Sequence

from paddleseg_infer.errors import ConfigError, brief

CLASSES = 256
# The colours of the Cityscapes benchmark for its 19 classes, by train id (cityscapesScripts).
CITYSCAPES = (
    (128, 64, 128),  # road
    (244, 35, 232),  # sidewalk
    (70, 70, 70),  # building
    (102, 102, 156),  # wall
    (190, 153, 153),  # fence
    (153, 153, 153),  # pole
    (250, 170, 30),  # traffic light
    (220, 220, 0),  # traffic sign
    (107, 142, 35),  # vegetation
    (152, 251, 152),  # terrain
    (70, 130, 180),  # sky
    (220, 20, 60),  # person
    (255, 0, 0),  # rider
    (0, 0, 142),  # car
    (0, 0, 70),  # truck
    (0, 60, 100),  # bus
    (0, 80, 100),  # train
    (0, 0, 230),  # motorcycle
    (119, 11, 32),  # bicycle
)


def _interleaved(colours: int) -> bytes:
    """Returns the first `colours` colours of Pascal VOC, as RGB bytes.

    Bit 3k+c of a class id is bit 7-k of channel c of its colour (VOClabelcolormap in VOCdevkit).
    """
    return bytes(
        sum((number >> (3 * k + channel) & 1) << (7 - k) for k in range(8))
        for number in range(colours)
        for channel in range(3)
    )


_VOC = _interleaved(CLASSES + 1)
PADDLESEG = _VOC[3:]  # without VOC's first colour, black
PALETTES = {
    "paddleseg": PADDLESEG,
    "cityscapes": bytes(value for colour in CITYSCAPES for value in colour)
    + PADDLESEG[3 * len(CITYSCAPES) :],
    "voc": _VOC[: 3 * CLASSES],
}


def palette_of(custom_color: Sequence[str]) -> bytes:
    """Returns the palette for `--custom_color`, as 768 RGB bytes. Raises ConfigError.

    `custom_color` is one name of PALETTES, or r g b for each class from 0 on. Classes without a
    colour keep PaddleSeg's, as in PaddleSeg's scripts.
    """
    if len(custom_color) == 1 and custom_color[0] in PALETTES:
        return PALETTES[custom_color[0]]
    is_value = re.compile(r"[0-9]{1,3}").fullmatch
    values = [int(text) if is_value(text) else -1 for text in custom_color]
    pairs = zip(custom_color, values, strict=True)
    wrong = [text for text, value in pairs if value not in range(256)]
    names = ", ".join(PALETTES)
    if wrong:
        raise ConfigError(
            f"--custom_color needs r g b r g b ..., each 0 to 255, or one of {names}; "
            f"not {brief(wrong[0])}"
        )
    if not values or len(values) % 3 or len(values) > len(PADDLESEG):
        raise ConfigError(
            f"--custom_color takes three numbers for each class, for up to {CLASSES} classes; "
            f"{len(values)} were given"
        )
    return bytes(values) + PADDLESEG[len(values) :]
