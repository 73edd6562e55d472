"""The gallery's command line: the folder that it makes, and what it says about each image."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT, read_mask, report_lines, scene
from made_pages import encoded, entries, make_page, page_of, shown_at
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
            assert np.array_equal(np.array(label), true)
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
        cell = f'title="{names[row]} labelled as {names[column]}: {shares[row, column]:.2f} %"'
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


# ---- images of all kinds -----------------------------------------------------------------------


def test_pictures_that_browsers_show_are_linked_and_others_get_a_copy(tmp_path):
    photo = scene(48, 64)
    np.save(tmp_path / "bands.npy", np.dstack([scene(48, 64)] * 2).astype(np.uint16))
    webp = tmp_path / "turned.webp"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).save(webp, exif=exif, lossless=True)
    images = {
        "a.jpg": encoded(".jpg", photo),
        "b.png": encoded(".png", photo),
        "c.bmp": encoded(".bmp", photo),
        "d.webp": encoded(".webp", photo),
        "e.tif": encoded(".tif", photo),
        "f.ppm": encoded(".ppm", photo),
        "g.npy": (tmp_path / "bands.npy").read_bytes(),
        "h.webp": webp.read_bytes(),
    }
    linked = {
        name: entry["image"].startswith("../../in/")
        for name, entry in page_of(tmp_path, images).items()
    }
    assert linked == {name: name < "e" for name in images}
    page = tmp_path / "output" / "gallery" / "index.html"
    turned = shown_at(page, entries(page)["h.webp"]["image"])
    assert turned.shape == (48, 64, 3)  # OpenCV, and so the mask, ignores a WebP's orientation


def test_a_raster_of_five_bands_and_its_geotiff_mask_are_shown(odd, infer, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    bands = np.random.default_rng(0).integers(0, 4000, (5, 1700, 40)).astype(np.uint16)
    grid = {"crs": "EPSG:32650", "transform": rasterio.transform.from_origin(4e5, 4e6, 10, 10)}
    size = {"count": 5, "height": 1700, "width": 40, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size, **grid) as raster:
        raster.write(bands)
    run = infer(
        *("--config", odd / "channels_5" / "deploy.yaml", "--image_path", "a.tif"),
        *("--crop_size", "64", "64", "--report", "report", "--save", "mask", "label"),
    )
    assert run.code == 0, run
    assert make_page(tmp_path, "report").code == 0
    page = tmp_path / "output" / "gallery" / "index.html"
    entry = entries(page)["a.tif"]
    assert "notes" not in entry
    assert sum(entry["classes"].values()) == 1700 * 40
    image, mask = (shown_at(page, entry[kind]) for kind in ("image", "mask"))
    assert image.shape == mask.shape == (1600, 38, 3)
    assert image.std() > 20


def test_a_large_mask_is_read_in_parts(tmp_path, monkeypatch):
    from paddleseg_infer import label_maps
    from paddleseg_infer.gallery.views import Grid
    from paddleseg_infer.label_maps import in_memory

    monkeypatch.setattr(label_maps, "PIXELS_AT_ONCE", 1)
    monkeypatch.setattr(label_maps, "ROWS_OF_TILES", 7)
    for size, longest in (((50, 33), 16), ((33, 50), 50), ((33, 50), 49), ((97, 1), 10)):
        ids = np.random.default_rng(1).integers(0, 9, size).astype(np.uint8)
        wrong = np.random.default_rng(2).random(size) < 0.02
        grid = Grid(size, longest)
        small, marks = np.full(grid.size, 255, np.uint8), np.zeros(grid.size, bool)
        for part in in_memory(ids).parts():
            grid.sample(small, part, ids[part])
            grid.mark(marks, part, wrong[part])
        assert max(grid.size) == min(longest, max(size))
        for y, x in np.ndindex(grid.size):
            rows = [row for row in range(size[0]) if row * grid.size[0] // size[0] == y]
            columns = [at for at in range(size[1]) if at * grid.size[1] // size[1] == x]
            assert small[y, x] == ids[rows[len(rows) // 2], columns[len(columns) // 2]]
            assert marks[y, x] == wrong[np.ix_(rows, columns)].any()


def test_a_pipe_in_the_place_of_a_file_does_not_block(tmp_path):
    page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))})
    for path in (tmp_path / "in" / "a.png", tmp_path / "output" / "a.png"):
        path.unlink()
        os.mkfifo(path)
    run = make_page(tmp_path, "report", "--save_dir", "output")
    assert run.code == 0, run
    entry = entries(tmp_path / "output" / "gallery" / "index.html")["a.png"]
    assert len([note for note in entry["notes"] if "not a regular file" in note]) == 2


def test_damaged_files_are_noted(tmp_path):
    page_of(
        tmp_path, {"a.png": encoded(".png", scene(48, 64)), "b.jpg": encoded(".jpg", scene(48, 64))}
    )
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    mask = tmp_path / "output" / "b.png"
    mask.write_bytes(mask.read_bytes()[:-40])
    assert make_page(tmp_path, "report", "--save_dir", "output").code == 0
    found = entries(tmp_path / "output" / "gallery" / "index.html")
    assert "it is not an image" in found["a.png"]["notes"][0]
    assert "cut off or damaged" in found["b.jpg"]["notes"][0]
