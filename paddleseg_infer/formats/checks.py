"""Refuses files that OpenCV would decode to wrong pixels without an error."""

import io
import re
import struct

from PIL import JpegImagePlugin

from paddleseg_infer.errors import ImageError, reason
from paddleseg_infer.formats import tags
from paddleseg_infer.formats.known import HEAD_BYTES, SPACE, other_format
from paddleseg_infer.formats.tags import Tags

MOST_BANDS, MOST_BITS = 4, 16
GREATEST_VALUES = (255, 65535)

PNM = re.compile(rb"P[2356]" + (SPACE + rb"(\d+)") * 3)
END = b"\xff\xd9"  # the last bytes of a JPEG


def check_format(data: bytes) -> None:
    """Raises ImageError for a format that isn't read, and for a file that is cut off.

    Checks only the formats in which OpenCV doesn't notice that a file is cut off: it would fill the
    missing part.
    """
    if other := other_format(data[:HEAD_BYTES]):
        raise ImageError(f"it is {other} file, which can't be read: convert it to PNG or TIFF")
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data)
    elif match := PNM.match(data):
        _check_pnm(int(match[3]))


def _check_jpeg(data: bytes) -> None:
    """Raises ImageError for a JPEG that is cut off.

    Pillow refuses exactly these files, and accepts extra bytes after the image's end. The plugin is
    called directly, because `Image.open` also refuses images only for their size.
    """
    if data.endswith(END):
        return
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the JPEG is cut off or damaged ({error})") from None


def check_tiff_file(path: str) -> None:
    """Raises ImageError if a TIFF is cut off, or its mask or another of its pictures."""
    try:
        with open(path, "rb") as file:
            length = file.seek(0, io.SEEK_END)
            for each in Tags(file).of_all_pictures():
                _check_tiff_is_whole(each, length)
    except OSError as error:
        raise ImageError(f"it can't be read: {reason(error)}") from None
    except struct.error:
        raise ImageError(f"the TIFF is cut off: it has only {length} bytes") from None
    except tags.DAMAGED:  # GDAL decides whether it is a TIFF
        pass


def _check_tiff(data: bytes) -> None:
    try:
        tiff = Tags(io.BytesIO(data))
        bands, bits = tiff.first(tags.BANDS, 1), tiff.first(tags.BITS, 1)
        if tiff.first(tags.VALUES) == tags.FLOATING:
            what = "floating-point values"
        elif bits > MOST_BITS:
            what = f"values of {bits} bits"
        elif bands > MOST_BANDS:
            raise ImageError(
                f"the TIFF has {bands} bands, but a picture has at most {MOST_BANDS}: name three "
                "with --bands, for example --bands 1 2 3, and their range with --pixel_scale"
            )
        else:
            _check_tiff_is_whole(tiff, len(data))
            return
    except tags.DAMAGED:  # OpenCV decides whether it is an image
        return
    raise ImageError(
        f"the TIFF contains {what} and is no picture: name its bands with --bands, for example "
        "--bands 1 2 3, and their range with --pixel_scale"
    )


def _check_tiff_is_whole(tiff: Tags, length: int) -> None:
    parts = [
        *zip(tiff.all(tags.STRIPS), tiff.all(tags.STRIP_BYTES), strict=False),
        *zip(tiff.all(tags.TILES), tiff.all(tags.TILE_BYTES), strict=False),
    ]
    needed = max([tiff.end(), *(at + count for at, count in parts)])
    if needed > length:
        raise ImageError(f"the TIFF is cut off: it has {length} of at least {needed} bytes")


def _check_pnm(greatest: int) -> None:
    if greatest not in GREATEST_VALUES:
        raise ImageError(
            f"the PNM's highest value is {greatest}, and OpenCV reads only 255 and 65535 right: "
            "convert it to PNG"
        )
