"""Tests of how the process handles its streams, its folders and signals."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, masks, read_mask, restore_sigint, write_image


@pytest.fixture
def printing_model(json_models):
    """A model for which Paddle 3.2 prints lines: one for each mean over an axis in a json graph."""
    return json_models / "mean" / "deploy.yaml"


@pytest.mark.parametrize("more", [[], ["--dry_run"]])
def test_a_closed_or_full_standard_output_does_not_crash_the_run(model, photos, tmp_path, more):
    command = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", "photos"]
    command += ["--device", "cpu", *more]
    reader, writer = os.pipe()
    os.close(reader)
    for output in (writer, os.open("/dev/full", os.O_WRONLY)):
        run = subprocess.run(command, cwd=tmp_path, stdout=output, stderr=subprocess.PIPE)
        os.close(output)
        assert (run.returncode, run.stderr) == (0, b"")
    assert len(masks(tmp_path / "output")) == (0 if more else 5)


@pytest.mark.parametrize("more", [[], ["--print_detail"]])
def test_standard_output_holds_only_lines_of_the_program(infer, printing_model, photos, more):
    run = infer("--config", printing_model, "--image_path", photos, *more)
    assert run.code == 0, run
    assert len(run.out.splitlines()) == 1


@pytest.mark.parametrize("more", [[], ["--print_detail"]])
@pytest.mark.parametrize("closed", [">&-", ">&- <&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_neither_crash_the_run_nor_damage_a_file(
    printing_model, photos, tmp_path, closed, more
):
    command = [sys.executable, ROOT / "infer.py", "--config", printing_model, *more]
    command += ["--image_path", "photos", "--device", "cpu"]
    closing = ["bash", "-c", f'exec "$@" {closed}', "bash", *command]
    run = subprocess.run(closing, cwd=tmp_path, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert len(masks(tmp_path / "output")) == 5
    for name in masks(tmp_path / "output"):
        assert read_mask(tmp_path / "output" / name).size


def test_a_run_works_without_a_folder_for_temporary_files(infer, model, photos, tmp_path):
    places = {name: str(tmp_path / "gone") for name in ("TMPDIR", "TEMP", "TMP")}
    run = infer("--config", model, "--image_path", photos, "--save_dir", "new", **places)
    assert run.code == 0


def ignore_ctrl_c():
    """In a child: as shells start what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("batch_size", ["1", "100"])  # in workers, and in the process itself
def test_ctrl_c_does_not_reach_a_run_in_the_background(model, photos, tmp_path, batch_size):
    command = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", photos]
    command += ["--device", "cpu", "--batch_size", batch_size]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=ignore_ctrl_c
    )
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert (process.returncode, process.communicate()[1]) == (0, b"")
    assert len(masks(tmp_path / "output")) == 5


def test_ctrl_c_ends_the_process(model, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(f"{n}.png" for n in range(3000)))
    for number in range(3000):
        (tmp_path / f"{number}.png").symlink_to(tmp_path / "image")
    write_image(tmp_path / "image", (400, 600))
    command = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", "list.txt"]
    process = subprocess.Popen(
        [*command, "--device", "cpu"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        preexec_fn=restore_sigint,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "output").exists() or not os.listdir(tmp_path / "output"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert re.fullmatch(rb"\d+ images were not tried: run the command again with --resume\n", err)
