"""`python -m paddleseg_infer.choose` finds the flags that are fastest on this machine's CPU.

It runs the program with each combination of engine and workers on the user's own model and images.
It compares the speed, the memory and the labels, and prints the command line to use.
"""

import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.errors import ConfigError
from paddleseg_infer.flags import Parser, seconds
from paddleseg_infer.machine.limits import available_memory, usable_processors
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.streams import say
from paddleseg_infer.outcomes import DONE, NOT_STARTED, Job
from paddleseg_infer.runs.jobs import find_jobs
from paddleseg_infer.runs.timed_run import Measured, timed_run
from paddleseg_infer.settings import MOST_THREADS

MOST_IMAGES = 5000  # of one run; more than it can do in its time
COMPARED = 20  # images whose labels are compared
LEAST_SECONDS = 4.0  # of a run after its first image; a shorter time says little
# The flags that the runs get from this program.
OWN_FLAGS = {
    *("--num_workers", "--cpu_threads", "--enable_openvino", "--device", "--save_dir", "--save"),
    *("--report", "--resume", "--shard", "--ray", "--dry_run", "--benchmark", "--quiet"),
}

Flags = tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One candidate's run, compared with the run of the default flags."""

    flags: Flags
    measured: Measured
    differ: float | None  # the share of the labels that differ; None if none could be compared


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the candidates, prints a table and the best flags, and returns the exit code."""
    parser = Parser(
        prog="python -m paddleseg_infer.choose",
        description="Finds the flags that are fastest on this machine's CPU.",
        epilog="All other flags of the program are passed on to each run.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the exported deploy.yaml")
    parser.add_argument(
        "--image_path", required=True, metavar="PATH", help="an image, a folder, or a text file"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=120.0, metavar="S", help="time for all runs, %(default)g"
    )
    given, others = parser.parse_known_args(arguments)
    for flag in others:
        if flag.partition("=")[0] in OWN_FLAGS:
            parser.error(f"{flag} can't be given, because the runs get it from this program")
    try:
        trials, untried = compare(given.config, given.image_path, others, given.seconds)
    except ConfigError as error:
        say(f"error: {error}\n", sys.stderr)
        return NOT_STARTED
    command = ["--config", given.config, "--image_path", given.image_path, "--device", "cpu"]
    for line in report(trials, untried, [*program(), *command, *others]):
        say(f"{line}\n")
    return DONE


def candidates(has_openvino: bool, processors: int) -> list[Flags]:
    """Returns the flags of each run, the default first: engines, and workers times threads."""
    layouts: list[Flags] = [()]
    workers = 2
    while workers <= processors:
        threads = min(MOST_THREADS, processors // workers)
        layouts.append(("--num_workers", str(workers), "--cpu_threads", str(threads)))
        workers *= 2
    engines: list[Flags] = [(), ("--enable_openvino",)] if has_openvino else [()]
    return [(*engine, *layout) for layout in layouts for engine in engines]


def compare(
    config: str, image_path: str, others: Sequence[str], total: float
) -> tuple[list[Trial], list[Flags]]:
    """Runs the candidates for `total` seconds. Returns the trials, and the flags left untried.

    Raises ConfigError if the run with the default flags can't start.
    """
    deploy, build = load_deploy_config(config), find_paddle()
    has_openvino = bool(build.openvino_library) and not deploy.is_pir
    untried = candidates(has_openvino, usable_processors())
    trials: list[Trial] = []
    end = time.monotonic() + total
    with tempfile.TemporaryDirectory() as folder, _ticking(total) as tick:
        images, masks = Path(folder, "images"), Path(folder, "masks")
        link(find_jobs(image_path, folder).jobs, images)
        while untried and (not trials or time.monotonic() < end):
            flags = untried[0]
            if trials and not _fits(flags, trials[0].measured):
                break  # the next ones have as many workers, or more
            left = max(LEAST_SECONDS, end - time.monotonic())
            out = masks / str(len(trials))
            command = [sys.executable, "-m", "paddleseg_infer", "--config", config, "--quiet"]
            command += ["--image_path", str(images), "--save_dir", str(out), "--device", "cpu"]
            to_load = trials[-1].measured.start if len(trials) > 1 else 0.0
            share = max(LEAST_SECONDS, left / len(untried) - to_load)
            # The first run may have to optimise the graph, which takes a large network a minute.
            to_start = left if trials else float("inf")
            measured = timed_run([*command, *others, *flags], share, to_start, tick)
            if measured.failure and not trials:
                raise ConfigError(measured.failure.partition(": ")[2])
            trials.append(Trial(flags, measured, difference(masks / "0", out)))
            untried.pop(0)
    return trials, untried


def link(jobs: Sequence[Job], folder: Path) -> None:
    """Makes a folder of links to the images, again and again until there are MOST_IMAGES."""
    folder.mkdir()
    step = max(1, len(jobs) // MOST_IMAGES)
    for number, job in enumerate(islice(cycle(jobs[::step]), MOST_IMAGES)):
        path = os.path.abspath(job.image)
        (folder / f"{number:05}{os.path.splitext(path)[1]}").symlink_to(path)


def _fits(flags: Flags, default: Measured) -> bool:
    """Returns whether so many workers, each as large as the default's run, fit in the memory."""
    workers = int(flags[flags.index("--num_workers") + 1]) if "--num_workers" in flags else 1
    return workers * default.memory < available_memory()


def difference(masks: Path, others: Path) -> float | None:
    """Returns the share of the labels that differ in the first masks that both folders have."""
    import numpy as np
    from PIL import Image

    names = sorted(set(_files(masks)) & set(_files(others)))[:COMPARED]
    differing = labels = 0
    for name in names:
        one, other = (np.asarray(Image.open(folder / name)) for folder in (masks, others))
        differing, labels = differing + int((one != other).sum()), labels + one.size
    return differing / labels if labels else None


def _files(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".png")] if folder.exists() else []


@contextlib.contextmanager
def _ticking(total: float) -> Iterator[Any]:
    """Yields a function that moves a progress bar of `total` seconds. Only a terminal shows it."""
    import tqdm

    started = time.monotonic()
    form = "{desc}{percentage:3.0f}% |{bar}| {elapsed}"
    with tqdm.tqdm(total=total, bar_format=form, disable=not sys.stderr.isatty()) as bar:
        yield lambda: bar.update(min(total, time.monotonic() - started) - bar.n)


def program() -> list[str]:
    """Returns how a user starts the program: from a checkout, or installed."""
    is_checkout = Path(__file__).parent.parent.joinpath("infer.py").exists()
    return ["python", "infer.py"] if is_checkout else ["paddleseg-infer"]


def report(trials: Sequence[Trial], untried: Sequence[Flags], command: list[str]) -> Iterator[str]:
    """Yields the lines of the table, sorted by speed, and the command lines to use."""
    yield f"{'images/s':>9} {'memory':>9} {'other labels':>13}  flags"
    shown = sorted(trials, key=lambda trial: -trial.measured.rate)
    for trial in shown:
        yield _row(trial)
    for flags in untried:
        yield f"{'untried':>9} {'':>9} {'':>13}  {shlex.join(flags)}"
    if untried:
        yield "For the untried flags there was not enough time (--seconds) or memory."
    known = set(trials[0].measured.warnings)
    for trial in trials[1:]:
        for warning in dict.fromkeys(trial.measured.warnings):
            if warning not in known:
                yield f"{shlex.join(trial.flags)}: {warning}"
    fast = [trial for trial in shown if trial.measured.rate]
    if not fast:
        yield "No run had enough time: give more --seconds."
        return
    equal = next((trial for trial in fast if trial.differ == 0), None)
    if equal:
        yield "The fastest flags with which no label differs from those of the default:"
        yield f"  {shlex.join([*command, *equal.flags])}"
    if fast[0] is not equal:
        yield "The fastest flags:"
        yield f"  {shlex.join([*command, *fast[0].flags])}"


def _row(trial: Trial) -> str:
    flags = shlex.join(trial.flags) or "(the default)"
    measured = trial.measured
    if measured.failure:
        return f"{'failed':>9} {'':>9} {'':>13}  {flags}: {measured.failure.partition(': ')[2]}"
    rate = f"{measured.rate:.1f}" if measured.rate else "too slow"
    memory = f"{measured.memory / 1e6:.0f} MB" if measured.memory else "unknown"
    differ = "unknown" if trial.differ is None else f"{100 * trial.differ:.2g} %"
    return f"{rate:>9} {memory:>9} {differ:>13}  {flags}"


if __name__ == "__main__":
    sys.exit(main())
