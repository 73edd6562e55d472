"""Reads image files in the same way as PaddleSeg, and runs the model's transforms on them."""

import contextlib
import io
import logging
import os
import stat
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from paddleseg_infer.errors import ImageError, reason, shown
from paddleseg_infer.formats.checks import check_format
from paddleseg_infer.formats.size import image_size
from paddleseg_infer.machine.limits import available_memory
from paddleseg_infer.transforms.frame import Frame, Outline
from paddleseg_infer.transforms.paddleseg import Transform

log = logging.getLogger("paddleseg_infer")

MULTIPLE = {"TIFF", "WEBP", "PNG"}  # formats whose files may contain several pictures
LARGE = 4_000_000  # pixels; for smaller images the free memory isn't checked
MOST_PIXELS = 1 << 30  # OpenCV's default limit
BYTES_OF_LABEL = 1  # for each pixel
# How OpenCV decodes a picture for a model of so many channels; PaddleSeg uses the first two too.
FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}
# For each pixel, a lower bound: the demo's small network needs 345, BiSeNetV2 needs 800.
BYTES_IN_NETWORK = 200

cv2.setLogLevel(0)  # this program reports bad files itself


def read_image(
    path: str, transforms: Sequence[Transform] | None = None, channels: int = 3
) -> np.ndarray:
    """Decodes an image file to [H, W, channels], as `cv2.imread` does with the flag in FLAGS.

    Three channels are uint8 BGR: EXIF rotation is applied, 16 bits become 8, alpha is dropped, and
    grey becomes three equal channels. One channel is uint8 and grey. Four are BGRA, uint8 or
    uint16. If the file contains several pictures, the first one is decoded and a line is logged.
    Raises ImageError. It is raised before decoding if there is surely not enough memory for the
    image, or for running the network on the image after `transforms`.
    """
    return decode_image(read_file(path), path, transforms, channels)


def decode_image(
    data: bytes, path: str, transforms: Sequence[Transform] | None, channels: int
) -> np.ndarray:
    """Decodes the content of an image file: see `read_image`. `path` is for messages."""
    if channels not in FLAGS:
        raise ImageError(
            f"the model takes {channels} channels, which only a TIFF of so many bands or a .npy "
            "file can have"
        )
    try:
        width, height = image_size(io.BytesIO(data)) or (0, 0)
        _check_limit(width, height)
        check_memory(width, height, channels + BYTES_OF_LABEL, transforms)
        check_format(data)
        if _holds_several(data):
            log.info("%s contains several pictures: the first is used", shown(path))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS[channels])
    except cv2.error as error:
        raise ImageError(f"it can't be decoded: {_one_line(error)}") from None
    except MemoryError:
        raise ImageError("there is not enough memory to decode it") from None
    if image is None:
        raise ImageError(
            "it can't be decoded: it is not an image, it is cut off, or its format is unknown"
        )
    image = image if image.ndim == 3 else image[..., None]
    if image.shape[2] != channels:
        raise ImageError(
            f"the picture has {image.shape[2]} channels, but the model takes {channels} (RGBA)"
        )
    return image


def check_is_file(path: str) -> None:
    """Raises ImageError unless `path` is a file: opening a pipe could block forever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError("it is not a regular file (a folder, a pipe or a device)")
    except FileNotFoundError:
        what = "it is a broken link" if os.path.islink(path) else "the file does not exist"
        raise ImageError(what) from None
    except OSError as error:
        raise ImageError(f"it can't be read: {reason(error)}") from None
    except ValueError:  # a NUL character in the path
        raise ImageError("the file does not exist") from None


def read_file(path: str, most: int = -1) -> bytes:
    """Returns the content of a file, or its first `most` bytes. Raises ImageError."""
    check_is_file(path)
    try:
        with open(path, "rb") as file:
            data = file.read(most)
    except OSError as error:
        raise ImageError(f"it can't be read: {reason(error)}") from None
    if not data:  # cv2.imdecode would raise an error of its own
        raise ImageError("the file is empty")
    return data


def _holds_several(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as header:
            # JPEG is left out, because phones store previews in JPEG files.
            return header.format in MULTIPLE and header.n_frames > 1
    except Exception:  # many kinds of errors; OpenCV decides whether the file is damaged
        return False


def _check_limit(width: int, height: int) -> None:
    """Raises ImageError if OpenCV would refuse to decode an image of so many pixels."""
    readable = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    if width * height > (int(readable) if readable.isdigit() else MOST_PIXELS):
        raise ImageError(
            f"its {width}x{height} pixels are more than OpenCV reads: set "
            "OPENCV_IO_MAX_IMAGE_PIXELS in the environment to a higher number"
        )


def check_memory(
    width: int, height: int, bytes_held: int, transforms: Sequence[Transform] | None
) -> None:
    """Raises ImageError if there is surely not enough memory for an image.

    `bytes_held` is what each pixel takes. The network's memory is added if `transforms` are given.
    """
    if width * height < LARGE:
        return
    network_pixels = 0
    if transforms is not None:
        # `prepare` raises these errors again, with the image's size.
        with contextlib.suppress(ImageError, ValueError, OverflowError):
            network_height, network_width = size_after(height, width, transforms)
            network_pixels = network_height * network_width
    needed = width * height * bytes_held + network_pixels * BYTES_IN_NETWORK
    available = available_memory()
    if needed > available:
        advice = (
            "use windows, for example --crop_size 1024 1024"
            if network_pixels
            else "the image is too large"
        )
        raise ImageError(
            f"its {width}x{height} pixels need at least {needed / 1e9:.1f} GB of memory, but "
            f"only {available / 1e9:.1f} GB are available: {advice}"
        )


def size_after(height: int, width: int, transforms: Sequence[Transform]) -> tuple[int, int]:
    """Returns (height, width) after the transforms. Raises ImageError if one can't be applied."""
    outline = Outline(height, width)
    for transform in transforms:
        transform.apply(outline)
    return outline.size


def prepare(image: np.ndarray, transforms: Sequence[Transform]) -> Frame:
    """Runs the transforms on an image [H, W, C], and doesn't change the image.

    Three channels are BGR. Values of other types than uint8 become float32 first, as they are.
    Returns a Frame; its `tensor()` is the network's input. Raises ImageError if a transform can't
    be applied to an image of this size.
    """
    try:
        frame = Frame(image)
        for transform in transforms:
            transform.apply(frame)
        return frame
    except (cv2.error, MemoryError, OverflowError, ValueError) as error:
        height, width = image.shape[:2]
        raise ImageError(
            f"the transforms can't handle its size of {width}x{height}: {_one_line(error)}"
        ) from None


def _one_line(error: BaseException) -> str:
    """Returns the message of an OpenCV or numpy error in one line."""
    return " ".join(str(getattr(error, "err", error)).split()) or "not enough memory"
