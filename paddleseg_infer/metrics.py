"""The metrics of PaddleSeg's `val.py`, from the areas of a data set."""

from dataclasses import dataclass

import numpy as np

from paddleseg_infer.outcomes import Areas


@dataclass(frozen=True, eq=False)
class Metrics:
    """How well masks agree with label maps. All values are 0 to 1, but `kappa` is -1 to 1.

    The formulas are those of PaddleSeg's `paddleseg/utils/metrics.py`. Pixels of a mask that belong
    to no class, which PaddleSeg doesn't have, count as wrong in `accuracy` too. `accuracy` and
    `kappa` are NaN if no pixel was compared, `kappa` also if all pixels have one class.
    """

    iou: np.ndarray  # float64 [classes]; 0 for a class without pixels
    precision: np.ndarray
    recall: np.ndarray
    mean_iou: float  # over all classes, also those without pixels
    accuracy: float
    kappa: float
    mean_dice: float


def metrics_of(areas: Areas) -> Metrics:
    """Returns the metrics of an image's areas, or of the sums over a data set."""
    both, prediction, label = (np.array(counts, np.int64) for counts in areas[:3])
    iou = _ratios(both, prediction + label - both)
    dice = _ratios(2 * both, prediction + label)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = both.sum() / np.int64(areas.compared)
        total = label.sum().astype(np.float64)
        observed = both.astype(np.float64).sum() / total
        products = prediction.astype(np.float64) * label.astype(np.float64)
        by_chance = products.sum() / (total * total)
        kappa = (observed - by_chance) / (1 - by_chance)
    return Metrics(
        iou,
        _ratios(both, prediction),
        _ratios(both, label),
        float(iou.mean()),
        float(accuracy),
        float(kappa),
        float(dice.mean()),
    )


def own_mean_iou(areas: Areas) -> float | None:
    """Returns the mean IoU over the classes that an image's mask or label map has.

    Returns None if there is no such class.
    """
    has_pixels = np.array(areas.prediction) + np.array(areas.label) > 0
    return float(metrics_of(areas).iou[has_pixels].mean()) if has_pixels.any() else None


def _ratios(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole as float64, and 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)
