"""Runs the command line for a limited time, and measures its speed and its memory."""

import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import IO

from paddleseg_infer.outcomes import DONE, SOME_FAILED

GRACE_SECONDS = 10.0  # for the running batches, after SIGTERM
PAUSE = 0.05  # seconds between two looks at the report
SECONDS_BETWEEN_MEMORY = 1.0  # reading it takes the system some milliseconds for each process


@dataclass(frozen=True)
class Measured:
    """What a run has shown."""

    rate: float  # images per second once all workers work; 0 if there were too few images
    start: float  # seconds until all workers work; 0 if they never did
    memory: int  # the largest memory of all its processes together, in bytes; 0 if unknown
    failed: int  # images that failed
    failure: str  # why it couldn't start or go on, or ""
    warnings: tuple[str, ...]  # its log lines that are warnings


@dataclass
class _Watch:
    """Follows a run's report. Times are those of time.monotonic."""

    workers: int
    seen: set[object] = field(default_factory=set)
    done: int = 0
    failed: int = 0
    first: tuple[float, int] | None = None  # when all workers had a result, and the images then
    last: float = 0.0  # the time of the last result
    memory: int = 0

    def read(self, lines: Iterator[bytes]) -> None:
        for line in lines:
            outcome = json.loads(line)
            if outcome.get("status") == "done":
                self.done, self.last = self.done + 1, time.monotonic()
                self.seen.add(outcome["worker"])
            self.failed += outcome.get("status") == "failed"
        if self.first is None and len(self.seen) == self.workers:
            self.first = time.monotonic(), self.done

    def rate(self, end: float) -> float:
        """Returns the images per second until `end`."""
        if self.first is None:
            return 0.0
        since, before = self.first
        images = self.done - before
        # With fewer, it matters too much when the first and the last result of a worker came.
        return images / (end - since) if images >= 2 * self.workers and end > since else 0.0


def timed_run(
    command: Sequence[str],
    workers: int,
    seconds: float,
    start_seconds: float,
    tick: Callable[[], None],
) -> Measured:
    """Runs `command`, and ends it `seconds` after each of its `workers` has given a result.

    Waits at most `start_seconds` for that. `tick` is called every PAUSE seconds.
    """
    started = time.monotonic()
    watch = _Watch(workers)
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report")
        with open(os.path.join(folder, "stderr"), "w+b") as errors, open(report, "w+b") as lines:
            process = Popen([*command, "--report", report], stdout=DEVNULL, stderr=errors)
            try:
                _follow(process, lines, watch, seconds, started + start_seconds, tick)
                code, end = process.poll(), time.monotonic()
                process.send_signal(signal.SIGTERM)
                process.wait(GRACE_SECONDS)
            except TimeoutExpired:
                pass  # it is killed below
            finally:
                process.kill()
                process.wait()
            errors.seek(0)
            logged = errors.read().decode(errors="replace").splitlines()
    return Measured(
        watch.rate(end if code is None else watch.last),
        watch.first[0] - started if watch.first else 0.0,
        watch.memory,
        watch.failed,
        _failure(code, logged, watch.done),
        tuple(line for line in logged if line.startswith("warning: ")),
    )


def _follow(
    process: "Popen[bytes]",
    report: IO[bytes],
    watch: _Watch,
    seconds: float,
    deadline: float,
    tick: Callable[[], None],
) -> None:
    """Reads the report until the run ends or its time is over."""
    next_look = 0.0
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None
        was_started = watch.first is not None
        watch.read(_whole_lines(report))
        if watch.first and not was_started:
            deadline = watch.first[0] + seconds
        if has_ended:
            return
        if time.monotonic() >= next_look:
            watch.memory = max(watch.memory, memory_of(process.pid))
            next_look = time.monotonic() + SECONDS_BETWEEN_MEMORY
        tick()
        time.sleep(PAUSE)


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the new lines of a file. A line that isn't complete yet is left for the next call."""
    while (line := file.readline()).endswith(b"\n"):
        yield line
    file.seek(-len(line), os.SEEK_CUR)


def _failure(code: int | None, logged: Sequence[str], done: int) -> str:
    """Returns why the run failed, or "". `code` is None if it was still running."""
    errors = [line for line in logged if line.startswith("error: ")]
    if code is not None and not done:  # all images have failed
        errors += [line for line in logged if line.startswith("failed: ")]
    if errors:
        return errors[0].partition(": ")[2]
    if code not in (None, DONE, SOME_FAILED):
        return f"it ended with exit code {code}"
    return ""


def memory_of(pid: int) -> int:
    """Returns the memory of a process and its descendants in bytes, or 0 if it can't be read.

    Memory that several processes share counts once.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            found = re.search(r"^Pss: +(\d+) kB", file.read(), re.MULTILINE)
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(number) for number in file.read().split()]
    except OSError:  # it has ended, or the system has no such files
        return 0
    own = int(found[1]) * 1024 if found else 0
    return own + sum(memory_of(child) for child in children)
