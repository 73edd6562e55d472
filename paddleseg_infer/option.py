"""The definition of an option, and what the program works out from the definitions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

TO_DO, EVALUATION = "images and masks", "evaluation and certainty"
ENGINE, TENSORRT = "engine", "TensorRT (needs a GPU)"
LONG_RUNS, BENCHMARK = "long runs", "benchmark"
GROUPS = (TO_DO, EVALUATION, ENGINE, TENSORRT, LONG_RUNS, BENCHMARK)  # in the order of --help

EXAMPLES = {  # the flags of an example, which --help shows at the end of each group
    TO_DO: "--image_path photos --save mask overlay",
    EVALUATION: "--image_path val.txt --label_path val.txt",
    ENGINE: "--image_path photos --device cpu --precision bf16 --num_workers 2",
    TENSORRT: "--image_path photos --device gpu --use_trt --precision fp16",
    LONG_RUNS: "--image_path photos --resume --report report.jsonl",
    BENCHMARK: "--image_path photos --benchmark",
}

# What an option may need to have an effect: the text for a message, and a check of the options.
NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "gpu": ("--device gpu", lambda engine: engine.device == "gpu"),
    "cpu": ("--device cpu", lambda engine: engine.device == "cpu"),
    "tensorrt": ("--use_trt and a GPU", lambda engine: engine.use_trt),
    "tuning": ("--enable_auto_tune", lambda engine: engine.enable_auto_tune),
    "kept files": (
        "--device cpu or --use_trt",
        lambda engine: engine.device == "cpu" or engine.use_trt,
    ),
    "precision": (
        "--use_trt and a GPU",
        lambda engine: engine.precision != "fp32",
    ),
    "masks": ("--save mask or label", lambda saving: not {"mask", "label"}.isdisjoint(saving.save)),
    "polygons": ("--save geojson", lambda saving: "geojson" in saving.save),
    "windows": ("--crop_size", lambda model: model.crop_size),
    "label maps": ("--label_path", lambda evaluation: evaluation.label_path),
    "benchmark": ("--benchmark", lambda run: run.benchmark),
}


@dataclass(frozen=True)
class Option:
    """The definition of an option, beside its field's name and default value."""

    group: str  # one of GROUPS
    help: str
    kind: str  # how the command line reads its value: one of the kinds in flags.py
    metavar: str | tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    most: int = 1_000_000  # the largest value of a whole number
    shown_default: str = ""  # the default in --help, if that isn't the value itself
    needs: str = ""  # one of NEEDS: without it the option has no effect
    idle_with: tuple[str, ...] = ()  # the option has no effect together with these switches
    kept_by: str = ""  # the kind of cached file that depends on it: graph or tensorrt


def option(default: Any, group: str, help: str, kind: str = "switch", **more: Any) -> Any:
    """Returns a dataclass field with an `Option`."""
    return field(default=default, metadata={"option": Option(group, help, kind, **more)})


def options_of(settings: Any) -> Iterator[tuple[str, Option, Any]]:
    """Yields the name, `Option` and default value of each option of a dataclass."""
    for item in fields(settings):
        if "option" in item.metadata:
            yield item.name, item.metadata["option"], item.default


def without_effect(given: Any, effective: Any) -> Iterator[str]:
    """Yields a message for each option in `given` whose need isn't met in `effective`."""
    for name, known, default in options_of(given):
        if known.needs and getattr(given, name) != default:
            need, is_met = NEEDS[known.needs]
            if not is_met(effective):
                value = f" {getattr(given, name)}" if known.choices else ""
                yield f"--{name}{value} has no effect without {need}"


def idle_with(switch: str, *given: Any) -> Iterator[str]:
    """Yields the names of the options in `given` that have no effect together with `switch`."""
    for settings in given:
        for name, known, default in options_of(settings):
            if switch in known.idle_with and getattr(settings, name) != default:
                yield name


def kept_by(kind: str, settings: Any) -> list[Any]:
    """Returns the values of all options that a kind of cached file depends on."""
    return [
        getattr(settings, name) for name, known, _ in options_of(settings) if known.kept_by == kind
    ]
