"""The ways a run can fail, each a sentence for a person, and how a file is named in one."""

import os
import reprlib
from typing import Any

MISSING_HINT = "pip install -r requirements.txt, or activate the environment where that was done"


class SegmentationError(Exception):
    """Base of everything this program raises on purpose. `str()` is a sentence for the user."""


class ConfigError(SegmentationError):
    """Nothing can start: arguments, `deploy.yaml`, model files, device or output names."""


class ImageError(SegmentationError):
    """One image can't be segmented or its mask can't be saved; the others can."""


class EngineError(SegmentationError):
    """The network refused a batch."""


def shown(path: str | os.PathLike[str]) -> str:
    """`path` as it is safe to print: newlines, terminal codes and undecodable bytes escaped."""
    escaped = []
    for character in os.fspath(path):
        if character.isprintable():
            escaped.append(character)
        elif "\udc80" <= character <= "\udcff":  # a byte that isn't UTF-8, as os.fsdecode keeps it
            escaped.append(f"\\x{ord(character) - 0xDC00:02x}")
        else:
            escaped.append(character.encode("unicode_escape").decode("ascii"))
    return "".join(escaped)


def brief(value: Any) -> str:
    """`repr(value)`, short whatever YAML made it: aliases let a few lines stand for gigabytes."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python doesn't print whole numbers of thousands of digits
        return "a huge number"


def reason(error: OSError) -> str:
    """Why the system refused, without the path that Python would add unescaped."""
    return (error.strerror or type(error).__name__).lower()
