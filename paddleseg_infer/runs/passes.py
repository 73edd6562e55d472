"""Runs jobs in a pool of Ray Data's actors, in several passes."""

import logging
import pickle
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from paddleseg_infer.errors import ConfigError, RunError
from paddleseg_infer.outcomes import Job, Outcome
from paddleseg_infer.runs.actor import Answer, Needs, Segment
from paddleseg_infer.runs.retries import DEATHS_ALONE, MAX_DEATHS, Retries
from paddleseg_infer.runs.worker import Note
from paddleseg_infer.settings import Settings

log = logging.getLogger("paddleseg_infer")

IMAGES_IN_CHUNK = 64  # an actor gets and returns this many images at a time
MOST_SAMPLES = 1000  # images whose sizes determine TensorRT's shapes


@dataclass
class Passes:
    """Runs jobs in the pool, in several passes, until each job has an outcome."""

    ray: Any
    needs: Needs
    settings: Settings
    jobs: list[Job]
    retries: Retries = field(default_factory=Retries)
    notes: set[Note] = field(default_factory=set)

    def outcomes(self) -> Iterator[Outcome]:
        """Yields an Outcome for each job: runs chunks, then the missing images one at a time.

        Raises ConfigError before the first outcome, and RunError after it.
        """
        left = dict.fromkeys(self.jobs)
        workers, batch_size = self.settings.engine.num_workers, self.settings.model.batch_size
        in_chunk = max(batch_size, min(IMAGES_IN_CHUNK, len(left) // (4 * workers)))
        while left:
            before = len(left)
            broken = yield from self._one_pass(left, in_chunk)
            if broken and not self.retries.has_result:
                raise ConfigError(f"--ray: workers died before the first image was done: {broken}")
            if broken and len(left) == before:
                raise RunError(f"--ray: {broken}")
            if broken or not left:
                continue
            verdict = self.retries.lost(tuple(left), is_alone=in_chunk == 1)
            for job in verdict.failed:
                del left[job]
                yield Outcome(job, "failed", self._why_failed())
            if verdict.again:
                images = len(verdict.again)
                log.warning(
                    "workers died: %d of their images are tried again, one at a time", images
                )
            in_chunk = 1

    def _one_pass(self, left: dict[Job, None], in_chunk: int) -> Generator[Outcome, None, str]:
        """Yields outcomes and removes their jobs from `left`.

        Returns the error that ended Ray's work early, or "". Raises ConfigError before the first
        outcome, and RunError after it, if an actor reports a failure.
        """
        answers = self._answers(left, in_chunk)
        try:
            for answer in answers:
                for note in answer.notes:
                    if note not in self.notes:  # several actors log the same line
                        self.notes.add(note)
                        log.log(note.level, "%s", note.text)
                for outcome in answer.outcomes:
                    if outcome.job in left:
                        del left[outcome.job]
                        self.retries.result()
                        yield outcome
                if answer.failure and self.retries.has_result:
                    raise RunError(str(answer.failure))
                if answer.failure:
                    raise answer.failure
        except self.ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[-1]
        finally:
            answers.close()  # before Ray is shut down
        return ""

    def _why_failed(self) -> str:
        timeout = self.settings.run.timeout
        late = f" or took longer than --timeout {timeout:g} seconds" if timeout else ""
        return f"its worker died{late}, {DEATHS_ALONE} times: see Ray's logs"

    def _answers(self, jobs: dict[Job, None], in_chunk: int) -> Generator[Answer, None, None]:
        """Yields the answers of one pass. Chunks whose actor died are missing.

        Before the first result Ray raises RayError if MAX_DEATHS chunks are missing.
        """
        data, engine = self.ray.data, self.settings.engine
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1 if self.retries.has_result else MAX_DEATHS - 1
        items = list(jobs)
        chunks = [items[start : start + in_chunk] for start in range(0, len(items), in_chunk)]
        rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
        actors = data.ActorPoolStrategy(
            size=min(engine.num_workers, len(rows)),
            # Each actor has a second chunk in its queue, so that it doesn't have to wait. Single
            # images aren't queued: they would be lost if the image before kills the actor.
            max_tasks_in_flight_per_actor=1 if in_chunk == 1 else 2,
        )
        # The warning is about max_task_retries. Before Ray 2.64 there is no replacement for it.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        dataset = data.from_items(rows, override_num_blocks=len(rows))
        segmented = dataset.map_batches(
            Segment,
            batch_size=1,
            compute=actors,
            fn_constructor_args=(self.needs, self.settings, self._sample()),
            num_cpus=engine.cpu_threads,
            num_gpus=int(engine.device == "gpu"),
            max_task_retries=0,  # a retry waits for its actor, and that may have no node any more
        )
        # Reads blocks: the iterators of rows and batches start threads that run on after Ray's end.
        for bundle in segmented.iter_internal_ref_bundles():
            for block in self.ray.get(list(bundle.block_refs)):
                yield from map(pickle.loads, block.column("answer").to_pylist())

    def _sample(self) -> list[str]:
        if not self.settings.engine.use_trt:
            return []
        return [job.image for job in self.jobs[:: len(self.jobs) // MOST_SAMPLES + 1]]
