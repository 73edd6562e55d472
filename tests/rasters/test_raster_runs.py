"""Runs over rasters: --resume, reports, names that meet, and a machine without rasterio."""

import json
import re

import cv2
import numpy as np
import pytest
from conftest import masks, scene
from made import GRIDS, UTM, raster, values
from PIL import Image

PICTURE = np.moveaxis(scene(48, 64), 2, 0)


@pytest.fixture
def without_rasterio(tmp_path):
    """Environment variables with which rasterio can't be imported."""
    folder = tmp_path / "no rasterio"
    folder.mkdir()
    (folder / "rasterio.py").write_text("raise ImportError('hidden')")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def rasters(tmp_path):
    """A folder of two georeferenced TIFFs and a picture."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        raster(folder / f"{name}.tif", PICTURE, photometric="rgb", **UTM)
    cv2.imwrite(str(folder / "c.png"), scene(48, 64))
    return folder


def statuses(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        line["image"][-5:]: (line["status"], line["files"]) for line in lines if "image" in line
    }


def files(suffix):
    return {"mask": f"a{suffix}", "label": f"label/a{suffix}"}


def test_the_report_names_the_file_and_resume_finds_it(infer, models, rasters, tmp_path):
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", rasters)
    command += ("--save", "mask", "label", "--report", tmp_path / "r.jsonl", "--resume")
    assert infer(*command).code == 0
    assert statuses(tmp_path / "r.jsonl")["a.tif"] == ("done", files(".tif"))
    (tmp_path / "r.jsonl").unlink()
    assert infer(*command).code == 0
    found = statuses(tmp_path / "r.jsonl")
    assert found["a.tif"] == ("skipped", files(".tif"))
    assert {status for status, _ in found.values()} == {"skipped"}


def test_a_geotiff_that_was_cut_off_is_made_again(
    infer, models, rasters, tmp_path, without_rasterio
):
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", rasters)
    command += ("--resume", "--report", tmp_path / "r.jsonl")
    assert infer(*command).code == 0
    mask = tmp_path / "output" / "a.tif"
    whole = mask.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 200, 8, 0):
        mask.write_bytes(whole[:length])
        assert "1 of 3 images done" in infer(*command).out
        assert mask.read_bytes() == whole
    mask.write_bytes(whole[:-1])
    (tmp_path / "r.jsonl").unlink()
    assert "1 of 3 images done" in infer(*command, **without_rasterio).out
    # Without rasterio its mask is a PNG, which counts from now on. So do whole GeoTIFFs.
    found = statuses(tmp_path / "r.jsonl")
    assert found["a.tif"] == ("done", {"mask": "a.png"})
    assert found["b.tif"] == ("skipped", {"mask": "b.tif"})
    assert "0 of 3 images done" in infer(*command, **without_rasterio).out
    assert "0 of 3 images done" in infer(*command).out


def test_a_resumed_geotiff_is_compared_with_its_label_map(infer, models, rasters, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(labels / f"{name}.png")
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", rasters)
    command += ("--label_path", labels, "--resume")
    first, second = infer(*command), infer(*command)
    [line] = re.findall("3 of 3 masks compared: .*", first.out)
    assert line in second.out
    assert "3 skipped" in second.out


def test_without_rasterio_a_georeferenced_picture_gets_a_png_and_one_line(
    infer, models, rasters, tmp_path, without_rasterio
):
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", rasters)
    with_it, without = infer(*command), infer(*command, "--save_dir", "png", **without_rasterio)
    assert masks(tmp_path / "png") == ["a.png", "b.png", "c.png"]
    assert without.err.count("rasterio is not installed") == 1
    assert "rasterio" not in with_it.err


def test_without_rasterio_bands_cannot_be_read(infer, odd, tmp_path, without_rasterio):
    path = raster(tmp_path / "a.tif", values(5))
    command = ("--config", odd / "channels_5" / "deploy.yaml", "--image_path", path)
    run = infer(*command, **without_rasterio)
    assert run.code == 1
    assert "needs rasterio: run pip install -r requirements/geo.txt" in run.err


def test_a_mask_never_overwrites_a_raster(infer, models, rasters, tmp_path):
    """A list may name the folder that the masks go to."""
    (tmp_path / "list.txt").write_text("in/a.tif\nin/b.tif\n")
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", "list.txt")
    before = (rasters / "a.tif").read_bytes()
    run = infer(*command, "--save_dir", rasters)
    assert run.code == 2
    assert re.search("the mask of .*a.tif would overwrite the image .*a.tif: choose anot", run.err)
    assert (rasters / "a.tif").read_bytes() == before
    (rasters / "a.tif").rename(rasters / "a.tiff")
    (rasters / "b.tif").rename(rasters / "b.tiff")
    (tmp_path / "list.txt").write_text("in/a.tiff\nin/b.tiff\n")
    assert infer(*command, "--save_dir", rasters).code == 0
    assert masks(rasters) == ["a.tif", "a.tiff", "b.tif", "b.tiff", "c.png"]


def test_a_mask_never_overwrites_a_label_map(infer, models, rasters, tmp_path):
    """A label map is recognised by its content, whatever its suffix is."""
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "labels" / "a.tif", "PNG")
    (tmp_path / "list.txt").write_text("in/a.tif labels/a.tif\n")
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", "list.txt")
    run = infer(*command, "--label_path", "list.txt", "--save_dir", "labels")
    assert run.code == 2
    assert "would overwrite the label map" in run.err


def test_resume_takes_only_geotiffs_of_this_program(infer, models, tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), scene(48, 64))
    (tmp_path / "output").mkdir()
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    raster(tmp_path / "output" / "a.tif", values(1, dtype="uint8"), **tiles)
    run = infer("--config", models / "argmax" / "deploy.yaml", "--image_path", "in", "--resume")
    assert "1 of 1 images done" in run.out


def test_a_raster_with_a_file_of_its_camera_beside_it_is_georeferenced(infer, models, tmp_path):
    lines = [f"{name}: {value}" for name, value in GRIDS["camera model"]["rpcs"].to_gdal().items()]
    (tmp_path / "in").mkdir()
    raster(tmp_path / "in" / "a.tif", PICTURE, photometric="rgb")
    coefficients = []
    for line in lines:
        name, _, text = line.partition(": ")
        numbers = text.split()
        many = [f"{name}_{n}: {each}" for n, each in enumerate(numbers, 1)]
        coefficients += many if len(numbers) > 1 else [line]
    (tmp_path / "in" / "a_RPC.TXT").write_text("\n".join(coefficients) + "\n")
    run = infer("--config", models / "argmax" / "deploy.yaml", "--image_path", "in")
    assert run.code == 0
    assert masks(tmp_path / "output") == ["a.tif"]


def test_a_raster_of_16_bits_that_is_read_as_a_picture_gets_a_line(infer, models, tmp_path):
    path = raster(tmp_path / "a.tif", values(3), photometric="rgb")
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", path)
    assert (
        "a.tif has 16 bits per value: such TIFFs are read as pictures of 8" in infer(*command).err
    )
    assert "16 bits" not in infer(*command, "--bands", *"123", "--pixel_scale", "255/4095").err


def test_images_of_one_name_get_masks_of_two_names(infer, models, rasters, tmp_path):
    cv2.imwrite(str(rasters / "a.png"), scene(48, 64))
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", rasters)
    assert infer(*command).code == 0
    found = sorted(path.name for path in (tmp_path / "output").iterdir())
    assert found == ["a.png.png", "a.tif.tif", "b.tif", "c.png"]


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_raster_gets_a_png_and_a_line(infer, models, tmp_path, orientation):
    """OpenCV applies the orientation, which GDAL ignores."""
    path = tmp_path / "a.tif"
    raster(path, PICTURE, photometric="rgb", **UTM)
    data = bytearray(path.read_bytes())
    count = int.from_bytes(data[8:10], "little")
    tags = [data[10 + 12 * n : 22 + 12 * n] for n in range(count)]
    # The tag of the planar configuration, which is 1 by default, becomes the orientation.
    [at] = [n for n, tag in enumerate(tags) if tag[:2] == (284).to_bytes(2, "little")]
    turned = (274).to_bytes(2, "little") + bytes(tags[at][2:8])
    data[10 + 12 * at : 22 + 12 * at] = turned + orientation.to_bytes(4, "little")
    path.write_bytes(data)
    run = infer("--config", models / "argmax" / "deploy.yaml", "--image_path", path)
    assert masks(tmp_path / "output") == ["a.png"]
    assert "its georeference can't be kept: its orientation tag turns the image" in run.err


def test_bands_and_scale_are_flags(infer, odd, tmp_path):
    path = raster(tmp_path / "a.tif", values(7), **UTM)
    command = ("--config", odd / "channels_5" / "deploy.yaml", "--image_path", path)
    command += ("--save", "mask", "overlay")
    run = infer(*command, "--bands", *"76543", "--pixel_scale", "0.0623")
    assert run.code == 0, run
    assert sorted(masks(tmp_path / "output")) == ["a.tif", "overlay/a.png"]
    first = infer(*command, "--save_dir", "first")
    assert "has 7 bands: of this and similar files the first 5 are used" in first.err
    one, other = (tmp_path / folder / "a.tif" for folder in ("output", "first"))
    assert one.read_bytes() != other.read_bytes()
    wrong = infer(*command, "--bands", "1", "2")
    assert (wrong.code, "--bands names 2 bands, but the model takes 5" in wrong.err) == (2, True)


def test_npy_files_of_a_folder_are_images(infer, odd, tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.moveaxis(values(5), 0, 2))
    model = odd / "channels_5" / "deploy.yaml"
    for path in ("in", "in/a.npy"):
        assert "1 of 1 images done" in infer("--config", model, "--image_path", path).out
    again = infer("--config", model, "--image_path", "in", "--resume")
    assert "1 skipped" in again.out


def test_a_folder_of_every_bad_raster_ends_with_a_sentence_for_each(infer, odd, tmp_path):
    from test_bad_rasters import make_bad_files

    (tmp_path / "in").mkdir()
    make_bad_files(tmp_path / "in")
    model = odd / "channels_5" / "deploy.yaml"
    run = infer("--config", model, "--image_path", "in", "--batch_size", "3")
    assert run.code == 1
    assert "2 of 19 images done" in run.out  # five.tif and five.npy
    assert len(re.findall("^failed: .*: .*", run.err, re.M)) == 17


def test_bands_that_are_no_colours_for_the_file_get_a_line(infer, models, tmp_path):
    """OpenCV, and so PaddleSeg, reads only the first band of such a TIFF."""
    bands = values(3, dtype="uint8")
    path = raster(tmp_path / "a.tif", bands, photometric="minisblack")
    assert np.array_equal(cv2.imread(path), np.dstack([bands[0]] * 3))
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", path)
    assert "a.tif has 3 bands that it doesn't call colours" in infer(*command).err
    raster(tmp_path / "a.tif", bands, photometric="rgb")
    assert "colours" not in infer(*command).err


@pytest.mark.parametrize("scale", ["1/0", "1/3/4", "/", "0", "-1", "inf"])
def test_a_wrong_scale_is_quoted_whole(infer, models, tmp_path, scale):
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", "a.tif")
    run = infer(*command, f"--pixel_scale={scale}")
    assert run.code == 2
    assert f"must be a number above 0, or a fraction such as 255/4095, not {scale!r}" in run.err


def test_label_maps_may_be_tiffs(infer, models, rasters, tmp_path):
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", rasters)
    assert infer(*command, "--save", "label").code == 0
    lab = tmp_path / "output" / "label"  # labels of a.tif and b.tif are GeoTIFFs, of c.png a PNG
    run = infer(*command, "--save_dir", "again", "--label_path", lab)
    assert "3 of 3 masks compared" in run.out
    assert "accuracy 1.0000" in run.out
    raster(lab / "a.tif", np.full((1, 48, 64), -1, np.int16))
    raster(lab / "b.tif", values(2, dtype="uint8"))
    run = infer(*command, "--save_dir", "again", "--label_path", lab)
    assert run.code == 1
    assert "a.tif: it has values from -1 to -1, but a class id is 0 to 65535" in run.err
    assert "b.tif: its bands are 2 of uint8, not one of whole numbers" in run.err
