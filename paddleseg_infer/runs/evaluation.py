"""--label_path: adds up how the masks of a run agree with their label maps."""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from paddleseg_infer.errors import ImageError, RunError, shown
from paddleseg_infer.evaluation import NO_MEMORY, Judge
from paddleseg_infer.label_maps import opened_label_map
from paddleseg_infer.machine.limits import usable_processors
from paddleseg_infer.metrics import metrics_of
from paddleseg_infer.outcomes import Areas, Interrupted, Outcome, Pixels
from paddleseg_infer.pictures.files import target_of
from paddleseg_infer.runs.signals import answered_by, interrupt
from paddleseg_infer.settings import SavingOptions

MOST_THREADS = 4  # each has a mask and its label map in memory
IDS = ("label", "mask")  # kinds of pictures that contain the class ids


def with_skipped(
    outcomes: Iterator[Outcome], judge: Judge, saving: SavingOptions
) -> Iterator[Outcome]:
    """Yields the outcomes, and compares the masks of the skipped ones with their label maps.

    The masks are read from their files, in up to MOST_THREADS threads, after all other outcomes: a
    worker that is forked while this process has threads may hang. A signal raises Interrupted.
    """
    kind = next(kind for kind in IDS if kind in saving.save)

    def compared(outcome: Outcome) -> Outcome:
        path = os.path.join(saving.save_dir, target_of(kind, outcome.job.stem, outcome.suffix))
        try:
            with opened_label_map(path) as labels:
                pixels = judge.pixels(outcome.job, labels)
        except (ImageError, MemoryError) as error:
            why = str(error) or NO_MEMORY
            pixels = Pixels({}, label_error=f"the {kind} {shown(path)} can't be read: {why}")
        return replace(outcome, pixels=pixels)

    skipped: deque[Outcome] = deque()
    try:
        for outcome in outcomes:
            if outcome.status == "skipped":
                skipped.append(outcome)
            else:
                yield outcome
    except (Interrupted, RunError):
        yield from skipped
        raise
    threads = min(MOST_THREADS, usable_processors())
    comparing: deque[Future[Outcome]] = deque()
    with answered_by(interrupt), ThreadPoolExecutor(threads) as pool:
        while skipped or comparing:
            while skipped and len(comparing) < 2 * threads:
                comparing.append(pool.submit(compared, skipped.popleft()))
            yield comparing.popleft().result()


class Evaluation:
    """The areas of all images of a run, and the metrics that come from them."""

    def __init__(self, names: Sequence[str] = ()):
        """`names` are the classes' names; some may be missing."""
        self.images = 0
        self.areas: Areas | None = None
        self._names = names

    def add(self, areas: Areas, images: int = 1) -> None:
        self.images += images
        self.areas = areas if self.areas is None else self.areas.plus(areas)

    def as_dict(self) -> dict[str, Any]:
        """Returns the metrics, and a dictionary for each class. kappa is None if it is NaN."""
        if self.areas is None or not self.areas.compared:
            return {"images": self.images}
        metrics = metrics_of(self.areas)
        return {
            "images": self.images,
            "pixels": self.areas.compared,
            "mean_iou": metrics.mean_iou,
            "accuracy": metrics.accuracy,
            "kappa": metrics.kappa if math.isfinite(metrics.kappa) else None,
            "mean_dice": metrics.mean_dice,
            "classes": [
                {
                    "class": number,
                    "name": self._name(number),
                    "iou": float(metrics.iou[number]),
                    "precision": float(metrics.precision[number]),
                    "recall": float(metrics.recall[number]),
                    "intersection": self.areas.intersection[number],
                    "prediction": self.areas.prediction[number],
                    "label": self.areas.label[number],
                }
                for number in range(len(metrics.iou))
            ],
        }

    def table(self, total: int) -> Iterator[str]:
        """Yields the metrics as lines of text. `total` is the number of images of the run."""
        compared = f"{self.images} of {total} masks compared"
        if self.areas is None:
            yield compared
            return
        if not self.areas.compared:
            yield f"{compared}: their label maps ignore all pixels"
            return
        metrics = metrics_of(self.areas)
        kappa = f"{metrics.kappa:.4f}" if math.isfinite(metrics.kappa) else "-"
        names = [self._name(number) for number in range(len(metrics.iou))]
        width = max(map(len, [*names, "class"]))
        yield f"{'class':{width}}      IoU  precision  recall  share of the label maps"
        pixels = sum(self.areas.label) or 1
        for number, name in enumerate(names):
            yield (
                f"{name:{width}}  {metrics.iou[number]:7.4f}  {metrics.precision[number]:9.4f}"
                f"  {metrics.recall[number]:6.4f}  {self.areas.label[number] / pixels:23.1%}"
            )
        yield (
            f"{compared}: mean IoU {metrics.mean_iou:.4f}, accuracy "
            f"{metrics.accuracy:.4f}, kappa {kappa}, Dice {metrics.mean_dice:.4f}"
        )

    def _name(self, number: int) -> str:
        name = self._names[number] if number < len(self._names) else ""
        return name or str(number)
