"""Segments many images on a Ray cluster. Each actor of Ray Data's pool has a Segmenter.

A child process connects to the cluster, and sends the outcomes to this process.

Ray places the actors on the nodes, sends them chunks of images, and restarts dead actors. The
images of a dead actor are missing from the results. They are tried again, one image at a time.
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection, wait
from typing import Any

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError, reason, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Interrupted, Job, Outcome
from paddleseg_infer.pictures.files import PART_SUFFIX, prepare_save_dir
from paddleseg_infer.runs.actor import Needs
from paddleseg_infer.runs.nodes import processors_of_nodes, threads_per_actor
from paddleseg_infer.runs.passes import Passes
from paddleseg_infer.runs.signals import answered_by
from paddleseg_infer.runs.worker import (
    LogLines,
    Note,
    Refused,
    Reporting,
    Stopped,
    end_with,
    how_it_died,
)
from paddleseg_infer.settings import Settings

log = logging.getLogger("paddleseg_infer")

CONNECT_SECONDS = 10.0
# This package, which Ray sends to the nodes.
PROGRAM = {"py_modules": [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]}


def segment(
    jobs: Sequence[Job], settings: Settings, address: str
) -> Generator[Outcome, None, None]:
    """Saves the pictures of `jobs` with `num_workers` actors. Yields an Outcome for each job.

    `address` is `host:port`, `auto` for the cluster that this machine is a node of, or `local` for
    a new cluster on this machine. Model, images and `save_dir` must be on a file system that all
    nodes share. Raises ConfigError if nothing can start, RunError if the run can't go on, and
    Interrupted after a signal.

    A child process connects to the cluster: if the cluster's head dies, Ray ends the process that
    is connected.
    """
    if not jobs:  # this shard has no images
        return
    # A node that sees this file has the same disk there.
    name = f".{secrets.token_hex(8)}{PART_SUFFIX}"
    mark = os.path.join(os.path.abspath(settings.saving.save_dir), name)
    ours, theirs = Pipe(duplex=False)
    driver = Process(target=_drive, args=(theirs, os.getpid(), jobs, settings, address, mark))
    numbers: list[int] = []  # of signals
    wake, woken = socket.socketpair()  # `wake` is readable after a signal

    def interrupt(number: int) -> None:
        numbers.append(number)
        woken.send(b"!")

    with answered_by(interrupt):
        try:
            try:
                driver.start()
            except OSError as error:
                raise ConfigError(
                    f"--ray: the process for the cluster can't be started: {reason(error)}"
                ) from None
            theirs.close()  # so that `recv` fails when the process ends
            yield from _received(ours, wake, driver, numbers)
        finally:
            if driver.pid is not None:
                driver.kill()
                driver.join()
            for each in (ours, wake, woken):
                each.close()
            with contextlib.suppress(OSError):
                os.unlink(mark)


def _received(
    connection: Connection, wake: socket.socket, driver: Process, numbers: Sequence[int]
) -> Iterator[Outcome]:
    """Yields the outcomes that the child process sends. For errors see `segment`."""
    sources: list[Any] = [connection, wake]
    has_outcome = False
    while True:
        if wake in wait(sources):
            sources = [connection]
            driver.kill()  # what it has sent is still read
        try:
            message = connection.recv()
        except (EOFError, OSError):  # it has ended, perhaps during a message
            break
        if isinstance(message, Outcome):
            has_outcome = True
            yield message
        elif isinstance(message, Note):
            log.log(message.level, "%s", message.text)
        elif isinstance(message, Refused):
            raise ConfigError(message.error)
        elif isinstance(message, Stopped):
            raise RunError(message.error)
        else:
            return
    driver.join()
    if numbers:
        raise Interrupted(numbers[0])
    why = f"the process that is connected to the cluster {how_it_died(driver)}"
    if driver.exitcode == 1:  # which is how Ray ends it
        why = (
            "the cluster's head has died or can't be reached: start the cluster again, and run the "
            "command with --resume"
        )
    raise RunError(f"--ray: {why}") if has_outcome else ConfigError(f"--ray: {why}")


def _drive(
    connection: Connection,
    parent: int,
    jobs: Sequence[Job],
    settings: Settings,
    address: str,
    mark: str,
) -> None:
    """Runs in the child process, which is connected to the cluster. Sends None at the end."""
    end_with(parent)
    reporting = Reporting(connection)
    log.handlers, log.propagate = [LogLines(reporting)], False
    log.setLevel(logging.INFO)
    try:
        for outcome in _outcomes(jobs, settings, address, mark):
            reporting.send(outcome)
        reporting.send(None)
    except ConfigError as error:
        reporting.send(Refused(str(error)))
    except RunError as error:
        reporting.send(Stopped(str(error)))
    except ModuleNotFoundError as error:
        reporting.send(Refused(f"{error}: {MISSING_HINT}"))
    except Exception as error:  # without this, the parent would take it for the end of the cluster
        traceback.print_exc()  # before the parent knows of it, because it then kills this process
        reporting.send(Stopped(f"--ray: an error in this program: {type(error).__name__}: {error}"))


def _outcomes(
    jobs: Sequence[Job], settings: Settings, address: str, mark: str
) -> Iterator[Outcome]:
    """Yields an Outcome for each job. For errors see `segment`."""
    ray = _imported_ray()
    load_deploy_config(settings.run.config)  # raises errors before it connects to the cluster
    build = find_paddle()
    device = resolved(EngineOptions(device=settings.engine.device), build).device
    by_absolute_path = {_with_absolute_path(job): job for job in jobs}
    settings = _with_absolute_paths(settings)
    with _connected(ray, address):
        prepare_save_dir(settings.saving.save_dir)
        try:
            with open(mark, "wb"):
                pass
        except OSError as error:
            folder = shown(settings.saving.save_dir)
            raise ConfigError(f"--save_dir {folder} can't be written to: {reason(error)}") from None
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


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connects to the cluster for the block. Raises ConfigError if that fails."""
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
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        hint = " (set RAY_AUTH_MODE=token in the environment if the cluster asks for a token)"
        if address == "auto":
            hint = " (start one on this machine, or give host:port)"
        raise ConfigError(f"--ray {address}: {str(error).splitlines()[0]}{hint}") from None
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent answers them, not Ray
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # this program logs dead actors itself
    # Ray prints messages about nodes to standard output.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()
