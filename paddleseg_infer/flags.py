"""The command line's flags, checked. Of the standard library only: --help is answered at once."""

import argparse
import math
from typing import Any, NoReturn

from paddleseg_infer.settings import KINDS

NOT_STARTED = 2  # the exit code


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

    def add(name: str, what: str, default: Any = None, told: str = "", **how: Any) -> None:
        """To the latest group. `told` is the default for a person, where that isn't its value."""
        told = told or ("none" if default is None else str(default))
        group.add_argument(name, help=f"{what} (default: {told})", default=default, **how)

    def switch(name: str, what: str, default: bool | None = False, told: str = "") -> None:
        add(name, what, default, told, nargs="?", const=True, type=word_bool, metavar="BOOL")

    group = parser.add_argument_group("what to do")
    what = "the exported deploy.yaml (required)"
    group.add_argument("--config", help=what, required=True, metavar="FILE")
    what = "an image, a folder of images, or a text file with an image a line (required)"
    group.add_argument("--image_path", help=what, required=True, metavar="PATH")
    add("--save_dir", "where masks go", "output", metavar="DIR")
    add("--batch_size", "images a batch", 1, type=count, metavar="N")
    switch(
        "--with_argmax",
        "argmax over the class axis of a model that gives scores; it is taken anyway, this flag "
        "hides the line about it",
    )
    switch(
        "--network_size",
        "masks of the network's size, as PaddleSeg's script saves them, not of the image's",
    )
    what = (
        "what is saved of each image, one or more of mask (the colour mask), label (class ids in "
        "grey, 16 bits where they pass 255), overlay (mask over image, with a legend), score (the "
        "winning class's probability in grey); all but mask in a folder of their name"
    )
    kinds: dict[str, Any] = {"nargs": "+", "action": Kinds, "choices": KINDS, "metavar": "KIND"}
    add("--save", what, ("mask",), "mask", **kinds)
    what = "colours of the classes: r g b r g b ..., or paddleseg, cityscapes or voc"
    add("--custom_color", what, ("paddleseg",), "paddleseg", nargs="+", metavar="COLOR")
    what = "of a model of one channel: class 1 is above it"
    add("--threshold", what, 0.5, "0.5; 0 suits raw logits", type=finite, metavar="X")
    size: dict[str, Any] = {"nargs": 2, "type": count, "metavar": ("W", "H")}
    add("--crop_size", "cut large images into windows of this size", **size)
    what = (
        "from window to window; with less than the crop size they overlap, and scores are averaged"
    )
    add("--stride", what, told="the crop size", **size)
    switch(
        "--dry_run",
        "find the images, load the model, print the first ten images and the engine's settings, "
        "decode no image",
    )

    group = parser.add_argument_group("the engine")
    told = "gpu, or cpu where Paddle is a CPU build"
    add("--device", "where to run", told=told, choices=("cpu", "gpu"))
    told = "10, or the usable processors divided among the workers if they are fewer"
    what = "threads on the CPU, of each worker"
    add("--cpu_threads", what, told=told, type=thread_count, metavar="N")
    what = "processes that share the images, where there are more than one batch"
    add("--num_workers", what, 1, type=worker_count, metavar="N")
    told = "Paddle's own, which is on in 2.6 and 3; False turns it off"
    switch("--enable_mkldnn", "oneDNN on the CPU", None, told)
    switch(
        "--enable_openvino",
        "run a pdmodel in the OpenVINO of Paddle 3's CPU build, which is faster for most models; a "
        "few labels in a million may differ",
    )
    add(
        "--cache_dir",
        "where TensorRT's engines and graphs that Paddle takes over 2 s to optimise are kept for "
        "the next start",
        told='~/.cache/paddleseg-infer; "" keeps none',
        metavar="DIR",
    )
    switch("--print_detail", "Paddle's own log")

    group = parser.add_argument_group("TensorRT, on a GPU")
    switch("--use_trt", "run in TensorRT")
    add("--precision", "TensorRT's precision", "fp32", choices=("fp32", "fp16", "int8"))
    what = "the fewest operators TensorRT takes over at once"
    add("--min_subgraph_size", what, 3, type=count, metavar="N")
    what = "run up to ten images first to collect the dynamic shapes"
    switch("--enable_auto_tune", what, told="False, they are the sizes in the images' headers")
    what = "with --enable_auto_tune: where the collected shapes are kept; used if it is there"
    add("--auto_tuned_shape_file", what, told="none, a temporary file", metavar="FILE")

    group = parser.add_argument_group("long runs")
    switch("--resume", "pass over images whose pictures are there, whole and of the image's size")
    what = "a JSON line an image as it ends, and a summary; with --resume appended"
    add("--report", what, metavar="FILE")
    what = "end a worker that takes longer for a batch, in seconds; its images are tried again"
    add("--timeout", what, type=seconds, metavar="S")
    what = "do the I-th of N parts of the images, from 0; each image belongs to one"
    add("--shard", what, told="all", type=shard, metavar="I/N")
    what = "run the workers on a Ray cluster: auto, local or its host:port"
    add("--ray", what, told="none, on this machine", metavar="ADDRESS")
    switch("--quiet", "no progress, no notes, no summary: warnings and failures only")

    group = parser.add_argument_group("the benchmark")
    switch("--benchmark", "run stage after stage and report how long each takes")
    add("--model_name", "the model's name in the report", "", "its folder's", metavar="NAME")
    return parser
