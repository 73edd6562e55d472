"""The gallery shows images, masks and label maps of all kinds, and damaged ones."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import scene
from made_pages import encoded, entries, make_page, page_of, shown_at
from PIL import Image


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


def test_a_picture_that_browsers_turn_or_mix_differently_gets_a_copy(tmp_path):
    photo = Image.fromarray(scene(48, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b"\xff\xe1" + (31).to_bytes(2, "big") + b"http://ns.adobe.com/xap/1.0/\0"
    images = {}
    for name, options in (("turned.jpg", {"exif": exif}), ("plain.jpg", {"exif": Image.Exif()})):
        photo.save(tmp_path / name, **options)
        images[name] = (tmp_path / name).read_bytes()
    # OpenCV looks for the orientation only in the first segment of this kind, browsers in all.
    images["late.jpg"] = images["turned.jpg"][:2] + xmp + images["turned.jpg"][2:]
    photo.putalpha(0)
    photo.save(tmp_path / "clear.png")
    images["clear.png"] = (tmp_path / "clear.png").read_bytes()
    found = page_of(tmp_path, images)
    page = tmp_path / "output" / "gallery" / "index.html"
    assert found["plain.jpg"]["image"] == "../../in/plain.jpg"
    for name in ("turned.jpg", "late.jpg", "clear.png"):
        as_read = cv2.imdecode(np.frombuffer(images[name], np.uint8), cv2.IMREAD_COLOR)
        copy = shown_at(page, found[name]["image"])
        assert copy.shape == as_read.shape
        assert found[name]["image"].startswith("pictures/")


def test_a_large_tiff_is_not_read_into_the_memory(tmp_path):
    with open(tmp_path / "large.tif", "wb") as file:
        file.write(b"II*\0" + bytes(60))
        file.truncate(1 << 33)
    limit = ["bash", "-c", 'ulimit -v 6000000; exec "$@"', "-"]
    code = "from paddleseg_infer.gallery.views import *; print(is_shown_by_browsers('large.tif'))"
    command = [*limit, sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr


def test_an_iou_of_0_is_a_number(tmp_path):
    areas = {"label": "l.png", "areas": {"0": [0, 3072, 0], "1": [0, 0, 3072]}, "mean_iou": 0.0}
    found = page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))}, **areas)
    assert found["a.png"]["iou"] == 0.0


def test_a_mask_of_8_bits_and_256_classes_are_compared(tmp_path):
    truth = np.full((48, 64), 255, np.uint8)
    (tmp_path / "l.png").write_bytes(encoded(".png", truth))
    areas = {"label": "l.png", "areas": {"0": [0, 3072, 0], "255": [0, 0, 3072]}, "mean_iou": 0.0}
    run = {"run": {"folder": str(tmp_path), "save_dir": "output", "classes": 256}}
    photo = encoded(".png", scene(48, 64))
    found = page_of(tmp_path, {"a.png": photo}, first=run, **areas)
    assert "label" in found["a.png"] and "wrong" in found["a.png"]
    assert "Confusion matrix" in (tmp_path / "output" / "gallery" / "index.html").read_text()


def test_ignored_ids_above_255_have_no_colour(tmp_path):
    truth = np.zeros((48, 64), np.uint16)
    truth[:9] = 65535
    (tmp_path / "l.png").write_bytes(encoded(".png", truth))
    areas = {"label": "l.png", "areas": {"0": [39 * 64, 39 * 64, 39 * 64]}, "mean_iou": 1.0}
    run = {"run": {"folder": str(tmp_path), "save_dir": "output", "ignore_index": 65535}}
    found = page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))}, first=run, **areas)
    gallery = tmp_path / "output" / "gallery"
    with Image.open(gallery / found["a.png"]["label"]) as label:
        alpha = np.array(label.convert("RGBA"))[..., 3]
    assert np.array_equal(alpha == 0, truth == 65535)
    assert not shown_at(gallery / "index.html", found["a.png"]["wrong"])[..., 3].any()


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
