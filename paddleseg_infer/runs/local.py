"""Many images over worker processes, which ask for the next image when they have time for it.

This process loads no engine: what kills one kills a worker, and its images are known. They are
tried again, one at a time; the run goes on.
"""

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from paddleseg_infer.outcomes import Job, Outcome

if TYPE_CHECKING:  # this process has no use for numpy
    from paddleseg_infer.batching import Result
    from paddleseg_infer.runs.supervisor import Feeding


def segment(
    jobs: Sequence[Job],
    config_path: str,
    saving: dict[str, Any],
    *,
    num_workers: int,
    timeout: float | None = None,
    is_done: Callable[[Job], bool] = lambda job: False,
    **options: Any,
) -> Iterator[tuple[Job, Outcome]]:
    """Saves the pictures of `jobs`; yields each job with what became of it.

    One batch is run in this process, more in `num_workers` others, and with a `timeout` all; it is
    in seconds, of a batch. Jobs of which `is_done` is true are skipped. `options` are those of
    `pipeline.Segmenter`, `saving` those of its `save`. Raises ConfigError where nothing can start,
    RunError where the run can't go on, and Interrupted after a signal.
    """
    options["num_workers"] = processes_for(jobs, options["batch_size"], num_workers)
    if len(jobs) <= options["batch_size"] and timeout is None:
        yield from _here(jobs, config_path, saving, is_done, options)
        return
    from paddleseg_infer.runs.supervisor import Feeding

    with contextlib.ExitStack() as stack:
        if options["enable_auto_tune"] and not options["auto_tuned_shape_file"]:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            # One worker collects the shapes, all use them.
            options["auto_tuned_shape_file"] = os.path.join(folder, "shapes.pbtxt")
        run = Feeding(jobs, config_path, saving, options, timeout, is_done)
        stack.callback(run.kill)
        wake = stack.enter_context(_signals(run))
        yield from run.outcomes(wake)


def processes_for(jobs: Sequence[Job], batch_size: int, num_workers: int) -> int:
    """How many processes run the engine, which share the processors: no more than batches."""
    return max(1, min(num_workers, -(-len(jobs) // batch_size)))


def _here(
    jobs: Sequence[Job],
    config_path: str,
    saving: dict[str, Any],
    is_done: Callable[[Job], bool],
    options: dict[str, Any],
) -> Iterator[tuple[Job, Outcome]]:
    to_do = []
    for job in jobs:
        if is_done(job):
            yield job, Outcome("skipped")
        else:
            to_do.append(job)
    if to_do:
        from paddleseg_infer.segmenter import Segmenter

        segmenter = Segmenter(config_path, sample=[job.image for job in to_do], **options)
        yield from ((job, outcome_of(result)) for job, result in segmenter.save(to_do, **saving))


def outcome_of(result: "Result") -> Outcome:
    """Of an image that was run in this process."""
    error = str(result.error or "")
    return Outcome("failed" if error else "done", error, result.size, result.times)


@contextlib.contextmanager
def _signals(run: "Feeding") -> Iterator[socket.socket]:
    """A socket that is readable after SIGINT or SIGTERM; a second one ends the process at once."""
    wake, woken = socket.socketpair()

    def note(number: int, frame: Any) -> None:
        run.signal = number
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        woken.send(b"!")

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, note)
    try:
        yield wake
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        wake.close()
        woken.close()
