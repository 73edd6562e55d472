"""Large TIFFs are read, run and written one row of windows at a time, and can be resumed."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from conftest import ROOT, children, masks, scene, wait_until
from made import HALF, UTM, raster, values, with_nodata

from paddleseg_infer import label_maps, row_files, strips
from paddleseg_infer.errors import RunError
from paddleseg_infer.outcomes import Job
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import EvaluationOptions, SavingOptions
from paddleseg_infer.sources import large
from paddleseg_infer.sources.reading import Reading

RGB = np.moveaxis(scene(150, 200), 2, 0)
WINDOWS = {"crop_size": (64, 48), "stride": (50, 30)}
TILES = {"tiled": True, "blockxsize": 32, "blockysize": 32}


@pytest.fixture(autouse=True)
def every_raster_is_large(monkeypatch):
    monkeypatch.setattr(large, "LARGE", 0)


def save(model, path, folder, kinds=("mask", "label"), label_path=None, resume=False, **options):
    """Segments a raster, and returns its Result and the number of batches that were run."""
    batches = []
    with_windows = Segmenter(model / "deploy.yaml", device="cpu", **{**WINDOWS, **options})
    [result] = with_windows.save(
        [Job(str(path), "a", label_path)],
        SavingOptions(str(folder), kinds),
        EvaluationOptions(label_path),
        resume=resume,
        on_batch=lambda: batches.append(1),
    )
    return result, len(batches)


def ids(path):
    with rasterio.open(path) as file:
        return file.read(1)


def parts(folder):
    return sorted(Path(folder).glob(".*.part/*"))


RASTERS = {
    "picture": (RGB, {"photometric": "rgb", **UTM}, "logits"),
    "picture in tiles": (RGB, {"photometric": "rgb", **TILES, **UTM}, "argmax"),
    "planes": (RGB, {"photometric": "rgb", "interleave": "band"}, "foreground"),
    "no place": (RGB, {"photometric": "rgb", "nodata": 0}, "logits"),
    "picture with nodata": (RGB, {"photometric": "rgb", "nodata": 0, **UTM}, "logits"),
    "many classes": (RGB, {"photometric": "rgb", **UTM}, "labels300"),
    "bands": (values(6, 150, 200), {**TILES, **UTM}, "channels_5"),
    "nodata": (
        with_nodata(values(5, dtype="int16"), -9999),
        {"nodata": -9999, **UTM},
        "channels_5",
    ),
    "nan": (
        with_nodata(values(5, dtype="float32"), np.nan),
        {"nodata": float("nan"), **UTM},
        "channels_5",
    ),
    "mask": (values(5), {"mask": HALF, **TILES, **UTM}, "channels_5"),
}


@pytest.mark.parametrize("name", RASTERS)
@pytest.mark.parametrize("how", [{}, {"blend": "gaussian"}, {"min_area": 40}], ids=str)
def test_the_labels_are_those_of_the_whole_raster(odd, models, tmp_path, monkeypatch, name, how):
    bands, options, model = RASTERS[name]
    if "blend" in how and model in ("argmax", "labels300"):
        pytest.skip("labels can't be blended")
    folder = (odd if model.startswith("channels") else models) / model
    kinds = ("label",) if model == "labels300" else ("mask", "label")
    path = raster(tmp_path / "a.tif", bands, **options)
    result, _ = save(folder, path, tmp_path / "rows", (*kinds, "geojson"), **how)
    assert result.error is None, result.error
    assert result.suffix == ".tif"
    monkeypatch.setattr(large, "LARGE", 1 << 40)
    whole, _ = save(folder, path, tmp_path / "whole", (*kinds, "geojson"), **how)
    assert whole.error is None, whole.error
    polygons = [tmp_path / each / "geojson" / "a.geojson" for each in ("rows", "whole")]
    assert polygons[0].read_bytes() == polygons[1].read_bytes()
    assert (result.size, result.pixels) == (whole.size, whole.pixels)
    for kind in kinds:
        target = "a" if kind == "mask" else "label/a"
        rows = tmp_path / "rows" / f"{target}.tif"
        assert np.array_equal(ids(rows), ids(tmp_path / "whole" / f"{target}{whole.suffix}"))
        if whole.suffix == ".tif":
            with (
                rasterio.open(rows) as one,
                rasterio.open(tmp_path / "whole" / f"{target}.tif") as other,
            ):
                assert (one.crs, one.transform) == (other.crs, other.transform)
                assert (one.nodata, one.tags()) == (other.nodata, other.tags())
    assert parts(tmp_path / "rows") == []
    assert len(masks(tmp_path / "rows")) == len(kinds) + 1  # nothing else is left


@pytest.fixture
def full_disk(monkeypatch):
    """A function: after so many files of rows the disk is full."""

    def fill(after):
        written = []

        def write(data, save_dir, target):
            if row_files.NAME.fullmatch(os.path.basename(target)):
                written.append(target)
                if len(written) > after:
                    raise RunError("no space left on device")
            return real(data, save_dir, target)

        real = row_files.write_whole
        monkeypatch.setattr(row_files, "write_whole", write)
        return lambda: monkeypatch.setattr(row_files, "write_whole", real)

    return fill


@pytest.mark.parametrize("model", ["argmax", "logits"])
@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_a_stopped_run_goes_on_in_the_middle_of_an_image(
    models, tmp_path, full_disk, model, after, caplog
):
    caplog.set_level("INFO")
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    _, all_batches = save(models / model, path, tmp_path / "undisturbed")
    space = full_disk(after)
    with pytest.raises(RunError, match="no space left"):
        save(models / model, path, tmp_path / "out")
    space()
    assert len(parts(tmp_path / "out")) == after + 2  # the state and the lock
    result, batches = save(models / model, path, tmp_path / "out", resume=True)
    assert result.error is None
    one, other = (ids(tmp_path / folder / "a.tif") for folder in ("undisturbed", "out"))
    assert np.array_equal(one, other)
    assert sum(result.pixels.classes.values()) == 150 * 200
    assert parts(tmp_path / "out") == []
    assert (batches < all_batches) == (after > 1)  # the first rows need the second windows too
    assert ("rows exist" in caplog.text) == (after > 0)


@pytest.mark.parametrize("change", ["stride", "image", "row", "no resume"])
def test_rows_that_do_not_fit_are_not_used(models, tmp_path, full_disk, change, caplog):
    caplog.set_level("INFO")
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    space = full_disk(3)
    with pytest.raises(RunError):
        save(models / "logits", path, tmp_path / "out")
    space()
    options = {"stride": (64, 48)} if change == "stride" else {}
    if change == "image":
        os.utime(path, (1, 1))
    if change == "row":  # damaged
        first = parts(tmp_path / "out")[0]
        first.write_bytes(first.read_bytes()[:-1])
    resume = change != "no resume"
    save(models / "logits", path, tmp_path / "out", resume=resume, **options)
    save(models / "logits", path, tmp_path / "again", **options)
    one, other = (ids(tmp_path / folder / "a.tif") for folder in ("again", "out"))
    assert np.array_equal(one, other)
    assert ("its rows aren't used" in caplog.text) == (change in ("stride", "image"))


def test_two_runs_on_one_image_do_not_disturb_each_other(models, tmp_path, full_disk):
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    space = full_disk(1)
    with pytest.raises(RunError):
        save(models / "logits", path, tmp_path / "out")
    space()
    folder = parts(tmp_path / "out")[0].parent
    opened = os.open(folder / "lock", os.O_RDWR)
    fcntl.flock(opened, fcntl.LOCK_EX)
    before = [each.read_bytes() for each in parts(tmp_path / "out")]
    result, _ = save(models / "logits", path, tmp_path / "out")
    assert "another run is working on this image" in str(result.error)
    assert [each.read_bytes() for each in parts(tmp_path / "out")] == before
    os.close(opened)
    result, _ = save(models / "logits", path, tmp_path / "out")
    assert result.error is None


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("wrong", [None, "size", "ids"])
def test_a_large_mask_is_compared_in_parts(models, tmp_path, monkeypatch, suffix, wrong):
    monkeypatch.setattr(label_maps, "PIXELS_AT_ONCE", 3000)
    monkeypatch.setattr(label_maps, "ROWS_OF_TILES", 7)
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    shape = (150, 199) if wrong == "size" else (150, 200)
    ids = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    ids[:9] = 255
    if wrong == "ids":
        ids[140, 7] = 77
    label = str(tmp_path / f"label.{suffix}")
    if suffix == "png":
        cv2.imwrite(label, ids)
    else:
        raster(label, ids[None], **TILES)
    found, _ = save(models / "argmax", path, tmp_path / "rows", label_path=label)
    monkeypatch.setattr(large, "LARGE", 1 << 40)
    whole, _ = save(models / "argmax", path, tmp_path / "whole", label_path=label)
    assert found.pixels == whole.pixels
    if wrong is None:
        with rasterio.open(tmp_path / "rows" / "a.tif") as mask:
            both = np.count_nonzero((mask.read(1) == ids) & (ids != 255))
        assert sum(found.pixels.areas.intersection) == both
        assert found.pixels.areas.compared == 141 * 200
    else:
        why = {"size": "it is 199x150, but its image is 200x150", "ids": "ids that the model"}
        assert why[wrong] in found.pixels.label_error


def test_pictures_that_need_the_whole_label_map_are_made_in_memory(models, tmp_path, monkeypatch):
    monkeypatch.setattr(strips.StripMaker, "__call__", None, raising=True)
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    result, _ = save(models / "argmax", path, tmp_path / "out", ("mask", "overlay"))
    assert result.error is None
    assert (tmp_path / "out" / "a.tif").exists()


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"photometric": "minisblack"}, "uint8"),
        ({"photometric": "rgb"}, "uint16"),
        ({"photometric": "ycbcr", "compress": "jpeg"}, "uint8"),
    ],
)
def test_pictures_that_opencv_decodes_otherwise_are_read_whole(tmp_path, options, dtype):
    path = raster(tmp_path / "a.tif", RGB.astype(dtype), **options)
    assert large.large_raster(path, Reading()) is None
    assert large.large_raster(path, Reading(bands=(1, 2, 3))) is not None


def test_a_model_with_a_class_255_has_no_nodata(odd, tmp_path):
    bands = {"bands": (1, 2, 3)}
    path = raster(tmp_path / "a.tif", values(3, dtype="int16"), nodata=-9999, **UTM)
    result, _ = save(odd / "classes_256", path, tmp_path / "out", **bands)
    assert result.error is None, result.error
    with rasterio.open(tmp_path / "out" / "a.tif") as mask:
        assert mask.nodata is None
    raster(path, with_nodata(values(3, dtype="int16"), -9999), nodata=-9999, **UTM)
    result, _ = save(odd / "classes_256", path, tmp_path / "out", **bands)
    assert "255 is also a class of this model" in str(result.error)


@pytest.mark.parametrize("without_data", [slice(0, 48), slice(96, 150)])
def test_class_255_and_no_data_in_different_rows_are_not_mixed(odd, tmp_path, without_data):
    """This model gives each pixel the label 255, and declares no number of classes."""
    mask = np.ones((150, 200), bool)
    mask[without_data] = False
    path = raster(tmp_path / "a.tif", values(3, 150, 200), mask=mask, **UTM)
    how = {"bands": (1, 2, 3), "stride": (64, 48)}
    result, _ = save(odd / "ids_undeclared", path, tmp_path / "out", **how)
    assert "255 is also a class of this model" in str(result.error)
    assert not (tmp_path / "out" / "a.tif").exists()
    again, _ = save(odd / "ids_undeclared", path, tmp_path / "out", resume=True, **how)
    assert "255 is also a class of this model" in str(again.error)


def test_a_bad_large_raster_fails_alone(odd, tmp_path):
    path = raster(tmp_path / "a.tif", values(3), **UTM)
    result, _ = save(odd / "channels_5", path, tmp_path / "out")
    assert "the TIFF has 3 bands, but the model takes 5 channels" in str(result.error)


SCRIPT = """
import sys
from paddleseg_infer import cli
from paddleseg_infer.sources import large
large.LARGE = 0
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on(models, tmp_path):
    bands = np.tile(RGB, (1, 8, 8))
    path = raster(tmp_path / "a.tif", bands, photometric="rgb", **TILES, **UTM)
    command = [sys.executable, "-c", SCRIPT, "--config", models / "logits" / "deploy.yaml"]
    command += ["--image_path", path, "--crop_size", "64", "48", "--device", "cpu", "--resume"]
    undisturbed = [*command, "--save_dir", tmp_path / "undisturbed"]
    subprocess.run(undisturbed, check=True, cwd=ROOT)
    command += ["--save_dir", tmp_path / "out"]
    for rows in (3, 9, 20):
        process = subprocess.Popen(command, cwd=ROOT)
        while len(parts(tmp_path / "out")) < rows + 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "a.tif").exists()
    result = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert "1 of 1 images done" in result.stdout
    assert "rows exist" in result.stderr
    one, other = (ids(tmp_path / folder / "a.tif") for folder in ("undisturbed", "out"))
    assert np.array_equal(one, other)
    assert parts(tmp_path / "out") == []


def test_an_image_whose_worker_dies_goes_on_without_resume(models, tmp_path):
    """--timeout makes the run use a worker process, which is killed once."""
    path = raster(tmp_path / "a.tif", np.tile(RGB, (1, 8, 8)), photometric="rgb", **TILES, **UTM)
    command = [sys.executable, "-c", SCRIPT, "--config", models / "logits" / "deploy.yaml"]
    command += ["--image_path", path, "--crop_size", "64", "48", "--device", "cpu"]
    undisturbed = [*command, "--save_dir", tmp_path / "undisturbed"]
    subprocess.run(undisturbed, check=True, cwd=ROOT)
    command += ["--save_dir", tmp_path / "out", "--timeout", "60"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(parts(tmp_path / "out")) >= 11)
    [worker] = children(process)
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert "1 of 1 images done" in out
    assert "SIGKILL: its image is tried again" in err
    assert "rows exist" in err
    one, other = (ids(tmp_path / folder / "a.tif") for folder in ("undisturbed", "out"))
    assert np.array_equal(one, other)


FULL_AT_THE_END = """
import sys
from paddleseg_infer import cli, strips
from paddleseg_infer.sources import large
large.LARGE = 0
folder = sys.argv.pop(1)
real = strips.Strips.finished
def finished(rows):
    with open(f"{folder}/filling", "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    return real(rows)
strips.Strips.finished = finished
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("kinds", [["mask"], ["mask", "geojson"]])
def test_a_disk_that_is_full_at_the_end_ends_the_run_and_keeps_the_rows(
    models, tmp_path, small_disk, kinds
):
    disk, size = small_disk
    size("40m")
    path = raster(tmp_path / "a.tif", np.tile(RGB, (1, 4, 4)), photometric="rgb", **UTM)
    arguments = ["--config", models / "argmax" / "deploy.yaml", "--image_path", path]
    arguments += ["--crop_size", "64", "48", "--device", "cpu", "--save_dir", disk / "out"]
    arguments += ["--resume", "--save", *kinds]
    command = [sys.executable, "-c", FULL_AT_THE_END, disk, *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1, found.stderr
    assert "no space left on device" in found.stderr.lower()
    assert "Traceback" not in found.stderr
    assert not (disk / "out" / "a.tif").exists()
    (disk / "filling").unlink()
    command = [sys.executable, "-c", SCRIPT, *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "600 of 600 rows exist" in found.stderr
    assert "1 of 1 images done" in found.stdout
    assert parts(disk / "out") == []
    command += ["--save_dir", tmp_path / "undisturbed"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert np.array_equal(ids(disk / "out" / "a.tif"), ids(tmp_path / "undisturbed" / "a.tif"))
