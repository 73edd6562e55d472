"""Images to tensors: reads a file as PaddleSeg reads it and runs the model's transforms."""

import io
import os
import stat
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import JpegImagePlugin

from errors import ImageError, reason
from frame import Frame
from transforms import Transform

cv2.setLogLevel(0)  # OpenCV prints what it dislikes about a file; here each file gets a sentence


def read_image(path: str) -> np.ndarray:
    """Decodes the file to uint8 BGR [H, W, 3], the way `cv2.imread(path, IMREAD_COLOR)` does.

    EXIF rotation is applied, 16 bits become 8, alpha is dropped, grey is repeated.
    Raises ImageError.
    """
    try:
        data = _read_regular_file(path)
        if data.startswith(b"\xff\xd8") and not data.endswith(b"\xff\xd9"):
            _check_jpeg(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"it can't be decoded: {_one_line(error)}") from None
    except MemoryError:
        raise ImageError("there is not enough memory to decode it") from None
    if image is None:
        raise ImageError("it can't be decoded: not an image, cut off, or of an unknown format")
    return image


def _read_regular_file(path: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could wait for ever
            raise ImageError("it is not a regular file (a folder, a pipe or a device)")
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        what = "it is a broken link" if os.path.islink(path) else "there is no such file"
        raise ImageError(what) from None
    except OSError as error:
        raise ImageError(f"it can't be read: {reason(error)}") from None
    except ValueError:  # a NUL in the name
        raise ImageError("there is no such file") from None
    if not data:  # OpenCV raises
        raise ImageError("the file is empty")
    return data


def _check_jpeg(data: bytes) -> None:
    """Refuses a JPEG that is cut off, whose missing part OpenCV may invent.

    Pillow refuses just those, and takes bytes behind the image's end. The plugin is called by
    itself because `Image.open` also refuses images that are merely large.
    """
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the JPEG is cut off or damaged ({error})") from None


def prepare(image_bgr: np.ndarray, transforms: Sequence[Transform]) -> Frame:
    """Runs the transforms on uint8 BGR [H, W, 3], whose `tensor()` is then the network's input.

    The image stays as it is. Raises ImageError where its size forbids a transform.
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
    """What OpenCV or numpy says, which may be several lines."""
    return " ".join(str(getattr(error, "err", error)).split()) or "not enough memory"
