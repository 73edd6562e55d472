"""The command line's flags, checked. Of the standard library only: --help is answered at once."""

import argparse
import math
from typing import Any, NoReturn

NOT_STARTED = 2  # the exit code
KINDS = ("mask", "label", "overlay", "score")  # of pictures; pictures.py makes them


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


def worker_count(text: str) -> int:
    return count(text, most=256)


def finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")
    return value


def seconds(text: str) -> float:
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text!r}")
    return value


def shard(text: str) -> tuple[int, int]:
    parts = text.split("/")
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
        number, count = map(int, parts)
        if number < count:
            return number, count
    raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N-1, not {text!r}")


class Kinds(argparse.Action):
    """Each once, in the order in which they are written."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, tuple(kind for kind in KINDS if kind in values))


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
        "--save",
        nargs="+",
        action=Kinds,
        choices=KINDS,
        default=("mask",),
        metavar="KIND",
        help="what is saved of each image, one or more of mask (the colour mask), label (class ids "
        "in grey, 16 bits where they pass 255), overlay (mask over image, with a legend), score "
        "(the winning class's probability in grey); all but mask in a folder of their name "
        "(default: mask)",
    )
    add(
        "--custom_color",
        nargs="+",
        default=("paddleseg",),
        metavar="COLOR",
        help="colours of the classes: r g b r g b ..., or paddleseg, cityscapes or voc (default: "
        "paddleseg)",
    )
    add(
        "--threshold",
        type=finite,
        default=0.5,
        metavar="X",
        help="of a model of one channel: class 1 is above it (default: 0.5; 0 suits raw logits)",
    )
    add(
        "--crop_size",
        nargs=2,
        type=count,
        metavar=("W", "H"),
        help="cut large images into windows of this size (default: none)",
    )
    add(
        "--stride",
        nargs=2,
        type=count,
        metavar=("W", "H"),
        help="from window to window; with less than the crop size they overlap, and scores are "
        "averaged (default: the crop size)",
    )
    add(
        "--dry_run",
        **switch,
        default=False,
        help="find the images, load the model, print the first ten images and the engine's "
        "settings, decode no image (default: False)",
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
        help="threads on the CPU, of each worker (default: 10, or the usable processors divided "
        "among the workers if they are fewer)",
    )
    add(
        "--num_workers",
        type=worker_count,
        default=1,
        metavar="N",
        help="processes that share the images, where there are more than one batch (default: 1)",
    )
    add(
        "--enable_mkldnn",
        **switch,
        help="oneDNN on the CPU (default: Paddle's own, which is on in 2.6 and 3; False turns it "
        "off)",
    )
    add(
        "--enable_openvino",
        **switch,
        default=False,
        help="run a pdmodel in the OpenVINO of Paddle 3's CPU build, which is faster for most "
        "models; a few labels in a million may differ (default: False)",
    )
    add(
        "--cache_dir",
        metavar="DIR",
        help="where TensorRT's engines and graphs that Paddle takes over 2 s to optimise are kept "
        'for the next start (default: ~/.cache/paddleseg-infer; "" keeps none)',
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
        help="run up to ten images first to collect the dynamic shapes (default: False, they are "
        "the sizes in the images' headers)",
    )
    add(
        "--auto_tuned_shape_file",
        metavar="FILE",
        help="with --enable_auto_tune: where the collected shapes are kept; used if it is there "
        "(default: none, a temporary file)",
    )

    add = group("long runs")
    add(
        "--resume",
        **switch,
        default=False,
        help="pass over images whose pictures are there, whole and of the image's size (default: "
        "False)",
    )
    add(
        "--report",
        metavar="FILE",
        help="a JSON line an image as it ends, and a summary; with --resume appended (default: "
        "none)",
    )
    add(
        "--timeout",
        type=seconds,
        metavar="S",
        help="end a worker that takes longer for a batch, in seconds; its images are tried again "
        "(default: none)",
    )
    add(
        "--shard",
        type=shard,
        metavar="I/N",
        help="do the I-th of N parts of the images, from 0; each image belongs to one (default: "
        "all)",
    )
    add(
        "--ray",
        metavar="ADDRESS",
        help="run the workers on a Ray cluster: auto, local or its address (default: none, on this "
        "machine)",
    )
    add(
        "--quiet",
        **switch,
        default=False,
        help="no progress, no notes, no summary: warnings and failures only (default: False)",
    )

    add = group("the benchmark")
    add(
        "--benchmark",
        **switch,
        default=False,
        help="run stage after stage and report how long each takes (default: False)",
    )
    add(
        "--model_name",
        default="",
        metavar="NAME",
        help="the model's name in the report (default: its folder's)",
    )
    return parser
