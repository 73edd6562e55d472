"""Many images over the nodes of a Ray cluster: each actor of Ray Data's pool holds a Segmenter.

Ray places the actors, hands them chunks of images, and starts again those that have died. What a
dead one held is missing from the results: it is tried again, one image at a time.
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
from typing import Any, NoReturn

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.errors import ConfigError, RunError, reason, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Interrupted, Job, Outcome
from paddleseg_infer.pictures.files import PART_SUFFIX, prepare_save_dir
from paddleseg_infer.runs.actor import Answer, Needs, Segment, obstacle
from paddleseg_infer.runs.retries import DEATHS_ALONE, MAX_DEATHS, Retries
from paddleseg_infer.runs.signals import answered_by
from paddleseg_infer.runs.worker import Note
from paddleseg_infer.settings import MOST_THREADS, EngineOptions, Settings

log = logging.getLogger("paddleseg_infer")

IMAGES_IN_CHUNK = 64  # what an actor is given at a time; results come by the chunk
CONNECT_SECONDS = 10.0
MOST_SAMPLES = 1000  # images whose sizes TensorRT's shapes are taken from
# Sent to the nodes.
PROGRAM = {"py_modules": [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]}


def segment(jobs: Sequence[Job], settings: Settings, address: str) -> Iterator[Outcome]:
    """As `local.segment`, by `num_workers` actors on the cluster at `address`.

    That is an address as Ray takes it, `auto` for the cluster that this machine is a node of, or
    `local` for a cluster of this machine alone. Model, images and `save_dir` lie on a file system
    that all nodes see. Raises ConfigError where one doesn't.
    """
    if not jobs:  # of this shard
        return
    ray = _imported_ray()
    load_deploy_config(settings.run.config)  # what is wrong here needs no node to say so
    build = find_paddle()
    device = resolved(EngineOptions(device=settings.engine.device), build).device
    by_absolute_path = {replace(job, image=os.path.abspath(job.image)): job for job in jobs}
    settings = _with_absolute_paths(settings)
    with _connected(ray, address), _mark(settings.saving.save_dir) as mark:
        first = next(iter(by_absolute_path))
        needs = Needs((settings.run.config, first.image, mark), str(build))
        processors = _processors_of_nodes(ray, needs)
        threads = _threads(processors, settings.engine)
        cluster = ray.get_runtime_context().gcs_address
        workers = settings.engine.num_workers
        nodes = len(processors)
        log.info(
            "Ray at %s: nodes %d, workers %d, threads of each %d", cluster, nodes, workers, threads
        )
        engine = replace(settings.engine, device=device, cpu_threads=threads)
        passes = Passes(ray, needs, replace(settings, engine=engine), list(by_absolute_path))
        for outcome in passes.outcomes():
            yield replace(outcome, job=by_absolute_path[outcome.job])


def _imported_ray() -> Any:
    # A cluster that this process starts reports nothing about its user, unless it is asked to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError(f"--ray: {error}: pip install -r requirements/ray.txt") from None
    return ray


def _with_absolute_paths(settings: Settings) -> Settings:
    """Actors run in folders of their own."""
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
    """Jobs given to the pool pass by pass, until each has an outcome."""

    ray: Any
    needs: Needs
    settings: Settings
    jobs: list[Job]
    retries: Retries = field(default_factory=Retries)
    notes: set[Note] = field(default_factory=set)

    def outcomes(self) -> Iterator[Outcome]:
        """In chunks, then what is missing one image at a time.

        Raises ConfigError before the first outcome, RunError later.
        """
        left = dict.fromkeys(self.jobs)
        workers, batch_size = self.settings.engine.num_workers, self.settings.model.batch_size
        in_chunk = max(batch_size, min(IMAGES_IN_CHUNK, len(left) // (4 * workers)))
        while left:
            before = len(left)
            broken = yield from self._one_pass(left, in_chunk)
            if broken and not self.retries.has_result:
                raise ConfigError(f"--ray: workers died before any image was done: {broken}")
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
                log.warning("workers died: %d of their images to do again, one at a time", images)
            in_chunk = 1

    def _one_pass(self, left: dict[Job, None], in_chunk: int) -> Generator[Outcome, None, str]:
        """Outcomes of jobs, which are taken out of `left`; returns what ended Ray's work early."""
        answers = self._answers(left, in_chunk)
        try:
            for answer in answers:
                for note in answer.notes:
                    if note not in self.notes:  # each actor logs the same lines
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
            answers.close()  # before Ray is left
        return ""

    def _why_failed(self) -> str:
        timeout = self.settings.run.timeout
        late = f" or took longer than --timeout {timeout:g} seconds" if timeout else ""
        return f"its worker died{late}, {DEATHS_ALONE} times: the logs of Ray tell more"

    def _answers(self, jobs: dict[Job, None], in_chunk: int) -> Generator[Answer, None, None]:
        """One pass. Chunks whose actor dies are left out; before the first result a few only."""
        data, engine = self.ray.data, self.settings.engine
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1 if self.retries.has_result else MAX_DEATHS - 1
        items = list(jobs)
        chunks = [items[start : start + in_chunk] for start in range(0, len(items), in_chunk)]
        rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
        actors = data.ActorPoolStrategy(
            size=min(engine.num_workers, len(rows)),
            # The next chunk waits at its actor, unless it could be lost with an image that kills.
            max_tasks_in_flight_per_actor=1 if in_chunk == 1 else 2,
        )
        # Of max_task_retries: until Ray 2.64 nothing takes its place.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        dataset = data.from_items(rows, override_num_blocks=len(rows))
        segmented = dataset.map_batches(
            Segment,
            batch_size=1,
            compute=actors,
            fn_constructor_args=(self.needs, self.settings, self._sample()),
            num_cpus=engine.cpu_threads,
            num_gpus=int(engine.device == "gpu"),
            max_task_retries=0,  # it would wait for its actor, for which no node may be left
        )
        # By block: the iterators of rows and batches leave threads that outlive Ray.
        for bundle in segmented.iter_internal_ref_bundles():
            for block in self.ray.get(list(bundle.block_refs)):
                yield from map(pickle.loads, block.column("answer").to_pylist())

    def _sample(self) -> list[str]:
        if not self.settings.engine.use_trt:
            return []
        return [job.image for job in self.jobs[:: len(self.jobs) // MOST_SAMPLES + 1]]


def _processors_of_nodes(ray: Any, needs: Needs) -> list[int]:
    """How many each node has. Raises ConfigError where one can't work."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [
        ray.remote(num_cpus=0)(obstacle)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(needs)
        for node in nodes
    ]
    for node, answer in zip(nodes, asked, strict=True):
        try:
            why = ray.get(answer)
        except ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[-1]
        if why:
            raise ConfigError(f"--ray: node {node['NodeManagerAddress']} can't work: {why}")
    if not nodes:
        raise ConfigError("--ray: no node of the cluster has a processor to work with")
    return [int(node["Resources"]["CPU"]) for node in nodes]


def _threads(processors: Sequence[int], engine: EngineOptions) -> int:
    """How many each actor gets. Raises ConfigError where no node has as many as are asked for."""
    if engine.cpu_threads is None:
        return threads_for(processors, engine.num_workers)
    if engine.cpu_threads > max(processors):
        raise ConfigError(
            f"--ray: no node has the {engine.cpu_threads} processors of --cpu_threads, the largest "
            f"has {max(processors)}"
        )
    return engine.cpu_threads


def threads_for(processors: Sequence[int], num_workers: int) -> int:
    """The most that an actor can have if all find a place on these nodes; 1 where they can't."""
    for threads in range(min(MOST_THREADS, max(processors)), 1, -1):
        if sum(count // threads for count in processors) >= num_workers:
            return threads
    return 1


@contextlib.contextmanager
def _mark(save_dir: str) -> Iterator[str]:
    """A file in the output folder: a node that sees it has the same disk there."""
    prepare_save_dir(save_dir)
    with tempfile.NamedTemporaryFile(dir=save_dir, prefix=".", suffix=PART_SUFFIX) as file:
        yield file.name


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A signal ends what is in here with Interrupted, a second one the process at once."""
    host, _, port = address.rpartition(":")
    try:
        if address not in ("auto", "local"):  # where nothing listens Ray tries for many minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except ValueError:
        raise ConfigError(f"--ray {shown(address)}: give auto, local or host:port") from None
    except OSError as error:
        raise ConfigError(f"--ray {shown(address)}: there is no cluster: {reason(error)}") from None
    try:
        ray.init(address=address, runtime_env=PROGRAM, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        hint = " (RAY_AUTH_MODE=token in the environment, where it asks for a token)"
        if address == "auto":
            hint = " (start one on this machine, or give host:port)"
        raise ConfigError(f"--ray {address}: {str(error).splitlines()[0]}{hint}") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what dies is logged from here
    # Ray prints what it hears of nodes to standard output.
    with contextlib.redirect_stdout(sys.stderr), answered_by(_interrupt):
        try:
            yield
        finally:
            ray.shutdown()


def _interrupt(number: int) -> NoReturn:
    raise Interrupted(number)
