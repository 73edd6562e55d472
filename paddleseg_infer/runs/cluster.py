"""Segments many images on a Ray cluster. Each actor of Ray Data's pool has a Segmenter.

Ray places the actors on the nodes, sends them chunks of images, and restarts dead actors. The
images of a dead actor are missing from the results. They are tried again, one image at a time.
"""

import contextlib
import logging
import os
import pickle
import socket
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.errors import ConfigError, RunError, reason, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Job, Outcome
from paddleseg_infer.pictures.files import PART_SUFFIX, prepare_save_dir
from paddleseg_infer.runs.actor import Answer, Needs, Segment
from paddleseg_infer.runs.nodes import processors_of_nodes, threads_per_actor
from paddleseg_infer.runs.retries import DEATHS_ALONE, MAX_DEATHS, Retries
from paddleseg_infer.runs.signals import answered_by, interrupt
from paddleseg_infer.runs.worker import Note
from paddleseg_infer.settings import Settings

log = logging.getLogger("paddleseg_infer")

IMAGES_IN_CHUNK = 64  # an actor gets and returns this many images at a time
CONNECT_SECONDS = 10.0
MOST_SAMPLES = 1000  # images whose sizes determine TensorRT's shapes
# This package, which Ray sends to the nodes.
PROGRAM = {"py_modules": [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]}


def segment(jobs: Sequence[Job], settings: Settings, address: str) -> Iterator[Outcome]:
    """Saves the pictures of `jobs` with `num_workers` actors. Yields an Outcome for each job.

    `address` is `host:port`, `auto` for the cluster that this machine is a node of, or `local` for
    a new cluster on this machine. Model, images and `save_dir` must be on a file system that all
    nodes share. Raises ConfigError if nothing can start, RunError if the run can't go on, and
    Interrupted after a signal.
    """
    if not jobs:  # this shard has no images
        return
    ray = _imported_ray()
    load_deploy_config(settings.run.config)  # raises errors before it connects to the cluster
    build = find_paddle()
    device = resolved(EngineOptions(device=settings.engine.device), build).device
    by_absolute_path = {_with_absolute_path(job): job for job in jobs}
    settings = _with_absolute_paths(settings)
    with _connected(ray, address), _mark(settings.saving.save_dir) as mark:
        first = next(iter(by_absolute_path))
        paths = settings.run.config, first.image, mark
        needs = Needs(paths, str(build), settings.engine.precision)
        processors = processors_of_nodes(ray, needs)
        threads = threads_per_actor(processors, settings.engine)
        cluster = ray.get_runtime_context().gcs_address
        workers = settings.engine.num_workers
        nodes = len(processors)
        log.info(
            "Ray cluster %s: %d nodes, %d workers, threads per worker: %d",
            cluster,
            nodes,
            workers,
            threads,
        )
        engine = replace(settings.engine, device=device, cpu_threads=threads)
        passes = Passes(ray, needs, replace(settings, engine=engine), list(by_absolute_path))
        for outcome in passes.outcomes():
            yield replace(outcome, job=by_absolute_path[outcome.job])


def _imported_ray() -> Any:
    # A cluster started here sends no usage statistics, unless the user has turned them on.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError(f"--ray: {error}: run pip install -r requirements/ray.txt") from None
    return ray


def _with_absolute_path(job: Job) -> Job:
    label = job.label and os.path.abspath(job.label)
    return replace(job, image=os.path.abspath(job.image), label=label)


def _with_absolute_paths(settings: Settings) -> Settings:
    """Returns settings with absolute paths, because each actor runs in another folder."""
    engine = settings.engine
    for name in ("cache_dir", "auto_tuned_shape_file"):
        if path := getattr(engine, name):
            engine = replace(engine, **{name: os.path.abspath(path)})
    return replace(
        settings,
        run=replace(settings.run, config=os.path.abspath(settings.run.config)),
        saving=replace(settings.saving, save_dir=os.path.abspath(settings.saving.save_dir)),
        engine=engine,
    )


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


@contextlib.contextmanager
def _mark(save_dir: str) -> Iterator[str]:
    """Makes a temporary file in the output folder, and yields its path.

    A node that sees it has the same disk there. Raises ConfigError if the folder isn't writable.
    """
    prepare_save_dir(save_dir)
    with tempfile.NamedTemporaryFile(dir=save_dir, prefix=".", suffix=PART_SUFFIX) as file:
        yield file.name


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connects to the cluster for the block. Raises ConfigError if that fails.

    The first signal raises Interrupted in the block. A second one ends the process at once.
    """
    host, _, port = address.rpartition(":")
    try:
        if address not in ("auto", "local"):  # without a cluster Ray tries for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except ValueError:
        raise ConfigError(f"--ray {shown(address)}: give auto, local or host:port") from None
    except OSError as error:
        raise ConfigError(f"--ray {shown(address)}: no cluster answers: {reason(error)}") from None
    try:
        ray.init(address=address, runtime_env=PROGRAM, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        hint = " (set RAY_AUTH_MODE=token in the environment if the cluster asks for a token)"
        if address == "auto":
            hint = " (start one on this machine, or give host:port)"
        raise ConfigError(f"--ray {address}: {str(error).splitlines()[0]}{hint}") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # this program logs dead actors itself
    # Ray prints messages about nodes to standard output.
    with contextlib.redirect_stdout(sys.stderr), answered_by(interrupt):
        try:
            yield
        finally:
            ray.shutdown()
