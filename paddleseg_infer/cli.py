"""The command line: arguments to a run, and its exit code."""

# Only the standard library up here: --help and a wrong argument are answered at once.
import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError, shown
from paddleseg_infer.flags import NOT_STARTED, make_parser
from paddleseg_infer.pictures.palettes import palette_of
from paddleseg_infer.tiling import check_sizes, checked_tiling

if TYPE_CHECKING:
    from paddleseg_infer.outcomes import Job, Outcome

log = logging.getLogger("paddleseg_infer")

DONE, SOME_FAILED = 0, 1
MANY = 100  # images


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, in a process of its own, and returns its exit code."""
    options = make_parser().parse_args(arguments)
    keep_standard_output(options.print_detail)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal can't show is no crash
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.addLevelName(logging.INFO, "note")
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    log.setLevel(logging.WARNING if options.quiet else logging.INFO)
    try:
        return dry_run(options) if options.dry_run else run(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"error: {error}: {MISSING_HINT}", file=sys.stderr)
    return NOT_STARTED


def keep_standard_output(print_detail: bool) -> None:
    """Keeps standard output to this program: in some models' runs Paddle's C++ code prints there.

    With `print_detail` those prints go to standard error. A closed stream is opened, to nowhere,
    or a file that is written would get its number, and what is printed there.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115 - these stay open
    if sys.stdout:
        sys.stdout = open(os.dup(1), "w", encoding=sys.stdout.encoding)  # noqa: SIM115
    else:
        sys.stdout = open(nowhere, "w")  # noqa: SIM115
    os.dup2(2 if print_detail else nowhere, 1)


def run(options: argparse.Namespace) -> int:
    from paddleseg_infer.outcomes import Interrupted, Outcome
    from paddleseg_infer.pictures.files import check_save_dir, sweep_parts, target_of
    from paddleseg_infer.runs.jobs import find_jobs, part_of
    from paddleseg_infer.runs.progress import Progress
    from paddleseg_infer.runs.report import Report, Summary

    started = time.monotonic()
    kinds, palette = options.save, palette_of(options.custom_color)
    tiling = checked_tiling(options.crop_size, options.stride)
    check_sizes(tiling, options.network_size, kinds)
    listing = find_jobs(options.image_path, options.save_dir, kinds)
    if listing.repeated:
        log.info("%d repeated in the list: each image is done once", listing.repeated)
    check_save_dir(options.save_dir)
    jobs = listing.jobs
    if options.shard:
        jobs = part_of(jobs, options.image_path, *options.shard)
    sweep_parts(options.save_dir, (target_of(kind, job.target) for job in jobs for kind in kinds))
    report = Report(options.report, kinds, options.resume) if options.report else None
    summary = Summary(len(jobs) + len(listing.unreadable))
    progress = Progress(len(jobs), options.quiet)
    failed, code = list(listing.unreadable), DONE
    for path, why in listing.unreadable:
        summary.add(path, Outcome("failed", why))
    try:
        for job, outcome in outcomes(options, palette, jobs):
            summary.add(job.image, outcome)
            progress.ended(outcome.status)
            if outcome.status == "failed":
                failed.append((job.image, outcome.reason))
            if report:
                report.add(job, outcome)
    except Interrupted as interruption:
        code = 128 + interruption.number
    except RunError as error:
        log.error("%s", error)
    finally:
        progress.close()
    seconds = time.monotonic() - started
    code = code or (SOME_FAILED if failed or summary.not_tried else DONE)
    try:
        if report:
            report.close(summary.as_dict(seconds, code))
    except RunError as error:
        log.error("%s", error)
        code = code or SOME_FAILED
    for path, why in sorted(failed):
        say(f"failed: {shown(path)}: {why}\n", sys.stderr)
    if summary.not_tried:
        say(f"{summary.not_tried} images were not tried\n", sys.stderr)
    if not options.quiet:
        done, skipped = summary.counts["done"], summary.counts["skipped"]
        there = f", {skipped} were there" if skipped else ""
        say(
            f"{done} of {summary.total} images done in {seconds:.1f} s, {len(failed)} failed"
            f"{there}: {', '.join(kind + 's' for kind in kinds)} in {shown(options.save_dir)}\n"
        )
        if report:
            say("".join(f"{line}\n" for line in summary.table(seconds)))
        if done > MANY and code == DONE:
            suggest_openvino(options)
    return code


def done_check(options: argparse.Namespace) -> Callable[["Job"], bool]:
    """Whether a job's pictures are all there, whole and of the image's size, for --resume."""
    from paddleseg_infer.pictures.files import target_of, whole_png

    save_dir = os.path.abspath(options.save_dir)  # it may be asked from another folder
    if not options.resume:
        return lambda job: False

    def is_done(job: "Job") -> bool:
        from paddleseg_infer.preprocess import image_size

        sizes = {
            kind: whole_png(os.path.join(save_dir, target_of(kind, job.target)))
            for kind in options.save
        }
        if None in sizes.values():
            return False
        of_image = {size for kind, size in sizes.items() if kind != "overlay"}
        return options.network_size or not of_image or of_image == {image_size(job.image)}

    return is_done


def suggest_openvino(options: argparse.Namespace) -> None:
    """A line for those who run many images without it and could."""
    from paddleseg_infer.deploy import load_deploy_config
    from paddleseg_infer.machine.paddle_build import find_paddle

    build = find_paddle()
    on_gpu = options.device == "gpu" or (options.device is None and build.has_gpu)
    if options.enable_openvino or on_gpu or not build.openvino_library:
        return
    with contextlib.suppress(ConfigError):  # deploy.yaml has gone meanwhile
        if not load_deploy_config(options.config).is_pir:
            log.info("--enable_openvino is faster for most models: see OpenVINO in the README")


def outcomes(
    options: argparse.Namespace, palette: bytes, jobs: Sequence["Job"]
) -> Iterator[tuple["Job", "Outcome"]]:
    """Segments the images; yields each job with what became of it."""
    names = ("batch_size", "network_size", "with_argmax", "threshold", "crop_size", "stride")
    how = {name: getattr(options, name) for name in names} | engine_options(options)
    saving = {"save_dir": options.save_dir, "kinds": options.save, "palette": palette}
    if not options.benchmark:
        if options.model_name:
            log.warning("--model_name has no effect without --benchmark")
        how |= {"timeout": options.timeout, "is_done": done_check(options)}
        if options.ray is not None:
            from paddleseg_infer.runs import cluster

            return cluster.segment(jobs, options.config, saving, address=options.ray, **how)
        from paddleseg_infer.runs import local as workers

        return workers.segment(jobs, options.config, saving, **how)
    from paddleseg_infer.runs.benchmark import benchmark

    for name in ("num_workers", "ray", "resume", "timeout"):
        if getattr(options, name) not in (1, None, False):
            log.warning("--%s has no effect with --benchmark, which runs stage after stage", name)
    how["num_workers"] = 1
    return benchmark(jobs, options.config, saving, options.model_name, say, **how)


def dry_run(options: argparse.Namespace) -> int:
    import yaml

    from paddleseg_infer.engines.shapes import Expected
    from paddleseg_infer.pictures.files import check_save_dir, target_of
    from paddleseg_infer.runs.dry_run import planned_run
    from paddleseg_infer.runs.jobs import find_jobs, part_of
    from paddleseg_infer.runs.local import processes_for
    from paddleseg_infer.sources.path import PathSource

    kinds, _ = options.save, palette_of(options.custom_color)
    tiling = checked_tiling(options.crop_size, options.stride)
    check_sizes(tiling, options.network_size, kinds)
    for name in ("ray", "resume", "report"):
        if getattr(options, name) not in (None, False):
            log.warning("--%s has no effect with --dry_run", name)
    listing = find_jobs(options.image_path, options.save_dir, kinds)
    check_save_dir(options.save_dir)
    jobs = listing.jobs
    if options.shard:
        jobs = part_of(jobs, options.image_path, *options.shard)
    how = engine_options(options)
    how["num_workers"] = processes_for(jobs, options.batch_size, options.num_workers)
    images = [PathSource(job.image) for job in jobs]
    expected = Expected(images, options.batch_size, tiling.crop if tiling else None)
    planned, failure = planned_run(options.config, expected, **how)
    plan = {
        "images": len(jobs),
        "first_ten": [
            {"image": shown(job.image)}
            | {kind: shown(target_of(kind, job.target)) for kind in kinds}
            for job in jobs[:10]
        ],
        "unreadable_folders": [shown(path) for path, _ in listing.unreadable],
        "save_dir": shown(options.save_dir),
        **planned,
    }
    say(yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))
    if failure:
        raise failure
    return DONE


def say(text: str, stream: TextIO | None = None) -> None:
    """Writes to standard output, which may be closed or full: the masks are there all the same."""
    stream = stream or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except OSError:  # and nothing is left in the buffer for Python to fail on at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def engine_options(options: argparse.Namespace) -> dict[str, Any]:
    from paddleseg_infer.settings import EngineOptions

    names = [field.name for field in fields(EngineOptions)]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def command() -> NoReturn:
    """The entry point of `python infer.py` and of the installed `paddleseg-infer`."""
    # While the engine runs, a handler in Python would wait for it: let the system end the process,
    # unless it was started so that Ctrl-C doesn't reach it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
