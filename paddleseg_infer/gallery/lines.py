"""The lines of a report: see "Report" in docs/runs.md for their format."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddleseg_infer.errors import ConfigError, shown
from paddleseg_infer.pictures.palettes import palette_of
from paddleseg_infer.settings import MAX_LABEL, UNKNOWN

STATUSES = ("done", "failed", "skipped")
MOST_PIXELS = 1 << 40  # of an image; so their sum over a report fits into 64 bits
# What is raised for a line that is no JSON, or no line of a report
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Run:
    """What the first line of a run says. The defaults are those of reports without this line."""

    folder: str | None = None  # the paths of images and of `save_dir` are relative to it
    save_dir: str | None = None
    names: tuple[str, ...] = ()  # of the classes; some may be missing
    classes: int | None = None  # the number of the model's classes, if masks are compared
    ignore_index: int | None = UNKNOWN  # the default of --ignore_index
    palette: bytes | None = None  # of 256 colours, as RGB
    has_own_sizes: bool = False  # whether the pictures surely have the sizes of their images

    def path(self, path: str) -> str:
        """Returns the path of a file that the report names."""
        return os.path.join(self.folder or "", path)

    @property
    def pictures(self) -> str:
        """The folder of the run's pictures."""
        return self.path(self.save_dir or "")


@dataclass(frozen=True)
class Record:
    """One image in a report. A field is None if the report doesn't have it."""

    image: str  # its path, as in the report
    status: str  # one of STATUSES
    reason: str
    files: Mapping[str, str]  # its pictures by kind, relative to save_dir
    size: tuple[int, int] | None  # (width, height) of the pictures
    classes: Mapping[int, int] | None  # the pixels of each class that is in the mask
    label: str | None  # the path of its label map, with the run's folder
    label_error: str  # why the label map can't be used, or ""
    mean_iou: float | None
    areas: Mapping[int, Triple] | None  # of each class: pixels in both, in the mask, in the label
    run: Run

    @property
    def path(self) -> str:
        return self.run.path(self.image)

    def picture(self, kind: str) -> str:
        """Returns the path of one of its pictures."""
        return os.path.join(self.run.pictures, self.files[kind])


def run_of(value: Any) -> Run:
    """Returns the Run of a line's field `run`. Raises one of MALFORMED."""
    classes, ignore_index = value.get("classes"), value.get("ignore_index")
    return Run(
        _text(value.get("folder")),
        _text(value.get("save_dir")),
        tuple(shown(name) for name in value.get("names", ())),
        None if classes is None else _up_to(MAX_LABEL + 1, classes),
        None if ignore_index is None else _up_to(MAX_LABEL, ignore_index),
        _palette(value.get("custom_color")),
        value.get("network_size") is False,
    )


def record_of(value: Any, run: Run) -> Record:
    """Returns the Record of a line about an image. Raises one of MALFORMED."""
    if value["status"] not in STATUSES or not _text(value["image"]):
        raise ValueError
    size, classes, areas = value.get("size"), value.get("classes"), value.get("areas")
    label = _text(value.get("label"))
    return Record(
        value["image"],
        value["status"],
        shown(value.get("reason") or ""),
        {shown(kind): str(file) for kind, file in (value.get("files") or {}).items()},
        None if size is None else (whole(size[0]), whole(size[1])),
        None if classes is None else {_id(n): whole(each) for n, each in classes.items()},
        None if label is None else run.path(label),
        shown(value.get("label_error") or ""),
        _share(value.get("mean_iou")),
        None if areas is None else {_id(n): _triple(each) for n, each in areas.items()},
        run,
    )


def _palette(words: Any) -> bytes | None:
    try:
        return None if words is None else palette_of([str(word) for word in words])
    except ConfigError as error:
        raise ValueError from error


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value


def whole(value: Any) -> int:
    """Returns a whole number from 0. Raises ValueError for anything else."""
    if type(value) is not int or not 0 <= value < 1 << 53:  # JavaScript has no larger ones
        raise ValueError
    return value


def _id(key: str) -> int:
    return _up_to(MAX_LABEL, int(key))


def _up_to(most: int, value: Any) -> int:
    if whole(value) > most:
        raise ValueError
    return int(value)


def _triple(values: Any) -> Triple:
    both, prediction, label = map(whole, values)
    if both > min(prediction, label) or max(prediction, label) > MOST_PIXELS:
        raise ValueError
    return both, prediction, label


def _share(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError
    return float(value)
