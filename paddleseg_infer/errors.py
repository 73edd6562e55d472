"""The program's errors, and functions that make values safe and short for messages."""

import os
import re
import reprlib
from typing import Any

MISSING_HINT = "run pip install -r requirements.txt, or activate the environment where you ran it"

# Paddle raises its C++ errors as these Python exceptions.
ENGINE_ERRORS = (
    RuntimeError,  # this includes NotImplementedError
    ValueError,
    LookupError,
    TypeError,
    OSError,
    MemoryError,
    SystemError,
)


class SegmentationError(Exception):
    """Base class of all errors that this program raises on purpose.

    `str()` of an error is a message for the user.
    """


class ConfigError(SegmentationError):
    """The run can't start.

    The cause is an argument, `deploy.yaml`, a model file, the device or the name of an output file.
    """


class ImageError(SegmentationError):
    """One image can't be segmented, or its mask can't be saved. Other images aren't affected."""


class RunError(SegmentationError):
    """The run can't go on, for example because the disk is full. Saved pictures remain."""


class EngineError(SegmentationError):
    """The network can't run a batch. `advice` says what the user can do about it, or is ""."""

    def __init__(self, message: str, advice: str = ""):
        super().__init__(message)
        self.advice = advice


def shown(path: str | os.PathLike[str]) -> str:
    """Returns `path` in a form that is safe to print.

    Control characters and bytes that aren't UTF-8 are escaped.
    """
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
    """Returns a short `repr(value)`, because YAML's aliases can make a value huge."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print integers with thousands of digits
        return "a huge number"


def reason(error: OSError) -> str:
    """Returns the system's message in lower case, without the path.

    `str(error)` would contain the path unescaped.
    """
    return (error.strerror or type(error).__name__).lower()


def gist(error: BaseException) -> str:
    """Returns the main sentence of a Paddle error, without stack, hint and source line."""
    text = str(error).rpartition("Error Message Summary:")[2].strip(" -\n")
    text = text.partition("[Hint:")[0].partition("(at /")[0]
    text = re.sub(r"^\(\w+\) ", "", re.split(r"\w+Error: ", text)[-1])
    return " ".join(text.split()).rstrip(" .") or type(error).__name__
