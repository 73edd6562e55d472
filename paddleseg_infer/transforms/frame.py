"""The image that transforms change, and the steps that undo them on a label map."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from paddleseg_infer.errors import ImageError

_kept = threading.local()

MOST_IN_AREA = 4  # channels that cv2.resize takes with INTER_AREA

Step = tuple[np.ndarray, np.ndarray]  # a normalisation: mean and deviation, float64 [C]


@dataclass(frozen=True)
class Resized:
    """How to undo a resize: the size before it, in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Padded:
    """How to undo a padding: the image's position in the padded image, and its size before."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Border:
    """A padding at the right and the bottom that isn't applied to the pixels yet."""

    height: int  # of the padded image
    width: int  # of the padded image
    value: float
    steps_before: int  # number of the frame's pending normalisations that come before the padding


class Frame:
    """The image that the transforms change, in the cheapest form that keeps the result exact.

    PaddleSeg works on a float32 image from the start, whose channels are RGB if it has three. Here
    pixels of 8 bits stay uint8, and BGR, as long as the result has the same bits. Normalisation and
    padding are only recorded, and `tensor` applies them in one pass.
    """

    def __init__(self, image: np.ndarray):
        """`image`: numbers [H, W, C]; three channels are BGR."""
        self.pixels = image  # HWC, uint8 or float32
        self.channels = image.shape[2]
        self.is_bgr = self.channels == 3  # only while the pixels are uint8
        self.is_wide = image.dtype != np.uint8  # the values may exceed 0 to 255
        if self.is_wide:
            ordered = image[..., ::-1] if self.is_bgr else image
            self.pixels = ordered.astype(np.float32, order="C", copy=False)
            self.is_bgr = False
        self.is_float = True  # whether PaddleSeg's image is float32; after ScalePadding it is uint8
        self.steps: list[Step] = []  # normalisations that aren't applied to `pixels` yet
        self.border: Border | None = None  # padding that isn't applied to `pixels` yet
        self.undo: list[Resized | Padded] = []  # in the order the transforms were applied

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), with the recorded border."""
        if self.border:
            return self.border.height, self.border.width
        return self.pixels.shape[0], self.pixels.shape[1]

    def normalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Records the normalisation (x / 255 - mean) / std.

        `mean` and `std` have one value, or one for each of the tensor's channels.
        """
        both = np.full(self.channels, mean, np.float64), np.full(self.channels, std, np.float64)
        self.steps.append(both)
        self.is_float = True

    def resize(self, width: int, height: int, interpolation: int, transform: str) -> None:
        before = self.size
        _check_resize(before, width, height, transform)
        self.undo.append(Resized(*before))
        if before == (height, width):
            return
        # NEAREST only copies pixels, so the normalisations have the same result after it.
        if self.border or interpolation != cv2.INTER_NEAREST:
            self._settle()
            self.pixels = self._as_read_by(interpolation, height)
        self.pixels = resized(self.pixels, width, height, interpolation)

    def pad(self, width: int, height: int, value: float, transform: str) -> None:
        """Pads to this size with `value`, at the right and the bottom."""
        before = self.size
        _check_pad(before, width, height, transform)
        self.undo.append(Padded(0, 0, *before))
        if before == (height, width):
            return
        if self.border:
            self._settle()
        if not self.is_float:  # cv2.copyMakeBorder does this for uint8
            value = min(max(round(value), 0), 255)
        self.border = Border(height, width, value, len(self.steps))

    def pad_to_square(self, value: float) -> None:
        """Centres the image in a square of its longer side, and truncates all values to uint8.

        Raises ImageError if values beyond 8 bits would be lost.
        """
        self._settle()
        if self.is_wide and (self.pixels.min() < 0 or self.pixels.max() >= 256):
            raise ImageError(
                f"its values are {self.pixels.min():g} to {self.pixels.max():g}, but ScalePadding "
                "keeps only 0 to 255: use --pixel_scale"
            )
        height, width = self.size
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.full((side, side, self.channels), int(value), np.uint8)
        square[top : top + height, left : left + width] = self.pixels.astype(np.uint8)
        self.undo.append(Padded(top, left, height, width))
        self.pixels = square
        self.is_float = False

    def tensor(self, out: np.ndarray | None = None) -> np.ndarray:
        """Returns the network's input [C, H, W]: float32, or uint8 after ScalePadding.

        Three channels are RGB. If `out` is passed, the input is written into it.
        """
        height, width = self.pixels.shape[:2]
        dtype = np.float32 if self.is_float else np.uint8
        planes = np.empty((self.channels, *self.size), dtype) if out is None else out
        inside = planes[:, :height, :width]
        if self.is_float and self.pixels.dtype == np.uint8:
            # uint8 has 256 values, so a table replaces PaddleSeg's arithmetic on every pixel. The
            # table is computed with the same arithmetic.
            table = np.tile(np.arange(256, dtype=np.float32), (self.channels, 1))
            normalize_in_place(table, self.steps)
            plane = np.empty((height, width), np.uint8)
            for channel in range(self.channels):
                cv2.extractChannel(self.pixels, 2 - channel if self.is_bgr else channel, dst=plane)
                cv2.LUT(plane, table[channel], dst=inside[channel])
        else:
            pixels = self.pixels[..., ::-1] if self.is_bgr else self.pixels
            inside[...] = pixels.transpose(2, 0, 1)
            normalize_in_place(inside, self.steps)
        if self.border:
            value = np.full((self.channels, 1), self.border.value, planes.dtype)
            normalize_in_place(value, self.steps[self.border.steps_before :])
            planes[:, height:] = value[:, :, None]
            planes[:, :height, width:] = value[:, :, None]
        return planes

    def _settle(self) -> None:
        """Applies the recorded steps, so that `pixels` has the values of PaddleSeg's image.

        The pixels may still be uint8 and BGR.
        """
        if self.steps or self.border:
            self.pixels = np.ascontiguousarray(self.tensor().transpose(1, 2, 0))
            self.steps, self.border, self.is_bgr = [], None, False

    def _as_read_by(self, interpolation: int, height_after: int) -> np.ndarray:
        """Returns the pixels as PaddleSeg passes them to the resize: RGB, float32 or uint8.

        Only the rows that the resize reads are valid. `_settle` must have been called.
        """
        # LINEAR reads few rows of a large photo. It would take longer to convert all rows to RGB
        # and float32 than to run the other transforms.
        height = self.size[0]
        few = interpolation == cv2.INTER_LINEAR and height >= 3 * height_after
        makes_float = self.is_float and self.pixels.dtype == np.uint8
        rows = linear_rows(height, height_after) if few and makes_float else slice(None)
        read = self.pixels[rows]
        # RGB before the resize: with float channels in BGR order, OpenCV's result has other bits.
        if self.is_bgr:
            read = cv2.cvtColor(read, cv2.COLOR_BGR2RGB)
            self.is_bgr = False
        if not makes_float:
            return read
        scratch = float_scratch(self.pixels.shape)
        scratch[rows] = read
        return scratch


class Outline:
    """A frame without pixels, which computes the size after the transforms."""

    def __init__(self, height: int, width: int):
        self.size = (height, width)

    def normalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        pass

    def resize(self, width: int, height: int, interpolation: int, transform: str) -> None:
        _check_resize(self.size, width, height, transform)
        self.size = (height, width)

    def pad(self, width: int, height: int, value: float, transform: str) -> None:
        _check_pad(self.size, width, height, transform)
        self.size = (height, width)

    def pad_to_square(self, value: float) -> None:
        self.size = (max(self.size),) * 2


def _check_resize(before: tuple[int, int], width: int, height: int, transform: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(
            f"{transform} would resize this {before[1]}x{before[0]} image to {width}x{height}: "
            "no side can be 0"
        )


def _check_pad(before: tuple[int, int], width: int, height: int, transform: str) -> None:
    if width < before[1] or height < before[0]:
        raise ImageError(
            f"the image is {before[1]}x{before[0]} before {transform}, which pads to "
            f"{width}x{height}: it is too large; add a Resize before the padding"
        )


def resized(pixels: np.ndarray, width: int, height: int, interpolation: int) -> np.ndarray:
    """Returns the pixels [H, W, C] in another size, as OpenCV computes it."""
    size = (width, height)
    if interpolation == cv2.INTER_AREA and pixels.shape[2] > MOST_IN_AREA:
        planes = cv2.split(pixels)
        return cv2.merge([cv2.resize(each, size, interpolation=interpolation) for each in planes])
    result = cv2.resize(pixels, size, interpolation=interpolation)
    return result if result.ndim == 3 else result[..., None]  # OpenCV drops a single channel


def linear_rows(before: int, after: int) -> np.ndarray:
    """Returns the sorted rows that OpenCV's LINEAR reads to resize `before` rows to `after`.

    These are the two rows around each centre, (i + 0.5) * before / after - 0.5. If a centre is so
    near to a row that OpenCV's float32 may round it to the other side, three rows are returned.
    """
    centres = (np.arange(after) + 0.5) * (before / after) - 0.5
    doubt = before * 1e-6
    upper = np.floor(np.concatenate([centres - doubt, centres + doubt])).astype(np.int64)
    return np.unique(np.concatenate([upper, upper + 1]).clip(0, before - 1))


def float_scratch(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 scratch memory for the calling thread, valid until the thread's next call.

    The memory is kept between calls, because to get new memory from the system takes longer than
    to fill it.
    """
    size = math.prod(shape)
    if getattr(_kept, "scratch", None) is None or _kept.scratch.size < size:
        _kept.scratch = np.empty(size, np.float32)
    return _kept.scratch[:size].reshape(shape)


def normalize_in_place(values: np.ndarray, steps: Sequence[Step]) -> None:
    """Applies each normalisation to `values`, float32 [C, ...].

    The arithmetic is PaddleSeg's. The division by 255 is in float32. Mean and deviation are applied
    in float64, and each result is rounded to float32. (With only float32, the last bit differs.)
    """
    per_channel = (len(values),) + (1,) * (values.ndim - 1)
    for mean, std in steps:
        np.divide(values, 255.0, out=values)
        for operation, operand in ((np.subtract, mean), (np.divide, std)):
            exact = operand.reshape(per_channel)
            operation(values, exact, out=values, dtype=np.float64, casting="same_kind")
