"""Small pictures of images and label maps, of any size and format."""

import contextlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from paddleseg_infer.errors import ImageError
from paddleseg_infer.formats import npy, tags
from paddleseg_infer.formats.known import PNG_SIGNATURE, TIFF_SIGNATURES
from paddleseg_infer.formats.size import image_size
from paddleseg_infer.label_maps import DAMAGED, LabelMap, opened_label_map
from paddleseg_infer.preprocess import check_is_file, read_file
from paddleseg_infer.sources.large import LARGE
from paddleseg_infer.sources.path import PathSource
from paddleseg_infer.sources.raster import small_view
from paddleseg_infer.sources.reading import ImageData

JPEG = b"\xff\xd8\xff"
PNG_BMP_WEBP = (PNG_SIGNATURE, b"BM", b"RIFF")
PNG_COLOURS, ALPHAS = 25, (b"\x04", b"\x06")  # the place of a PNG's colour type; those with alpha
# Marks of what browsers and OpenCV show differently: turned, animated and transparent pictures
SHOWN_DIFFERENTLY = (b"eXIf", b"EXIF", b"acTL", b"ANIM", b"tRNS", b"ALPH")
# JPEGs can be decoded to a half, a quarter or an eighth, which saves most of the time.
REDUCED = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)
QUALITY = 82  # of JPEGs


def small_image(path: str, longest: int) -> np.ndarray:
    """Returns an image for the eye, uint8 BGR [H, W, 3], with no side longer than `longest`.

    Raises ImageError.
    """
    start = read_file(path, len(npy.SIGNATURE))
    size = image_size(path) or (1, 1)
    if start.startswith(TIFF_SIGNATURES):
        return shrunk(_tiff(path, size, longest), longest)
    data = read_file(path)
    if start == npy.SIGNATURE:
        array = npy.array_of(data)
        step = max(1, max(array.shape[:2]) // longest)
        array = array[::step, ::step] if array.ndim == 3 else array[::step, ::step, None]
        return shrunk(ImageData(np.nan_to_num(array, posinf=0, neginf=0)).view(), longest)
    flag = cv2.IMREAD_COLOR
    if start.startswith(JPEG):
        flags = (flag for factor, flag in REDUCED if max(size) >= factor * longest)
        flag = next(flags, cv2.IMREAD_COLOR)
    with _opencv_errors():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        raise ImageError(
            "it can't be decoded: it is not an image, it is cut off, or its format is unknown"
        )
    return shrunk(image, longest)


def is_shown_by_browsers(path: str) -> bool:
    """Whether a browser shows the file, in the same way as OpenCV. Raises ImageError."""
    if read_file(path, len(JPEG)) == JPEG:
        # OpenCV and browsers find the orientation in different places. Pillow finds it in all.
        try:
            with Image.open(path) as header:
                return header.getexif().get(tags.ORIENTATION, 1) == 1
        except DAMAGED:
            return False
    if not read_file(path, len(PNG_SIGNATURE)).startswith(PNG_BMP_WEBP):
        return False
    data = read_file(path)
    has_alpha = data.startswith(PNG_SIGNATURE) and data[PNG_COLOURS : PNG_COLOURS + 1] in ALPHAS
    return not has_alpha and not any(mark in data for mark in SHOWN_DIFFERENTLY)


def encoded_jpeg(image_bgr: np.ndarray) -> bytes:
    """Returns an image, uint8 BGR [H, W, 3], as a JPEG."""
    return cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def mean_of_score(path: str) -> float:
    """Returns the mean of a picture of kind `score`, 0 to 1. Raises ImageError."""
    with _opencv_errors():
        score = cv2.imdecode(np.frombuffer(read_file(path), np.uint8), cv2.IMREAD_GRAYSCALE)
    if score is None:
        raise ImageError("it is damaged")
    return float(score.mean()) / 255


@contextlib.contextmanager
def opened_ids(path: str) -> Iterator[LabelMap]:
    """Opens a mask or a label map for the block. Raises ImageError."""
    check_is_file(path)
    with opened_label_map(path) as label_map:
        yield label_map


class Grid:
    """Makes a small copy of a map part by part. Each of its pixels is a cell of the map."""

    def __init__(self, size: tuple[int, int], longest: int):
        """`size` is (height, width)."""
        scale = min(1.0, longest / max(size))
        self.size = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
        self._row_of = np.arange(size[0]) * self.size[0] // size[0]
        (self._rows, _), (self._columns, self._starts) = map(_cells, size, self.size)

    def sample(self, small: np.ndarray, part: slice, values: np.ndarray) -> None:
        """Sets the pixels of `small` to the middles of their cells, for some rows of the map.

        `values` [rows, W] are the rows in `part`.
        """
        inside = (self._rows >= part.start) & (self._rows < part.stop)
        small[inside] = values[self._rows[inside] - part.start][:, self._columns]

    def mark(self, small: np.ndarray, part: slice, values: np.ndarray) -> None:
        """Sets the pixels of `small` to true if any pixel of their cells is, for some rows."""
        rows = self._row_of[part]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        cells = np.logical_or.reduceat(values, self._starts, axis=1)
        small[rows[starts]] |= np.logical_or.reduceat(cells, starts, axis=0)


def _cells(count: int, small: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the middles and the starts of the cells along a side of `count` pixels.

    Pixel p is in the cell p * small // count.
    """
    starts = -(-np.arange(small + 1) * count // small)
    return (starts[:-1] + starts[1:]) // 2, starts[:-1]


def _tiff(path: str, size: tuple[int, int], longest: int) -> np.ndarray:
    if size[0] * size[1] < LARGE or _is_turned(path):
        # An ordinary picture is decoded as the program does, which turns it if a tag says so.
        with contextlib.suppress(ImageError):
            return PathSource(path).read().view()
    return small_view(path, longest)


def _is_turned(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return tags.Tags(file).first(tags.ORIENTATION, 1) > 1
    except (OSError, *tags.DAMAGED):
        return False


def shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """Returns an image, uint8 BGR [H, W, 3], with no side longer than `longest`."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@contextlib.contextmanager
def _opencv_errors() -> Iterator[None]:
    try:
        yield
    except cv2.error as error:
        raise ImageError(f"it can't be decoded: {' '.join(str(error.err).split())}") from None
