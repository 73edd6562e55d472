"""Fills the page's template: what was run, how good it is, and the images' figures as JSON."""

import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from paddleseg_infer.gallery.figures import MOST_CLASSES, Entry, Figures
from paddleseg_infer.gallery.lines import Record
from paddleseg_infer.gallery.records import Reports
from paddleseg_infer.metrics import Metrics, metrics_of
from paddleseg_infer.outcomes import Areas
from paddleseg_infer.pictures.palettes import CLASSES
from paddleseg_infer.settings import UNKNOWN

FOLDER = Path(__file__).parent / "page"
SCRIPTS = "state.js", "grid.js", "view.js"
GENERATOR = '<meta name="generator" content="paddleseg-infer gallery">'
MOST_BARS, MOST_REASONS = 300, 50  # of classes that have a bar; of reasons that have a filter


@dataclass(frozen=True)
class ClassRow:
    """One class in the table of metrics, and its row of the confusion matrix."""

    number: int
    iou: float
    precision: float
    recall: float
    share: float  # of the label maps' pixels
    cells: Sequence[float]  # the share of its pixels that have each shown class in the mask
    others: float  # the share that has no class, or one that isn't shown


def page_of(reports: Reports, figures: Sequence[Figures], title: str, palette: bytes) -> str:
    """Returns the page as HTML. All texts in it are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    records = list(reports.records.values())
    above = _common_folder([each.entry.name for each in figures])
    images = [_image(each.entry, above) for each in figures]
    reasons, other_reasons = _reasons(records)
    classes = _classes(reports, figures, palette)
    script = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    digest = hashlib.sha256(script.encode()).digest()
    return environment.get_template("index.html").render(
        title=title,
        generator=Markup(GENERATOR),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
        data=Markup(
            _json({"images": images, "classes": classes, "reasons": list(map(vars, reasons))})
        ),
        counts=Counter(record.status for record in records),
        total=len(records),
        above=above,
        notes=reports.notes,
        reasons=reasons,
        other_reasons=other_reasons,
        noted=sum(bool(each.entry.notes) for each in figures),
        classes=classes,
        not_compared=sum(bool(record.label_error) for record in records),
        too_many=reports.classes > MOST_CLASSES,
        evaluated=_evaluated(records, reports.classes, figures),
    )


def _common_folder(names: Sequence[str]) -> str:
    """Returns the start that all names have in common, up to the last slash."""
    prefix = os.path.commonprefix(list(names))  # noqa: RUF071 - of texts, not of paths
    folder, slash, _ = prefix.rpartition("/")
    return folder + slash


def _image(entry: Entry, above: str) -> dict[str, Any]:
    """Returns what the script gets of an image, whose name is below the folder `above`."""
    why = {"reason_key": alike(entry.reason)} if entry.status == "failed" else {}
    return {**entry.as_dict(), **why, "name": entry.name[len(above) :]}


def _json(value: Any) -> str:
    """Returns JSON that can stand in a script element of HTML."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _classes(
    reports: Reports, figures: Sequence[Figures], palette: bytes
) -> dict[int, tuple[str, str]]:
    """Returns the name and the colour, "#rrggbb", of each class that occurs."""
    found = set(range(reports.classes))
    for each in figures:
        found.update(each.entry.classes or (), each.entry.areas or ())
    names = max((record.run.names for record in reports.records.values()), key=len)

    def described(number: int) -> tuple[str, str]:
        name = names[number] if number < len(names) else ""
        if not name and number == UNKNOWN and number >= max(reports.classes, len(names)):
            name = f"no class ({UNKNOWN})"
        first = 3 * (number % CLASSES)
        return name or str(number), f"#{palette[first : first + 3].hex()}"

    return {number: described(number) for number in sorted(found)}


@dataclass(frozen=True)
class Reason:
    """Why some images failed. Reasons that differ only in numbers count as one."""

    key: str
    text: str  # of the first image
    images: int


def _reasons(records: Sequence[Record]) -> tuple[list[Reason], int]:
    """Returns the most frequent reasons of failures, and the number of all others."""
    failed = [record.reason for record in records if record.status == "failed"]
    counts = Counter(map(alike, failed))
    first = {alike(reason): reason for reason in reversed(failed)}
    most = counts.most_common(MOST_REASONS)
    return [Reason(key, first[key], images) for key, images in most], len(counts) - len(most)


def alike(reason: str) -> str:
    return re.sub(r"[0-9]+", "0", reason)


@dataclass(frozen=True)
class Evaluated:
    """How well the masks agree with their label maps."""

    metrics: Metrics
    rows: Sequence[ClassRow]
    compared: int  # images with a usable label map
    in_matrix: int  # of these, the images in the confusion matrix
    shown: Sequence[int]  # the classes of the rows
    left_out: int  # classes that occur and have no row


def _evaluated(
    records: Sequence[Record], classes: int, figures: Sequence[Figures]
) -> Evaluated | None:
    """Returns the metrics and the confusion matrix; None without label maps."""
    compared = [record for record in records if record.areas is not None]
    if not compared:
        return None
    sums = np.zeros((3, classes), np.int64)
    ignored = 0  # pixels of a class that is also ignored
    for record in compared:
        assert record.areas is not None
        for number, triple in record.areas.items():
            sums[:, number] += triple
            ignored += triple[2] if number == record.run.ignore_index else 0
    both, prediction, label = (tuple(each.tolist()) for each in sums)
    areas = Areas(both, prediction, label, sum(label) - ignored)
    metrics = metrics_of(areas)
    matrices = [each.matrix for each in figures if each.matrix is not None]
    shape = classes, classes + 1
    # With very many classes there are no matrices, and a real one would be too large.
    matrix = np.zeros(shape, np.int64) if matrices else np.broadcast_to(np.int64(0), shape)
    for places, counts in matrices:
        matrix.ravel()[places] += counts
    every = np.flatnonzero(sums[1] + sums[2]).tolist()
    occur = every[:MOST_BARS]
    return Evaluated(
        metrics,
        [_row(number, metrics, sums[2], matrix, occur) for number in occur],
        len(compared),
        len(matrices),
        occur,
        len(every) - len(occur),
    )


def _row(
    number: int, metrics: Metrics, label: np.ndarray, matrix: np.ndarray, shown: Sequence[int]
) -> ClassRow:
    pixels = matrix[number] / max(1, matrix[number].sum())
    return ClassRow(
        number,
        float(metrics.iou[number]),
        float(metrics.precision[number]),
        float(metrics.recall[number]),
        float(label[number] / max(1, label.sum())),
        pixels[list(shown)].tolist(),
        float(pixels.sum() - pixels[list(shown)].sum()),
    )
