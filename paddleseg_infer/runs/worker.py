"""A worker process: asks the supervisor for jobs, and sends it an Outcome for each."""

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError
from paddleseg_infer.outcomes import Job, Outcome, Windows
from paddleseg_infer.pictures.files import prepare_save_dir
from paddleseg_infer.settings import Settings

if TYPE_CHECKING:  # the supervisor doesn't need numpy
    from paddleseg_infer.batching import Result
    from paddleseg_infer.segmenter import Segmenter

log = logging.getLogger("paddleseg_infer")

PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Ask:
    """A request for a job. The supervisor answers with a Job, or None if there are no more."""


@dataclass(frozen=True)
class Began:
    """The worker starts to run a batch."""


@dataclass(frozen=True)
class Note:
    """A log line for the user."""

    level: int
    text: str


@dataclass(frozen=True)
class Refused:
    """The process can't start."""

    error: str


@dataclass(frozen=True)
class Stopped:
    """The run can't go on, because nothing can be saved any more."""

    error: str


# None is the end of what a process sends.
Message = Ask | Began | Note | Refused | Stopped | Outcome | Windows | None


@dataclass(frozen=True)
class Orders:
    """The settings of one worker."""

    settings: Settings
    sample: Sequence[str]  # images whose sizes TensorRT must support
    one_by_one: bool  # it asks for a job only after the outcome of the last one
    has_save_dir: ctypes.c_bool  # whether a worker has made the output folder; shared by all
    number: int  # the worker's number, for its outcomes

    def make_save_dir(self, save_dir: str) -> None:
        """Makes the output folder unless a worker has made it: later its disk may be gone."""
        if not self.has_save_dir.value:
            prepare_save_dir(save_dir)
            self.has_save_dir.value = True


def orders_for(
    number: int,
    settings: Settings,
    jobs: Sequence[Job],
    one_by_one: bool,
    has_save_dir: ctypes.c_bool,
) -> Orders:
    """Returns the orders of worker `number` in a run over `jobs`. Each worker has its own GPU."""
    sample = [job.image for job in jobs] if settings.engine.use_trt else []
    engine = replace(settings.engine, gpu=number)
    return Orders(replace(settings, engine=engine), sample, one_by_one, has_save_dir, number)


def work(connection: Connection, parent: int, orders: Orders) -> None:
    """Runs in the worker process: segments the jobs that come from `connection`."""
    end_with(parent)
    reporting = Reporting(connection)
    log.handlers, log.propagate = [LogLines(reporting)], False
    log.setLevel(logging.INFO)
    try:
        _segment(reporting, orders)
    except ConfigError as error:
        reporting.send(Refused(str(error)))
    except RunError:
        pass  # already sent, as Stopped
    except ModuleNotFoundError as error:
        reporting.send(Refused(f"{error}: {MISSING_HINT}"))


class Reporting:
    """The connection to the parent process. Several threads may use it at once."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        with self._sending:
            self._connection.send(message)

    def jobs(self) -> Iterator[Job]:
        """Yields this worker's jobs. Asks for each job only when the caller needs it."""
        self.send(Ask())
        while (job := self._connection.recv()) is not None:
            yield job
            self.send(Ask())

    def begin(self) -> None:
        self.send(Began())

    def stop(self, error: RunError) -> None:
        self.send(Stopped(str(error)))


class LogLines(logging.Handler):
    """Sends log lines to the parent process."""

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
    if orders.one_by_one:  # before the first job, which would be blamed for a crash here
        segmenter.load()
    for result in _results(segmenter, reporting, orders):
        reporting.send(replace(result.outcome, worker=orders.number))


def _results(segmenter: "Segmenter", reporting: Reporting, orders: Orders) -> "Iterator[Result]":
    jobs = reporting.jobs()
    for some in ([job] for job in jobs) if orders.one_by_one else [jobs]:
        yield from segmenter.save(
            some,
            orders.settings.saving,
            orders.settings.evaluation,
            # An image whose worker died goes on below the rows that are finished.
            resume=orders.settings.run.resume or orders.one_by_one,
            make_save_dir=orders.make_save_dir,
            on_batch=reporting.begin,
            on_windows=reporting.send,
            on_run_error=reporting.stop,
        )


def end_with(parent: int) -> None:
    """Makes this process end when the process `parent` ends, even if that is killed.

    On Linux the system kills it at once. On other systems a worker ends after its current batch. It
    ignores SIGINT and SIGTERM: Ctrl-C and schedulers send these to the whole process group, and the
    parent handles them.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent had ended before the call
            os._exit(1)


def how_it_died(process: BaseProcess) -> str:
    """Returns how a child process has ended, for a message that begins with its name."""
    code = process.exitcode or 0
    if -code in set(signal.Signals):
        return f"ended with {signal.Signals(-code).name}"
    return f"ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
