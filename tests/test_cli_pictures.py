"""--save and what goes with it, as users call it: files, colours, and what is refused."""

import os

import numpy as np
import pytest
from conftest import masks, read_mask
from PIL import Image


def test_every_kind_of_picture_is_saved_in_its_place(infer, models, photos, tmp_path):
    run = infer(
        *("--config", models / "softmax" / "deploy.yaml", "--image_path", "photos"),
        *("--save", "score", "overlay", "label", "mask", "mask", "--with_argmax"),
    )
    assert (run.code, run.err) == (0, "")
    assert run.out.endswith(" 0 failed: masks, labels, overlays, scores in output\n")
    stems = [f"{number}.png" for number in range(5)]
    kinds = ("label", "overlay", "score")
    expected = stems + [f"{kind}/{name}" for kind in kinds for name in stems]
    assert masks(tmp_path / "output") == sorted(expected)
    mask = read_mask(tmp_path / "output" / "0.png")
    with Image.open(tmp_path / "output" / "label" / "0.png") as label:
        assert np.array_equal(np.array(label), mask)


def test_without_mask_none_is_saved(infer, model, photos, tmp_path):
    assert infer("--config", model, "--image_path", photos, "--save", "label").code == 0
    assert {os.path.dirname(name) for name in masks(tmp_path / "output")} == {"label"}


def test_the_colours_asked_for_are_those_of_the_mask(infer, model, photos, tmp_path):
    arguments = ("--config", model, "--image_path", photos / "0.jpg")
    for colours, expected in (
        (("9", "8", "7"), [9, 8, 7]),
        (("cityscapes",), [128, 64, 128]),
    ):
        assert infer(*arguments, "--custom_color", *colours).code == 0
        with Image.open(tmp_path / "output" / "0.png") as mask:
            assert mask.getpalette()[:3] == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--custom_color", "1", "2"), "--custom_color takes three numbers a class"),
        (("--save", "masks"), "argument --save: invalid choice: 'masks'"),
        (("--threshold", "nan"), "argument --threshold: must be a number, not 'nan'"),
        (("--crop_size", "100"), "argument --crop_size: expected 2 arguments"),
        (("--crop_size", "100", "0"), "argument --crop_size: must be a whole number"),
        (("--stride", "10", "10"), "--stride has no effect without --crop_size"),
        (("--crop_size", "8", "8", "--stride", "9", "8"), "--stride is larger than --crop_size"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_looked_at(infer, tmp_path, flags, message):
    for more in ((), ("--dry_run",)):
        run = infer("--config", "nowhere.yaml", "--image_path", "nowhere", *flags, *more)
        assert (run.code, run.out) == (2, "")
        assert message in run.err and run.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--save", "overlay"), "an overlay has the image's size: leave out --network_size"),
        (("--crop_size", "8", "8"), "windows make masks of the image's size: leave out --network"),
    ],
)
def test_a_mask_of_the_networks_size_goes_alone(infer, model, photos, flags, message):
    run = infer("--config", model, "--image_path", photos, "--network_size", *flags)
    assert run.code == 2
    assert message in run.err


def test_the_threshold_of_one_channel(infer, models, photos, tmp_path):
    arguments = ("--config", models / "foreground" / "deploy.yaml", "--image_path", photos)
    counts = []
    for threshold in ("-1000", "0", "0.5", "1000"):
        run = infer(*arguments, "--threshold", threshold, "--save", "label")
        assert run.code == 0
        assert f"class 1 is where it is above {float(threshold)}" in run.err
        labels = np.array(Image.open(tmp_path / "output" / "label" / "0.png"))
        counts.append(np.count_nonzero(labels == 1) / labels.size)
    assert counts[0] == 1 and counts[3] == 0
    assert counts == sorted(counts, reverse=True)
    run = infer("--config", models / "argmax" / "deploy.yaml", *arguments[2:], "--threshold", "0")
    assert "warning: --threshold has no effect: it is for models of one channel" in run.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_a_model_can_not_give_ends_the_run_before_anything_is_saved(
    infer, models, photos, tmp_path, workers
):
    for model, kind, message in (
        ("classes300", "mask", "error: the model has 300 classes and a mask of 8 bits a pixel"),
        ("argmax", "score", "error: --save score needs probabilities, and this model gives labels"),
    ):
        run = infer(
            *("--config", models / model / "deploy.yaml", "--image_path", photos),
            *("--save", "label", kind, "--num_workers", workers),
        )
        assert (run.code, run.out) == (2, "")
        assert run.err.splitlines()[-1].startswith(message)
        assert not any(files for *_, files in os.walk(tmp_path / "output"))
