"""What goes wrong when all windows of a large TIFF are done, and where it is saved."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, masks
from made import UTM, raster
from windowed import RGB, SCRIPT, ids, parts, save

from paddleseg_infer import finishing, row_files
from paddleseg_infer.errors import ImageError, RunError
from paddleseg_infer.outcomes import Job
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import SavingOptions

pytestmark = pytest.mark.usefixtures("every_raster_is_large")


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


def at_the_end(monkeypatch, do):
    """Calls `do(folder)` with the folder of the rows when all windows of an image are done."""
    real = finishing.Finisher.strips

    def strips(finisher, goal, item, rows):
        do(rows._files.folder)
        return real(finisher, goal, item, rows)

    monkeypatch.setattr(finishing.Finisher, "strips", strips)


def test_a_row_that_was_damaged_is_found(models, tmp_path, monkeypatch):
    def damage(folder):
        [first, *_] = sorted(each for each in os.listdir(folder) if each.endswith("uint8"))
        (path := os.path.join(folder, first)) and os.truncate(path, 20)

    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    at_the_end(monkeypatch, damage)
    result, _ = save(models / "logits", path, tmp_path / "out")
    assert "the files of its rows are damaged" in str(result.error)
    assert not (tmp_path / "out" / "a.tif").exists()


@pytest.mark.parametrize("what", ["folder of the rows", "output folder"])
def test_a_folder_that_has_vanished_is_no_traceback(models, tmp_path, monkeypatch, what):
    def remove(folder):
        shutil.rmtree(folder if what == "folder of the rows" else os.path.dirname(folder))

    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    at_the_end(monkeypatch, remove)
    if what == "output folder":
        with pytest.raises(RunError, match="--save_dir .*: no such file or directory"):
            save(models / "logits", path, tmp_path / "out")
    else:
        result, _ = save(models / "logits", path, tmp_path / "out")
        assert isinstance(result.error, ImageError)


def test_an_output_folder_that_gdal_can_not_name_is_refused(models, tmp_path):
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    result, batches = save(models / "logits", path, os.fsdecode(bytes(tmp_path) + b"/\xff"))
    assert "the path of --save_dir isn't UTF-8" in str(result.error)
    assert batches == 0


def test_min_area_on_a_disk_that_is_nearly_full_ends_the_run(models, tmp_path, small_disk):
    """The label map that the filter writes doesn't fit, but all other files do."""
    disk, size = small_disk
    size("300k")
    bands = np.tile(RGB, (1, 6, 6))
    path = raster(tmp_path / "a.tif", bands, photometric="rgb", **UTM)
    command = [sys.executable, "-c", SCRIPT, "--config", ROOT / "demo" / "model" / "deploy.yaml"]
    command += ["--image_path", path, "--crop_size", "400", "300", "--device", "cpu"]
    command += ["--min_area", "9", "--save_dir", disk / "out"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1, found
    assert "no space left on device" in found.stderr
    assert not (disk / "out" / "a.tif").exists()


SLOW_SIEVE = """
import sys, time
from paddleseg_infer import finishing
real = finishing.sieved_labels
def slow(*arguments):
    time.sleep(4)
    return real(*arguments)
finishing.sieved_labels = slow
"""


def test_the_timeout_of_a_batch_does_not_end_the_work_after_the_windows(models, tmp_path):
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    command = [sys.executable, "-c", SLOW_SIEVE + SCRIPT, "--timeout", "2", "--min_area", "9"]
    command += ["--config", models / "logits" / "deploy.yaml", "--image_path", path]
    command += ["--crop_size", "64", "48", "--device", "cpu", "--save_dir", tmp_path / "out"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "1 of 1 images done" in found.stdout, found.stderr
    assert "tried again" not in found.stderr


def test_results_of_saved_images_come_before_the_error_of_a_full_disk(
    models, tmp_path, monkeypatch
):
    def write(data, save_dir, target):
        if row_files.NAME.fullmatch(os.path.basename(target)) and len(parts(save_dir)) > 4:
            raise RunError("no space left on device")
        return real(data, save_dir, target)

    real = row_files.write_whole
    first = raster(tmp_path / "a.tif", RGB[:, :40], photometric="rgb", **UTM)
    second = raster(tmp_path / "b.tif", RGB, photometric="rgb", **UTM)
    monkeypatch.setattr(row_files, "write_whole", write)
    model = models / "logits" / "deploy.yaml"
    segmenter = Segmenter(model, device="cpu", crop_size=(64, 48), cpu_threads=2)
    results, errors = [], []
    with pytest.raises(RunError):
        for result in segmenter.save(
            [Job(str(first), "a"), Job(str(second), "b")],
            SavingOptions(str(tmp_path / "out")),
            on_run_error=errors.append,
        ):
            results.append(result.item.name)
    assert results == [first]
    assert errors


def test_an_image_that_was_changed_while_it_was_read_fails(models, tmp_path, monkeypatch):
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    at_the_end(monkeypatch, lambda folder: os.utime(path, (1, 1)))
    result, _ = save(models / "logits", path, tmp_path / "out")
    assert "its file was changed while it was read" in str(result.error)
    assert not (tmp_path / "out" / "a.tif").exists()


def test_an_image_with_ids_that_do_not_fit_leaves_no_other_kind(models, tmp_path):
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    kinds = ("mask", "label", "geojson")
    result, _ = save(models / "labels300", path, tmp_path / "out", kinds)
    assert "ids above 255" in str(result.error)
    assert [each for each in masks(tmp_path / "out") if ".part" not in each] == []
