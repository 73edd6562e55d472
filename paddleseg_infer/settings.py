"""The options of a run, each defined once: name, type, default, help, and when it has an effect.

The command line's flags, the lines about flags without effect, the README's table (which a test
compares) and the keys of what is kept between runs all come from these fields.
"""

import os
from dataclasses import MISSING, dataclass

from paddleseg_infer.option import BENCHMARK, ENGINE, LONG_RUNS, TENSORRT, TO_DO, option

KINDS = ("mask", "label", "overlay", "score")  # of pictures; pictures/kinds.py makes them
PALETTE_NAMES = ("paddleseg", "cityscapes", "voc")  # pictures/palettes.py has their colours
MOST_THREADS = 10  # of an engine, where none are asked for
MAX_THREADS = 1024  # more end the process in the threading library
TENSORRT_PRECISIONS = {"fp32": "Float32", "fp16": "Half", "int8": "Int8"}


@dataclass(frozen=True)
class RunOptions:
    """What is run, and how a long run goes."""

    config: str = option(MISSING, TO_DO, "the exported deploy.yaml", "text", metavar="FILE")
    image_path: str = option(
        MISSING,
        TO_DO,
        "an image, a folder of images, or a text file with an image a line",
        "text",
        metavar="PATH",
    )
    dry_run: bool = option(
        False,
        TO_DO,
        "find the images, load the model, print the first ten images and the engine's settings, "
        "decode no image",
    )
    resume: bool = option(
        False,
        LONG_RUNS,
        "pass over images whose pictures are there, whole and of the image's size",
        idle_with=("benchmark", "dry_run"),
    )
    report: str | None = option(
        None,
        LONG_RUNS,
        "a JSON line an image as it ends, and a summary; with --resume appended",
        "text",
        metavar="FILE",
        idle_with=("dry_run",),
    )
    timeout: float | None = option(
        None,
        LONG_RUNS,
        "end a worker that takes longer for a batch, in seconds; its images are tried again",
        "seconds",
        metavar="S",
        idle_with=("benchmark",),
    )
    shard: tuple[int, int] | None = option(
        None,
        LONG_RUNS,
        "do the I-th of N parts of the images, from 0; each image belongs to one",
        "shard",
        metavar="I/N",
        shown_default="all",
    )
    ray: str | None = option(
        None,
        LONG_RUNS,
        "run the workers on a Ray cluster: auto, local or its host:port",
        "text",
        metavar="ADDRESS",
        shown_default="none, on this machine",
        idle_with=("benchmark", "dry_run"),
    )
    quiet: bool = option(
        False, LONG_RUNS, "no progress, no notes, no summary: warnings and failures only"
    )
    benchmark: bool = option(
        False, BENCHMARK, "run stage after stage and report how long each takes"
    )
    model_name: str = option(
        "",
        BENCHMARK,
        "the model's name in the report",
        "text",
        metavar="NAME",
        shown_default="its folder's",
        needs="benchmark",
    )


@dataclass(frozen=True)
class SavingOptions:
    """What is saved of each image, and where."""

    save_dir: str = option("output", TO_DO, "where masks go", "text", metavar="DIR")
    save: tuple[str, ...] = option(
        ("mask",),
        TO_DO,
        "what is saved of each image, one or more of mask (the colour mask), label (class ids in "
        "grey, 16 bits where they pass 255), overlay (mask over image, with a legend), score (the "
        "winning class's probability in grey); all but mask in a folder of their name",
        "choices",
        metavar="KIND",
        choices=KINDS,
        shown_default="mask",
    )
    custom_color: tuple[str, ...] = option(
        ("paddleseg",),
        TO_DO,
        f"colours of the classes: r g b r g b ..., or one of {', '.join(PALETTE_NAMES)}",
        "words",
        metavar="COLOR",
        shown_default="paddleseg",
    )


@dataclass(frozen=True)
class ModelOptions:
    """How images go through the model."""

    batch_size: int = option(1, TO_DO, "images a batch", "whole", metavar="N")
    with_argmax: bool = option(
        False,
        TO_DO,
        "argmax over the class axis of a model that gives scores; it is taken anyway, this flag "
        "hides the line about it",
    )
    network_size: bool = option(
        False,
        TO_DO,
        "masks of the network's size, as PaddleSeg's script saves them, not of the image's",
    )
    threshold: float = option(
        0.5,
        TO_DO,
        "of a model of one channel: class 1 is above it",
        "number",
        metavar="X",
        shown_default="0.5; 0 suits raw logits",
    )
    crop_size: tuple[int, int] | None = option(
        None, TO_DO, "cut large images into windows of this size", "size", metavar=("W", "H")
    )
    stride: tuple[int, int] | None = option(
        None,
        TO_DO,
        "from window to window; with less than the crop size they overlap, and scores are averaged",
        "size",
        metavar=("W", "H"),
        shown_default="the crop size",
    )


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is to run."""

    device: str | None = option(
        None,
        ENGINE,
        "where to run",
        "text",
        choices=("cpu", "gpu"),
        shown_default="gpu, or cpu where Paddle is a CPU build",
    )
    cpu_threads: int | None = option(
        None,
        ENGINE,
        "threads on the CPU, of each worker",
        "whole",
        metavar="N",
        most=MAX_THREADS,
        shown_default=f"{MOST_THREADS}, or the usable processors divided among the workers if they "
        "are fewer",
        needs="cpu",
    )
    num_workers: int = option(
        1,
        ENGINE,
        "processes that share the images, where there are more than one batch",
        "whole",
        metavar="N",
        most=256,
        idle_with=("benchmark",),
    )
    enable_mkldnn: bool | None = option(
        None,
        ENGINE,
        "oneDNN on the CPU",
        shown_default="Paddle's own, which is on in 2.6 and 3; False turns it off",
        needs="cpu",
        kept_by="graph",
    )
    enable_openvino: bool = option(
        False,
        ENGINE,
        "run a pdmodel in the OpenVINO of Paddle 3's CPU build, which is faster for most models; a "
        "few labels in a million may differ",
    )
    cache_dir: str | None = option(
        None,
        ENGINE,
        "where TensorRT's engines and graphs that Paddle takes over 2 s to optimise are kept for "
        "the next start",
        "text",
        metavar="DIR",
        shown_default='~/.cache/paddleseg-infer; "" keeps none',
        needs="kept files",
    )
    print_detail: bool = option(False, ENGINE, "Paddle's own log")
    use_trt: bool = option(False, TENSORRT, "run in TensorRT", needs="gpu")
    precision: str = option(
        "fp32",
        TENSORRT,
        "TensorRT's precision",
        "text",
        choices=tuple(TENSORRT_PRECISIONS),
        needs="tensorrt",
        kept_by="tensorrt",
    )
    min_subgraph_size: int = option(
        3,
        TENSORRT,
        "the fewest operators TensorRT takes over at once",
        "whole",
        metavar="N",
        needs="tensorrt",
        kept_by="tensorrt",
    )
    enable_auto_tune: bool = option(
        False,
        TENSORRT,
        "run up to ten images first to collect the dynamic shapes",
        shown_default="False, they are the sizes in the images' headers",
        needs="tensorrt",
    )
    auto_tuned_shape_file: str | None = option(
        None,
        TENSORRT,
        "with --enable_auto_tune: where the collected shapes are kept; used if it is there",
        "text",
        metavar="FILE",
        shown_default="none, a temporary file",
        needs="tuning",
    )
    gpu: int = 0  # among the visible ones, counted round: workers are spread over them

    @property
    def cache_folder(self) -> str:
        """Where files are kept between runs, "" for nowhere: `cache_dir`, or the user's cache."""
        if self.cache_dir is not None:
            return self.cache_dir
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):  # the XDG specification: others are to be ignored
            base = os.path.abspath(os.path.join(os.path.expanduser("~"), ".cache"))
        return os.path.join(base, "paddleseg-infer")


@dataclass(frozen=True)
class Settings:
    """All options of a command line."""

    run: RunOptions
    saving: SavingOptions = SavingOptions()
    model: ModelOptions = ModelOptions()
    engine: EngineOptions = EngineOptions()
