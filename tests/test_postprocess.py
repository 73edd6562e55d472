"""Outputs become label maps, and label maps palette PNGs."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

import postprocess
from errors import ImageError
from frame import Padded, Resized
from postprocess import encode_mask, label_map, output_kind, restore


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
    ],
)
def test_the_form_of_an_output_tells_what_it_holds(shape, dtype, kind):
    assert output_kind(np.zeros(shape, dtype)) == kind


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 257, 5, 7), "float32", "257 classes: a mask of 8 bits a pixel holds 256"),
        ((1, 3, 5, 7), "int32", r"int32 of shape \[1, 3, 5, 7\]: neither labels"),
        ((1, 5, 7), "float32", "neither labels"),
        ((1, 0, 5, 7), "float32", "neither labels"),
        ((1, 1000), "float32", "neither labels"),
    ],
)
def test_another_form_is_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        output_kind(np.zeros(shape, dtype))


@pytest.mark.parametrize("classes", [2, 3, 19, 255, 256])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_the_label_is_numpys_argmax_ties_included(classes, dtype):
    random = np.random.default_rng(classes)
    scores = random.integers(-3, 4, (classes, 31, 33)).astype(dtype) / 4
    scores[:, :3] = 0.0
    scores[1, 13:15] += np.finfo(dtype).eps  # no rounding on the way
    scores[:, :1] *= -1  # -0.0 equals 0.0
    scores[random.integers(classes), 5:9] = np.inf
    scores[0, 9:12] = -np.inf
    labels = label_map(scores, "scores")
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.argmax(scores, axis=0))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1), (2, 2), (1, 3)])
def test_the_smallest_label_maps_are_numpys_argmax_too(size):
    """OpenCV takes arrays of four elements or fewer for scalars where it can."""
    scores = np.random.default_rng(0).normal(size=(5, *size)).astype(np.float32)
    assert np.array_equal(label_map(scores, "scores"), np.argmax(scores, axis=0))


def test_one_channel_is_class_1_above_one_half():
    scores = np.array(
        [[[0.5, np.nextafter(np.float32(0.5), np.float32(1)), 7, -1, 0.4999]]], np.float32
    )
    assert label_map(scores, "foreground").tolist() == [[0, 1, 1, 0, 0]]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_labels_are_taken_as_they_are(dtype):
    labels = np.array([[0, 3, 255]], dtype)
    assert label_map(labels, "labels").tolist() == [[0, 3, 255]]
    assert label_map(labels[None], "labels").tolist() == [[0, 3, 255]]


@pytest.mark.parametrize("wrong", [-1, 256, 70000])
def test_a_label_beyond_8_bits_is_refused(wrong):
    with pytest.raises(ImageError, match=f"labels from .*{wrong}.*: a mask of 8 bits"):
        label_map(np.array([[7, wrong]], np.int32), "labels")


def test_labels_go_back_through_the_transforms():
    """Resized to 6x4, padded by 1 to the left and 2 above, resized to 16x12."""
    before = np.arange(24, dtype=np.uint8).reshape(4, 6)
    padded = np.full((6, 8), 99, np.uint8)
    padded[2:, 1:7] = before
    labels = cv2.resize(padded, (16, 12), interpolation=cv2.INTER_NEAREST)
    undo = (Resized(8, 12), Padded(2, 1, 4, 6), Resized(6, 8))
    expected = cv2.resize(before, (12, 8), interpolation=cv2.INTER_NEAREST)
    restored = restore(labels, undo)
    assert restored.flags.c_contiguous
    assert np.array_equal(restored, expected)


# ---- masks -------------------------------------------------------------------------------------


def test_the_palette_has_the_colours_that_paddleseg_shows():
    colours = np.frombuffer(postprocess.paddleseg_palette(), np.uint8).reshape(256, 3).tolist()
    assert colours[:4] == [[128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colours[255] == [0, 0, 32]


def test_the_palette_equals_paddlesegs():
    from paddleseg.utils.visualize import get_color_map_list

    assert list(postprocess.paddleseg_palette()) == get_color_map_list(256)


def test_a_mask_holds_the_class_ids_and_the_palette():
    labels = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    mask = Image.open(io.BytesIO(encode_mask(labels)))
    assert mask.mode == "P"
    assert np.array_equal(np.array(mask), labels)
    assert bytes(mask.getpalette()) == postprocess.paddleseg_palette()


@pytest.mark.parametrize("classes", [2, 3, 19])
@pytest.mark.parametrize("band", [1, 100, 1 << 16])
def test_the_highest_score_is_found_band_by_band(monkeypatch, classes, band):
    monkeypatch.setattr(postprocess, "BAND_SCORES", band)
    scores = np.random.default_rng(classes).integers(0, 4, (classes, 37, 23)).astype(np.float32)
    assert np.array_equal(label_map(scores, "scores"), scores.argmax(0))
