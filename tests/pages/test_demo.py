"""Tests of the demo: a seed always gives the same scenes, and the model finds its classes."""

import itertools

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT, read_mask

from demo.canvas import CLASSES
from demo.scenes import demo_scenes, draw_scene

DEMO = ROOT / "demo"
NAMES = ("avenue", "boulevard", "corner", "crossing")


def test_one_seed_and_number_give_the_same_bytes():
    image, labels = draw_scene(3, 5)
    again, same_labels = draw_scene(3, 5)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, same_labels)


@pytest.mark.parametrize(("seed", "number"), [(4, 5), (3, 6)])
def test_another_seed_or_number_gives_another_scene(seed, number):
    assert not np.array_equal(draw_scene(3, 5)[1], draw_scene(seed, number)[1])


def test_a_scene_has_the_requested_size():
    image, labels = draw_scene(0, 0, 301, 203)
    assert (image.shape, image.dtype) == ((203, 301, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((203, 301), np.uint8)


def test_every_class_is_drawn_and_none_covers_half_of_the_scenes():
    labels = np.concatenate([draw_scene(1, number)[1].ravel() for number in range(12)])
    filled = np.bincount(labels, minlength=len(CLASSES)) / labels.size
    assert len(filled) == len(CLASSES)
    assert filled.min() > 0.002
    assert filled.max() < 0.5


def truth(name):
    return cv2.imread(str(DEMO / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)


def test_the_demos_images_have_different_sizes_and_label_files_of_their_size():
    sizes = set()
    for name in NAMES:
        image = cv2.imread(str(DEMO / "images" / f"{name}.jpg"))
        assert truth(name).shape == image.shape[:2]
        sizes.add(image.shape)
    assert len(sizes) == len(NAMES)


def test_the_demos_label_files_equal_what_its_scripts_draw():
    for name, _, labels in itertools.islice(
        demo_scenes(seed=1), 2
    ):  # the other scenes take a minute
        assert np.array_equal(labels, truth(name))


def test_the_demos_model_finds_its_classes(infer, tmp_path):
    """The test computes the mean IoU of four images. demo/make_demo.py does so for 50 others."""
    config, images = DEMO / "model" / "deploy.yaml", DEMO / "images"
    labels = ("--label_path", DEMO / "labels")
    result = infer("--config", config, "--image_path", images, "--save_dir", tmp_path, *labels)
    assert result.code == 0, result
    true = np.concatenate([truth(name).ravel() for name in NAMES])
    found = np.concatenate([read_mask(tmp_path / f"{name}.png").ravel() for name in NAMES])
    ious = [
        np.count_nonzero((true == label) & (found == label))
        / np.count_nonzero((true == label) | (found == label))
        for label in range(len(CLASSES))
    ]
    assert np.mean(ious) > 0.8, ious
    assert f"mean IoU {np.mean(ious):.4f}" in result.out


def test_the_overlay_in_the_readme_equals_the_programs_overlay(infer, tmp_path):
    config = DEMO / "model" / "deploy.yaml"
    image = DEMO / "images" / "avenue.jpg"
    run = infer("--config", config, "--image_path", image, "--save", "overlay")
    assert run.code == 0, run
    made = cv2.imread(str(tmp_path / "output" / "overlay" / "avenue.png"))
    shown = cv2.imread(str(DEMO / "overlay.png"))
    height = truth("avenue").shape[0]  # the text below depends on Pillow's version
    differing = (made[:height] != shown[:height]).any(axis=2)
    assert differing.mean() < 1e-3  # another engine may label a pixel differently
    assert made.shape == shown.shape


def test_the_demos_model_is_small_and_names_its_classes():
    files = sorted(file.name for file in (DEMO / "model").iterdir())
    assert files == ["deploy.yaml", "model.pdiparams", "model.pdmodel"]
    assert sum(file.stat().st_size for file in (DEMO / "model").iterdir()) <= 1_000_000
    deploy = yaml.safe_load((DEMO / "model" / "deploy.yaml").read_text())["Deploy"]
    assert deploy["labels"] == list(CLASSES)


def test_the_demos_graph_contains_no_paths_of_python_files():
    assert b".py" not in (DEMO / "model" / "model.pdmodel").read_bytes()
