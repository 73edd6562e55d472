"""Many images over worker processes, which ask for the next image when they have time for it.

This process loads no engine: what kills one kills a worker, and its images are known.
"""

import contextlib
import ctypes
import itertools
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from errors import MISSING_HINT, ConfigError, reason
from images import Job

log = logging.getLogger("paddleseg_infer")

PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Next(NamedTuple):
    """A worker asks for an image: the answer is a job's number, or None when there are no more."""


class Note(NamedTuple):
    """A line for the user."""

    level: int
    text: str


class Ended(NamedTuple):
    """An image is done, or has failed."""

    number: int  # of the job
    error: str  # "" where its mask is saved


class Refused(NamedTuple):
    """This worker can't start."""

    error: str


def segment(
    jobs: Sequence[Job],
    config_path: str,
    saving: dict[str, Any],
    *,
    num_workers: int,
    **options: Any,
) -> Iterator[tuple[Job, str]]:
    """Saves the pictures of `jobs`; yields each job with "" or why it failed.

    One batch is run in this process, more in `num_workers` others. `options` are those of
    `pipeline.Segmenter`, `saving` those of its `save`. Raises ConfigError where nothing can start.
    """
    options["num_workers"] = processes_for(jobs, options["batch_size"], num_workers)
    if len(jobs) > options["batch_size"]:
        with contextlib.ExitStack() as stack:
            if options["enable_auto_tune"] and not options["auto_tuned_shape_file"]:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                # One worker collects the shapes, all use them.
                options["auto_tuned_shape_file"] = os.path.join(folder, "shapes.pbtxt")
            yield from _in_workers(jobs, config_path, saving, options)
        return
    from pipeline import Segmenter

    segmenter = Segmenter(config_path, sample=[job.image for job in jobs], **options)
    for job, result in segmenter.save(jobs, **saving):
        yield job, str(result.error or "")


def processes_for(jobs: Sequence[Job], batch_size: int, num_workers: int) -> int:
    """How many processes run the engine, which share the processors: no more than batches."""
    return max(1, min(num_workers, -(-len(jobs) // batch_size)))


# ---- in this process ---------------------------------------------------------------------------


@dataclass
class _Worker:
    process: Process
    holding: set[int] = field(default_factory=set)  # numbers of the jobs that it was given
    refusal: str = ""


def _in_workers(
    jobs: Sequence[Job], config_path: str, saving: dict[str, Any], options: dict[str, Any]
) -> Iterator[tuple[Job, str]]:
    workers: dict[Connection, _Worker] = {}
    try:
        for number in range(options["num_workers"]):
            ours, theirs = Pipe()
            own = {**options, "gpu": number}
            arguments = (theirs, os.getpid(), jobs, config_path, saving, own)
            process = Process(target=_work, args=arguments, daemon=True)
            try:
                process.start()
            except OSError as error:
                raise ConfigError(
                    f"worker {len(workers) + 1} can't be started ({reason(error)}): "
                    "ask for fewer with --num_workers"
                ) from None
            theirs.close()  # so that its end is seen here
            workers[ours] = _Worker(process)
        yield from _fed(workers, jobs)
    finally:
        for worker in workers.values():
            worker.process.kill()


def _fed(workers: dict[Connection, _Worker], jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    """Answers the workers until all have ended."""
    waiting: Iterator[int] = iter(range(len(jobs)))
    saved = False  # a mask
    told: set[Note] = set()
    death = ""
    while workers:
        for connection in wait(list(workers)):
            assert isinstance(connection, Connection)
            worker = workers[connection]
            try:
                message = connection.recv()
                if isinstance(message, Next):
                    number = next(waiting, None)
                    if number is not None:
                        worker.holding.add(number)
                    connection.send(number)
                    continue
            except (EOFError, OSError):  # it has ended, in the middle of a message perhaps
                del workers[connection]
                worker.process.join()
                if worker.refusal:
                    death = worker.refusal
                    if not saved and not workers:
                        raise ConfigError(death) from None
                    log.warning("a worker can't run: %s", death)
                    waiting = itertools.chain(sorted(worker.holding), waiting)
                elif worker.holding or worker.process.exitcode:
                    death = _how_it_died(worker.process)
                    if not saved and not workers:
                        raise ConfigError(f"{death} before a mask was saved") from None
                    yield from ((jobs[number], death) for number in sorted(worker.holding))
                continue
            if isinstance(message, Ended):
                saved = saved or not message.error
                worker.holding.remove(message.number)
                yield jobs[message.number], message.error
            elif isinstance(message, Refused):
                worker.refusal = message.error
            elif message not in told:  # each worker has the same to say
                told.add(message)
                log.log(message.level, "%s", message.text)
    yield from ((jobs[number], f"not tried: {death}") for number in waiting)


def _how_it_died(process: Process) -> str:
    code = process.exitcode or 0
    if -code in set(signal.Signals):
        return f"the worker process ended with {signal.Signals(-code).name}"
    return f"the worker process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"


# ---- in a worker -------------------------------------------------------------------------------


def _work(
    connection: Connection,
    parent: int,
    jobs: Sequence[Job],
    config_path: str,
    saving: dict[str, Any],
    options: dict[str, Any],
) -> None:
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
        from pipeline import Segmenter

        sample = [job.image for job in jobs] if options["use_trt"] else []
        segmenter = Segmenter(config_path, sample=sample, **options)
        for job, result in segmenter.save(asked_for(), **saving):
            send(Ended(numbers.pop(job), str(result.error or "")))
    except ConfigError as error:
        send(Refused(str(error)))
    except ModuleNotFoundError as error:
        send(Refused(f"{error}: {MISSING_HINT}"))


def _end_with(parent: int) -> None:
    """No worker outlives the process that feeds it, whatever ends that.

    Where the system has no such wish (Linux has), a worker ends with the batch that it is at.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os._exit(1)
