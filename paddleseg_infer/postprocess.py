"""Turns network outputs into label maps and score maps of the image's size."""

import logging
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from paddleseg_infer.argmax import ARGMAXES
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.forms import (
    are_probabilities,
    check_places,
    is_channels_last,
    is_whole,
    output_kind,
)
from paddleseg_infer.graph import GraphFacts
from paddleseg_infer.probabilities import bands, chosen_probability, probability_map, score_map
from paddleseg_infer.settings import MAX_LABEL, UNKNOWN
from paddleseg_infer.transforms.frame import Padded, Resized

log = logging.getLogger("paddleseg_infer")

ONE_CHANNEL = "one output channel: a pixel is class 1 if its value is above {threshold}"
NOTES = {  # lines to log, for each kind of output, without and with --with_argmax
    ("labels", True): "--with_argmax has no effect: this model gives labels",
    ("scores", False): "this model gives scores: the class with the highest score is chosen "
    "(--with_argmax)",
    ("foreground", False): f"this model has {ONE_CHANNEL}",
    ("foreground", True): f"--with_argmax has no effect with {ONE_CHANNEL}",
}
FLOAT_IDS = "this model gives class ids as float values: they are used as labels"


class Maps(NamedTuple):
    """What is read from a network's output for one image. All have the same height and width."""

    labels: np.ndarray  # uint8 or uint16 [H, W]
    score: np.ndarray | None = None  # uint8 [H, W]: the class's probability, 255 means 1
    probability: np.ndarray | None = None  # float16 [C, H, W]: the probabilities of all classes

    def restored(self, undo: Sequence[Resized | Padded]) -> "Maps":
        """Returns the maps in the image's size: see `restore`."""
        return Maps(
            restore(self.labels, undo),
            None if self.score is None else restore(self.score, undo),
            None if self.probability is None else restore(self.probability, undo),
        )


class OutputReader:
    """Makes label maps, and maps of probabilities if needed, from a network's outputs.

    The first output decides the kind of all outputs.
    """

    def __init__(
        self,
        with_argmax: bool,
        threshold: float,
        output_op: str = "",
        unknown_below: float | None = None,
    ):
        """`output_op` is that of the export: argmax, softmax or none; "" if unknown.

        Pixels whose best class has a probability below `unknown_below` get the label UNKNOWN.
        Raises ConfigError for a wrong `threshold` or `unknown_below`.
        """
        if not isinstance(threshold, int | float) or not math.isfinite(threshold):
            raise ConfigError(f"threshold must be a number, not {threshold!r}")
        is_number = isinstance(unknown_below, int | float)
        if unknown_below is not None and not (is_number and 0 < unknown_below <= 1):
            raise ConfigError(f"unknown_below must be above 0 and at most 1, not {unknown_below!r}")
        self.kind = ""  # a result of output_kind, once `learn` has been called
        self._is_channels_last = False
        self._may_be_ids = False  # the first output had only 0 and 1: ids or saturated scores
        self._with_argmax, self._threshold = with_argmax, threshold
        self._output_op, self._unknown_below = output_op, unknown_below
        self._is_probability = False

    def learn(
        self, output: np.ndarray, size: tuple[int, int], facts: GraphFacts | None = None
    ) -> None:
        """Sets layout and `kind` from the first batch's output [N, ...] and logs lines about them.

        Later calls do nothing. `size` is the height and width of the network's input, `facts` is
        what the graph declares. Raises ValueError if the output has none of PaddleSeg's forms, or
        if its layout could be NCHW and NHWC; ConfigError if no pixel can be unknown.
        """
        if self.kind:
            return
        if output.ndim == 4:
            self._is_channels_last = is_channels_last(output, size, facts)
            output = self.channels_first(output)
        self.kind = output_kind(output)
        if self._is_channels_last:
            log.info("this model's output has the layout NHWC: the classes are its last axis")
        check_places(output, size)
        if self.kind == "foreground" and is_whole(output):
            # Of several outputs, the argmax may belong to another.
            is_argmax = (
                facts is not None
                and len(facts.outputs) == 1
                and not facts.operators.isdisjoint(ARGMAXES)
            )
            if is_argmax or output.max() > 1:
                log.info("%s", FLOAT_IDS)
                self.kind = "labels"
            else:
                self._may_be_ids = True
        if self.kind == "scores" and self._output_op:
            self._is_probability = self._output_op == "softmax"
        elif self.kind != "labels":  # output_op says nothing about one channel
            self._is_probability = are_probabilities(output, self.kind)
        self._check_unknown(output.shape[1])
        if note := NOTES.get((self.kind, self._with_argmax)):
            log.info("%s", note.format(threshold=self._threshold))
        if self.kind != "foreground" and self._threshold != 0.5:
            log.warning("--threshold has no effect: it is for models with one output channel")

    def _check_unknown(self, channels: int) -> None:
        """Raises ConfigError if pixels should become unknown, but the model can't have any."""
        if self._unknown_below is None:
            return
        if self.kind == "labels":
            raise ConfigError(
                "--unknown_below needs probabilities, but this model gives only labels: export it "
                "with --output_op softmax, or remove --unknown_below"
            )
        if channels > UNKNOWN:
            raise ConfigError(
                f"--unknown_below marks pixels with {UNKNOWN}, but this model has a class of that "
                "id: remove --unknown_below"
            )

    def channels_first(self, output: np.ndarray) -> np.ndarray:
        """Returns the output [N, H, W, C] or [N, C, H, W] in the order [N, C, H, W]."""
        if not self._is_channels_last:
            return output
        return np.ascontiguousarray(np.moveaxis(output, -1, 1))

    def scores(self, output: np.ndarray) -> np.ndarray:
        """Returns one image's scores as float32 [C, H, W]. Raises ImageError."""
        _check_finite(output)
        if self._may_be_ids and output.max() > 1 and is_whole(output):
            raise ImageError(
                "the model gives class ids, but the first window contained only 0 and 1 and was "
                "read as scores: run without --crop_size, or start with another image"
            )
        return output.astype(np.float32, copy=False)

    def __call__(self, output: np.ndarray, kinds: Collection[str] = ()) -> Maps:
        """Returns the maps of one image's output. Raises ImageError.

        The score map is None if "score" isn't among `kinds`, and so is the map of probabilities.
        """
        needs = [f"--save {kind}" for kind in ("score", "probability") if kind in kinds]
        if self._unknown_below is not None:
            needs.append("--unknown_below")
        if self._may_be_ids and output.max() > 1 and is_whole(output):
            if needs:
                raise ImageError(
                    f"the model gives class ids, but {needs[0]} needs probabilities: export it "
                    f"with --output_op softmax, or remove {needs[0]}"
                )
            return Maps(label_map(output, "labels"))
        form = self.kind, self._is_probability
        labels = label_map(output, self.kind, self._threshold)
        if self._unknown_below is not None:
            for rows in bands(output):
                best = chosen_probability(output[:, rows], *form, self._threshold)
                labels[rows][best < self._unknown_below] = UNKNOWN
        return Maps(
            labels,
            score_map(output, *form, self._threshold) if "score" in kinds else None,
            probability_map(output, *form) if "probability" in kinds else None,
        )


def label_map(output: np.ndarray, kind: str, threshold: float = 0.5) -> np.ndarray:
    """Returns the labels [H, W] of one image's output [H, W], [1, H, W] or [C, H, W].

    The dtype is uint8, or uint16 if a label is above 255 or there are more than 256 classes.
    Scores: the class with the highest score; of equal scores the first class, as in np.argmax.
    Foreground: 1 if the value is above `threshold`, else 0; the value isn't converted to a
    probability first. Raises ImageError for a label outside 0 to 65535, for a float label that
    isn't a whole number, and for a score that is NaN or infinite.
    """
    if kind == "labels":
        labels = output.reshape(output.shape[-2:])
        if np.issubdtype(labels.dtype, np.floating) and not is_whole(labels):
            raise ImageError("the model gives float labels, but they are not whole numbers")
        low, high = (labels.min(), labels.max()) if labels.size else (0, 0)
        if low < 0 or high > MAX_LABEL:
            raise ImageError(
                f"the model gives labels from {low} to {high}, but a label must be 0 to {MAX_LABEL}"
            )
        return labels.astype(np.uint8 if high < 256 else np.uint16)
    if kind == "foreground":
        _check_finite(output)
        return (output[0] > threshold).astype(np.uint8)
    labels = np.empty(output.shape[1:], np.uint8 if len(output) <= 256 else np.uint16)
    for rows in bands(output):
        if not math.isfinite(_argmax(_float(output[:, rows]), labels[rows])):
            _check_finite(output)
    return labels


def _check_finite(output: np.ndarray) -> None:
    """Raises ImageError if a score of `output` [C, H, W] is NaN or infinite."""
    pixels = np.count_nonzero(~np.isfinite(output).all(axis=0))
    if pixels:
        raise ImageError(
            f"the network gives NaN or infinite scores in {pixels} of {output[0].size} pixels: "
            "run it with --precision fp32, or export the model again"
        )


def _float(scores: np.ndarray) -> np.ndarray:
    """Converts float16 to float32, because these OpenCV functions don't support float16."""
    return scores.astype(np.float32) if scores.dtype == np.float16 else scores


def _argmax(scores: np.ndarray, labels: np.ndarray) -> float:
    """Writes the class with the highest of `scores` [C, H, W] (C > 1) into `labels` [H, W].

    Returns the sum of the scores: NaN or infinite if one of them is, and if the sum is too large.
    """
    if labels.dtype != np.uint8:
        labels[...] = scores.argmax(0)
        return _sum(scores)
    best = scores[0].copy()
    higher = cv2.compare(scores[1], best, cv2.CMP_GT)  # 255 where higher, else 0
    np.bitwise_and(higher, 1, out=labels)  # cv2.bitwise_and is wrong for small arrays
    total = _sum(scores[:2])
    for class_id in range(2, len(scores)):
        total += _sum(scores[class_id])  # the class is in the processor's cache now
        cv2.max(scores[class_id - 1], best, dst=best)
        cv2.compare(scores[class_id], best, cv2.CMP_GT, dst=higher)
        # Later classes have larger ids, so the maximum is the last class that was higher.
        cv2.max(labels, np.bitwise_and(higher, class_id, out=higher), dst=labels)
    return total


def _sum(scores: np.ndarray) -> float:
    # The cheapest check of all values: NaN and infinity stay in a sum.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(scores.sum())


def restore(planes: np.ndarray, undo: Sequence[Resized | Padded]) -> np.ndarray:
    """Undoes the transforms on labels [H, W] or scores [C, H, W], the last transform first.

    Resizes use the nearest pixel. Returns a contiguous array of the same dtype.
    """
    for step in reversed(undo):
        if isinstance(step, Padded):
            bottom, right = step.top + step.height, step.left + step.width
            planes = planes[..., step.top : bottom, step.left : right]
        elif planes.shape[-2:] != (step.height, step.width):
            planes = _nearest(planes, step.width, step.height)
    return np.ascontiguousarray(planes)


def _nearest(planes: np.ndarray, width: int, height: int) -> np.ndarray:
    if planes.ndim == 3:
        return np.stack([_nearest(plane, width, height) for plane in planes])
    return cv2.resize(planes, (width, height), interpolation=cv2.INTER_NEAREST)
