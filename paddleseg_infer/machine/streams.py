"""The process's standard streams and its log, for as long as the command line runs."""

import contextlib
import ctypes
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO, TextIO

LEVELS = {logging.INFO: "note", logging.WARNING: "warning", logging.ERROR: "error"}


def say(text: str, stream: TextIO | None = None) -> None:
    """Writes `text` to `stream` or standard output.

    Ignores a closed pipe or a full disk, because the masks are saved anyway.
    """
    stream = stream or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except OSError:  # otherwise Python would fail at its exit, when it flushes
        with contextlib.suppress(OSError):  # a notebook's stream has no descriptor
            os.dup2(_null_device(), stream.fileno())


@contextlib.contextmanager
def own_streams(print_detail: bool) -> Iterator[None]:
    """Removes the lines of Paddle's C++ code from standard output, where some models print.

    With `print_detail` they go to standard error. A closed standard stream is opened as the null
    device. Otherwise the next opened file would get its number, and prints would go to that file.
    At the end all is as it was before, for a caller such as a notebook.
    """
    before = sys.stdout, sys.stderr
    while (nowhere := _null_device()) <= 2:
        pass
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115 - these stay open
    real_output = os.dup(1)
    if sys.stdout is None:
        sys.stdout = open(nowhere, "w", closefd=False)  # noqa: SIM115
    elif _writes_to_1(sys.stdout):
        sys.stdout.flush()
        sys.stdout = open(real_output, "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # names may have characters that it can't encode
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    os.dup2(2 if print_detail else nowhere, 1)
    try:
        yield
    finally:
        say("")  # flushes
        ctypes.CDLL(None).fflush(None)  # what C++ code has printed and not written yet
        os.dup2(real_output, 1)
        sys.stdout, sys.stderr = before
        os.close(real_output)
        os.close(nowhere)


@contextlib.contextmanager
def own_log(log: logging.Logger, level: int) -> Iterator[None]:
    """Writes the lines of `log` to standard error, each with "note:", "warning:" or "error:"."""
    before = log.handlers, log.propagate, log.level
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    log.handlers, log.propagate = [handler], False
    log.setLevel(level)
    try:
        yield
    finally:
        log.handlers, log.propagate = before[:2]
        log.setLevel(before[2])


class Captured:
    """The bytes that were written to standard error. Empty until the capture has ended."""

    def __init__(self) -> None:
        self.text = b""

    def read(self, file: BinaryIO) -> None:
        file.seek(0)
        self.text = file.read()


_capturing = threading.Lock()  # the process has only one standard error


@contextlib.contextmanager
def captured_errors() -> Iterator[Captured]:
    """Captures standard error, including what C++ code writes to descriptor 2."""
    captured = Captured()
    with _capturing, open(os.memfd_create("stderr"), "r+b") as file:
        own = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            os.dup2(own, 2)
            os.close(own)
            captured.read(file)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{LEVELS.get(record.levelno, record.levelname)}: {super().format(record)}"


def _writes_to_1(stream: TextIO) -> bool:
    """Whether a stream writes to descriptor 1. A notebook's standard output does not."""
    try:
        return stream.fileno() == 1
    except OSError:  # it has no descriptor
        return False


def _null_device() -> int:
    """Opens the null device; where it is missing, as in some chroots, a pipe that nobody reads."""
    try:
        return os.open(os.devnull, os.O_RDWR)
    except OSError:
        reading, writing = os.pipe()
        os.close(reading)
        return writing
