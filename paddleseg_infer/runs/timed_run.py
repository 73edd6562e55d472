"""Runs the command line for a limited time, and measures its speed and its memory."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from subprocess import DEVNULL, Popen, TimeoutExpired

DONE_LINE = b'"status": "done"'  # in the report's lines of images that were segmented
GRACE_SECONDS = 10.0  # for the running batches, after SIGTERM
PAUSE = 0.05  # seconds between two looks at the report


@dataclass(frozen=True)
class Measured:
    """What a run has shown."""

    rate: float  # images per second after the first ones; 0 if there was too little time
    start: float  # seconds until the first images were finished; 0 if none was
    memory: int  # the largest memory of all its processes together, in bytes; 0 if unknown
    failure: str  # why it couldn't start, or ""
    warnings: tuple[str, ...]  # its log lines that are warnings


def timed_run(
    command: Sequence[str], seconds: float, start_seconds: float, tick: Callable[[], None]
) -> Measured:
    """Runs `command` until `seconds` after its first image, and ends it then.

    Waits at most `start_seconds` for the first image. `tick` is called every PAUSE seconds.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report")
        with open(os.path.join(folder, "stderr"), "w+b") as errors:
            process = Popen([*command, "--report", report], stdout=DEVNULL, stderr=errors)
            try:
                counts, memory = _watched(process, report, seconds, start_seconds, tick)
                process.send_signal(signal.SIGTERM)
                process.wait(GRACE_SECONDS)
            except TimeoutExpired:
                pass
            finally:
                process.kill()
                process.wait()
            errors.seek(0)
            lines = errors.read().decode(errors="replace").splitlines()
    failures = [line for line in lines if line.startswith(("error: ", "failed: "))]
    warnings = tuple(line for line in lines if line.startswith("warning: "))
    (first_time, first), (last_time, last) = counts[0], counts[-1]
    rate = (last - first) / (last_time - first_time) if last > first else 0.0
    start = first_time - started if first else 0.0
    return Measured(rate, start, memory, failures[-1] if failures and not last else "", warnings)


def _watched(
    process: "Popen[bytes]",
    report: str,
    seconds: float,
    start_seconds: float,
    tick: Callable[[], None],
) -> tuple[list[tuple[float, int]], int]:
    """Returns the numbers of finished images with their times, and the largest memory."""
    deadline = time.monotonic() + start_seconds
    counts, memory = [(0.0, 0)], 0
    with open(report, "w+b") as lines:
        while process.poll() is None and time.monotonic() < deadline:
            count = counts[-1][1] + lines.read().count(DONE_LINE)
            if count > counts[-1][1]:
                now = time.monotonic()
                if not counts[0][1]:
                    counts, deadline = [], now + seconds
                counts.append((now, count))
            memory = max(memory, memory_of(process.pid))
            tick()
            time.sleep(PAUSE)
    return counts, memory


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
