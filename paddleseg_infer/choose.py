"""`python -m paddleseg_infer.choose` finds the flags that are fastest on this machine's CPU.

It runs the program with each combination of engine, precision and workers on the user's own model
and images. It compares the speed, the memory and the labels, and prints the command line to use.
"""

import contextlib
import itertools
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.errors import MISSING_HINT, ConfigError, shown
from paddleseg_infer.flags import Parser, positive
from paddleseg_infer.machine.limits import available_memory, usable_processors
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.streams import own_log, own_streams, say
from paddleseg_infer.outcomes import DONE, NOT_STARTED, SOME_FAILED, Job
from paddleseg_infer.runs.candidates import Flags, candidates, engines_for
from paddleseg_infer.runs.jobs import find_jobs
from paddleseg_infer.runs.timed_run import Measured, timed_run

log = logging.getLogger("paddleseg_infer")

MOST_IMAGES = 5000  # of one run; it is measured until it has done them or its time is over
COMPARED = 20  # images whose labels are compared
LEAST_SECONDS = 4.0  # of a run once all workers work; a shorter time says little
# Flags that can't be passed on: the runs get them, or can't be measured with them.
REFUSED = {
    *("--num_workers", "--cpu_threads", "--enable_openvino", "--device", "--save_dir", "--report"),
    *("--resume", "--shard", "--ray", "--dry_run", "--benchmark", "--quiet", "--use_trt"),
    *("--precision", "--min_subgraph_size", "--enable_auto_tune", "--auto_tuned_shape_file"),
    *("--label_path", "--ignore_index"),
}


@dataclass(frozen=True)
class Trial:
    """One candidate's run, compared with the run of the default flags."""

    flags: Flags
    measured: Measured
    differ: float | None  # the share of the labels that differ; None if none were compared
    compared: int  # images whose labels were compared


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the candidates, prints a table and the best flags, and returns the exit code.

    After Ctrl-C it prints the table of the runs that have ended.
    """
    parser = Parser(
        prog="python -m paddleseg_infer.choose",
        description="Tries engines, precisions and numbers of workers on your images. "
        "Prints a table, and the command lines that are fastest on this machine's CPU.",
        epilog="Flags about the model and the pictures are passed on to each run, for example "
        "--crop_size and --batch_size.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the exported deploy.yaml")
    parser.add_argument(
        "--image_path",
        required=True,
        metavar="PATH",
        help="an image, a folder of images, or a text file that names one image per line",
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=120.0,
        metavar="S",
        help="seconds for all runs together (default: %(default)g)",
    )
    given, others = parser.parse_known_args(arguments)
    for flag in others:
        if flag.partition("=")[0] in REFUSED:
            parser.error(f"{flag} can't be given: this program decides what its runs use and make")
    with own_streams(print_detail=False), own_log(log, logging.WARNING):
        try:
            return run(given.config, given.image_path, given.seconds, others)
        except ConfigError as error:
            say(f"error: {error}\n", sys.stderr)
        except ModuleNotFoundError as error:
            say(f"error: {error}: {MISSING_HINT}\n", sys.stderr)
    return NOT_STARTED


def run(config: str, image_path: str, total: float, others: Sequence[str]) -> int:
    """Runs the candidates for `total` seconds and prints the table. Returns the exit code."""
    deploy, build = load_deploy_config(config), find_paddle()
    tried = candidates(engines_for(deploy, build), usable_processors())
    trials: list[Trial] = []
    code = DONE
    command = ["python", "-m", "paddleseg_infer", "--config", config]
    try:
        with tempfile.TemporaryDirectory() as folder, _ticking(total) as tick:
            links = make_links(find_jobs(image_path, folder).jobs, Path(folder))
            images = len(set(links.values()))
            listed = Path(folder, "images", "list.txt")
            listed.write_text("".join(f"{link.name}\n" for link in links))
            start = [*command[1:], "--image_path", str(listed), "--quiet=True", *others]
            runs = compare(tried, [sys.executable, *start], Path(folder), images, total, tick)
            try:
                for trial in runs:
                    trials.append(trial)
            except ConfigError as error:
                raise ConfigError(_with_own_names(str(error), links)) from None
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        say("interrupted: the untried flags were not measured\n", sys.stderr)
    if trials:
        typed = [*command, "--image_path", image_path, "--device", "cpu", *others]
        for line in table(trials, tried[len(trials) :], typed):
            say(f"{line}\n")
    return code or (DONE if any(trial.measured.rate for trial in trials) else SOME_FAILED)


def compare(
    tried: Sequence[Flags],
    command: Sequence[str],
    folder: Path,
    images: int,
    total: float,
    tick: Callable[[], None],
) -> Iterator[Trial]:
    """Runs the candidates and yields their trials, until `total` seconds or the memory are used up.

    `images` is the number of different images, which the links in `folder` repeat.

    Raises ConfigError if the run with the default flags fails.
    """
    end = time.monotonic() + total
    default: Measured | None = None
    start = 0.0  # seconds until the workers of the run before were loaded
    for number, flags in enumerate(tried):
        left = end - time.monotonic()
        if default and (left <= 0 or not _fits(flags, default)):
            return  # the next ones have as many workers, or more
        share = max(LEAST_SECONDS, left / (len(tried) - number) - start)
        # The first run may have to optimise the graph, which takes a large network a minute.
        to_start = left if default else float("inf")
        masks = folder / "masks"
        words = [*command, "--device", "cpu", "--save_dir", str(masks), *flags]
        measured = timed_run(words, _workers(flags), share, to_start, tick)
        if default is None:
            if measured.failure:
                raise ConfigError(measured.failure)
            default = measured
            masks = masks.rename(folder / "default") if masks.exists() else masks
        else:
            start = measured.start
        differ, masks_compared = difference(folder / "default", masks)
        yield Trial(flags, measured, differ, min(images, masks_compared))
        if masks.name != "default":
            shutil.rmtree(masks, ignore_errors=True)


def make_links(jobs: Sequence[Job], folder: Path) -> dict[Path, str]:
    """Makes MOST_IMAGES links to the images, the same ones again and again.

    Returns the image of each link.
    """
    (folder / "images").mkdir()
    links = {}
    step = max(1, len(jobs) // MOST_IMAGES)
    for number, job in zip(range(MOST_IMAGES), itertools.cycle(jobs[::step])):
        path = folder / "images" / f"{number:05}{os.path.splitext(job.image)[1]}"
        path.symlink_to(os.path.abspath(job.image))
        links[path] = job.image
    return links


def _with_own_names(message: str, links: Mapping[Path, str]) -> str:
    """Returns a run's message with the user's image in the place of its link."""
    for path, image in links.items():
        message = message.replace(f"{path}:", f"{shown(image)}:")
    return message


def _workers(flags: Flags) -> int:
    return int(flags[flags.index("--num_workers") + 1]) if "--num_workers" in flags else 1


def _fits(flags: Flags, default: Measured) -> bool:
    """Returns whether so many workers, each as large as the default's run, fit in the memory."""
    return _workers(flags) * default.memory < available_memory()


def difference(masks: Path, others: Path) -> tuple[float | None, int]:
    """Returns the share of the labels that differ in the first masks that both folders have.

    Also returns the number of these masks. Without one, the share is None.
    """
    import numpy as np
    from PIL import Image

    names = sorted(set(_files(masks)) & set(_files(others)))[:COMPARED]
    differing = labels = 0
    for name in names:
        one, other = (np.asarray(Image.open(folder / name)) for folder in (masks, others))
        differing, labels = differing + int((one != other).sum()), labels + one.size
    return (differing / labels if labels else None), len(names)


def _files(folder: Path) -> list[str]:
    """Returns the label maps below the folder, which are masks or, with --save label, labels."""
    found = [*folder.glob("*.png")] or [*folder.glob("label/*.png")]
    return [str(path.relative_to(folder)) for path in found]


@contextlib.contextmanager
def _ticking(total: float) -> Iterator[Callable[[], None]]:
    """Yields a function that moves a progress bar of `total` seconds. Only a terminal shows it."""
    import tqdm

    started = time.monotonic()
    form = "{percentage:3.0f}% |{bar}| {elapsed}"
    with tqdm.tqdm(total=total, bar_format=form, disable=not sys.stderr.isatty()) as bar:

        def tick() -> None:
            bar.update(min(total, time.monotonic() - started) - bar.n)

        yield tick


def table(trials: Sequence[Trial], untried: Sequence[Flags], command: list[str]) -> Iterator[str]:
    """Yields the lines of the table, sorted by speed, and the command lines to use."""
    yield f"{'images/s':>9} {'memory':>9} {'labels differ':>14}  flags"
    by_speed = sorted(trials, key=lambda trial: -trial.measured.rate)
    for trial in by_speed:
        yield _row(trial)
    for flags in untried:
        yield f"{'untried':>9} {'':>9} {'':>14}  {shlex.join(flags)}"
    if untried:
        yield "For the untried flags there was not enough time (--seconds) or memory."
    if any(not (trial.measured.rate or trial.measured.failure) for trial in trials):
        yield "no time: the run was too short to be measured. Give more --seconds."
    known: set[str] = set()
    for trial in trials:
        for warning in trial.measured.warnings:
            if warning not in known:
                known.add(warning)
                yield f"{_words(trial.flags)}: {warning}"
        if failed := trial.measured.failed:
            yield f"{_words(trial.flags)}: warning: {failed} images failed"
    usable = [trial for trial in by_speed if trial.measured.rate and not trial.measured.failure]
    if len(trials) == 1 or not usable:
        yield "No flags were compared: give more --seconds."
        return
    equal = next((trial for trial in usable if trial.differ == 0), None)
    if equal:
        count = equal.compared
        images = "the compared image" if count == 1 else f"all {count} compared images"
        yield f"The fastest flags that gave the same labels as the default, in {images}:"
        yield f"  {shlex.join([*command, *equal.flags])}"
    if usable[0] is not equal:
        differ = "no labels were compared" if usable[0].differ is None else "some labels differ"
        yield f"The fastest flags, but {differ}:"
        yield f"  {shlex.join([*command, *usable[0].flags])}"


def _row(trial: Trial) -> str:
    flags, measured = _words(trial.flags), trial.measured
    if measured.failure:
        return f"{'failed':>9} {'':>9} {'':>14}  {flags}: {measured.failure}"
    if not measured.rate:
        return f"{'no time':>9} {'':>9} {'':>14}  {flags}"
    memory = f"{measured.memory / 1e6:.0f} MB" if measured.memory else "unknown"
    differ = "unknown" if trial.differ is None else f"{100 * trial.differ:.2g} %"
    return f"{measured.rate:>9.1f} {memory:>9} {differ:>14}  {flags}"


def _words(flags: Flags) -> str:
    return shlex.join(flags) or "(the default)"


def _terminated(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)  # so that the current run is ended too


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())
