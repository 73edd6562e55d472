"""Reads the .npy files of numpy, without pickled objects."""

import io
import tokenize
from typing import IO

import numpy as np

from paddleseg_infer.errors import ImageError

SIGNATURE = b"\x93NUMPY"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
TYPES = ("uint8", "uint16", "int16", "float32")


def array_of(data: bytes) -> np.ndarray:
    """Returns the array of a .npy file. Raises ImageError if it is damaged or of another type."""
    file = io.BytesIO(data)
    try:
        shape, is_fortran, dtype = header(file)
        if len(shape) not in (2, 3) or 0 in shape:
            raise ValueError(f"its shape is {list(shape)}, not [H, W, C] or [H, W]")
    except ValueError as error:
        raise ImageError(f"the .npy file is damaged ({error})") from None
    own = dtype.newbyteorder("=")
    if own.name not in TYPES:
        raise ImageError(
            f"the .npy file has values of type {dtype}: save it as one of {', '.join(TYPES)}"
        )
    start, count = file.tell(), int(np.prod(shape, dtype=object))
    if len(data) - start < count * dtype.itemsize:
        raise ImageError(
            f"the .npy file is cut off: it has {len(data)} of {start + count * dtype.itemsize} "
            "bytes"
        )
    flat = np.frombuffer(data, dtype, count, start)
    array = flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
    return array.astype(own, copy=False)


def size_of(file: IO[bytes]) -> tuple[int, int]:
    """Returns (width, height) of the image in a .npy file. Raises ValueError."""
    shape, _, _ = header(file)
    if len(shape) not in (2, 3):
        raise ValueError("no image")
    return shape[1], shape[0]


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns shape, whether the order is Fortran's, and type of an array. Raises ValueError."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"version {version} is unknown")
        shape, is_fortran, dtype = HEADERS[version](file)
        if any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"its shape is {shape}")
        return shape, is_fortran, dtype
    except (SyntaxError, TypeError, LookupError, tokenize.TokenError) as error:  # numpy parses it
        raise ValueError(f"its header can't be parsed: {error}") from None
