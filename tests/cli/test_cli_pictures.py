"""Tests of --save and related flags as users call them: files, colours and errors."""

import os

import cv2
import numpy as np
import pytest
import yaml
from conftest import masks, read_mask
from PIL import Image
from windows_oracle import mean_of_windows

from paddleseg_infer.pictures.files import PART_SUFFIX
from paddleseg_infer.pictures.overlay import legend
from paddleseg_infer.pictures.palettes import PADDLESEG
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.tiling import checked_tiling, grid_of


def test_each_kind_of_picture_is_saved_in_its_own_place(infer, models, photos, tmp_path):
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


def test_no_mask_is_saved_if_save_does_not_name_it(infer, model, photos, tmp_path):
    assert infer("--config", model, "--image_path", photos, "--save", "label").code == 0
    assert {os.path.dirname(name) for name in masks(tmp_path / "output")} == {"label"}


def test_the_mask_has_the_requested_colours(infer, model, photos, tmp_path):
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
        (("--custom_color", "1", "2"), "--custom_color takes three numbers for each class"),
        (("--save", "masks"), "argument --save: invalid choice: 'masks'"),
        (("--threshold", "nan"), "argument --threshold: must be a number, not 'nan'"),
        (("--crop_size", "100"), "argument --crop_size: expected 2 arguments"),
        (("--crop_size", "100", "0"), "argument --crop_size: must be a whole number"),
        (("--stride", "10", "10"), "--stride has no effect without --crop_size"),
        (("--crop_size", "8", "8", "--stride", "9", "8"), "--stride is larger than --crop_size"),
    ],
)
def test_invalid_flags_are_refused_before_any_file_is_read(infer, tmp_path, flags, message):
    for more in ((), ("--dry_run",)):
        run = infer("--config", "nowhere.yaml", "--image_path", "nowhere", *flags, *more)
        assert (run.code, run.out) == (2, "")
        assert message in run.err and run.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--save", "overlay"), "--save overlay makes pictures of the image's size: leave out"),
        (("--crop_size", "8", "8"), "--crop_size makes masks of the image's size: leave out"),
    ],
)
def test_network_size_is_refused_with_overlays_and_with_windows(
    infer, model, photos, flags, message
):
    for more in ((), ("--dry_run",)):
        run = infer("--config", model, "--image_path", photos, "--network_size", *flags, *more)
        assert run.code == 2
        assert run.err.startswith(f"error: {message}") and run.err.count("\n") == 1


def test_a_higher_threshold_gives_fewer_pixels_of_class_1(infer, models, photos, tmp_path):
    arguments = ("--config", models / "foreground" / "deploy.yaml", "--image_path", photos)
    counts = []
    for threshold in ("-1000", "0", "0.5", "1000"):
        run = infer(*arguments, "--threshold", threshold, "--save", "label")
        assert run.code == 0
        assert f"class 1 if its value is above {float(threshold)}" in run.err
        labels = np.array(Image.open(tmp_path / "output" / "label" / "0.png"))
        counts.append(np.count_nonzero(labels == 1) / labels.size)
    assert counts[0] == 1 and counts[3] == 0
    assert counts == sorted(counts, reverse=True)
    run = infer("--config", models / "argmax" / "deploy.yaml", *arguments[2:], "--threshold", "0")
    assert "warning: --threshold has no effect: it is for models with one output channel" in run.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_picture_that_the_model_cannot_give_ends_the_run_before_a_file_is_saved(
    infer, models, photos, tmp_path, workers
):
    for model, kind, message in (
        ("classes300", "mask", "error: the model has 300 classes, but a mask has 8 bits"),
        ("argmax", "score", "error: --save score needs probabilities, but this model gives only"),
    ):
        run = infer(
            *("--config", models / model / "deploy.yaml", "--image_path", photos),
            *("--save", "label", kind, "--num_workers", workers),
        )
        assert (run.code, run.out) == (2, "")
        assert run.err.splitlines()[-1].startswith(message)
        assert not any(files for *_, files in os.walk(tmp_path / "output"))


@pytest.mark.parametrize("name", ["softmax", "logits"])
@pytest.mark.parametrize("windows", [(), ("--crop_size", "40", "32", "--stride", "30", "20")])
def test_the_pictures_of_an_image_agree(infer, models, photos, tmp_path, name, windows):
    """Labels and scores are compared with numpy's results, and other pictures with these two."""
    folder = models / name
    config = yaml.safe_load((folder / "deploy.yaml").read_text())
    config["Deploy"]["labels"] = [f"class{number}" for number in range(19)]
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(config))
    for file in ("model.pdmodel", "model.pdiparams"):
        (tmp_path / file).symlink_to(folder / file)
    run = infer(
        *("--config", "deploy.yaml", "--image_path", "photos", "--cpu_threads", "1", *windows),
        *("--save", "mask", "label", "overlay", "score"),
    )
    assert run.code == 0, run
    options = {"crop_size": (40, 32), "stride": (30, 20)} if windows else {}
    segment = Segmenter(folder / "deploy.yaml", device="cpu", cpu_threads=1, **options)
    for path in sorted(photos.iterdir()):
        target = f"{path.stem}.png"
        saved = {
            kind: np.array(Image.open(tmp_path / "output" / kind / target))
            for kind in ("label", "overlay", "score")
        }
        labels = segment(path)
        assert np.array_equal(saved["label"], labels)
        assert np.array_equal(read_mask(tmp_path / "output" / target), labels)
        image = cv2.imread(str(path))
        assert saved["score"].shape == labels.shape == image.shape[:2]
        if name == "logits" or windows:  # the scores are not resized afterwards
            scores = scores_of(segment, image, **options)
            if name == "logits":
                scores = np.exp(scores - scores.max(axis=0))
                scores /= scores.sum(axis=0)
            expected = 255 * scores.max(axis=0)
            assert np.abs(saved["score"] - expected).max() <= 0.51
        height, width = labels.shape
        overlay = saved["overlay"][:height, :width].astype(int)
        colours = np.frombuffer(PADDLESEG, np.uint8).reshape(256, 3)[labels]
        blended = (image[..., ::-1].astype(int) + colours) / 2
        is_line = np.isin(overlay, (0, 255)).all(axis=2)
        assert ((np.abs(overlay - blended).max(axis=2) <= 0.5) | is_line).all()
        below = legend(labels, config["Deploy"]["labels"], PADDLESEG)[..., ::-1]
        assert np.array_equal(saved["overlay"][height:, : below.shape[1]], below)


def nearest(plane, rows, columns):
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST)


def scores_of(segment, image, crop_size=None, stride=None):
    """Returns the engine's scores [C, H, W]. PaddleSeg's formula joins the scores of windows."""
    transforms, engine = segment.deploy.transforms, segment.load()
    grid = grid_of(image.shape[:2], checked_tiling(crop_size or image.shape[1::-1], stride))
    windows = [prepare(image[grid.slices(at)], transforms) for at in range(len(grid))]
    outputs = [engine(window.tensor()[None])[0][0] for window in windows]
    places = [grid.slices(at) for at in range(len(grid))]
    resized = [
        np.stack([nearest(plane, r, c) for plane in output])
        for output, (r, c) in zip(outputs, places, strict=True)
    ]
    steps = stride[::-1] if stride else image.shape[:2]
    return mean_of_windows(resized, image.shape[:2], grid.window, steps)


def test_no_file_is_replaced_if_one_picture_cannot_be_made(infer, models, photos, tmp_path):
    """The model has labels that are too large for a mask."""
    mask = tmp_path / "output" / "0.png"
    mask.parent.mkdir()
    mask.write_bytes(b"mine")
    run = infer(
        *("--config", models / "labels300" / "deploy.yaml", "--image_path", photos / "0.jpg"),
        *("--save", "label", "mask"),
    )
    assert run.code == 1
    assert "a mask has 8 bits, which hold 0 to 255: use --save label, with 16" in run.err
    assert mask.read_bytes() == b"mine"
    assert not (tmp_path / "output" / "label").exists()


def test_old_partial_files_of_other_kinds_are_deleted(infer, model, photos, tmp_path):
    part = tmp_path / "output" / "label" / f".0{PART_SUFFIX}"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"")
    os.utime(part, (0, 0))
    assert infer("--config", model, "--image_path", photos, "--save", "label").code == 0
    assert not part.exists()
