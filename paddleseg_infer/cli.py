"""The command line: sets up the streams, does the run, and returns the exit code."""

# Imports here need only the standard library, so that --help and wrong arguments are fast.
import atexit
import gc
import logging
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NoReturn

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError, shown
from paddleseg_infer.flags import parse
from paddleseg_infer.machine.streams import own_log, own_streams, say
from paddleseg_infer.option import idle_with, without_effect
from paddleseg_infer.outcomes import DONE, NOT_STARTED, SOME_FAILED, Interrupted, Job
from paddleseg_infer.pictures.palettes import palette_of
from paddleseg_infer.settings import Settings
from paddleseg_infer.tiling import check_sizes, checked_tiling

if TYPE_CHECKING:
    from paddleseg_infer.evaluation import Judge
    from paddleseg_infer.outcomes import Outcome, Windows
    from paddleseg_infer.runs.evaluation import Evaluation
    from paddleseg_infer.runs.jobs import Listing
    from paddleseg_infer.runs.report import Report, Summary

log = logging.getLogger("paddleseg_infer")

MANY = 100  # images


def command() -> NoReturn:
    """The entry point of `python infer.py` and of the installed `paddleseg-infer`."""
    # Otherwise Python looks for garbage among all objects before it ends, which takes 0.05 s.
    atexit.register(gc.freeze)
    # A handler in Python would not run before the engine returns, so Ctrl-C ends the process by the
    # system's default. If SIGINT is ignored (a process in the background), it stays ignored.
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        code = main()
    finally:
        signal.signal(signal.SIGINT, before)  # `%run infer.py` runs in a notebook's process
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    The process's standard streams and log are others while it runs, and are restored at the end.
    """
    settings = parse(arguments)
    level = logging.WARNING if settings.run.quiet else logging.INFO
    with own_streams(settings.engine.print_detail), own_log(log, level):
        try:
            return run(settings)
        except ConfigError as error:
            say(f"error: {error}\n", sys.stderr)
        except ModuleNotFoundError as error:
            say(f"error: {error}: {MISSING_HINT}\n", sys.stderr)
        return NOT_STARTED


def run(settings: Settings) -> int:
    """Finds the images and segments them, or prints what a run would do.

    Returns the exit code. Raises ConfigError.
    """
    from paddleseg_infer.pictures.files import check_save_dir
    from paddleseg_infer.runs.jobs import counted, find_jobs, part_of
    from paddleseg_infer.runs.labels import with_labels

    started = time.monotonic()
    check_together(settings)
    saving = settings.saving
    listing = find_jobs(settings.run.image_path, saving.save_dir, saving.save)
    if listing.repeated and not settings.run.dry_run:
        log.info(
            "%d lines of the list repeat an image: each image is processed once", listing.repeated
        )
    if listing.not_read:
        log.info("skipped %s", counted(listing.not_read))
    check_save_dir(saving.save_dir)
    jobs: Sequence[Job] = listing.jobs
    label_path = settings.evaluation.label_path
    if label_path is not None and not settings.run.benchmark:
        jobs = with_labels(jobs, label_path, saving.save_dir, saving.save)
    if settings.run.shard:
        jobs = part_of(jobs, settings.run.image_path, *settings.run.shard)
    if not settings.run.dry_run:
        return segment(jobs, listing, settings, started)
    from paddleseg_infer.runs.dry_run import dry_run

    dry_run(jobs, listing, settings, say)
    return DONE


def check_together(settings: Settings) -> None:
    """Raises ConfigError for options that exclude each other. Logs options without effect."""
    palette_of(settings.saving.custom_color)
    tiling = checked_tiling(settings.model.crop_size, settings.model.stride)
    saving = settings.saving
    check_sizes(tiling, settings.model.network_size, saving.save, saving.wgs84)
    check_evaluation(settings)
    parts = (settings.run, settings.saving, settings.model, settings.engine, settings.evaluation)
    if settings.run.dry_run:
        for name in idle_with("dry_run", *parts):
            log.warning("--%s has no effect with --dry_run", name)
        return
    for some in (settings.run, settings.saving, settings.model, settings.evaluation):
        for line in without_effect(some, some):
            log.warning("%s", line)
    if settings.run.benchmark:
        for name in idle_with("benchmark", *parts):
            log.warning("--%s has no effect with --benchmark, which runs in a single process", name)


def check_evaluation(settings: Settings) -> None:
    """Raises ConfigError if the masks of such a run can't be compared with label maps."""
    if settings.evaluation.label_path is None or settings.run.benchmark:
        return
    if settings.model.network_size:
        raise ConfigError(
            "--network_size gives masks of the network's size, which can't be compared with label "
            "maps: remove --network_size or --label_path"
        )
    if settings.run.resume and not {"mask", "label"} & set(settings.saving.save):
        raise ConfigError(
            "--resume with --label_path reads the masks that exist: add mask or label to --save"
        )


def segment(jobs: "Sequence[Job]", listing: "Listing", settings: Settings, started: float) -> int:
    """Segments the images, reports each outcome and a summary, and returns the exit code."""
    from paddleseg_infer.pictures.files import sweep_parts, target_of
    from paddleseg_infer.runs.progress import Progress
    from paddleseg_infer.runs.report import Report, Summary, about_run

    saving = settings.saving
    targets = (target_of(kind, job.stem) for job in jobs for kind in saving.save)
    sweep_parts(saving.save_dir, targets)
    judge, evaluation = evaluating(settings)
    report = None
    if path := settings.run.report:
        about, compares = about_run(settings, judge), evaluation is not None
        report = Report(path, saving.save, settings.run.resume, about, compares)
    total = len(jobs) + len(listing.unreadable)
    summary = Summary(total, evaluation, settings.run.shard)
    for outcome in listing.unreadable:
        summary.add(outcome)
    code = DONE
    progress = Progress(len(jobs), settings.run.quiet)
    try:
        with closing(outcomes(jobs, settings, progress.windows)) as made:
            results: Iterator[Outcome] = made
            if judge and settings.run.resume:
                from paddleseg_infer.runs.evaluation import with_skipped

                results = with_skipped(made, judge, saving)
            for outcome in results:
                summary.add(outcome)
                progress.add(outcome)
                if report:
                    report.add(outcome)
    except Interrupted as interruption:
        code = 128 + interruption.number
    except RunError as error:
        log.error("%s", error)
        code = SOME_FAILED
    finally:
        progress.close()
    seconds = time.monotonic() - started
    is_incomplete = summary.failed or summary.not_tried or summary.not_compared
    code = code or (SOME_FAILED if is_incomplete else DONE)
    code = close(report, summary, seconds, code)
    say_the_end(summary, settings, seconds)
    if summary.counts["done"] > MANY and code == DONE and not settings.run.quiet:
        suggest_flags(settings)
    return code


def evaluating(settings: Settings) -> "tuple[Judge | None, Evaluation | None]":
    """Returns what compares masks with label maps and adds it up, or None without --label_path.

    Raises ConfigError.
    """
    if settings.evaluation.label_path is None or settings.run.benchmark:
        return None, None
    from paddleseg_infer.deploy import load_deploy_config
    from paddleseg_infer.evaluation import judge_for
    from paddleseg_infer.runs.evaluation import Evaluation

    deploy = load_deploy_config(settings.run.config)
    judge = judge_for(deploy, settings.evaluation)
    if judge.classes and judge.ignore_index < judge.classes:
        log.warning(
            "--ignore_index %d is also a class of the model: this class gets the IoU 0, as in "
            "PaddleSeg",
            judge.ignore_index,
        )
    return judge, Evaluation(deploy.class_names)


def outcomes(
    jobs: "Sequence[Job]", settings: Settings, on_windows: "Callable[[Windows], None]"
) -> "Generator[Outcome, None, None]":
    """Segments the images. Yields an Outcome for each. For errors see `local.segment`."""
    if settings.run.benchmark:
        from paddleseg_infer.runs.benchmark import benchmark

        return benchmark(jobs, settings, say)
    if settings.run.ray is not None:
        from paddleseg_infer.runs import cluster

        return cluster.segment(jobs, settings, settings.run.ray)
    from paddleseg_infer.runs import local

    return local.segment(jobs, settings, on_windows)


def close(report: "Report | None", summary: "Summary", seconds: float, code: int) -> int:
    """Closes the report. Returns `code`, or SOME_FAILED instead of DONE if closing fails."""
    try:
        if report:
            report.close(summary.as_dict(seconds, code))
    except RunError as error:
        log.error("%s", error)
        return code or SOME_FAILED
    return code


def say_the_end(summary: "Summary", settings: Settings, seconds: float) -> None:
    """Prints each failed image and the numbers of images."""
    for outcome in sorted(summary.failed, key=lambda each: (each.job.image, each.reason)):
        say(f"failed: {shown(outcome.job.image)}: {outcome.reason}\n", sys.stderr)
    for outcome in sorted(summary.not_compared, key=lambda each: each.job.image):
        label, pixels = outcome.job.label, outcome.pixels
        named = f"label map {shown(label)}: " if label else ""
        why = pixels.label_error if pixels else ""
        say(f"not compared: {shown(outcome.job.image)}: {named}{why}\n", sys.stderr)
    if summary.not_tried:
        say(
            f"{summary.not_tried} images were not tried: run the command again with --resume\n",
            sys.stderr,
        )
    if not settings.run.quiet:
        say_numbers(summary, settings, seconds)
    if summary.evaluation:
        say("".join(f"{line}\n" for line in summary.evaluation.table(summary.total)))


def say_numbers(summary: "Summary", settings: Settings, seconds: float) -> None:
    """Prints the numbers of images, and the summary's table if there is a report."""
    done, skipped = summary.counts["done"], summary.counts["skipped"]
    existed = f", {skipped} skipped" if skipped else ""
    plurals = {"probability": "probabilities", "geojson": "polygons"}
    pictures = ", ".join(plurals.get(kind, f"{kind}s") for kind in settings.saving.save)
    say(
        f"{done} of {summary.total} images done in {seconds:.1f} s, {len(summary.failed)} failed"
        f"{existed}: {pictures} in {shown(settings.saving.save_dir)}\n"
    )
    if settings.run.report:
        say("".join(f"{line}\n" for line in summary.table(seconds)))


def suggest_flags(settings: Settings) -> None:
    """Logs how to find faster flags, if the run was on this CPU with the default engine."""
    from paddleseg_infer.machine.paddle_build import find_paddle
    from paddleseg_infer.machine.processor import missing_for_bf16

    build, engine = find_paddle(), settings.engine
    on_gpu = engine.device == "gpu" or (engine.device is None and build.has_gpu)
    is_default = (
        engine.num_workers == 1 and not engine.enable_openvino and engine.precision == "fp32"
    )
    if is_default and not on_gpu and settings.run.ray is None:
        bf16 = "" if missing_for_bf16() else ", for example --precision bf16"
        log.info(
            "python -m paddleseg_infer.choose tries other flags, which may be faster here%s", bf16
        )
