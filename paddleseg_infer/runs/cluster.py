"""Many images over the nodes of a Ray cluster: each actor of Ray Data's pool holds a Segmenter.

Ray places the actors, hands them chunks of images, and starts again those that have died. What a
dead one held is missing from the results: it is tried again, one image at a time.
"""

import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.errors import ConfigError, RunError, reason, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Interrupted, Job, Outcome
from paddleseg_infer.pictures.files import PART_SUFFIX, prepare_save_dir
from paddleseg_infer.runs.actor import Segment, Told, obstacle
from paddleseg_infer.runs.supervisor import DEATHS_ALONE, MAX_FIRST_DEATHS
from paddleseg_infer.settings import EngineOptions

log = logging.getLogger("paddleseg_infer")

IMAGES_IN_CHUNK = 64  # what an actor is given at a time; results come by the chunk
MOST_THREADS = 10  # of an actor, where none are asked for: as without a cluster
CONNECT_SECONDS = 10.0
MOST_SAMPLES = 1000  # images whose sizes TensorRT's shapes are taken from
# Sent to the nodes.
PROGRAM = {"py_modules": [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]}


def segment(
    jobs: Sequence[Job],
    config_path: str,
    saving: dict[str, Any],
    *,
    address: str,
    num_workers: int,
    timeout: float | None = None,
    is_done: Callable[[Job], bool] = lambda job: False,
    **options: Any,
) -> Iterator[tuple[Job, Outcome]]:
    """As `workers.segment`, by `num_workers` actors on the cluster at `address`.

    That is an address as Ray takes it, `auto` for the cluster that this machine is a node of, or
    `local` for a cluster of this machine alone. Model, images and `save_dir` lie on a file system
    that all nodes see. Raises ConfigError where one doesn't.
    """
    if not jobs:  # of this shard
        return
    # A cluster that this process starts reports nothing about its user, unless it is told to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError(f"--ray: {error}: pip install -r requirements/ray.txt") from None
    load_deploy_config(config_path)  # what is wrong here needs no node to say so
    build = find_paddle()
    device = EngineOptions(device=options["device"]).resolved(build).device
    saving = {**saving, "save_dir": os.path.abspath(saving["save_dir"])}
    for name in ("cache_dir", "auto_tuned_shape_file"):
        if options[name]:
            options[name] = os.path.abspath(options[name])
    numbered = {n: Job(os.path.abspath(job.image), job.target) for n, job in enumerate(jobs)}
    if options["use_trt"]:
        step = len(jobs) // MOST_SAMPLES + 1
        options["sample"] = [numbered[number].image for number in range(0, len(jobs), step)]
    with _connected(ray, address), _mark(saving["save_dir"]) as mark:
        seen = (os.path.abspath(config_path), numbered[0].image, mark)
        processors = _processors_of_nodes(ray, seen, str(build))
        threads = options["cpu_threads"] or _threads(processors, num_workers)
        if threads > max(processors):
            raise ConfigError(
                f"--ray: no node has the {threads} processors of --cpu_threads, the largest has "
                f"{max(processors)}"
            )
        cluster = ray.get_runtime_context().gcs_address
        log.info(
            "Ray at %s: nodes %d, workers %d, threads of each %d",
            *(cluster, len(processors), num_workers, threads),
        )
        options |= {"device": device, "cpu_threads": threads}
        pool = {
            "fn_constructor_args": (seen, str(build), saving, options, timeout, is_done),
            "num_cpus": threads,
            "num_gpus": int(device == "gpu"),
            "max_task_retries": 0,  # it would wait for its actor, for which no node may be left
        }
        passes = Passes(ray, pool, num_workers, timeout)
        in_chunk = max(options["batch_size"], min(IMAGES_IN_CHUNK, len(jobs) // (4 * num_workers)))
        for number, outcome in passes.outcomes(numbered, in_chunk):
            yield jobs[number], outcome


@dataclass
class Passes:
    """Jobs given to the pool pass by pass, until each has an outcome."""

    ray: Any
    pool: dict[str, Any]  # for map_batches
    num_workers: int
    timeout: float | None

    def outcomes(self, left: dict[int, Job], in_chunk: int) -> Iterator[tuple[int, Outcome]]:
        """In chunks, then what is missing one image at a time. Empties `left`.

        Raises ConfigError before the first outcome, RunError later.
        """
        deaths_alone, has_result, told = 0, False, set()
        while left:
            before, broken = len(left), ""
            answers = self._answers(left, in_chunk, is_strict=not has_result)
            try:
                for answer in answers:
                    for note in answer.notes:
                        if note not in told:  # each actor has the same to say
                            told.add(note)
                            log.log(note[0], "%s", note[1])
                    for number, outcome in answer.outcomes:
                        if left.pop(number, None):
                            has_result = True
                            yield number, outcome
                    if answer.failure:
                        raise RunError(str(answer.failure)) if has_result else answer.failure
            except self.ray.exceptions.RayError as error:
                broken = str(error).strip().splitlines()[-1]
            finally:
                answers.close()  # before Ray is left
            if broken and not has_result:
                raise ConfigError(f"--ray: workers died before any image was done: {broken}")
            if broken and len(left) == before:
                raise RunError(f"--ray: {broken}")
            if broken or not left:
                continue
            deaths_alone += in_chunk == 1
            if deaths_alone == DEATHS_ALONE:
                yield from ((number, self._given_up()) for number in left)
                return
            log.warning("workers died: %d of their images to do again, one at a time", len(left))
            in_chunk = 1

    def _given_up(self) -> Outcome:
        late = f" or took longer than --timeout {self.timeout:g} seconds" if self.timeout else ""
        why = f"its worker died{late}, {DEATHS_ALONE} times: the logs of Ray tell more"
        return Outcome("failed", why)

    def _answers(
        self, jobs: dict[int, Job], in_chunk: int, is_strict: bool
    ) -> Generator[Told, None, None]:
        """One pass. Chunks whose actor dies are left out; with `is_strict` a few only."""
        data = self.ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = MAX_FIRST_DEATHS - 1 if is_strict else -1
        items = list(jobs.items())
        chunks = [items[start : start + in_chunk] for start in range(0, len(items), in_chunk)]
        rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
        actors = data.ActorPoolStrategy(
            size=min(self.num_workers, len(rows)),
            # The next chunk waits at its actor, unless it could be lost with an image that kills.
            max_tasks_in_flight_per_actor=1 if in_chunk == 1 else 2,
        )
        # Of max_task_retries: until Ray 2.64 nothing takes its place.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        dataset = data.from_items(rows, override_num_blocks=len(rows))
        segmented = dataset.map_batches(Segment, batch_size=1, compute=actors, **self.pool)
        # By block: the iterators of rows and batches leave threads that outlive Ray.
        for bundle in segmented.iter_internal_ref_bundles():
            for block in self.ray.get(list(bundle.block_refs)):
                yield from map(pickle.loads, block.column("told").to_pylist())


def _processors_of_nodes(ray: Any, seen: Sequence[str], paddle: str) -> list[int]:
    """How many each node has. Raises ConfigError where one can't work."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [
        ray.remote(num_cpus=0)(obstacle)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(seen, paddle)
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


def _threads(processors: Sequence[int], num_workers: int) -> int:
    """The most that an actor can have if all find a place; 1 where they can't."""
    for threads in range(min(MOST_THREADS, max(processors)), 1, -1):
        if sum(count // threads for count in processors) >= num_workers:
            return threads
    return 1


@contextlib.contextmanager
def _mark(save_dir: str) -> Iterator[str]:
    """A file in the output folder: who sees it has the same disk there."""
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
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what dies is told from here

    def interrupt(number: int, frame: Any) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints there what it hears of nodes
        try:
            yield
        finally:
            ray.shutdown()
