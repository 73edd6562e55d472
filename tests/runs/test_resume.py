"""Tests of --resume, --report, --quiet and --shard, and of the progress bar."""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import ROOT, children, masks, report_lines, wait_until, write_image
from PIL import Image, TiffImagePlugin

from paddleseg_infer.outcomes import Job, Outcome
from paddleseg_infer.pictures import files
from paddleseg_infer.runs import progress
from paddleseg_infer.runs.jobs import part_of
from paddleseg_infer.runs.report import Report


def test_resume_completes_a_killed_run_and_keeps_whole_files(start, tmp_path):
    for number in range(80):
        write_image(tmp_path / "in" / f"{number}.png", (200, 300), number)
    arguments = ("--image_path", "in", "--save", "mask", "label", "--num_workers", "2")
    start(*arguments, "--save_dir", "whole").communicate()
    process = start(*arguments, "--report", "report")
    wait_until(lambda: len(masks(tmp_path / "output")) > 20)
    process.kill()
    pids = children(process)
    process.wait()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    before = {}
    for name in masks(tmp_path / "output"):
        status = os.stat(tmp_path / "output" / name)
        before[name] = (status.st_ino, status.st_mtime_ns)
        if name.endswith(".png"):
            assert files.whole_png(str(tmp_path / "output" / name)) == (300, 200)
    with open(tmp_path / "report", "a") as report:
        report.write('{"image": "in/cut o')
    resumed = start(*arguments, "--report", "report", "--resume")
    out, _ = resumed.communicate()
    assert resumed.returncode == 0
    for name in masks(tmp_path / "whole"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("whole", "output"))
        assert one == two
    kept = [name for name in before if name.startswith("label/") and name[6:] in before]
    for name in kept:  # both files existed, so neither was made again
        for each in (name, name[6:]):
            status = os.stat(tmp_path / "output" / each)
            assert before[each] == (status.st_ino, status.st_mtime_ns)
    assert f"0 failed, {len(kept)} skipped" in out
    by_status = [line["status"] for line in report_lines(tmp_path / "report") if "status" in line]
    assert by_status.count("skipped") == len(kept)
    assert by_status.count("done") >= 80 - len(kept)


def test_skipped_images_are_reported_at_once_and_a_signal_ends_the_search(start, tmp_path):
    first = write_image(tmp_path / "in" / "0.png")
    for number in range(1, 20000):
        os.link(first, tmp_path / "in" / f"{number}.png")
    assert start("--image_path", "in/0.png").wait() == 0
    for number in range(1, 20000):
        os.link(tmp_path / "output" / "0.png", tmp_path / "output" / f"{number}.png")
    process = start("--image_path", "in", "--resume", "--report", "report")
    wait_until(
        lambda: (tmp_path / "report").exists() and len(report_lines(tmp_path / "report")) > 10
    )
    assert not children(process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    *images, last = report_lines(tmp_path / "report")
    assert 10 < len(images) == last["summary"]["skipped"] < 19999


@pytest.mark.parametrize("damage", ["cut", "smaller", "empty", "no png", "gone"])
def test_a_damaged_or_missing_mask_is_made_again(infer, model, tmp_path, damage):
    write_image(tmp_path / "in" / "a.png", (48, 64))
    write_image(tmp_path / "in" / "b.png", (48, 64))
    arguments = ("--config", model, "--image_path", "in", "--save", "mask", "overlay")
    assert infer(*arguments).code == 0
    mask = tmp_path / "output" / "a.png"
    whole = mask.read_bytes()
    if damage == "gone":
        mask.unlink()
    elif damage == "smaller":
        cv2.imwrite(str(mask), np.zeros((9, 9), np.uint8))
    else:
        mask.write_bytes({"cut": whole[:-1], "empty": b"", "no png": b"x" * len(whole)}[damage])
    run = infer(*arguments, "--resume")
    assert run.code == 0
    assert run.out.startswith("1 of 2 images done") and "1 skipped" in run.out
    assert mask.read_bytes() == whole


def test_a_mask_is_made_again_if_the_image_has_a_new_size(infer, model, tmp_path):
    image = write_image(tmp_path / "a.png", (48, 64))
    assert infer("--config", model, "--image_path", image).code == 0
    write_image(tmp_path / "a.png", (50, 64))
    run = infer("--config", model, "--image_path", image, "--resume")
    assert run.out.startswith("1 of 1 images done")
    run = infer("--config", model, "--image_path", image, "--resume")
    assert run.out.startswith("0 of 1 images done")


def test_masks_of_the_networks_size_are_there_too(infer, models, photos):
    """They have not the image's size, by which a mask is known to be of the image."""
    config = models / "resize" / "deploy.yaml"
    arguments = ("--config", config, "--image_path", photos, "--network_size")
    assert infer(*arguments).out.startswith("5 of 5 images done")
    run = infer(*arguments, "--resume")
    assert (run.code, run.out.startswith("0 of 5 images done")) == (0, True)
    assert "0 failed, 5 skipped" in run.out


def test_the_report_contains_the_result_of_each_image(infer, model, photos, tmp_path):
    (photos / "bad.png").write_bytes(b"")
    run = infer("--config", model, "--image_path", "photos", "--report", "report")
    assert run.code == 1
    *images, last = report_lines(tmp_path / "report")
    by_name = {line["image"]: line for line in images}
    assert len(by_name) == 6
    bad, good = by_name["photos/bad.png"], by_name["photos/0.jpg"]
    assert (bad["status"], bad["reason"], bad["files"]) == ("failed", "the file is empty", {})
    assert (good["status"], good["files"], good["worker"]) == ("done", {"mask": "0.png"}, 0)
    assert good["size"] == list(cv2.imread(str(photos / "0.jpg")).shape[1::-1])
    assert set(good["ms"]) == {"preprocess", "inference", "postprocess"}
    assert all(value > 0 for value in good["ms"].values())
    summary = last["summary"]
    assert (summary["done"], summary["failed"], summary["not_tried"]) == (5, 1, 0)
    assert summary["reasons"] == {"the file is empty": 1}
    assert "failed               1  the file is empty" in run.out
    infer("--config", model, "--image_path", "photos", "--report", "report")
    assert len(report_lines(tmp_path / "report")) == 7  # the old report was replaced


def test_the_mask_is_saved_last(infer, model, photos, tmp_path):
    """A missing mask then shows that a killed run didn't finish the image."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "1.png").mkdir()  # a folder, so no mask can be saved there
    run = infer("--config", model, "--image_path", photos, "--save", "mask", "label")
    assert run.code == 1
    assert (tmp_path / "output" / "label" / "1.png").is_file()


def test_a_run_that_cannot_start_does_not_change_the_old_report(infer, model, photos, tmp_path):
    infer("--config", model, "--image_path", photos, "--report", "report")
    before = (tmp_path / "report").read_bytes()
    assert infer("--config", "gone", "--image_path", photos, "--report", "report").code == 2
    assert (tmp_path / "report").read_bytes() == before


def test_a_report_that_cannot_be_written_ends_the_run(start, tmp_path):
    for number in range(60):
        write_image(tmp_path / "in" / f"{number}.png", (300, 400), number)
    process = start("--image_path", "in", "--report", "/dev/full")
    out, err = process.communicate()
    assert process.returncode == 1
    assert err.count("error: --report /dev/full can't be written: no space left on device") == 1
    assert " images were not tried" in err and "of 60 images done" in out


def test_a_report_that_lacks_its_summary_is_exit_code_1(infer, model, photos):
    """A shard without an image has nothing else to write."""
    image = str(photos / "0.jpg")
    [empty] = [part for part in (0, 1) if not part_of([Job(image, "0")], image, part, 2)]
    shard = ("--shard", f"{empty}/2", "--report", "/dev/full")
    run = infer("--config", model, "--image_path", image, *shard)
    assert run.code == 1
    assert run.err == "error: --report /dev/full can't be written: no space left on device\n"


def test_the_report_shows_that_a_signal_ended_the_run(start, tmp_path):
    for number in range(300):
        write_image(tmp_path / "in" / f"{number}.png", (300, 400), number)
    process = start("--image_path", "in", "--report", "report")
    wait_until(lambda: len(masks(tmp_path / "output")) > 5)
    process.stderr.close()  # the summary is written although nobody reads stderr
    process.terminate()
    assert process.wait() == 143
    *images, last = report_lines(tmp_path / "report")
    assert last["summary"]["exit_code"] == 143
    assert last["summary"]["not_tried"] == 300 - len(images) > 0


def test_an_invalid_orientation_does_not_crash_the_run(infer, model, tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[0x0112] = 2  # text instead of a number
    tags[0x0112] = "upside down"
    exif = b"Exif\0\0II*\0\x08\0\0\0" + tags.tobytes(8)
    image = Image.new("RGB", (64, 48))
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in" / "a.jpg", exif=exif)
    for _ in range(2):
        run = infer("--config", model, "--image_path", "in", "--resume")
        assert run.code == 0, run


@pytest.mark.parametrize("kept", [0, 1, 5000])
def test_a_truncated_last_line_of_a_report_is_removed(tmp_path, kept):
    path = tmp_path / "report"
    path.write_text('{"a": 1}\n' * kept + '{"image": "' + "x" * 9000)
    report = Report(str(path), ("mask",), append=True, about={})
    report.add(Outcome(Job("a.png", "a"), "done"))
    report.close({})
    assert len(report_lines(path)) == kept + 2


def test_each_line_of_a_report_is_there_when_its_image_has_ended(tmp_path):
    """And so it is after a run that is killed."""
    path = tmp_path / "report"
    report = Report(str(path), ("mask",), append=False, about={})
    for number in range(3):
        report.add(Outcome(Job(f"{number}.png", f"{number}"), "done"))
        assert report_lines(path)[-1]["image"] == f"{number}.png"
    report.close({})


# ---- --quiet, the progress bar, --shard --------------------------------------------------------


def test_quiet_prints_only_errors(infer, models, photos):
    arguments = ("--config", models / "logits" / "deploy.yaml", "--image_path", photos, "--quiet")
    run = infer(*arguments)
    assert (run.code, run.out, run.err) == (0, "", "")
    (photos / "bad.png").write_bytes(b"")
    run = infer(*arguments)
    assert (run.code, run.out) == (1, "")
    assert run.err == f"failed: {photos}/bad.png: the file is empty\n"


def test_a_terminal_shows_a_progress_bar(model, photos, tmp_path):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", photos]
    process = subprocess.Popen(
        [*command, "--device", "cpu"], cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while True:
            shown += os.read(ours, 1 << 16)
    os.close(ours)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert b"5/5" in shown and b"image/s" in shown


def test_without_a_terminal_a_line_a_minute_says_how_long_it_takes(monkeypatch, caplog):
    """Of the images that are run: those that were there took no time."""
    caplog.set_level("INFO")
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(progress, "time", clock)
    shown = progress.Progress(1000, quiet=False)
    job = Job("a.png", "a")
    for status in ["skipped"] * 400 + ["failed"] * 2 + ["done"] * 97:
        shown.add(Outcome(job, status))
    assert not caplog.messages
    clock.monotonic = lambda: 100.0
    for _ in range(2):
        shown.add(Outcome(job, "done"))
    shown.close()
    assert caplog.messages == ["500 of 1000 images, 1.0 per second, 8 minutes left, 2 failed"]


def test_shards_are_disjoint_complete_and_stable():
    jobs = [Job(f"in/{number}.png", f"{number}") for number in range(200)]
    parts = [part_of(jobs, "in", number, 8) for number in range(8)]
    assert sorted(job.image for part in parts for job in part) == sorted(job.image for job in jobs)
    assert all(10 < len(part) < 45 for part in parts)
    more = [Job(f"in/new{number}.png", f"new{number}") for number in range(50)]
    for number, part in enumerate(parts):
        assert set(part) <= set(part_of(more + jobs, "in", number, 8))


def test_all_shards_together_do_each_image_once(infer, model, photos, tmp_path):
    counts = []
    for number in range(3):
        shard = f"{number}/3"
        run = infer("--config", model, "--image_path", "photos", "--shard", shard)
        assert run.code == 0
        counts.append(int(run.out.split()[0]))
    assert sum(counts) == 5
    assert len(masks(tmp_path / "output")) == 5
    for wrong in ("3/3", "1", "a/b", "-1/3"):
        assert infer("--config", model, "--image_path", "photos", f"--shard={wrong}").code == 2
