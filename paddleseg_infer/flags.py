"""The command line's parser, made from the options' fields: see settings.py."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING
from functools import partial
from typing import Any, NoReturn, TypeVar

from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.errors import shown
from paddleseg_infer.machine.streams import say
from paddleseg_infer.option import EXAMPLES, GROUPS, Option, options_of
from paddleseg_infer.outcomes import NOT_STARTED
from paddleseg_infer.settings import (
    MAX_LABEL,
    EvaluationOptions,
    ModelOptions,
    RunOptions,
    SavingOptions,
    Settings,
)

T = TypeVar("T")

PARTS = (RunOptions, SavingOptions, EvaluationOptions, ModelOptions, EngineOptions)


def word_bool(text: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"must be True or False, not {text!r}")
    return words[text.lower()]


def whole(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= most):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}, not {text!r}")
    return int(text)


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")
    return value


def positive(text: str) -> float:
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text!r}")
    return value


def ratio(text: str) -> float:
    """Returns a number above 0, which may be written as a fraction, for example 255/4095."""
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below if slash else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a number above 0, or a fraction such as 255/4095, not {text!r}"
        )
    return value


def share(text: str) -> float:
    value = number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text!r}")
    return value


def class_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MAX_LABEL):
        raise argparse.ArgumentTypeError(f"must be an id from 0 to {MAX_LABEL}, not {text!r}")
    return int(text)


def shard(text: str) -> tuple[int, int]:
    parts = text.split("/")
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
        number, count = map(int, parts)
        if number < count:
            return number, count
    raise argparse.ArgumentTypeError(f"must be I/N, with I from 0 to N-1, not {text!r}")


READERS = {
    "number": number,
    "positive": positive,
    "ratio": ratio,
    "share": share,
    "id": class_id,
    "shard": shard,
}


def how_to_read(option: Option) -> dict[str, Any]:
    """Returns the arguments of argparse's `add_argument` that read an option's value."""
    if option.kind == "switch":
        return {"nargs": "?", "const": True, "type": word_bool, "metavar": "BOOL"}
    how: dict[str, Any] = {"metavar": option.metavar}
    if option.choices:
        how["choices"] = option.choices
    if option.kind in ("whole", "size", "wholes"):
        how["type"] = partial(whole, most=option.most)
    if option.kind in READERS:
        how["type"] = READERS[option.kind]
    if option.kind in ("words", "choices", "wholes"):
        how["nargs"] = "+"
    if option.kind == "size":
        how["nargs"] = 2
    return how


class Parser(argparse.ArgumentParser):
    """Reports an error in one line. argparse itself prints the usage of all flags first."""

    def error(self, message: str) -> NoReturn:
        say(f"error: {message}; {self.prog} --help lists the flags\n", sys.stderr)
        self.exit(NOT_STARTED)

    def format_help(self) -> str:
        """Returns the text of --help, with an example at the end of each group."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_arguments(group._group_actions)
            if example := EXAMPLES.get(group.title or ""):
                formatter.add_text(f"Example: {self.prog} --config export/deploy.yaml {example}")
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def make_parser() -> Parser:
    parser = Parser(
        description="Segments images with a model that PaddleSeg exported, and saves colour masks.",
        epilog="A BOOL flag without a value means True. Exit codes: 0, all images are done; 1, "
        "some images failed or have no usable label map, and each is listed; 2, the run could not "
        "start; 130 or 143, the run was interrupted.",
        allow_abbrev=False,
    )
    for title in GROUPS:
        group = parser.add_argument_group(title)
        for name, option, default in (each for part in PARTS for each in options_of(part)):
            if option.group == title:
                _add(group, name, option, default)
    return parser


def _add(group: Any, name: str, option: Option, default: Any) -> None:
    is_required = default is MISSING
    note = "(required)"
    if not is_required:
        shown = option.shown_default or ("none" if default is None else str(default))
        note = f"(default: {shown})"
    group.add_argument(
        f"--{name}",
        help=f"{option.help} {note}",
        required=is_required,
        default=None if is_required else default,
        **how_to_read(option),
    )


def parse(arguments: Sequence[str] | None) -> Settings:
    """Returns the settings of a command line.

    Ends the process on a wrong argument and after --help.
    """
    parser = make_parser()
    given, left = parser.parse_known_args(arguments)
    files = [word for word in left if os.path.lexists(word)]
    if files and files == left:  # the shell has replaced a pattern by the names of files
        parser.error(
            f"--image_path takes one path, but {len(files)} more were given: {shown(files[0])}"
            f"{', ...' if files[1:] else ''}. Name the folder, or a text file of one image a line"
        )
    if left:
        parser.error(f"unrecognized arguments: {' '.join(map(shown, left))}")
    return Settings(
        _part(RunOptions, given),
        _part(SavingOptions, given),
        _part(ModelOptions, given),
        _part(EngineOptions, given),
        _part(EvaluationOptions, given),
    )


def _part(part: type[T], given: argparse.Namespace) -> T:
    values: dict[str, Any] = {}
    for name, option, _ in options_of(part):
        value = getattr(given, name)
        if option.kind == "choices":  # each one once, in the order of the choices
            value = [each for each in option.choices if each in value]
        values[name] = tuple(value) if isinstance(value, list) else value
    return part(**values)
