"""One worker process: asks for images when it has time for them, and tells what became of each."""

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError
from paddleseg_infer.outcomes import Job, Times

log = logging.getLogger("paddleseg_infer")

PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Next(NamedTuple):
    """It asks for an image: the answer is a job's number, or None when there are no more."""


class Began(NamedTuple):
    """It gives a batch to the network."""


class Note(NamedTuple):
    """A line for the user."""

    level: int
    text: str


class Ended(NamedTuple):
    """An image is done, or has failed."""

    number: int  # of the job
    error: str  # "" where its pictures are saved
    size: tuple[int, int] | None  # width and height of what was saved
    times: Times | None


class Refused(NamedTuple):
    """It can't start."""

    error: str


class Stopped(NamedTuple):
    """Nothing can be saved any more."""

    error: str


def work(
    connection: Connection,
    parent: int,
    jobs: Sequence[Job],
    config_path: str,
    saving: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """The process's whole life. `options` are those of `pipeline.Segmenter`, `saving` its `save`'s.

    The parent may withhold its answer to Next until the images given before have ended.
    """
    _end_with(parent)
    sending = threading.Lock()

    def send(message: NamedTuple) -> None:
        with sending:
            connection.send(message)

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send(Note(record.levelno, record.getMessage()))

    log.handlers, log.propagate = [Tell()], False
    log.setLevel(logging.INFO)
    numbers: dict[Job, int] = {}

    def asked_for() -> Iterator[Job]:  # iterated in a thread of its own
        send(Next())
        while (number := connection.recv()) is not None:
            numbers[jobs[number]] = number
            yield jobs[number]
            send(Next())

    try:
        from paddleseg_infer.segmenter import Segmenter

        sample = [job.image for job in jobs] if options["use_trt"] else []
        segmenter = Segmenter(config_path, sample=sample, **options)
        segmenter.on_batch = lambda: send(Began())
        segmenter.on_run_error = lambda error: send(Stopped(str(error)))
        if options["one_by_one"]:  # an engine that kills isn't the first image's fault
            segmenter.load()
        for job, result in segmenter.save(asked_for(), **saving):
            error = str(result.error or "")
            send(Ended(numbers.pop(job), error, result.size, result.times))
    except ConfigError as error:
        send(Refused(str(error)))
    except RunError:
        pass  # told
    except ModuleNotFoundError as error:
        send(Refused(f"{error}: {MISSING_HINT}"))


def _end_with(parent: int) -> None:
    """No worker outlives the process that feeds it, whatever ends that.

    Where the system has no such wish (Linux has), a worker ends with the batch that it is at.
    Ctrl-C and a scheduler's SIGTERM reach the whole group: the parent answers them.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os._exit(1)
