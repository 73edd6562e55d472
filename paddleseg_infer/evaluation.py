"""Counts the pixels of masks, and compares masks with the label maps of a data set."""

from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, ImageError, shown
from paddleseg_infer.forms import class_count
from paddleseg_infer.label_maps import LabelMap, opened_label_map
from paddleseg_infer.outcomes import Areas, Job, Pixels
from paddleseg_infer.settings import UNKNOWN, EvaluationOptions

# cv2.calcHist counts in float32, which is exact up to this number.
MOST_COUNTED = 1 << 24
MOST_IDS_SHOWN = 5
ROWS_AT_ONCE = 256
NO_MEMORY = "there is not enough memory for it"
NO_LABEL = "the list of --label_path has no line for it, or no label map in its line"


@dataclass(frozen=True)
class Judge:
    """Counts the pixels of masks, and compares them with label maps if `classes` isn't None."""

    classes: int | None = None  # the number of the model's classes
    ignore_index: int = 255  # the id of the pixels of a label map that don't count

    def check(self, kind: str, channels: int) -> None:
        """Raises ConfigError if the model's output has another number of classes.

        `kind` is a result of `forms.output_kind`. `channels` are those of scores.
        """
        if self.classes and kind == "scores" and channels != self.classes:
            raise ConfigError(
                f"the model gives scores of {channels} classes, but `labels` in its deploy.yaml "
                f"names {self.classes}, and --label_path needs the right number: name all classes"
            )

    def pixels(self, job: Job, labels: LabelMap) -> Pixels:
        """Returns the pixels of a mask, whose class ids are `labels`.

        If its label map can't be used, the result says why; that is no error.
        """
        classes = _counts_of(labels)
        if self.classes is None:
            return Pixels(classes)
        try:
            if job.label is None:
                raise ImageError(NO_LABEL)
            extra = [each for each in classes if each >= self.classes and each != UNKNOWN]
            if extra:
                raise ImageError(
                    f"the mask contains the id {extra[0]}, but the model has {self.classes} "
                    "classes: the mask is of another model, or `labels` in deploy.yaml doesn't "
                    "name all classes"
                )
            with opened_label_map(job.label) as truth:
                return Pixels(classes, self._areas(labels, truth, self.classes))
        except (ImageError, MemoryError) as error:
            return Pixels(classes, label_error=str(error) or NO_MEMORY)

    def _areas(self, labels: LabelMap, truth: LabelMap, classes: int) -> Areas:
        """Compares a mask with its label map. Raises ImageError."""
        if truth.size != labels.size:
            (rows, columns), (height, width) = truth.size, labels.size
            raise ImageError(f"it is {columns}x{rows}, but its image is {width}x{height}")
        areas = Areas((0,) * classes, (0,) * classes, (0,) * classes, 0)
        found: set[int] = set()
        for part in labels.parts():
            ids = truth.rows(part)
            found.update(np.flatnonzero(histogram(ids)).tolist())
            areas = areas.plus(areas_of(labels.rows(part), ids, classes, self.ignore_index))
        unknown = [each for each in sorted(found) if each >= classes and each != self.ignore_index]
        if unknown:
            more = ", ..." if len(unknown) > MOST_IDS_SHOWN else ""
            shown_ids = ", ".join(map(str, unknown[:MOST_IDS_SHOWN])) + more
            advice = "if it means no class, give it as --ignore_index"
            if len(unknown) > 1 or self.ignore_index != UNKNOWN:
                advice = (
                    "the label map may be for another model; or give all pixels of no class one "
                    "id, and name it with --ignore_index"
                )
            raise ImageError(
                f"it contains ids that the model, with {classes} classes, doesn't have "
                f"({shown_ids}): {advice}"
            )
        return areas


def _counts_of(labels: LabelMap) -> dict[int, int]:
    """Returns the number of pixels of each class id that is in `labels`."""
    counts: Counter[int] = Counter()
    for part in labels.parts():
        of_part = histogram(labels.rows(part))
        counts.update({int(each): int(of_part[each]) for each in np.flatnonzero(of_part)})
    return dict(sorted(counts.items()))


def judge_for(deploy: DeployConfig, evaluation: EvaluationOptions) -> Judge:
    """Returns a Judge for the model. Raises ConfigError if its number of classes is unknown."""
    if evaluation.label_path is None:
        return Judge()
    classes = class_count(deploy.graph_facts) or len(deploy.class_names)
    if not classes:
        raise ConfigError(
            f"--label_path needs the number of classes, which {shown(deploy.graph)} doesn't "
            f"declare: list the classes' names as `labels` in {shown(deploy.path)}"
        )
    return Judge(classes, evaluation.ignore_index)


def areas_of(labels: np.ndarray, truth: np.ndarray, classes: int, ignore_index: int) -> Areas:
    """Returns the areas of the ids below `classes` in a mask and its label map, both [H, W].

    The formula is that of `calculate_area` in PaddleSeg's `paddleseg/utils/metrics.py`: the mask's
    pixels aren't counted where the label map has `ignore_index`. An id that isn't below `classes`
    belongs to no class.
    """
    counted = truth != ignore_index

    def of_classes(counts: np.ndarray) -> tuple[int, ...]:
        return tuple(np.pad(counts, (0, max(0, classes - len(counts))))[:classes].tolist())

    return Areas(
        of_classes(histogram(labels, counted & (labels == truth))),
        of_classes(histogram(labels, counted)),
        of_classes(histogram(truth)),
        int(np.count_nonzero(counted)),
    )


def histogram(ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Returns the number of pixels of each id in `ids`, int64 [256], or [65536] for uint16.

    `ids` is uint8 or uint16 [H, W]. With `mask`, bool [H, W], only the pixels where it is true are
    counted.
    """
    if ids.dtype != np.uint8:
        counts = np.zeros(1 << 16, np.int64)
        for top in range(0, len(ids), ROWS_AT_ONCE):  # bincount needs 8 bytes per pixel
            part = slice(top, top + ROWS_AT_ONCE)
            found = np.bincount((ids[part] if mask is None else ids[part][mask[part]]).ravel())
            counts[: len(found)] += found
        return counts
    counts = np.zeros(256, np.int64)
    rows = max(1, MOST_COUNTED // max(1, ids.shape[1]))
    for top in range(0, len(ids), rows):
        part = slice(top, top + rows)
        some = None if mask is None else mask[part].view(np.uint8)
        counts += cv2.calcHist([ids[part]], [0], some, [256], [0, 256]).ravel().astype(np.int64)
    return counts
