"""The errors of this program, each with a sentence for the user, and how paths are printed."""

import os
import re
import reprlib
from typing import Any

MISSING_HINT = "pip install -r requirements.txt, or activate the environment where that was done"

# The Python exceptions that Paddle's C++ errors become.
ENGINE_ERRORS = (
    RuntimeError,  # NotImplementedError is one
    ValueError,
    LookupError,
    TypeError,
    OSError,
    MemoryError,
    SystemError,
)


class SegmentationError(Exception):
    """Base of everything this program raises on purpose. `str()` is a sentence for the user."""


class ConfigError(SegmentationError):
    """Nothing can start: arguments, `deploy.yaml`, model files, device or output names."""


class ImageError(SegmentationError):
    """One image can't be segmented or its mask can't be saved; the others can."""


class RunError(SegmentationError):
    """The run can't go on, for example because the disk is full. Finished pictures stay."""


class EngineError(SegmentationError):
    """The network refused a batch. `advice` is what to do about it, or ""."""

    def __init__(self, message: str, advice: str = ""):
        super().__init__(message)
        self.advice = advice


def shown(path: str | os.PathLike[str]) -> str:
    """`path` in a form that is safe to print: control characters and bad bytes are escaped."""
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
    """A short `repr(value)`: YAML's aliases can make a value huge."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python doesn't print whole numbers of thousands of digits
        return "a huge number"


def reason(error: OSError) -> str:
    """The system's reason, without the path, which Python would add unescaped."""
    return (error.strerror or type(error).__name__).lower()


def gist(error: BaseException) -> str:
    """The main sentence of a Paddle error, without stack, hint and source line."""
    text = str(error).rpartition("Error Message Summary:")[2].strip(" -\n")
    text = text.partition("[Hint:")[0].partition("(at /")[0]
    text = re.sub(r"^\(\w+\) ", "", re.split(r"\w+Error: ", text)[-1])
    return " ".join(text.split()).rstrip(" .") or type(error).__name__
