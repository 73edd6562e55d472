"""The options of a run, each defined once: name, type, default, help, and when it has an effect.

The command line's flags, the lines about flags without effect, the README's table (which a test
compares) and the keys of cached files all come from these fields.
"""

from dataclasses import MISSING, dataclass

from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.option import BENCHMARK, EVALUATION, LONG_RUNS, TO_DO, option

KINDS = (
    "mask",
    "label",
    "overlay",
    "score",
    "probability",
    "geojson",
)  # pictures/kinds.py makes them
BLENDS = ("mean", "gaussian")  # windows.py has their formulas
PALETTE_NAMES = ("paddleseg", "cityscapes", "voc")  # pictures/palettes.py has their colours
MAX_LABEL = 65535  # the largest class id in a 16-bit label map
UNKNOWN = 255  # the id of pixels that belong to no class


@dataclass(frozen=True)
class RunOptions:
    """What to run, and options for long runs and benchmarks."""

    config: str = option(MISSING, TO_DO, "the exported deploy.yaml", "text", metavar="FILE")
    image_path: str = option(
        MISSING,
        TO_DO,
        "an image, a folder of images, or a text file that names one image per line",
        "text",
        metavar="PATH",
    )
    dry_run: bool = option(
        False,
        TO_DO,
        "find the images, load the model, and print the first ten images and the engine's "
        "settings; no image is decoded or saved",
    )
    resume: bool = option(
        False,
        LONG_RUNS,
        "skip each image whose pictures exist, are complete and have the image's size",
        idle_with=("benchmark", "dry_run"),
    )
    report: str | None = option(
        None,
        LONG_RUNS,
        "write one JSON line for each image when it is finished, and a summary at the end; "
        "--resume appends to an existing file",
        "text",
        metavar="FILE",
        idle_with=("dry_run",),
    )
    timeout: float | None = option(
        None,
        LONG_RUNS,
        "the longest time for one batch, in seconds; a worker that takes longer is stopped, and "
        "its images are tried again",
        "positive",
        metavar="S",
        idle_with=("benchmark",),
    )
    shard: tuple[int, int] | None = option(
        None,
        LONG_RUNS,
        "process only part I of N parts of the images; parts are counted from 0, and each image "
        "belongs to one part",
        "shard",
        metavar="I/N",
        shown_default="all",
    )
    ray: str | None = option(
        None,
        LONG_RUNS,
        "run the workers on a Ray cluster: auto, local or the address host:port",
        "text",
        metavar="ADDRESS",
        shown_default="none: the run is on this machine only",
        idle_with=("benchmark", "dry_run"),
    )
    quiet: bool = option(
        False, LONG_RUNS, "log only warnings and failures: no progress, no notes, no summary"
    )
    benchmark: bool = option(
        False,
        BENCHMARK,
        "run one batch after the other in a single process, and report the time of each stage",
    )
    model_name: str = option(
        "",
        BENCHMARK,
        "the model's name in the benchmark's report",
        "text",
        metavar="NAME",
        shown_default="the name of the model's folder",
        needs="benchmark",
    )


@dataclass(frozen=True)
class SavingOptions:
    """What to save for each image, and where."""

    save_dir: str = option("output", TO_DO, "the folder for the masks", "text", metavar="DIR")
    save: tuple[str, ...] = option(
        ("mask",),
        TO_DO,
        "the pictures to save for each image, one or more of: mask (class ids in colours), label "
        "(class ids in grey, with 16 bits if an id is above 255), overlay (the mask over the "
        "image, with a legend), score (the probability of the chosen class, in grey), probability "
        "(those of all classes, as .npz files of float16 [classes, H, W]), geojson (a polygon for "
        "each region; needs rasterio); all but the mask are saved in subfolders of these names",
        "choices",
        metavar="KIND",
        choices=KINDS,
        shown_default="mask",
    )
    custom_color: tuple[str, ...] = option(
        ("paddleseg",),
        TO_DO,
        f"the colours of the classes: r g b r g b ..., or one of {', '.join(PALETTE_NAMES)}",
        "words",
        metavar="COLOR",
        shown_default="paddleseg",
    )
    overviews: bool = option(
        False,
        TO_DO,
        "save GeoTIFFs as Cloud Optimized GeoTIFFs, which contain smaller copies of the mask for a "
        "quick look; needs rasterio",
        needs="masks",
    )
    wgs84: bool = option(
        False,
        TO_DO,
        "give the polygons of --save geojson the coordinates of WGS 84, as RFC 7946 wants it, and "
        "not those of the image's file",
        needs="polygons",
    )


@dataclass(frozen=True)
class ModelOptions:
    """How the images are segmented."""

    batch_size: int = option(1, TO_DO, "images per batch", "whole", metavar="N")
    with_argmax: bool = option(
        False,
        TO_DO,
        "choose the class with the highest score, if the model gives scores; the program always "
        "does so, and this flag only hides the log line about it",
    )
    network_size: bool = option(
        False,
        TO_DO,
        "save masks of the network's size, as PaddleSeg's script does; without this flag a mask "
        "has the image's size",
    )
    bands: tuple[int, ...] | None = option(
        None,
        TO_DO,
        "read these bands of a TIFF, counted from 1, without a change of their values: one for "
        "each channel of the model, in its order (red, green, blue for PaddleSeg's models of "
        "three); needs rasterio",
        "wholes",
        metavar="N",
        shown_default="a TIFF is read as a picture if the model has three channels; other models "
        "read its first bands",
    )
    pixel_scale: float | None = option(
        None,
        TO_DO,
        "multiply the values of the images by X first, a number or a fraction; Normalize divides "
        "by 255, so use 255/4095 for values that the training divided by 4095",
        "ratio",
        metavar="X",
        shown_default="1",
    )
    threshold: float = option(
        0.5,
        TO_DO,
        "for a model with one output channel: a pixel is class 1 if its value is above X",
        "number",
        metavar="X",
        shown_default="0.5; use 0 for raw logits",
    )
    unknown_below: float | None = option(
        None,
        EVALUATION,
        "set pixels whose best class has a probability below X to 255, which is no class",
        "share",
        metavar="X",
    )
    min_area: int | None = option(
        None,
        TO_DO,
        "give each region of fewer than N pixels the class of its largest neighbour; needs "
        "rasterio",
        "whole",
        metavar="N",
        most=2_000_000_000,
    )
    crop_size: tuple[int, int] | None = option(
        None,
        TO_DO,
        "cut large images into windows of this width and height",
        "size",
        metavar=("W", "H"),
    )
    stride: tuple[int, int] | None = option(
        None,
        TO_DO,
        "the distance between neighbouring windows; if it is less than --crop_size, the windows "
        "overlap and their scores are averaged",
        "size",
        metavar=("W", "H"),
        shown_default="the same as --crop_size",
    )
    blend: str = option(
        "mean",
        TO_DO,
        "how the scores of overlapping windows are averaged: mean, as in PaddleSeg, or gaussian, "
        "which gives more weight to the middle of each window, against seams",
        "text",
        metavar="HOW",
        choices=BLENDS,
        needs="windows",
    )


@dataclass(frozen=True)
class EvaluationOptions:
    """What the masks are compared with."""

    label_path: str | None = option(
        None,
        EVALUATION,
        "compare the masks with label maps, and print the mean IoU and other metrics: a folder "
        "that has, for each image, a PNG or TIFF with the same relative path and stem; or a text "
        "file whose lines name an image and its label map",
        "text",
        metavar="PATH",
        idle_with=("benchmark",),
    )
    ignore_index: int = option(
        255,
        EVALUATION,
        "the id of the label maps' pixels that don't count",
        "id",
        metavar="N",
        needs="label maps",
    )


@dataclass(frozen=True)
class Settings:
    """All options of a command line."""

    run: RunOptions
    saving: SavingOptions = SavingOptions()
    model: ModelOptions = ModelOptions()
    engine: EngineOptions = EngineOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
