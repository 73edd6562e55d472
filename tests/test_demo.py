"""The demo's scenes: the same seed gives the same bytes, and every class is there to be learnt."""

import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "demo"))
from canvas import CLASSES
from scenes import draw_scene


def test_one_seed_and_number_give_the_same_bytes():
    image, labels = draw_scene(3, 5)
    again, same_labels = draw_scene(3, 5)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, same_labels)


@pytest.mark.parametrize(("seed", "number"), [(4, 5), (3, 6)])
def test_another_seed_or_number_gives_another_scene(seed, number):
    assert not np.array_equal(draw_scene(3, 5)[1], draw_scene(seed, number)[1])


def test_a_scene_has_the_size_asked_for():
    image, labels = draw_scene(0, 0, 301, 203)
    assert (image.shape, image.dtype) == ((203, 301, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((203, 301), np.uint8)


def test_every_class_is_drawn_and_none_fills_the_street():
    labels = np.concatenate([draw_scene(1, number)[1].ravel() for number in range(12)])
    shares = np.bincount(labels, minlength=len(CLASSES)) / labels.size
    assert len(shares) == len(CLASSES)
    assert shares.min() > 0.002
    assert shares.max() < 0.5
