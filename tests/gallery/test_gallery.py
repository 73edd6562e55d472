"""The gallery's command line: the folder that it makes, and what it says about each image."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT, read_mask, report_lines, scene
from made_pages import entries, make_page, shown_at
from PIL import Image

from paddleseg_infer.pictures.kinds import encode_mask

DEMO = ROOT / "demo"
NAMES = ("avenue", "boulevard", "corner", "crossing")
THUMBNAIL, PREVIEW = 320, 1600


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """A run of the demo with label maps, in a folder of its own. Tests must not change it."""
    folder = tmp_path_factory.mktemp("demo")
    for name in ("images", "labels"):
        shutil.copytree(DEMO / name, folder / name)
    command = [sys.executable, ROOT / "infer.py", "--config", DEMO / "model" / "deploy.yaml"]
    command += ["--image_path", "images", "--label_path", "labels", "--ignore_index", "7"]
    command += ["--save", "mask", "label", "--report", "report.jsonl", "--device", "cpu"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def demo(demo_run, tmp_path):
    """A copy of `demo_run`, whose report names the copy."""
    folder = tmp_path / "run"
    shutil.copytree(demo_run, folder)
    report = folder / "report.jsonl"
    report.write_text(report.read_text().replace(str(demo_run), str(folder)))
    return folder


def test_the_page_has_the_reports_numbers_and_pictures_of_each_image(demo):
    run = make_page(demo, "report.jsonl")
    assert run.code == 0 and not run.err, run
    page = demo / "output" / "gallery" / "index.html"
    assert "4 images in" in run.out and "open output/gallery/index.html in a browser" in run.out
    found = entries(page)
    assert sorted(found) == [f"{name}.jpg" for name in NAMES]
    for line in report_lines(demo / "report.jsonl")[:-1]:
        entry = found[os.path.basename(line["image"])]
        assert entry["classes"] == line["classes"]
        assert entry["areas"] == line["areas"]
        assert entry["iou"] == line["mean_iou"]
        assert "notes" not in entry
        image, mask = (shown_at(page, entry[name]) for name in ("image", "mask"))
        original = cv2.imread(str(demo / line["image"]))
        assert np.array_equal(image, original)
        assert mask.shape == original.shape  # a palette PNG, in colours
        thumb, mask_thumb = (shown_at(page, entry[name]) for name in ("thumb", "mask_thumb"))
        assert max(thumb.shape) == THUMBNAIL and thumb.shape == mask_thumb.shape
        small = cv2.resize(original, thumb.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert cv2.absdiff(small, thumb).mean() < 5  # a JPEG


def test_the_label_map_is_in_the_masks_colours_and_the_wrong_pixels_are_marked(demo):
    assert make_page(demo, "report.jsonl").code == 0
    page = demo / "output" / "gallery" / "index.html"
    for name in NAMES:
        entry = entries(page)[f"{name}.jpg"]
        mask = read_mask(demo / "output" / f"{name}.png")
        true = np.array(Image.open(demo / "labels" / f"{name}.png"))
        folder = page.parent
        with (
            Image.open(folder / entry["label"]) as label,
            Image.open(demo / "output" / f"{name}.png") as one,
        ):
            assert np.array_equal(np.array(label)[true != 7], true[true != 7])
            assert label.getpalette() == one.getpalette()
            alpha = np.array(label.convert("RGBA"))[..., 3]
            assert np.array_equal(alpha == 0, true == 7)  # ignored pixels are transparent
        marks = shown_at(page, entry["wrong"])[..., 3]
        assert np.array_equal(marks > 0, (mask != true) & (true != 7))


def test_metrics_and_matrix_are_those_of_numpy(demo):
    assert make_page(demo, "report.jsonl").code == 0
    text = (demo / "output" / "gallery" / "index.html").read_text()
    metrics = report_lines(demo / "report.jsonl")[-1]["summary"]["evaluation"]
    assert f"Mean IoU {metrics['mean_iou']:.4f}, accuracy {metrics['accuracy']:.4f}" in text
    for each in metrics["classes"]:
        if each["prediction"] + each["label"]:
            assert f"<td>{each['iou']:.4f}</td>" in text
    counts = np.zeros((8, 8), np.int64)
    for name in NAMES:
        mask = read_mask(demo / "output" / f"{name}.png").ravel()
        true = np.array(Image.open(demo / "labels" / f"{name}.png")).ravel()
        np.add.at(counts, (true[true != 7], mask[true != 7]), 1)
    shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = [each["name"] for each in metrics["classes"]]
    for row, column in np.argwhere(shares >= 0.05):
        cell = f'title="label map {names[row]}, mask {names[column]}: {shares[row, column]:.2f} %"'
        assert cell in text


def test_files_that_are_removed_or_changed_since_the_run_are_named(demo):
    (demo / "images" / "avenue.jpg").unlink()
    (demo / "output" / "boulevard.png").unlink()
    (demo / "labels" / "corner.png").unlink()
    changed = read_mask(demo / "output" / "crossing.png")
    changed[:9, :9] += 1
    (demo / "output" / "crossing.png").write_bytes(encode_mask(changed))
    run = make_page(demo, "report.jsonl")
    assert run.code == 0, run
    page = demo / "output" / "gallery" / "index.html"
    notes = {name[:-4]: each["notes"] for name, each in entries(page).items()}
    for name, part in (
        ("avenue", "avenue.jpg can't be shown: the file does not exist"),
        ("boulevard", "boulevard.png can't be shown: the file does not exist"),
        ("corner", "corner.png can't be shown: the file does not exist"),
        ("crossing", "crossing.png was changed since the run"),
    ):
        assert any(part in note for note in notes[name]), notes[name]
        assert len(notes[name]) == 1
    assert "computed from 1 of 4 images" in page.read_text()
    assert "mask" in entries(page)["avenue.jpg"]


def test_a_certainty_is_the_mean_of_the_score(infer, models, photos, tmp_path):
    save = ("--save", "mask", "score")
    run = infer(
        "--config", models / "softmax" / "deploy.yaml", "--image_path", "photos", *save,
        "--report", "report",
    )  # fmt: skip
    assert run.code == 0, run
    assert make_page(tmp_path, "report").code == 0
    for name, entry in entries(tmp_path / "output" / "gallery" / "index.html").items():
        score = cv2.imread(str(tmp_path / "output" / "score" / f"{name[0]}.png"), 0)
        assert entry["certainty"] == pytest.approx(score.mean() / 255, abs=1e-4)


def test_a_score_of_another_size_is_noted(infer, models, photos, tmp_path):
    run = infer(
        "--config", models / "softmax" / "deploy.yaml", "--image_path", "photos/0.jpg",
        "--save", "score", "--report", "report",
    )  # fmt: skip
    assert run.code == 0, run
    cv2.imwrite(str(tmp_path / "output" / "score" / "0.png"), np.zeros((9, 7), np.uint8))
    assert make_page(tmp_path, "report").code == 0
    (entry,) = entries(tmp_path / "output" / "gallery" / "index.html").values()
    assert "certainty" not in entry and "its size isn't that of the image" in entry["notes"][0]


def test_the_colours_are_those_of_the_run_without_a_mask_too(infer, model, tmp_path):
    shutil.copy(DEMO / "images" / "avenue.jpg", tmp_path / "a.jpg")
    save = ("--save", "overlay", "--custom_color", "cityscapes", "--report", "report")
    assert infer("--config", model, "--image_path", "a.jpg", *save).code == 0
    assert make_page(tmp_path, "report").code == 0
    text = (tmp_path / "output" / "gallery" / "index.html").read_text()
    assert "#804080" in text and "#800000" not in text  # class 0: road of Cityscapes


def test_without_masks_the_overlay_is_shown_without_its_legend(infer, model, tmp_path):
    shutil.copy(DEMO / "images" / "avenue.jpg", tmp_path / "a.jpg")
    save = ("--save", "overlay", "--report", "report")
    assert infer("--config", model, "--image_path", "a.jpg", *save).code == 0
    assert make_page(tmp_path, "report").code == 0
    page = tmp_path / "output" / "gallery" / "index.html"
    overlay = cv2.imread(str(tmp_path / "output" / "overlay" / "a.png"))
    overlay = overlay[: len(cv2.imread(str(tmp_path / "a.jpg")))]
    shown = shown_at(page, entries(page)["a.jpg"]["mask"])
    assert cv2.absdiff(shown, overlay).mean() < 6


def test_an_image_that_was_replaced_by_one_of_another_size_is_noted(demo):
    cv2.imwrite(str(demo / "images" / "corner.jpg"), scene(48, 64))
    assert make_page(demo, "report.jsonl").code == 0
    page = demo / "output" / "gallery" / "index.html"
    (note,) = entries(page)["corner.jpg"]["notes"]
    assert note.endswith("corner.jpg was changed since the run")
    assert "Files are missing, or were changed since the run" in page.read_text()
