"""Reads text files that name one image per line, as PaddleSeg's `train.txt` and `val.txt`."""

import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from paddleseg_infer.errors import ConfigError, reason, shown
from paddleseg_infer.formats.known import HEAD_BYTES, READ, other_format


class Line(NamedTuple):
    """A line of a list."""

    image: str  # path of the image; a relative path in the list is relative to the list's folder
    rest: str  # the text after the image, without spaces at its ends


def read_list(path: str, flag: str) -> Iterator[Line]:
    """Yields the lines of a list that aren't blank. Raises ConfigError if it isn't a list.

    An image's path is the whole line, or the line up to its first tab, or its first word: the first
    of these that exists. If none exists, it is the text before the tab, or else the first word.
    `flag` is the flag that names the list, for messages.
    """
    folder = os.path.dirname(path)
    for line in re.split(r"\r\n|\n|\r", _text_of(path, flag)):
        if not line.strip():
            continue
        before_tab, first_word = line.strip().split("\t")[0], line.split()[0]
        names = (line, line.strip(), before_tab, first_word)
        exists = (name for name in names if os.path.lexists(os.path.join(folder, name)))
        name = next(exists, before_tab if "\t" in line.strip() else first_word)
        yield Line(os.path.join(folder, name), line.strip()[len(name.strip()) :].strip())


def _text_of(path: str, flag: str) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
            # Of a large binary file, such as a video, only the head is read.
            text = "\0" if b"\0" in head else (head + file.read()).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{flag} {shown(path)} can't be read: {reason(error)}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text:
        return text
    if other := other_format(head):
        raise ConfigError(
            f"{flag} {shown(path)} is {other} file, which can't be read: convert it to PNG or TIFF"
        )
    raise ConfigError(
        f"{flag} {shown(path)} is neither an image ({READ}) nor a list of images in UTF-8 text"
    )


def place_finder() -> Callable[[str], str]:
    """Returns a function that resolves links in a path's folder, so that each file has one path.

    It doesn't resolve a link in the last part of the path: such a link is an image of its own.
    """
    real = lru_cache(maxsize=1024)(os.path.realpath)
    return lambda path: os.path.join(real(os.path.dirname(path) or "."), os.path.basename(path))
