"""Sends jobs to worker processes, and handles workers that die, hang or can't start."""

import contextlib
import ctypes
import enum
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawValue

from paddleseg_infer.errors import ConfigError, RunError, reason, shown
from paddleseg_infer.outcomes import Interrupted, Job, Outcome, Windows
from paddleseg_infer.runs.resume import skipped
from paddleseg_infer.runs.retries import DEATHS_ALONE, Retries
from paddleseg_infer.runs.signals import answered_by
from paddleseg_infer.runs.worker import (
    Ask,
    Began,
    Note,
    Refused,
    Stopped,
    how_it_died,
    orders_for,
    work,
)
from paddleseg_infer.settings import Settings

log = logging.getLogger("paddleseg_infer")

GRACE_SECONDS = 4.0  # for the running batches, after a signal
PATIENCE = 0.2  # seconds between two checks of the deadlines


class Phase(enum.Enum):
    """The state of a worker."""

    LOADING = "it has not asked for an image yet"
    READING = "it has asked for images"
    RUNNING = "its engine has begun to work"
    ENDING = "it was refused, or is ended by this process"


@dataclass
class Worker:
    """A worker process, and what this process knows about it."""

    process: Process
    number: int
    is_alone: bool  # gets one image at a time, only from `_suspects`
    phase: Phase = Phase.LOADING
    holding: list[Job] = field(default_factory=list)  # its jobs without an outcome
    heard: float = 0.0  # the monotonic time of its last message, in seconds
    why: str = ""  # the reason, if its phase is ENDING
    finishing: set[str] = field(default_factory=set)  # images whose windows are all done

    def hear(self, message: object) -> None:
        """Updates the time of the last message, and the phase."""
        if self.phase is Phase.LOADING and isinstance(message, Ask):
            self.phase = Phase.READING
        if self.phase is not Phase.ENDING and isinstance(message, Began):
            self.phase = Phase.RUNNING
        self.heard = time.monotonic()

    def end(self, why: str) -> None:
        self.phase, self.why = Phase.ENDING, why


class Supervisor:
    """Sends jobs to worker processes until each job has an outcome.

    This process loads no engine. If an engine crashes, only a worker dies, and its jobs are known.
    """

    def __init__(
        self, jobs: Sequence[Job], settings: Settings, on_windows: Callable[[Windows], None]
    ):
        self._jobs, self._settings, self._on_windows = jobs, settings, on_windows
        self._new = iter(jobs)
        self._given_back: deque[Job] = deque()  # taken before `_new`
        self._suspects: deque[Job] = deque()  # jobs of dead workers: tried alone
        self._retries = Retries()
        self._workers: dict[Connection, Worker] = {}
        self._numbers = deque(range(settings.engine.num_workers))  # of workers that can be started
        self._ready: deque[Outcome] = deque()
        self._refusal = ""  # why the last refused worker couldn't start
        self._stop = ""  # why no more jobs are sent
        self._is_all_given = False
        try:
            self._has_save_dir = RawValue(ctypes.c_bool, False)  # shared with the workers
        except OSError as error:
            raise ConfigError(
                f"the temporary folder can't be used ({reason(error)}): set TMPDIR to another"
            ) from None
        self._notes: set[Note] = set()
        self._signal = 0
        self._wake, self._woken = socket.socketpair()  # `_wake` is readable after a signal

    def outcomes(self) -> Iterator[Outcome]:
        """Yields an Outcome for each job.

        Raises ConfigError if nothing can start, and RunError if the run can't go on. After a signal
        raises Interrupted, when the running batches are done or GRACE_SECONDS have passed.
        """
        with answered_by(self._interrupt):
            yield from self._skipped_first()
            until = None
            while self._start() or self._workers:
                for source in wait([*self._workers, self._wake], PATIENCE if self._workers else 0):
                    if source is self._wake:
                        self._wake.recv(64)
                        until = until or time.monotonic() + GRACE_SECONDS
                    elif source in self._workers:
                        self._hear(source)  # type: ignore[arg-type]
                self._end_the_overdue()
                self._end_the_unneeded()
                while self._ready:
                    yield self._ready.popleft()
                if until is not None and time.monotonic() >= until:
                    break
        if self._signal:
            raise Interrupted(self._signal)
        if self._stop:
            raise RunError(self._stop)

    def kill(self) -> None:
        """Ends all workers at once."""
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()
        self._wake.close()
        self._woken.close()

    def _interrupt(self, number: int) -> None:
        self._signal = number
        self._stop = self._stop or "interrupted"
        self._woken.send(b"!")

    def _skipped_first(self) -> Iterator[Outcome]:
        """Yields the skipped jobs at the start. A restart needs no worker for them."""
        for job in self._new:
            if self._signal or not (outcome := skipped(job, self._settings)):
                self._given_back.append(job)
                break
            yield outcome

    def _next(self) -> Job | None:
        """Returns the next job that isn't done yet, or None."""
        if self._stop:
            return None
        if self._given_back:
            return self._given_back.popleft()
        for job in self._new:
            if self._signal or not (outcome := skipped(job, self._settings)):
                return job
            self._ready.append(outcome)
        self._is_all_given = True
        return None

    def _start(self) -> bool:
        """Starts workers for jobs that are left. Returns whether it did, or an outcome is ready."""
        started = False
        while self._numbers and not self._stop:
            if not self._suspects:
                job = self._next()
                if job is None:
                    break
                self._given_back.appendleft(job)
            self._start_worker(self._numbers.popleft(), is_alone=bool(self._suspects))
            started = True
        return started or bool(self._ready)

    def _start_worker(self, number: int, is_alone: bool) -> None:
        orders = orders_for(number, self._settings, self._jobs, is_alone, self._has_save_dir)
        ours, theirs = Pipe()
        process = Process(target=work, args=(theirs, os.getpid(), orders), daemon=True)
        try:
            process.start()
        except OSError as error:
            raise ConfigError(
                f"a worker process can't be started ({reason(error)}): use a smaller --num_workers"
            ) from None
        theirs.close()  # so that `recv` fails when the worker ends
        self._workers[ours] = Worker(process, number, is_alone)

    def _answer(self, connection: Connection, worker: Worker) -> None:
        """Sends the worker its next job, or None if there are no more jobs for it."""
        job = None
        if not worker.is_alone:
            job = self._next()
        elif self._suspects and not self._stop:
            job = self._suspects.popleft()
        if job is not None:
            worker.holding.append(job)
        with contextlib.suppress(OSError):  # it has died, which `_hear` will find
            connection.send(job)

    def _hear(self, connection: Connection) -> None:
        worker = self._workers[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):  # it has ended, perhaps during a message
            del self._workers[connection]
            worker.process.join()
            self._ended(worker)
            return
        worker.hear(message)
        if isinstance(message, Ask):
            self._answer(connection, worker)
        elif isinstance(message, Outcome):
            self._finished(worker, message)
        elif isinstance(message, Refused):
            worker.end(message.error)
        elif isinstance(message, Stopped):
            self._stop = message.error
        elif isinstance(message, Windows):
            if message.done == message.total:
                worker.finishing.add(message.image)
            self._on_windows(message)
        elif isinstance(message, Note) and message not in self._notes:
            self._notes.add(message)  # several workers log the same line
            log.log(message.level, "%s", message.text)

    def _finished(self, worker: Worker, outcome: Outcome) -> None:
        self._retries.result()
        if self._refusal:
            log.warning("a worker can't start, and the others go on: %s", self._refusal)
            self._refusal = ""
        worker.holding.remove(outcome.job)
        worker.finishing.discard(shown(outcome.job.image))
        self._ready.append(outcome)

    def _ended(self, worker: Worker) -> None:
        held, exit_code = worker.holding, worker.process.exitcode
        if worker.phase is Phase.ENDING and exit_code == 0:
            self._refused(worker)
            return
        self._numbers.append(worker.number)
        if self._stop or (not held and exit_code == 0):
            return
        why = worker.why or f"the worker process {how_it_died(worker.process)}"
        verdict = self._retries.death(held, worker.is_alone)
        if verdict.no_start:
            raise ConfigError(f"{why}, five times in a row before the first image was done")
        if verdict.hopeless:
            times = self._retries.deaths_in_a_row
            self._stop = f"{why}, {times} times in a row before it got an image"
        for job in verdict.failed:
            self._ready.append(Outcome(job, "failed", f"{why}, {DEATHS_ALONE} times"))
        if len(verdict.again) == 1:
            log.warning("%s: its image is tried again", why)
        elif verdict.again:
            images = len(verdict.again)
            log.warning("%s: its %d images are tried again, one at a time", why, images)
        self._suspects.extend(verdict.again)

    def _refused(self, worker: Worker) -> None:
        """Takes its jobs back. It isn't replaced; the run goes on if there are other workers."""
        self._given_back.extend(worker.holding)
        if not self._workers and not self._retries.has_result:
            raise ConfigError(worker.why)
        self._refusal = worker.why  # logged at the next outcome; others may be refused too
        if not self._workers and not self._is_all_done:
            self._stop = worker.why

    @property
    def _is_all_done(self) -> bool:
        """Whether every job has an outcome."""
        held = self._given_back or self._suspects or any(w.holding for w in self._workers.values())
        return self._is_all_given and not held

    def _end_the_overdue(self) -> None:
        timeout = self._settings.run.timeout
        if timeout is None:
            return
        for connection, worker in self._workers.items():
            # Finishing a large image takes long, and may keep the worker from sending messages.
            if worker.phase is not Phase.RUNNING or not worker.holding or worker.finishing:
                continue
            is_late = time.monotonic() - worker.heard >= timeout
            if is_late and not connection.poll():  # a waiting message shows that it works
                worker.end(f"the worker took longer than --timeout {timeout:g} seconds")
                worker.process.kill()

    def _end_the_unneeded(self) -> None:
        """If every job has an outcome, ends the workers that haven't asked for a job."""
        if self._is_all_done:
            for connection, worker in list(self._workers.items()):
                if worker.phase in (Phase.LOADING, Phase.ENDING):
                    worker.process.kill()
                    worker.process.join()
                    del self._workers[connection]
