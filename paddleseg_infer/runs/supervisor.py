"""Feeds worker processes, and what happens when one dies, hangs or is refused."""

import contextlib
import logging
import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection, wait
from typing import Any

from paddleseg_infer.errors import ConfigError, RunError, reason
from paddleseg_infer.outcomes import Interrupted, Job, Outcome
from paddleseg_infer.runs.worker import Began, Ended, Next, Note, Refused, Stopped, work

log = logging.getLogger("paddleseg_infer")

MAX_FIRST_DEATHS = 5  # in a row, before the first result
DEATHS_ALONE = 2  # of workers that had one image and a loaded engine, until it is given up
GRACE_SECONDS = 4.0  # for the batches in flight, after a signal
PATIENCE = 0.2  # seconds between looks at the deadlines


@dataclass
class Worker:
    process: Process
    slot: int
    is_careful: bool  # it is given one image at a time
    holding: set[int] = field(default_factory=set)  # numbers of the jobs that it was given
    is_asking: bool = False  # and the answer is withheld
    has_asked: bool = False
    has_begun: bool = False  # with a batch, since it was last given an image
    heard: float | None = None  # when, once its engine has begun to work
    ending: str = ""  # why it was refused, or ended by this process


class Feeding:
    """Workers fed with jobs, until all are done. See `workers.segment` for the arguments."""

    def __init__(
        self,
        jobs: Sequence[Job],
        config_path: str,
        saving: dict[str, Any],
        options: dict[str, Any],
        timeout: float | None,
        is_done: Callable[[Job], bool],
    ):
        self._jobs, self._config_path, self._saving = jobs, config_path, saving
        self._options, self._timeout, self._is_done = options, timeout, is_done
        self._numbers = iter(range(len(jobs)))
        self._again: deque[int] = deque()  # given to a worker that was refused before
        self._suspects: deque[int] = deque()  # held by workers that died: tried one at a time
        self._deaths_alone: Counter[int] = Counter()
        self._workers: dict[Connection, Worker] = {}
        self._slots = deque(range(options["num_workers"]))  # free ones
        self._ready: deque[tuple[Job, Outcome]] = deque()
        self._has_result = False
        self._refusal = ""
        self._deaths = 0  # in a row, without a result
        self._stop = ""  # why nothing more is given out
        self._is_all_given = False
        self._may_make = True  # save_dir: once it was there, one that has gone isn't made again
        self._told: set[Note] = set()
        self.signal = 0

    def outcomes(self, wake: socket.socket) -> Iterator[tuple[Job, Outcome]]:
        # After a restart most of what is done comes first: told before a worker is needed.
        for number in self._numbers:
            if self.signal or not self._is_done(self._jobs[number]):
                self._again.append(number)
                break
            yield self._jobs[number], Outcome("skipped")
        until = None
        while self._start() or self._workers:
            for source in wait([*self._workers, wake], PATIENCE if self._workers else 0):
                if source is wake:
                    wake.recv(64)
                    until = until or time.monotonic() + GRACE_SECONDS
                    self._stop = self._stop or "interrupted"
                    self._release()
                elif source in self._workers:
                    self._hear(source)  # type: ignore[arg-type]
            self._end_the_overdue()
            self._end_the_unneeded()
            while self._ready:
                yield self._ready.popleft()
            if until is not None and time.monotonic() >= until:
                break
        if self.signal:
            raise Interrupted(self.signal)
        if self._stop:
            raise RunError(self._stop)

    def kill(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()

    # What is given out.

    def _next(self) -> int | None:
        """The next job that isn't done yet."""
        if self._stop:
            return None
        if self._again:
            return self._again.popleft()
        for number in self._numbers:
            if self.signal or not self._is_done(self._jobs[number]):
                return number
            self._ready.append((self._jobs[number], Outcome("skipped")))
        self._is_all_given = True
        return None

    def _start(self) -> bool:
        """Starts workers where slots are free and there is work; whether any was started."""
        started = False
        while self._slots and not self._stop:
            if not self._suspects:
                number = self._next()
                if number is None:
                    break
                self._again.appendleft(number)
            self._start_worker(self._slots.popleft(), is_careful=bool(self._suspects))
            started = True
        return started or bool(self._ready)

    def _start_worker(self, slot: int, is_careful: bool) -> None:
        ours, theirs = Pipe()
        options = {**self._options, "gpu": slot, "one_by_one": is_careful}
        saving = {**self._saving, "make_save_dir": self._may_make}
        arguments = (theirs, os.getpid(), self._jobs, self._config_path, saving, options)
        process = Process(target=work, args=arguments, daemon=True)
        try:
            process.start()
        except OSError as error:
            raise ConfigError(
                f"a worker can't be started ({reason(error)}): ask for fewer with --num_workers"
            ) from None
        theirs.close()  # so that its end is seen here
        self._workers[ours] = Worker(process, slot, is_careful)

    def _answer(self, connection: Connection, worker: Worker) -> None:
        if worker.is_careful and worker.holding and not self._stop:
            worker.is_asking = True
            return
        worker.is_asking = False
        number = self._next() if not worker.is_careful else None
        if worker.is_careful and self._suspects and not self._stop:
            number = self._suspects.popleft()
        if number is not None:
            worker.holding.add(number)
            worker.has_begun = False
        with contextlib.suppress(OSError):  # it has died: that is seen when it is heard next
            connection.send(number)

    def _release(self) -> None:
        for connection, worker in self._workers.items():
            if worker.is_asking:
                self._answer(connection, worker)

    # What is heard.

    def _hear(self, connection: Connection) -> None:
        worker = self._workers[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):  # it has ended, in the middle of a message perhaps
            del self._workers[connection]
            worker.process.join()
            self._ended(worker)
            return
        if isinstance(message, Began):
            worker.has_begun, self._may_make = True, False
        if worker.heard is not None or worker.has_begun:
            worker.heard = time.monotonic()
        if isinstance(message, Next):
            worker.has_asked = True
            self._answer(connection, worker)
        elif isinstance(message, Ended):
            self._has_result, self._deaths = True, 0
            if self._refusal:
                log.warning("a worker can't run: %s", self._refusal)
                self._refusal = ""
            worker.holding.remove(message.number)
            number, error, size, times = message
            status = "failed" if error else "done"
            told = Outcome(status, error, size, times, worker.slot)
            self._ready.append((self._jobs[number], told))
            if worker.is_asking:
                self._answer(connection, worker)
        elif isinstance(message, Refused):
            worker.ending = message.error
        elif isinstance(message, Stopped):
            self._stop = message.error
            self._release()
        elif isinstance(message, Note) and message not in self._told:
            self._told.add(message)  # each worker has the same to say
            log.log(message.level, "%s", message.text)

    def _ended(self, worker: Worker) -> None:
        held = sorted(worker.holding)
        if worker.ending and worker.process.exitcode == 0:  # refused: its slot stays empty
            self._again.extend(held)
            if not self._workers and not self._has_result:
                raise ConfigError(worker.ending)
            self._refusal = worker.ending  # told once others work: they may have the same to say
            if not self._workers:
                self._stop = worker.ending
            return
        self._slots.append(worker.slot)
        if self._stop or (not held and not worker.process.exitcode):
            return
        death = worker.ending or _how_it_died(worker.process)
        self._deaths += 1
        if self._deaths == MAX_FIRST_DEATHS and not self._has_result:
            raise ConfigError(f"{death}, five times in a row before any image was done")
        if not held:
            if self._deaths > MAX_FIRST_DEATHS:
                self._stop = f"{death}, {self._deaths} times in a row before it had an image"
            return
        if worker.is_careful:
            [number] = held
            self._deaths_alone[number] += 1
            if self._deaths_alone[number] == DEATHS_ALONE:
                why = f"{death}, {DEATHS_ALONE} times"
                self._ready.append((self._jobs[number], Outcome("failed", why)))
                return
        those = "its image is" if len(held) == 1 else f"its {len(held)} images are"
        log.warning("%s: %s tried again%s", death, those, ", one at a time"[: 99 * (len(held) > 1)])
        self._suspects.extend(held)

    # Time.

    def _end_the_overdue(self) -> None:
        if self._timeout is None:
            return
        for connection, worker in self._workers.items():
            silent = time.monotonic() - (worker.heard or time.monotonic())
            is_late = silent >= self._timeout and not connection.poll()  # else it isn't silent
            if worker.holding and not worker.ending and is_late:
                worker.ending = f"the worker took longer than --timeout {self._timeout:g} seconds"
                worker.process.kill()

    def _end_the_unneeded(self) -> None:
        """Ends workers that never came to ask, when nothing is left for them."""
        held = any(worker.holding for worker in self._workers.values())
        if self._is_all_given and not (held or self._again or self._suspects):
            for connection, worker in list(self._workers.items()):
                if not worker.has_asked:
                    worker.process.kill()
                    worker.process.join()
                    del self._workers[connection]


def _how_it_died(process: Process) -> str:
    code = process.exitcode or 0
    if -code in set(signal.Signals):
        return f"the worker process ended with {signal.Signals(-code).name}"
    return f"the worker process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
