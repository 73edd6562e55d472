"""Makes maps of probabilities from a network's scores."""

from collections.abc import Iterator

import numpy as np

BAND_SCORES = 1 << 16  # scores of one class in a band of rows; they fit in the processor's cache


def bands(scores: np.ndarray) -> Iterator[slice]:
    """Yields slices that divide the rows of [C, H, W] into bands of a few rows."""
    _, height, width = scores.shape
    rows = max(1, BAND_SCORES // max(1, width))
    for top in range(0, height, rows):
        yield slice(top, top + rows)


def score_map(
    output: np.ndarray, kind: str, is_probability: bool, threshold: float = 0.5
) -> np.ndarray:
    """Returns the probability of each pixel's class in `label_map`: uint8 [H, W], 255 means 1.

    `output` is one image's scores or foreground [C, H, W]. If these aren't probabilities, softmax
    or sigmoid is applied to them.
    """
    scores = np.empty(output.shape[1:], np.uint8)
    for rows in bands(output):
        chosen = chosen_probability(output[:, rows], kind, is_probability, threshold)
        scores[rows] = np.rint(chosen * 255)
    return scores


def chosen_probability(
    output: np.ndarray, kind: str, is_probability: bool, threshold: float
) -> np.ndarray:
    """Returns the probability of each pixel's class in `label_map`, float32 [H, W]."""
    part = output.astype(np.float32, copy=False)
    if kind == "foreground":
        probability = part[0] if is_probability else _sigmoid(part[0])
        probability = np.where(part[0] > threshold, probability, 1 - probability)
    elif is_probability:
        probability = part.max(axis=0)
    else:
        with np.errstate(over="ignore"):  # a difference of scores may be too large for float32
            probability = 1 / np.exp(part - part.max(axis=0)).sum(axis=0)
    return probability.clip(0, 1)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)), computed so that it can't overflow."""
    return np.exp(-np.logaddexp(0, -values))


def probability_map(output: np.ndarray, kind: str, is_probability: bool) -> np.ndarray:
    """Returns the probabilities of all classes, float16 [classes, H, W], each 0 to 1.

    `output` is one image's scores or foreground [C, H, W]. Foreground has two classes: its
    probability is that of class 1. Softmax or sigmoid is applied as in `score_map`.
    """
    classes = 2 if kind == "foreground" else len(output)
    probabilities = np.empty((classes, *output.shape[1:]), np.float16)
    for rows in bands(output):
        part = output[:, rows].astype(np.float32, copy=False)
        if kind == "foreground":
            foreground = part[0] if is_probability else _sigmoid(part[0])
            probability = np.stack([1 - foreground, foreground])
        elif is_probability:
            probability = part
        else:
            with np.errstate(over="ignore"):
                probability = np.exp(part - part.max(axis=0))
            probability /= probability.sum(axis=0)
        probabilities[:, rows] = probability.clip(0, 1)
    return probabilities
