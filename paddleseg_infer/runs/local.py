"""Segments images on this machine: one batch in this process, more in worker processes."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.outcomes import Job, Outcome, Windows
from paddleseg_infer.runs.resume import skipped
from paddleseg_infer.settings import Settings


def segment(
    jobs: Sequence[Job], settings: Settings, on_windows: Callable[[Windows], None]
) -> Generator[Outcome, None, None]:
    """Saves the pictures of `jobs`. Yields an Outcome for each job.

    A single batch runs in this process. More batches, or any number with a `timeout`, run in at
    most `num_workers` worker processes. `on_windows` is called about once per second while the
    windows of an image are run. Raises ConfigError if nothing can start, RunError if the
    run can't go on, and Interrupted after a signal.
    """
    engine = replace(settings.engine, num_workers=processes_for(len(jobs), settings))
    if len(jobs) <= settings.model.batch_size and settings.run.timeout is None:
        yield from _here(jobs, replace(settings, engine=engine), on_windows)
        return
    from paddleseg_infer.runs.supervisor import Supervisor

    with contextlib.ExitStack() as stack:
        if engine.enable_auto_tune and not engine.auto_tuned_shape_file:
            engine = sharing_shapes(engine, stack.enter_context(tempfile.TemporaryDirectory()))
        supervisor = Supervisor(jobs, replace(settings, engine=engine), on_windows)
        stack.callback(supervisor.kill)
        yield from supervisor.outcomes()


def sharing_shapes(engine: EngineOptions, folder: str) -> EngineOptions:
    """Returns `engine` with a file in `folder` for the tuned shapes.

    One worker collects the shapes, and all workers use them.
    """
    return replace(engine, auto_tuned_shape_file=os.path.join(folder, "shapes.pbtxt"))


def processes_for(images: int, settings: Settings) -> int:
    """Returns the number of processes that run the engine: `num_workers`, at most one per batch.

    The processors are divided among these processes.
    """
    batches = -(-images // settings.model.batch_size)
    return max(1, min(settings.engine.num_workers, batches))


def _here(
    jobs: Sequence[Job], settings: Settings, on_windows: Callable[[Windows], None]
) -> Iterator[Outcome]:
    to_do = []
    for job in jobs:
        if outcome := skipped(job, settings):
            yield outcome
        else:
            to_do.append(job)
    if not to_do:
        return
    from paddleseg_infer.segmenter import Segmenter

    segmenter = Segmenter(
        settings.run.config,
        model=settings.model,
        engine=settings.engine,
        sample=[job.image for job in to_do],
    )
    results = segmenter.save(
        to_do,
        settings.saving,
        settings.evaluation,
        resume=settings.run.resume,
        on_windows=on_windows,
    )
    for result in results:
        yield result.outcome
