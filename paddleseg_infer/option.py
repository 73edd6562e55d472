"""What an option's field says of itself, and what follows from it for every option alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

TO_DO, ENGINE, TENSORRT = "what to do", "the engine", "TensorRT, on a GPU"
LONG_RUNS, BENCHMARK = "long runs", "the benchmark"
GROUPS = (TO_DO, ENGINE, TENSORRT, LONG_RUNS, BENCHMARK)  # of flags, in the help's order

# What an option may need to have an effect: its words in a message, and whether options meet it.
NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "gpu": ("--device gpu", lambda engine: engine.device == "gpu"),
    "cpu": ("--device cpu", lambda engine: engine.device == "cpu"),
    "tensorrt": ("--use_trt on a GPU", lambda engine: engine.use_trt),
    "tuning": ("--enable_auto_tune", lambda engine: engine.enable_auto_tune),
    "kept files": (
        "--device cpu or --use_trt",
        lambda engine: engine.device == "cpu" or engine.use_trt,
    ),
    "benchmark": ("--benchmark", lambda run: run.benchmark),
}


@dataclass(frozen=True)
class Option:
    """What an option's field says beside its name and its default value."""

    group: str  # one of GROUPS
    help: str
    kind: str  # how its words are read: one of the kinds in flags.py
    metavar: str | tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    most: int = 1_000_000  # of a whole number
    shown_default: str = ""  # for a person, where that isn't the value
    needs: str = ""  # one of NEEDS: without it the option has no effect
    idle_with: tuple[str, ...] = ()  # switches with which it has no effect
    kept_by: str = ""  # which cached files depend on it: graph or tensorrt


def option(default: Any, group: str, help: str, kind: str = "switch", **more: Any) -> Any:
    """A dataclass field with an `Option`."""
    return field(default=default, metadata={"option": Option(group, help, kind, **more)})


def options_of(settings: Any) -> Iterator[tuple[str, Option, Any]]:
    """Name, `Option` and default value of each option of a dataclass."""
    for item in fields(settings):
        if "option" in item.metadata:
            yield item.name, item.metadata["option"], item.default


def without_effect(given: Any, effective: Any) -> Iterator[str]:
    """A line for each option in `given` that changes nothing, since `effective` lacks its need."""
    for name, known, default in options_of(given):
        if known.needs and getattr(given, name) != default:
            need, is_met = NEEDS[known.needs]
            if not is_met(effective):
                yield f"--{name} has no effect without {need}"


def idle_with(switch: str, *given: Any) -> Iterator[str]:
    """The names of the options in `given` that have no effect with a switch."""
    for settings in given:
        for name, known, default in options_of(settings):
            if switch in known.idle_with and getattr(settings, name) != default:
                yield name


def kept_by(kind: str, settings: Any) -> list[Any]:
    """The values of all options that a kind of kept file depends on."""
    return [
        getattr(settings, name) for name, known, _ in options_of(settings) if known.kept_by == kind
    ]
