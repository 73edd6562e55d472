"""Outputs are converted to label maps and scores, and these get the size of the image."""

import cv2
import numpy as np
import pytest

from paddleseg_infer import probabilities
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.postprocess import (
    OutputReader,
    are_probabilities,
    label_map,
    output_kind,
    restore,
    score_map,
)
from paddleseg_infer.transforms.frame import Padded, Resized


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((2, 5, 7), "int32", "labels"),
        ((2, 5, 7), "int64", "labels"),
        ((2, 5, 7), "uint8", "labels"),
        ((2, 1, 5, 7), "int64", "labels"),
        ((2, 1, 5, 7), "float32", "foreground"),
        ((2, 2, 5, 7), "float32", "scores"),
        ((2, 256, 5, 7), "float16", "scores"),
        ((2, 300, 5, 7), "float32", "scores"),
    ],
)
def test_shape_and_type_of_an_output_decide_its_kind(shape, dtype, kind):
    assert output_kind(np.zeros(shape, dtype)) == kind


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 3, 5, 7), "int32", r"int32 of shape \[1, 3, 5, 7\]: neither labels"),
        ((1, 5, 7), "float32", "neither labels"),
        ((1, 0, 5, 7), "float32", "neither labels"),
        ((1, 1000), "float32", "neither labels"),
    ],
)
def test_an_output_of_another_shape_or_type_is_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        output_kind(np.zeros(shape, dtype))


@pytest.mark.parametrize("classes", [2, 3, 19, 255, 256])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_labels_equal_numpys_argmax_also_for_equal_scores(classes, dtype):
    random = np.random.default_rng(classes)
    scores = random.integers(-3, 4, (classes, 31, 33)).astype(dtype) / 4
    scores[:, :3] = 0.0
    scores[1, 13:15] += np.finfo(dtype).eps  # rounding would remove this difference
    scores[:, :1] *= -1  # -0.0 equals 0.0
    labels = label_map(scores, "scores")
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.argmax(scores, axis=0))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1), (2, 2), (1, 3)])
def test_the_smallest_label_maps_equal_numpys_argmax(size):
    """OpenCV treats arrays of up to four elements as scalars where it can."""
    scores = np.random.default_rng(0).normal(size=(5, *size)).astype(np.float32)
    assert np.array_equal(label_map(scores, "scores"), np.argmax(scores, axis=0))


def test_pixels_of_one_channel_above_one_half_are_class_1():
    scores = np.array(
        [[[0.5, np.nextafter(np.float32(0.5), np.float32(1)), 7, -1, 0.4999]]], np.float32
    )
    assert label_map(scores, "foreground").tolist() == [[0, 1, 1, 0, 0]]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_labels_are_not_changed(dtype):
    labels = np.array([[0, 3, 255]], dtype)
    assert label_map(labels, "labels").tolist() == [[0, 3, 255]]
    assert label_map(labels[None], "labels").tolist() == [[0, 3, 255]]


@pytest.mark.parametrize("wrong", [-1, 65536])
def test_a_label_beyond_16_bits_is_refused(wrong):
    with pytest.raises(
        ImageError, match=f"labels from .*{wrong}.*, but a label must be 0 to 65535"
    ):
        label_map(np.array([[7, wrong]], np.int32), "labels")


def test_restore_undoes_the_transforms_of_labels():
    """The image was resized to 6x4, padded left by 1 and at the top by 2, and resized to 16x12."""
    before = np.arange(24, dtype=np.uint8).reshape(4, 6)
    padded = np.full((6, 8), 99, np.uint8)
    padded[2:, 1:7] = before
    labels = cv2.resize(padded, (16, 12), interpolation=cv2.INTER_NEAREST)
    undo = (Resized(8, 12), Padded(2, 1, 4, 6), Resized(6, 8))
    expected = cv2.resize(before, (12, 8), interpolation=cv2.INTER_NEAREST)
    restored = restore(labels, undo)
    assert restored.flags.c_contiguous
    assert np.array_equal(restored, expected)


@pytest.mark.parametrize("classes", [2, 3, 19])
@pytest.mark.parametrize("band", [1, 100, 1 << 16])
def test_labels_do_not_depend_on_the_size_of_a_band(monkeypatch, classes, band):
    monkeypatch.setattr(probabilities, "BAND_SCORES", band)
    scores = np.random.default_rng(classes).integers(0, 4, (classes, 37, 23)).astype(np.float32)
    assert np.array_equal(label_map(scores, "scores"), scores.argmax(0))


def test_labels_of_more_than_256_classes_have_16_bits():
    scores = np.random.default_rng(0).standard_normal((300, 9, 11)).astype(np.float32)
    labels = label_map(scores, "scores")
    assert (labels.dtype, labels.max() > 255) == (np.uint16, True)
    assert np.array_equal(labels, scores.argmax(0))
    assert label_map(np.array([[0, 300]]), "labels").tolist() == [[0, 300]]


def test_pixels_of_one_channel_above_the_threshold_are_class_1():
    values = np.array([[[-1.0, 0.0, 0.5, 0.7]]], np.float32)
    assert label_map(values, "foreground", 0.0).tolist() == [[0, 0, 1, 1]]
    assert label_map(values, "foreground", 0.6).tolist() == [[0, 0, 0, 1]]


# ---- the probability of the chosen class -------------------------------------------------------


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-3, keepdims=True))
    return exponentials / exponentials.sum(axis=-3, keepdims=True)


def test_probabilities_are_recognised_by_their_values():
    logits = np.random.default_rng(0).standard_normal((2, 5, 9, 11)).astype(np.float32)
    assert not are_probabilities(logits, "scores")
    assert are_probabilities(softmax(logits), "scores")
    assert are_probabilities(softmax(logits).astype(np.float16), "scores")
    assert not are_probabilities(logits[:, :1], "foreground")
    assert are_probabilities(softmax(logits)[:, :1], "foreground")
    below_zero = np.float32([2, -1]).reshape(1, 2, 1, 1)  # the sum is 1 all the same
    assert not are_probabilities(below_zero, "scores")
    with_nan = softmax(logits)
    with_nan[:, :, 0] = np.nan
    assert are_probabilities(with_nan, "scores")
    assert not are_probabilities(np.full((1, 2, 3, 3), np.nan, np.float32), "scores")


def test_the_exports_output_op_takes_precedence_over_the_values(caplog):
    one_hot = np.zeros((1, 2, 3, 3), np.float32)
    one_hot[:, 0] = 1  # logits that look like probabilities
    for output_op, expected in (("softmax", 255), ("none", 186), ("", 255)):
        read = OutputReader(True, 0.5, output_op)
        read.learn(one_hot, (3, 3))
        assert (read(one_hot[0], ("score",)).score == expected).all()
    for wrong in (float("nan"), "x"):
        with pytest.raises(ConfigError, match="threshold must be a number"):
            OutputReader(True, wrong)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 19, 300])
def test_an_image_with_scores_that_are_no_numbers_is_refused(classes, dtype, wrong):
    scores = np.zeros((classes, 31, 33), dtype)
    kind = "scores" if classes > 1 else "foreground"
    assert not label_map(scores, kind).any()
    scores[classes // 2, 30, 5:8] = wrong
    with pytest.raises(ImageError, match="gives NaN or infinite scores in 3 of 1023 pixels"):
        label_map(scores, kind)


def test_large_scores_whose_sum_is_infinite_are_fine():
    scores = np.full((3, 8, 8), np.finfo(np.float32).max, np.float32)
    scores[0, 4:] = 0
    labels = label_map(scores, "scores")
    assert labels.tolist() == [[0] * 8] * 4 + [[1] * 8] * 4


@pytest.mark.parametrize("classes", [2, 19, 300])
def test_logits_and_their_softmax_have_the_same_score_map(classes):
    logits = 5 * np.random.default_rng(0).standard_normal((classes, 33, 35)).astype(np.float32)
    expected = np.rint(softmax(logits).max(axis=0) * 255)
    assert np.array_equal(score_map(softmax(logits), "scores", True), expected)
    assert np.abs(score_map(logits, "scores", False) - expected).max() <= 1
    assert np.mean(score_map(logits, "scores", False) == expected) > 0.99


def test_the_score_of_one_channel_belongs_to_the_chosen_class():
    values = np.array([[[0.1, 0.4, 0.5, 0.9]]], np.float32)
    assert (score_map(values, "foreground", True) / 255).round(1).tolist() == [[0.9, 0.6, 0.5, 0.9]]
    other = score_map(values, "foreground", True, threshold=0.3)
    assert (other / 255).round(1).tolist() == [[0.9, 0.4, 0.5, 0.9]]
    assert score_map(np.float32([[[0.5]]]), "foreground", True, 0.5)[0, 0] == 128  # not above 0.5
    logits = np.array([[[-1000.0, -1.0, 0.0, 1.0, 1000.0]]], np.float32)
    assert score_map(logits, "foreground", False, 0.0).tolist() == [[255, 186, 128, 186, 255]]


def test_restore_treats_each_plane_of_scores_like_labels():
    planes = np.random.default_rng(0).random((3, 6, 8), np.float32)
    undo = (Resized(8, 12), Padded(2, 1, 4, 6), Resized(6, 8))
    assert np.array_equal(restore(planes, undo), [restore(plane, undo) for plane in planes])


def test_whole_values_of_one_channel_are_thresholded_if_others_are_not_whole():
    """The scores of an image may be saturated, for example by relu6."""
    read = OutputReader(True, 0.5)
    read.learn(np.array([[[[0.3, 6], [0, 6]]]], np.float32), (2, 2))
    labels = read(np.array([[[0, 6], [6, 0]]], np.float32)).labels
    assert labels.tolist() == [[0, 1], [1, 0]]
