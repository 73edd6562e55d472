"""The size that an image will have after OpenCV has decoded it."""

import io
import logging
import os
import struct
import warnings
from typing import BinaryIO

from PIL import Image

from paddleseg_infer.formats import npy
from paddleseg_infer.formats.tags import HEIGHT, ORIENTATION, WIDTH, Tags

TURNED = range(5, 9)  # the orientations that exchange width and height
EXIF_MARK = b"Exif\0\0"

Image.MAX_IMAGE_PIXELS = None  # no limit: preprocess.py compares with the free memory instead
# Pillow warns about damaged headers; OpenCV decides whether an image is readable.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)


def image_size(file: str | BinaryIO, is_turned: bool = True) -> tuple[int, int] | None:
    """Returns (width, height) of the decoded image from the file's header; None if unknown.

    OpenCV applies the EXIF orientation of a JPEG, a PNG and a TIFF, and of no other format. With
    `is_turned` false, the size is that in the file: rasterio and IMREAD_UNCHANGED don't apply it.
    """
    try:
        if not isinstance(file, str):
            return _size(file, is_turned)
        if not os.path.isfile(file):  # opening a pipe could block forever
            return None
        with open(file, "rb") as opened:
            return _size(opened, is_turned)
    except Exception:  # Pillow raises many kinds of errors
        return None


def _size(file: BinaryIO, is_turned: bool) -> tuple[int, int]:
    start = file.read(len(npy.SIGNATURE))
    if start == npy.SIGNATURE:
        file.seek(0)
        return npy.size_of(file)
    if start[:2] in (b"II", b"MM"):  # Pillow doesn't know all kinds of TIFF that OpenCV does
        tags = Tags(file)
        size, orientation = (tags.first(WIDTH), tags.first(HEIGHT)), tags.first(ORIENTATION)
    else:
        file.seek(0)
        with Image.open(file) as header:
            size, orientation = header.size, _orientation(_exif(header, file))
    if 0 in size:
        raise ValueError("damaged")
    return size[::-1] if is_turned and orientation in TURNED else size


def _exif(header: Image.Image, file: BinaryIO) -> bytes:
    if header.format in ("JPEG", "MPO"):
        # OpenCV reads only the first of these segments, even if it contains something else.
        segments = (data for name, data in getattr(header, "applist", ()) if name == "APP1")
        return next(segments, b"")[len(EXIF_MARK) :]
    return _exif_of_png(file) if header.format == "PNG" else b""


def _exif_of_png(file: BinaryIO) -> bytes:
    """Returns the EXIF data of a PNG, also from behind the pixels, without decoding them."""
    at = 8
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return b""
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            return file.read(length)
        at += length + 12


def _orientation(exif: bytes) -> int:
    try:
        return Tags(io.BytesIO(exif)).two_bytes(ORIENTATION)
    except (ValueError, struct.error):  # damaged EXIF data: OpenCV ignores it
        return 0
