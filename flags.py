"""The command line's flags, checked. Of the standard library only: --help is answered at once."""

import argparse
from typing import Any, NoReturn

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
        help="where the collected shapes are kept; used if it is there (default: none, a temporary "
        "file)",
    )

    add = group("the report")
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
