"""One worker process: asks for images when it has time for them, and reports each outcome."""

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError
from paddleseg_infer.outcomes import Job, Outcome
from paddleseg_infer.settings import Settings

if TYPE_CHECKING:  # the process that feeds workers has no use for numpy
    from paddleseg_infer.batching import Result
    from paddleseg_infer.segmenter import Segmenter

log = logging.getLogger("paddleseg_infer")

PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Ask:
    """It asks for an image: the answer is a job, or None when there are no more."""


@dataclass(frozen=True)
class Began:
    """It gives a batch to the network."""


@dataclass(frozen=True)
class Note:
    """A line for the user."""

    level: int
    text: str


@dataclass(frozen=True)
class Refused:
    """It can't start."""

    error: str


@dataclass(frozen=True)
class Stopped:
    """Nothing can be saved any more."""

    error: str


Message = Ask | Began | Note | Refused | Stopped | Outcome


@dataclass(frozen=True)
class Orders:
    """What a worker is to do with the images that it is given."""

    settings: Settings
    sample: Sequence[str]  # images of the sizes to come, for TensorRT
    one_by_one: bool  # it asks for an image when the one before has an outcome
    make_save_dir: bool
    number: int  # of the worker, for its outcomes


def orders_for(
    number: int, settings: Settings, jobs: Sequence[Job], one_by_one: bool, make_save_dir: bool
) -> Orders:
    """The orders of a worker of a run over `jobs`. Each worker has a GPU of its own."""
    sample = [job.image for job in jobs] if settings.engine.use_trt else []
    engine = replace(settings.engine, gpu=number)
    return Orders(replace(settings, engine=engine), sample, one_by_one, make_save_dir, number)


def work(connection: Connection, parent: int, orders: Orders) -> None:
    """The process's whole life."""
    _end_with(parent)
    reporting = Reporting(connection)
    log.handlers, log.propagate = [LogLines(reporting)], False
    log.setLevel(logging.INFO)
    try:
        _segment(reporting, orders)
    except ConfigError as error:
        reporting.send(Refused(str(error)))
    except RunError:
        pass  # it is reported
    except ModuleNotFoundError as error:
        reporting.send(Refused(f"{error}: {MISSING_HINT}"))


class Reporting:
    """The connection to the process that feeds this one, for several threads."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        with self._sending:
            self._connection.send(message)

    def jobs(self) -> Iterator[Job]:
        """The images that this worker is given, each asked for when the caller wants it."""
        self.send(Ask())
        while (job := self._connection.recv()) is not None:
            yield job
            self.send(Ask())

    def begin(self) -> None:
        self.send(Began())

    def stop(self, error: RunError) -> None:
        self.send(Stopped(str(error)))


class LogLines(logging.Handler):
    """Sends the log's lines to the process that feeds this one."""

    def __init__(self, reporting: Reporting):
        super().__init__()
        self._reporting = reporting

    def emit(self, record: logging.LogRecord) -> None:
        self._reporting.send(Note(record.levelno, record.getMessage()))


def _segment(reporting: Reporting, orders: Orders) -> None:
    from paddleseg_infer.segmenter import Segmenter

    settings = orders.settings
    segmenter = Segmenter(
        settings.run.config, model=settings.model, engine=settings.engine, sample=orders.sample
    )
    if orders.one_by_one:  # an engine that kills isn't the first image's fault
        segmenter.load()
    for result in _results(segmenter, reporting, orders):
        reporting.send(replace(outcome_of(result), worker=orders.number))


def _results(segmenter: "Segmenter", reporting: Reporting, orders: Orders) -> "Iterator[Result]":
    jobs = reporting.jobs()
    for some in ([job] for job in jobs) if orders.one_by_one else [jobs]:
        yield from segmenter.save(
            some,
            orders.settings.saving,
            make_save_dir=orders.make_save_dir,
            on_batch=reporting.begin,
            on_run_error=reporting.stop,
        )


def outcome_of(result: "Result") -> Outcome:
    """Of an image that was run in this process."""
    assert result.item.job is not None
    if result.error:
        return Outcome(result.item.job, "failed", str(result.error))
    return Outcome(result.item.job, "done", "", result.size, result.times)


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
