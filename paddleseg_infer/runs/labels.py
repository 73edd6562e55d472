"""--label_path: finds the label map of each image."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace

from paddleseg_infer.errors import ConfigError, reason, shown
from paddleseg_infer.formats.known import PNG_SIGNATURE, TIFF_SIGNATURES
from paddleseg_infer.outcomes import Job
from paddleseg_infer.pictures.files import GEOTIFF, PNG, target_of
from paddleseg_infer.runs.lists import place_finder, read_list

LABEL_SUFFIXES = (".png", ".tif", ".tiff")


def with_labels(
    jobs: Sequence[Job], label_path: str, save_dir: str, kinds: Sequence[str]
) -> list[Job]:
    """Returns the jobs with the paths of their label maps, which may not exist.

    `label_path` is a folder, a list of images and label maps, or the label map of a single image. A
    job keeps None if the list doesn't name a label map for its image. Raises ConfigError if
    `label_path` can't be used, or if a label map is also an image or would be overwritten.
    """
    if os.path.isdir(label_path):
        labelled = [replace(job, label=_below(label_path, job)) for job in jobs]
    elif _is_label_map(label_path):
        if len(jobs) > 1:
            raise ConfigError(
                f"--label_path {shown(label_path)} is one label map, but there are {len(jobs)} "
                "images: give a folder of label maps, or a text file of images and label maps"
            )
        labelled = [replace(job, label=label_path) for job in jobs]
    else:
        labelled = _from_list(jobs, label_path)
    _refuse_clashes(labelled, save_dir, kinds)
    return labelled


def _below(folder: str, job: Job) -> str:
    """Returns the path below `folder` with the image's relative path and stem.

    The suffix is that of the file that exists, or .png.
    """
    stem = job.stem
    if os.path.basename(stem) == os.path.basename(job.image):  # the mask's name has the suffix too
        stem = os.path.splitext(stem)[0]
    paths = [os.path.join(folder, stem + suffix) for suffix in LABEL_SUFFIXES]
    return next(filter(os.path.exists, paths), paths[0])


def _is_label_map(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(PNG_SIGNATURE)).startswith((PNG_SIGNATURE, *TIFF_SIGNATURES))
    except OSError as error:
        raise ConfigError(f"--label_path {shown(path)} can't be read: {reason(error)}") from None


def _from_list(jobs: Sequence[Job], path: str) -> list[Job]:
    place_of = place_finder()
    folder = os.path.dirname(path)
    labels: dict[str, str] = {}
    for line in read_list(path, "--label_path"):
        if not line.rest:
            continue
        label = os.path.join(folder, line.rest)
        if labels.setdefault(place_of(line.image), label) != label:
            raise ConfigError(
                f"--label_path {shown(path)} names two label maps for {shown(line.image)}: remove "
                "one of the lines"
            )
    if not labels:
        raise ConfigError(
            f"--label_path {shown(path)} names no label map: each of its lines must have an image "
            "and its label map, with a space or a tab between them"
        )
    return [replace(job, label=labels.get(place_of(job.image))) for job in jobs]


def _refuse_clashes(jobs: Sequence[Job], save_dir: str, kinds: Sequence[str]) -> None:
    place_of = place_finder()
    labels = {place_of(job.label) for job in jobs if job.label}
    labels |= {os.path.realpath(job.label) for job in jobs if job.label}
    for job in jobs:
        if place_of(job.image) in labels:
            raise ConfigError(
                f"{shown(job.image)} is both an image and a label map of this run: keep the images "
                "and the label maps in two folders"
            )
        for kind, suffix in itertools.product(kinds, (PNG, GEOTIFF)):
            path = os.path.join(save_dir, target_of(kind, job.stem, suffix))
            if place_of(path) in labels:
                raise ConfigError(
                    f"the {kind} of {shown(job.image)} would overwrite the label map "
                    f"{shown(path)}: choose another --save_dir"
                )
