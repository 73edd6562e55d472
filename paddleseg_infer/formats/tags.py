"""The tags of a TIFF's first picture, or of EXIF data, which has the same form.

Pillow can read them only for the kinds of TIFF that it can also decode.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

WIDTH, HEIGHT, BITS, COMPRESSION, ORIENTATION = 256, 257, 258, 259, 274
SOFTWARE, PHOTOMETRIC = 305, 262
WHITE_IS_0, BLACK_IS_0, RGB = 0, 1, 2  # of PHOTOMETRIC
JPEGS = (6, 7)  # of COMPRESSION
STRIPS, BANDS, STRIP_BYTES, VALUES, TILES, TILE_BYTES = 273, 277, 279, 339, 324, 325
FIRST_PRIVATE = 700  # tags from this number on don't concern the pixels
FLOATING = 3  # of VALUES
# Pixel scale, tie points, transformation, geo keys, and the coefficients of a camera model
GEOREFERENCES = (33550, 33922, 34264, 34735, 50844)
# What GDAL reads beside a TIFF, in place of its suffix or after its stem, also in capital letters
BESIDE = (".tfw", ".tifw", ".tiffw", ".wld", ".tab", ".rpb", "_rpc.txt")

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


# What reading the tags of a damaged file may raise
DAMAGED = (ValueError, OverflowError, MemoryError, struct.error)


class Tags:
    """The tags of a file. Raises an error of DAMAGED if it isn't a TIFF."""

    def __init__(self, file: BinaryIO, at: int = 0):
        """Reads the tags at position `at`, or those of the first picture."""
        self._file = file
        mark = self._read(0, 4)
        self._order = {b"II": "<", b"MM": ">"}.get(mark[:2], "")
        version = struct.unpack(f"{self._order}H", mark[2:])[0] if self._order else 0
        if version not in (42, 43):
            raise ValueError("not a TIFF")
        # Positions and counts have eight bytes in a BigTIFF. In a TIFF they have four, and the
        # number of tags has two.
        size, start, number = (8, 8, "Q") if version == 43 else (4, 4, "H")
        at = at or self._unpack(start, "Q" if size == 8 else "I")[0]
        (count,) = self._unpack(at, number)
        at += struct.calcsize(f"={number}")
        self._places: dict[int, tuple[int, int, int]] = {}  # tag to type, count, position
        for _ in range(count):
            entry = self._read(at, 4 + 2 * size)
            if len(entry) < 4 + size:
                break
            form = f"{self._order}HH" + ("Q" if size == 8 else "I")
            tag, kind, many = struct.unpack_from(form, entry)
            place = at + 4 + size
            if BYTES.get(kind, 1) * many > size:
                (place,) = self._unpack(place, "Q" if size == 8 else "I")
            self._places.setdefault(tag, (kind, many, place))
            at += 4 + 2 * size
        self._next = at, "Q" if size == 8 else "I"

    def of_all_pictures(self) -> Iterator["Tags"]:
        """Yields the tags of this picture and of those that follow, such as a mask."""
        tags: Tags = self
        seen: set[int] = set()
        while True:
            yield tags
            (at,) = tags._unpack(*tags._next)
            if not at or at in seen:
                return
            seen.add(at)
            tags = Tags(self._file, at)

    def first(self, tag: int, default: int = 0) -> int:
        """Returns a tag's first value as a whole number."""
        return next(iter(self._values(tag, 1)), default)

    def all(self, tag: int) -> tuple[int, ...]:
        return self._values(tag, None)

    def text(self, tag: int) -> str:
        """Returns the text of a tag, or ""."""
        kind, count, at = self._places.get(tag, (0, 0, 0))
        return self._read(at, count).rstrip(b"\0").decode("utf-8", "replace") if kind == 2 else ""

    def __contains__(self, tag: int) -> bool:
        return tag in self._places

    def two_bytes(self, tag: int) -> int:
        """Returns the first two bytes of a tag as a number, like OpenCV, which ignores the type."""
        return self._unpack(self._places[tag][2], "H")[0] if tag in self._places else 0

    def end(self, every: bool = False) -> int:
        """Returns where the last value ends of the tags that concern the pixels, or of all."""
        places = [each for tag, each in self._places.items() if every or tag < FIRST_PRIVATE]
        return max((at + BYTES.get(kind, 1) * count for kind, count, at in places), default=0)

    def _values(self, tag: int, most: int | None) -> tuple[int, ...]:
        kind, count, at = self._places.get(tag, (0, 0, 0))
        letter = WHOLE_NUMBERS.get(kind)
        if letter is None:
            return ()
        count = count if most is None else min(count, most)
        data = self._read(at, count * BYTES[kind])
        return struct.unpack(f"{self._order}{len(data) // BYTES[kind]}{letter}", data)

    def _unpack(self, at: int, letter: str) -> tuple[int, ...]:
        form = f"{self._order}{letter}"
        return struct.unpack(form, self._read(at, struct.calcsize(form)))

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)


def is_georeferenced(file: BinaryIO, path: str) -> bool:
    """Returns whether a TIFF has a place on the earth, in its tags or in a file beside it."""
    try:
        tags = Tags(file)
    except DAMAGED:
        return False
    if any(tag in tags for tag in GEOREFERENCES):
        return True
    stem = os.path.splitext(path)[0]
    beside = [stem + form for each in BESIDE for form in (each, each.upper())]
    return any(map(os.path.isfile, [*beside, path + ".aux.xml"]))
