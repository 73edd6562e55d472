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
BYTES_HELD = 4  # for each pixel: 3 of the image, 1 of its labels
# For each pixel, a lower bound: the demo's small network needs 345, BiSeNetV2 needs 800.
BYTES_IN_NETWORK = 200

cv2.setLogLevel(0)  # this program reports bad files itself


def read_image(path: str, transforms: Sequence[Transform] | None = None) -> np.ndarray:
    """Decodes an image file to uint8 BGR [H, W, 3], as `cv2.imread(path, IMREAD_COLOR)` does.

    EXIF rotation is applied, 16 bits become 8, alpha is dropped, and grey becomes three equal
    channels. If the file contains several pictures, the first one is decoded and a line is logged.
    Raises ImageError. It is raised before decoding if there is surely not enough memory for the
    image, or for running the network on the image after `transforms`.
    """
    try:
        data = _read_regular_file(path)
        _check_memory(data, transforms)
        check_format(data)
        if _holds_several(data):
            log.info("%s contains several pictures: the first is used", shown(path))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"it can't be decoded: {_one_line(error)}") from None
    except MemoryError:
        raise ImageError("there is not enough memory to decode it") from None
    if image is None:
        raise ImageError(
            "it can't be decoded: it is not an image, it is cut off, or its format is unknown"
        )
    return image


def _read_regular_file(path: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could block forever
            raise ImageError("it is not a regular file (a folder, a pipe or a device)")
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        what = "it is a broken link" if os.path.islink(path) else "the file does not exist"
        raise ImageError(what) from None
    except OSError as error:
        raise ImageError(f"it can't be read: {reason(error)}") from None
    except ValueError:  # a NUL character in the path
        raise ImageError("the file does not exist") from None
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


def _check_memory(data: bytes, transforms: Sequence[Transform] | None) -> None:
    width, height = image_size(io.BytesIO(data)) or (0, 0)
    if width * height < LARGE:
        return
    readable = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    if width * height > (int(readable) if readable.isdigit() else MOST_PIXELS):
        raise ImageError(
            f"its {width}x{height} pixels are more than OpenCV reads: set "
            "OPENCV_IO_MAX_IMAGE_PIXELS in the environment to a higher number"
        )
    network_pixels = 0
    if transforms is not None:
        # `prepare` raises these errors again, with the image's size.
        with contextlib.suppress(ImageError, ValueError, OverflowError):
            network_height, network_width = size_after(height, width, transforms)
            network_pixels = network_height * network_width
    needed = width * height * BYTES_HELD + network_pixels * BYTES_IN_NETWORK
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


def prepare(image_bgr: np.ndarray, transforms: Sequence[Transform]) -> Frame:
    """Runs the transforms on an image, uint8 BGR [H, W, 3], and doesn't change the image.

    Returns a Frame; its `tensor()` is the network's input. Raises ImageError if a transform can't
    be applied to an image of this size.
    """
    try:
        frame = Frame(image_bgr)
        for transform in transforms:
            transform.apply(frame)
        return frame
    except (cv2.error, MemoryError, OverflowError, ValueError) as error:
        height, width = image_bgr.shape[:2]
        raise ImageError(
            f"the transforms can't handle its size of {width}x{height}: {_one_line(error)}"
        ) from None


def _one_line(error: BaseException) -> str:
    """Returns the message of an OpenCV or numpy error in one line."""
    return " ".join(str(getattr(error, "err", error)).split()) or "not enough memory"
