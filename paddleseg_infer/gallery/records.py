"""Reads the reports of runs, also if they aren't complete."""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paddleseg_infer.errors import ConfigError, reason, shown
from paddleseg_infer.gallery.lines import MALFORMED, Record, Run, record_of, run_of, whole

SIGNALS = {130: "Ctrl-C", 143: "SIGTERM"}  # exit codes of runs that a signal has ended


@dataclass
class Reports:
    """One or more reports. Of each image, the last line counts."""

    records: dict[str, Record] = field(default_factory=dict)  # by the image's path
    run: Run = field(default_factory=Run)  # of the last run
    notes: list[str] = field(default_factory=list)  # sentences about reports that aren't complete

    @property
    def classes(self) -> int:
        """The number of classes of the masks that were compared with label maps; 0 if none was."""
        areas = [record.areas for record in self.records.values() if record.areas]
        named = [record.run.classes or 0 for record in self.records.values() if record.areas]
        return max([*named, *(max(each) + 1 for each in areas)], default=0)


def read_reports(paths: Sequence[str], save_dir: str | None = None) -> Reports:
    """Returns what the reports say together. Raises ConfigError.

    `save_dir` is the folder of the pictures, if it isn't that in the reports.
    """
    reports = Reports()
    for path in paths:
        _read(path, reports)
    names = ", ".join(map(shown, paths))
    if not reports.records:
        raise ConfigError(
            f"{names}: there is no image in it: wait until the run has finished an image"
        )
    runs = [record.run for record in reports.records.values()]
    if save_dir is None:
        if any(run.save_dir is None for run in runs):
            raise ConfigError(
                f"{names} doesn't name the folder of the pictures: give it as --save_dir"
            )
        return reports
    if len({run.pictures for run in runs if run.save_dir is not None}) > 1:
        raise ConfigError(
            f"{names}: the runs have saved their pictures in different folders: leave out "
            "--save_dir, or make a page of each report"
        )
    for path, record in reports.records.items():
        run = replace(record.run, save_dir=os.path.abspath(save_dir))
        reports.records[path] = replace(record, run=run)
    reports.run = replace(reports.run, save_dir=os.path.abspath(save_dir))
    return reports


def _read(path: str, reports: Reports) -> None:
    run, summary, runs = Run(), None, 0
    is_first, damaged, is_cut_off = True, 0, False
    try:
        if not os.path.isfile(path):  # opening a pipe could block forever
            os.stat(path)
            raise ConfigError(f"{shown(path)} is not a file: give the file of --report")
        with open(path, "rb") as file:
            for line in file:
                if line.isspace():
                    continue
                is_cut_off = not line.endswith(b"\n")
                try:
                    value = json.loads(line)
                    if "run" in value:
                        run, summary, runs = run_of(value["run"]), None, runs + 1
                        _check_same_classes(path, run, reports)
                        reports.run = run
                    elif "summary" in value:
                        summary = _Summary(value["summary"])
                    else:
                        _add(record_of(value, run), reports)
                        summary = None
                    is_first = is_cut_off = False
                except MALFORMED:
                    damaged += not is_cut_off
                    if is_first:
                        raise ConfigError(
                            f"{shown(path)} is not a report of this program: give the file of "
                            "--report"
                        ) from None
    except OSError as error:
        raise ConfigError(f"the report {shown(path)} can't be read: {reason(error)}") from None
    reports.notes += _notes(shown(path), runs, damaged, is_cut_off, summary)


class _Summary:
    """The last line of a run."""

    def __init__(self, value: Any):
        self.not_tried, self.exit_code = whole(value["not_tried"]), whole(value["exit_code"])


def _notes(
    path: str, runs: int, damaged: int, is_cut_off: bool, summary: _Summary | None
) -> list[str]:
    """Returns sentences about what is unusual in a report."""
    notes = []
    if runs > 1:
        notes.append(
            f"{path} has {runs} runs, because --resume was used: the last line about an image "
            "counts."
        )
    if damaged:
        notes.append(f"{path} has damaged lines, which were left out: {damaged}.")
    if is_cut_off:
        notes.append(f"{path} is cut off in its last line.")
    if is_cut_off or summary is None:
        notes.append(
            f"{path} has no summary at its end: its run was killed, or is still running. Images "
            "that it has not finished are missing here."
        )
    elif summary.exit_code in SIGNALS:
        notes.append(f"The run of {path} was ended by {SIGNALS[summary.exit_code]}.")
    if summary and summary.not_tried and not is_cut_off:
        notes.append(
            f"{path}: {summary.not_tried} images were not tried, and are not on the page: run "
            "infer.py again with --resume."
        )
    return notes


def _check_same_classes(path: str, run: Run, reports: Reports) -> None:
    """Raises ConfigError if a run's model has other classes than those of the runs before."""
    before = reports.run
    other = run.names != before.names and run.names and before.names
    if other or (run.classes and before.classes and run.classes != before.classes):
        raise ConfigError(
            f"{shown(path)} has a run of a model with other classes than the run before, and one "
            "page can't show both: make a report for each model"
        )


def _add(record: Record, reports: Reports) -> None:
    key = _key(record.path)
    before = reports.records.get(key)
    if record.status == "skipped" and before and before.status != "failed":
        # Its pictures are those of the run before, and so is what that has counted.
        record = replace(
            record, classes=record.classes or before.classes, size=record.size or before.size
        )
        if record.label is None and not record.label_error:
            record = replace(
                record,
                label=before.label,
                label_error=before.label_error,
                mean_iou=before.mean_iou,
                areas=before.areas,
                run=replace(
                    record.run, classes=before.run.classes, ignore_index=before.run.ignore_index
                ),
            )
    reports.records[key] = record


def _key(path: str) -> str:
    """Returns the same path for all ways to write the path of an image."""
    folder, name = os.path.split(path)
    try:
        return os.path.join(_real_folder(folder), name)
    except (OSError, ValueError):  # an impossible name
        return path


@functools.cache
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
