"""--label_path: adds up how the masks of a run agree with their label maps."""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from paddleseg_infer.errors import ImageError
from paddleseg_infer.evaluation import Judge, read_label_map
from paddleseg_infer.machine.limits import usable_processors
from paddleseg_infer.metrics import metrics_of
from paddleseg_infer.outcomes import Areas, Outcome, Pixels
from paddleseg_infer.pictures.files import target_of
from paddleseg_infer.settings import SavingOptions

IDS = ("label", "mask")  # kinds of pictures that contain the class ids


def with_skipped(
    outcomes: Iterator[Outcome], judge: Judge, saving: SavingOptions
) -> Iterator[Outcome]:
    """Yields the outcomes, and compares the masks of the skipped ones with their label maps.

    The masks are read from their files, in as many threads as there are processors.
    """
    kind = next(kind for kind in IDS if kind in saving.save)

    def compared(outcome: Outcome) -> Outcome:
        path = os.path.join(saving.save_dir, target_of(kind, outcome.job.target))
        try:
            pixels = judge.pixels(outcome.job, read_label_map(path))
        except ImageError as error:
            pixels = Pixels({}, label_error=f"the {kind} can't be compared with it: {error}")
        return replace(outcome, pixels=pixels)

    threads = usable_processors()
    comparing: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for outcome in outcomes:
                if outcome.status == "skipped":
                    comparing.append(pool.submit(compared, outcome))
                else:
                    yield outcome
                if len(comparing) > 2 * threads:
                    yield comparing.popleft().result()
        finally:
            # Also after a signal: these masks are complete.
            yield from (each.result() for each in comparing)


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
        """Returns the metrics, and a dictionary for each class. NaN becomes None."""
        if self.areas is None:
            return {"images": 0}
        metrics = metrics_of(self.areas)
        return {
            "images": self.images,
            "mean_iou": metrics.mean_iou,
            "accuracy": _number(metrics.accuracy),
            "kappa": _number(metrics.kappa),
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

    def table(self) -> Iterator[str]:
        """Yields the metrics as lines of text for the terminal."""
        if self.areas is None:
            yield "no mask was compared with a label map"
            return
        metrics = metrics_of(self.areas)
        names = [self._name(number) for number in range(len(metrics.iou))]
        width = max(map(len, [*names, "class"]))
        yield f"{'class':{width}}      IoU  precision  recall  share of the label maps"
        total = sum(self.areas.label) or 1
        for number, name in enumerate(names):
            yield (
                f"{name:{width}}  {metrics.iou[number]:7.4f}  {metrics.precision[number]:9.4f}"
                f"  {metrics.recall[number]:6.4f}  {self.areas.label[number] / total:23.1%}"
            )
        yield (
            f"{self.images} images: mean IoU {metrics.mean_iou:.4f}, accuracy "
            f"{metrics.accuracy:.4f}, kappa {metrics.kappa:.4f}, Dice {metrics.mean_dice:.4f}"
        )

    def _name(self, number: int) -> str:
        name = self._names[number] if number < len(self._names) else ""
        return name or str(number)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
