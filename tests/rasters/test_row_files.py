"""A killed or failed run of a large TIFF goes on below its finished rows."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, children, wait_until
from made import UTM, raster
from windowed import RGB, SCRIPT, TILES, ids, parts, save

from paddleseg_infer import row_files
from paddleseg_infer.errors import RunError
from paddleseg_infer.outcomes import Job
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import SavingOptions

pytestmark = pytest.mark.usefixtures("every_raster_is_large")


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


# ---- several runs on one image -----------------------------------------------------------------


class Stop(Exception):
    pass


def stopped(model, path, folder, batches=9, **options):
    """Segments a raster, but stops after so many batches."""
    left = iter(range(batches))

    def count():
        if next(left, None) is None:
            raise Stop

    segmenter = Segmenter(model / "deploy.yaml", device="cpu", crop_size=(64, 48), **options)
    with pytest.raises(Stop):
        list(segmenter.save([Job(str(path), "a")], SavingOptions(str(folder)), on_batch=count))


def test_a_run_that_was_stopped_leaves_no_lock_in_its_process(models, tmp_path):
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    stopped(models / "logits", path, tmp_path / "out")
    assert len(parts(tmp_path / "out")) > 2
    result, _ = save(models / "logits", path, tmp_path / "out", resume=True, stride=(64, 48))
    assert result.error is None


def test_rows_that_were_found_can_not_be_replaced_by_another_run(models, tmp_path):
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    stopped(models / "logits", path, tmp_path / "out")
    others = []

    def meanwhile():
        if not others:
            with_other_flags = {"stride": (64, 48), "pixel_scale": 0.2}
            others.append(save(models / "logits", path, tmp_path / "out", **with_other_flags)[0])

    segmenter = Segmenter(models / "logits" / "deploy.yaml", device="cpu", crop_size=(64, 48))
    saving = SavingOptions(str(tmp_path / "out"))
    jobs = [Job(str(path), "a")]
    [result] = segmenter.save(jobs, saving, resume=True, on_batch=meanwhile)
    assert result.error is None
    assert "another run is working on this image" in str(others[0].error)
    save(models / "logits", path, tmp_path / "undisturbed", stride=(64, 48))
    one, other = (ids(tmp_path / folder / "a.tif") for folder in ("undisturbed", "out"))
    assert np.array_equal(one, other)


def test_a_disk_without_locks_is_reported_and_used(models, tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(row_files.fcntl, "flock", flock)
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    result, _ = save(models / "logits", path, tmp_path / "out")
    assert result.error is None
    assert "has no locks: another run on this image isn't noticed" in caplog.text
