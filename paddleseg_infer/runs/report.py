"""--report: writes JSON lines about the run, each finished image and the summary."""

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddleseg_infer.errors import ConfigError, RunError, reason, shown
from paddleseg_infer.outcomes import Areas, Outcome
from paddleseg_infer.pictures.files import target_of
from paddleseg_infer.settings import Settings

if TYPE_CHECKING:  # they need numpy
    from paddleseg_infer.evaluation import Judge
    from paddleseg_infer.runs.evaluation import Evaluation

SLOWEST = 5
LONGEST_LINE = 1 << 20  # bytes; longer than any line, because paths have at most 4096
MOST_REASONS = 10
ENDS = ("done", "failed", "skipped")


def about_run(settings: Settings, judge: "Judge | None") -> dict[str, Any]:
    """Returns what a reader of the report needs to find the pictures and to name the classes.

    Raises ConfigError.
    """
    from paddleseg_infer.deploy import load_deploy_config

    folder = None
    with contextlib.suppress(OSError):  # the working folder was removed
        folder = os.getcwd()
    return {
        "folder": folder,
        "save_dir": settings.saving.save_dir,
        "custom_color": settings.saving.custom_color,
        "network_size": settings.model.network_size,
        "names": load_deploy_config(settings.run.config).class_names,
        "classes": judge and judge.classes,
        "ignore_index": judge and judge.ignore_index,
    }


class Report:
    """A file of JSON lines. Each line is flushed to the file at once.

    Raises ConfigError if the file can't be opened, and RunError if a line can't be written.
    """

    def __init__(
        self,
        path: str,
        kinds: Sequence[str],
        append: bool,
        about: Mapping[str, Any],
        compares: bool = False,
    ):
        """`about` describes the run; it is written before the first line.

        With `compares`, the lines say how each mask agrees with its label map.
        """
        self._path, self._kinds, self._compares = path, kinds, compares
        self._about: Mapping[str, Any] | None = about
        try:
            if append:
                _mend(path)
            self._file = open(path, "a", encoding="ascii")  # noqa: SIM115
            # An old report is emptied only when the first line is written, because the run may fail
            # before that. A device can't be emptied.
            self._replaces = not append and os.path.isfile(path)
        except OSError as error:
            raise ConfigError(f"--report {shown(path)} can't be written: {reason(error)}") from None

    def add(self, outcome: Outcome) -> None:
        job, times, pixels = outcome.job, outcome.times, outcome.pixels
        self._write(
            {
                "image": job.image,
                "status": outcome.status,
                "reason": outcome.reason,
                "files": {kind: target_of(kind, job.stem, outcome.suffix) for kind in self._kinds}
                if outcome.status != "failed"
                else {},
                "size": outcome.size,
                "ms": times and {s: round(1e3 * t, 3) for s, t in times._asdict().items()},
                "engine": _joined(each.engine for each in outcome.ran),
                "precision": _joined(each.precision for each in outcome.ran),
                "worker": outcome.worker,
                "classes": pixels and dict(pixels.classes),
                **(_compared(outcome) if self._compares else {}),
            }
        )

    def close(self, summary: dict[str, Any]) -> None:
        if not self._file.closed:
            self._write({"summary": summary})
            self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        try:
            if self._replaces:
                self._file.truncate(0)
                self._replaces = False
            if self._about is not None:
                line_of_run, self._about = {"run": self._about}, None
                self._file.write(json.dumps(line_of_run) + "\n")
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # closing writes the buffer, which may fail too
                self._file.close()
            raise RunError(
                f"--report {shown(self._path)} can't be written: {reason(error)}"
            ) from None


def _compared(outcome: Outcome) -> dict[str, Any]:
    """Returns the fields that say how a mask agrees with its label map."""
    from paddleseg_infer.metrics import own_mean_iou

    pixels = outcome.pixels
    areas = pixels.areas if pixels else None
    return {
        "label": outcome.job.label,
        "label_error": pixels.label_error if pixels else "",
        "mean_iou": areas and own_mean_iou(areas),
        "areas": areas and _of_present(areas),
    }


def _of_present(areas: Areas) -> dict[int, Sequence[int]]:
    """Returns the areas of each class that has pixels."""
    return {number: each for number, each in enumerate(areas.by_class) if any(each)}


def _joined(words: Iterable[str]) -> str | None:
    """Returns the different words in order, joined by "+"; None if there is none."""
    return "+".join(sorted(set(words))) or None


def _mend(path: str) -> None:
    """Removes an incomplete last line, which a killed run may leave."""
    if not os.path.isfile(path):  # a device has no end
        return
    with open(path, "rb+") as file:
        start = file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE))
        file.truncate(start + file.read().rfind(b"\n") + 1)


class Summary:
    """Counts outcomes, and keeps the slowest images and the reasons for failures."""

    def __init__(
        self,
        total: int,
        evaluation: "Evaluation | None" = None,
        shard: tuple[int, int] | None = None,
    ):
        self.total, self.evaluation, self.shard = total, evaluation, shard
        self.not_compared: list[Outcome] = []  # because of their label maps
        self.counts: Counter[str] = Counter()
        self.failed: list[Outcome] = []
        self.reasons: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # reasons that differ only in numbers count as one
        self.slowest: list[tuple[float, str]] = []
        self.engines: Counter[str] = Counter()  # the images that each engine has run

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        if outcome.status == "failed":
            self.failed.append(outcome)
            alike = re.sub(r"\d+", "0", outcome.reason)
            self.reasons[self._first.setdefault(alike, outcome.reason)] += 1
        if self.evaluation and outcome.pixels and outcome.pixels.areas:
            self.evaluation.add(outcome.pixels.areas)
        elif self.evaluation and outcome.pixels:
            self.not_compared.append(outcome)
        if outcome.ran:
            self.engines[outcome.engines] += 1
        if outcome.times:
            self.slowest.append((sum(outcome.times), outcome.job.image))
            self.slowest = sorted(self.slowest, reverse=True)[:SLOWEST]

    @property
    def not_tried(self) -> int:
        return self.total - sum(self.counts[status] for status in ENDS)

    def as_dict(self, seconds: float, exit_code: int) -> dict[str, Any]:
        return {
            "exit_code": exit_code,
            "shard": self.shard and "{}/{}".format(*self.shard),
            **{status: self.counts[status] for status in ENDS},
            "not_tried": self.not_tried,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.counts["done"] / seconds, 3),
            "engines": dict(self.engines.most_common()),
            "slowest": [{"image": image, "ms": round(1e3 * s, 3)} for s, image in self.slowest],
            "reasons": dict(self.reasons.most_common()),
            **self._evaluated(),
        }

    def _evaluated(self) -> dict[str, Any]:
        if not self.evaluation:
            return {}
        return {"not_compared": len(self.not_compared), "evaluation": self.evaluation.as_dict()}

    def table(self, seconds: float) -> Iterator[str]:
        """Yields the summary as lines of text for the terminal."""
        for status, count in (*self.counts.items(), ("not tried", self.not_tried)):
            if count:
                yield f"{status:12}{count:10}"
        yield f"{'per second':12}{self.counts['done'] / seconds:10.1f}"
        for engine, count in self.engines.most_common():
            yield f"{'engine':12}{count:10}  {engine}"
        for spent, image in self.slowest:
            yield f"{'slowest':12}{1e3 * spent:7.0f} ms  {shown(image)}"
        for why, count in self.reasons.most_common(MOST_REASONS):
            yield f"{'failed':12}{count:10}  {why}"
