#!/usr/bin/env python3
"""Segments images with a model that PaddleSeg exported, and saves colour masks.

python infer.py --config export/deploy.yaml --image_path photos --device cpu
"""

# Only the standard library up here: --help and a wrong argument are answered at once.
import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

if __package__:  # installed: in the package too the modules import each other by plain names
    sys.path.insert(0, os.path.dirname(__file__))

from errors import ConfigError, shown

log = logging.getLogger("paddleseg_infer")

DONE, SOME_FAILED, NOT_STARTED = 0, 1, 2


def word_bool(text: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"must be True or False, not {text!r}")
    return words[text.lower()]


def count(text: str, most: int = 1_000_000) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= most):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}, not {text!r}")
    return int(text)


def thread_count(text: str) -> int:
    return count(text, most=1024)  # more end the process in the threading library


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of every flag before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(NOT_STARTED, f"error: {message}; {self.prog} --help lists the flags\n")


def make_parser() -> Parser:
    parser = Parser(
        description="Segments images with a model that PaddleSeg exported, and saves colour masks.",
        epilog="Flags of True or False may stand alone for True. Exit code: 0 all done; 1 some "
        "images failed, each is named; 2 nothing could be started; 130 or 143 interrupted.",
        allow_abbrev=False,
    )

    def group(title: str) -> Any:
        return parser.add_argument_group(title).add_argument

    switch: dict[str, Any] = {"nargs": "?", "const": True, "type": word_bool, "metavar": "BOOL"}

    add = group("what to do")
    add("--config", required=True, metavar="FILE", help="the exported deploy.yaml (required)")
    add(
        "--image_path",
        required=True,
        metavar="PATH",
        help="an image, a folder of images, or a text file with an image a line (required)",
    )
    add("--save_dir", default="output", metavar="DIR", help="where masks go (default: output)")
    add("--batch_size", type=count, default=1, metavar="N", help="images a batch (default: 1)")
    add(
        "--with_argmax",
        **switch,
        default=False,
        help="argmax over the class axis of a model that gives scores; it is taken anyway, this "
        "flag hides the line about it (default: False)",
    )
    add(
        "--network_size",
        **switch,
        default=False,
        help="masks of the network's size, as PaddleSeg's script saves them, not of the image's "
        "(default: False)",
    )
    add(
        "--dry_run",
        **switch,
        default=False,
        help="find the images, load the model, print the first ten images and the engine's "
        "settings, open no image (default: False)",
    )

    add = group("the engine")
    add(
        "--device",
        choices=("cpu", "gpu"),
        help="where to run (default: gpu, or cpu where Paddle is a CPU build)",
    )
    add(
        "--cpu_threads",
        type=thread_count,
        metavar="N",
        help="threads on the CPU (default: 10, or the usable processors if they are fewer)",
    )
    add(
        "--enable_mkldnn",
        **switch,
        help="oneDNN on the CPU (default: Paddle's own, which is on in 2.6 and 3; False turns it "
        "off)",
    )
    add("--print_detail", **switch, default=False, help="Paddle's own log (default: False)")

    add = group("TensorRT, on a GPU")
    add("--use_trt", **switch, default=False, help="run in TensorRT (default: False)")
    add(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="TensorRT's precision (default: fp32)",
    )
    add(
        "--min_subgraph_size",
        type=count,
        default=3,
        metavar="N",
        help="the fewest operators TensorRT takes over at once (default: 3)",
    )
    add(
        "--enable_auto_tune",
        **switch,
        default=False,
        help="run up to ten images first to collect the dynamic shapes (default: False)",
    )
    add(
        "--auto_tuned_shape_file",
        metavar="FILE",
        help="where the collected shapes are kept; used if it is there (default: none, a temporary "
        "file)",
    )

    add = group("the report")
    add("--benchmark", **switch, default=False, help="no effect yet (default: False)")
    add("--model_name", default="", metavar="NAME", help="no effect yet (default: none)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, in a process of its own, and returns its exit code."""
    options = make_parser().parse_args(arguments)
    keep_standard_output(options.print_detail)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal can't show is no crash
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.addLevelName(logging.INFO, "note")
    logging.addLevelName(logging.WARNING, "warning")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    log.setLevel(logging.INFO)
    if options.benchmark or options.model_name:
        log.warning("--benchmark and --model_name have no effect yet: there is no report")
    try:
        return dry_run(options) if options.dry_run else run(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        hint = "pip install -r requirements.txt, or activate the environment where that was done"
        print(f"error: {error}: {hint}", file=sys.stderr)
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
    from images import find_jobs
    from pipeline import Segmenter
    from postprocess import prepare_save_dir

    started = time.monotonic()
    listing = find_jobs(options.image_path, options.save_dir)
    if listing.repeated:
        log.info("%d repeated in the list: each image is done once", listing.repeated)
    segmenter = Segmenter(
        options.config,
        batch_size=options.batch_size,
        network_size=options.network_size,
        with_argmax=options.with_argmax,
        tune_on=[job.image for job in listing.jobs],
        **engine_options(options),
    )
    prepare_save_dir(options.save_dir, (job.target for job in listing.jobs))
    done, failed = 0, list(listing.unreadable)
    for job, error in segmenter.save_masks(listing.jobs, options.save_dir):
        if error:
            failed.append((job.image, error))
        else:
            done += 1
    for path, error in sorted(failed):
        print(f"failed: {shown(path)}: {error}", file=sys.stderr)
    seconds = time.monotonic() - started
    say(
        f"{done} of {done + len(failed)} images done in {seconds:.1f} s, {len(failed)} failed: "
        f"masks in {shown(options.save_dir)}\n"
    )
    return SOME_FAILED if failed else DONE


def dry_run(options: argparse.Namespace) -> int:
    import yaml

    from images import find_jobs
    from pipeline import planned_run
    from postprocess import check_save_dir

    listing = find_jobs(options.image_path, options.save_dir)
    check_save_dir(options.save_dir)
    plan = {
        "images": len(listing.jobs),
        "first_ten": [
            {"image": shown(job.image), "mask": shown(job.target)} for job in listing.jobs[:10]
        ],
        "unreadable_folders": [shown(path) for path, _ in listing.unreadable],
        "save_dir": shown(options.save_dir),
        "batch_size": options.batch_size,
        "engine": planned_run(options.config, **engine_options(options)),
    }
    say(yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))
    return DONE


def say(text: str) -> None:
    """Writes to standard output, which may be closed or full: the masks are there all the same."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # and nothing is left in the buffer for Python to fail on at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def engine_options(options: argparse.Namespace) -> dict[str, Any]:
    from config import EngineOptions

    return {field.name: getattr(options, field.name) for field in fields(EngineOptions)}


def command() -> NoReturn:
    """The entry point of `python infer.py` and of the installed `paddleseg-infer`."""
    # While the engine runs, a handler in Python would wait for it: let the system end the process,
    # unless it was started so that Ctrl-C doesn't reach it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())


if __name__ == "__main__":
    command()
