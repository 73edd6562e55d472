"""Network output to label maps, label maps back to the image's size, and to colour masks."""

import functools
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from errors import ImageError
from frame import Padded, Resized

MAX_CLASSES = 256  # a palette PNG has 8 bits a pixel
BAND_SCORES = 1 << 16  # of a class, that a processor's cache holds while the others pass


def output_kind(output: np.ndarray) -> str:
    """What a network's output [N, ...] holds: "labels", "scores", or "foreground" (one channel).

    Raises ValueError for a form that is none of PaddleSeg's, or of more than 256 classes.
    """
    is_label = np.issubdtype(output.dtype, np.integer)
    if is_label and (output.ndim == 3 or (output.ndim == 4 and output.shape[1] == 1)):
        return "labels"
    if output.ndim != 4 or not np.issubdtype(output.dtype, np.floating) or output.shape[1] < 1:
        raise ValueError(
            f"the model's output is {output.dtype} of shape {list(output.shape)}: neither labels "
            "[N, H, W] nor scores [N, classes, H, W]"
        )
    if output.shape[1] > MAX_CLASSES:
        raise ValueError(
            f"the model has {output.shape[1]} classes: a mask of 8 bits a pixel holds {MAX_CLASSES}"
        )
    return "foreground" if output.shape[1] == 1 else "scores"


def label_map(output: np.ndarray, kind: str) -> np.ndarray:
    """Labels uint8 [H, W] of one image of the output: [H, W], [1, H, W] or [C, H, W].

    Scores: the class of the highest, the first of equals, as np.argmax (but for NaN). Foreground:
    1 where the value is above 0.5, as it stands. Raises ImageError for a label beyond 0 to 255.
    """
    if kind == "labels":
        labels = output.reshape(output.shape[-2:])
        if labels.size and (labels.min() < 0 or labels.max() >= MAX_CLASSES):
            raise ImageError(
                f"the model gave it labels from {labels.min()} to {labels.max()}: "
                f"a mask of 8 bits a pixel holds 0 to {MAX_CLASSES - 1}"
            )
        return labels.astype(np.uint8)
    scores = output.astype(np.float32) if output.dtype == np.float16 else output
    if kind == "foreground":
        return (scores[0] > 0.5).astype(np.uint8)
    _, height, width = scores.shape
    labels = np.empty((height, width), np.uint8)
    rows = max(1, BAND_SCORES // max(1, width))
    for top in range(0, height, rows):
        _argmax(scores[:, top : top + rows], labels[top : top + rows])
    return labels


def _argmax(scores: np.ndarray, labels: np.ndarray) -> None:
    """Into `labels`, uint8 [H, W]: the class of the highest of `scores` [C, H, W] (C > 1)."""
    best = scores[0].copy()
    higher = cv2.compare(scores[1], best, cv2.CMP_GT)  # 255 where higher, else 0
    np.bitwise_and(higher, 1, out=labels)  # OpenCV takes a number wrongly beside a small array
    for class_id in range(2, len(scores)):
        cv2.max(scores[class_id - 1], best, dst=best)
        cv2.compare(scores[class_id], best, cv2.CMP_GT, dst=higher)
        # A class's id is above all before it: the larger of the two is the latest winner.
        cv2.max(labels, np.bitwise_and(higher, class_id, out=higher), dst=labels)


def restore(labels: np.ndarray, undo: Sequence[Resized | Padded]) -> np.ndarray:
    """Brings labels uint8 [H, W] back through the transforms, to the image's size, by nearest."""
    for step in reversed(undo):
        if isinstance(step, Padded):
            labels = labels[step.top : step.top + step.height, step.left : step.left + step.width]
        else:
            labels = resize_labels(labels, step.width, step.height)
    return np.ascontiguousarray(labels)


def resize_labels(labels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Labels uint8 [H, W] at another size, by OpenCV's nearest."""
    if labels.shape == (height, width):
        return labels
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)


@functools.cache
def paddleseg_palette() -> bytes:
    """256 RGB colours: Pascal VOC's map of interleaved bits, without its first, black.

    Bit 3k+c of a class's number plus one is bit 7-k of its channel c.
    """
    palette = np.zeros((256, 3), np.uint8)
    numbers = np.arange(1, 257)
    for bit in range(9):
        palette[:, bit % 3] |= ((numbers >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return palette.tobytes()


def encode_mask(labels: np.ndarray) -> bytes:
    """A palette PNG whose pixel values are the class ids, uint8 [H, W]."""
    mask = Image.fromarray(labels)
    mask.putpalette(paddleseg_palette())
    buffer = io.BytesIO()
    # Runs of equal pixels are what masks are made of (zlib's Z_RLE, 3): measured on masks of 0.4
    # to 12 megapixels it takes a third to a half of the default's time, for files of no more bytes
    # but where a mask is small and smooth (7 kB in place of 5).
    mask.save(buffer, "PNG", compress_level=1, compress_type=3)
    return buffer.getvalue()
