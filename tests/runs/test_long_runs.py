"""No result is lost if a worker dies or a disk is full. Kills, disks and slow images are real."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from conftest import (
    ROOT,
    SLOW,
    children,
    loads_paddle,
    masks,
    report_lines,
    wait_until,
    write_image,
)

from demo.canvas import CLASSES
from paddleseg_infer.pictures import files

# ---- workers that die or hang ------------------------------------------------------------------


def processor_seconds(pid):
    """Returns the processor time that a process has used, or 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_an_image_whose_worker_dies_twice_fails_alone(start, one_slow_image, tmp_path):
    """The test kills the worker each time it works on the large image."""
    process = start("--image_path", "in")
    output = tmp_path / "output"
    wait_until(lambda: (output / "a.png").exists())
    loaded = {}  # the processor time of each worker when it has begun to load Paddle
    while process.poll() is None:
        time.sleep(0.02)
        for pid in filter(loads_paddle, children(process)):
            # More than a worker needs to load and for a small image, less than for the large one.
            if processor_seconds(pid) > loaded.setdefault(pid, processor_seconds(pid)) + 2:
                os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"in/b.png: the worker process ended with SIGKILL, \d times", err)
    assert masks(output) == ["a.png", "c.png"]


def test_a_batch_that_takes_too_long_is_ended(start, one_slow_image, tmp_path):
    process = start("--image_path", "in", "--timeout", "0.7", "--report", "report")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    failure = "the worker took longer than --timeout 0.7 seconds, 2 times"
    assert f"failed: in/b.png: {failure}" in err
    assert masks(tmp_path / "output") == ["a.png", "c.png"]
    *images, last = report_lines(tmp_path / "report")
    assert {line["image"]: line["reason"] for line in images} == {
        **{"in/a.png": "", "in/c.png": ""},
        "in/b.png": failure,
    }
    assert last["summary"]["reasons"] == {failure: 1}


def test_a_worker_that_is_stopped_is_replaced(start, tmp_path):
    for number in range(120):
        write_image(tmp_path / "in" / f"{number}.png", (300, 400), number)
    report = tmp_path / "report"
    process = start(
        *("--image_path", "in", "--timeout", "2", "--num_workers", "2", "--report", "report"),
    )
    # --timeout applies only to a worker whose engine is loaded.
    wait_until(lambda: report.exists() and b'"worker": 0' in report.read_bytes())
    os.kill(children(process)[0], signal.SIGSTOP)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert len(masks(tmp_path / "output")) == 120


def test_five_deaths_before_the_first_result_end_the_run(start, tmp_path):
    write_image(tmp_path / "in" / "a.png", (SLOW, SLOW))
    write_image(tmp_path / "in" / "b.png", (SLOW, SLOW))
    write_image(tmp_path / "in" / "c.png", (SLOW, SLOW))
    process = start("--image_path", "in")
    killed = set()
    while process.poll() is None:
        for pid in set(children(process)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.01)
    _, err = process.communicate()
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("error: the worker process ended with SIGKILL, five")
    assert len(killed) == 5


def write_many_images(folder, count=300):
    for number in range(count):
        write_image(folder / f"{number}.png", (300, 400), number)


def test_no_image_fails_if_workers_die_while_they_load(start, tmp_path):
    """After some images, the test kills each worker while it loads Paddle."""
    write_many_images(tmp_path / "in")
    process = start("--image_path", "in")
    wait_until(lambda: len(masks(tmp_path / "output")) > 5)
    while process.poll() is None:
        for pid in filter(loads_paddle, children(process)):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    _, err = process.communicate()
    assert process.returncode == 1
    assert re.search(r"error: .*SIGKILL, \d times in a row before it got an image", err)
    assert "images were not tried" in err and "failed: " not in err


def test_a_run_does_not_wait_for_a_worker_that_hangs_while_it_starts(start, tmp_path):
    write_many_images(tmp_path / "in", 40)
    process = start("--image_path", "in", "--num_workers", "2")
    wait_until(lambda: len(children(process)) == 2)
    os.kill(children(process)[1], signal.SIGSTOP)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert out.startswith("40 of 40 images done")


def test_a_model_that_is_deleted_during_the_run_ends_the_run(start, model_copy, tmp_path):
    write_many_images(tmp_path / "in")
    model = model_copy("argmax")
    process = start("--image_path", "in", model=model / "deploy.yaml")
    wait_until(lambda: len(masks(tmp_path / "output")) > 5)
    (model / "model.pdmodel").unlink()
    os.kill(children(process)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: " in err and "model.pdmodel" in err and "images were not tried" in err


def test_images_of_a_worker_that_is_refused_are_done_by_the_others(start, model_copy, tmp_path):
    """It loads the model after the other one, when the graph has been overwritten."""
    write_many_images(tmp_path / "in")
    model = model_copy("argmax")
    process = start("--image_path", "in", "--num_workers", "2", model=model / "deploy.yaml")
    wait_until(lambda: len(children(process)) == 2)
    first, late = children(process)
    os.kill(late, signal.SIGSTOP)
    wait_until(lambda: len(masks(tmp_path / "output")) > 5)
    os.kill(first, signal.SIGSTOP)  # until the other one has gone
    (model / "model.pdmodel").write_bytes(b"no graph")
    os.kill(late, signal.SIGCONT)
    wait_until(lambda: late not in children(process))
    os.kill(first, signal.SIGCONT)
    out, err = process.communicate(timeout=300)
    assert "warning: a worker can't start, and the others go on: " in err
    assert "model.pdmodel is not a Paddle graph" in err
    assert process.returncode == 0
    assert out.startswith("300 of 300 images done")


def test_a_second_signal_ends_the_run_at_once(start, one_slow_image, tmp_path):
    process = start("--image_path", "in")
    wait_until(lambda: (tmp_path / "output" / "a.png").exists())
    time.sleep(0.3)  # the network is running b.png
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=2)
    assert process.returncode == -signal.SIGTERM


# ---- disks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", ["1", "100"])
def test_a_full_disk_stops_the_run_and_resume_completes_it(start, small_disk, tmp_path, batch_size):
    disk, resize = small_disk
    for number in range(40):
        write_image(tmp_path / "in" / f"{number}.png", (300, 400), number)
    arguments = ("--image_path", "in", "--save_dir", "disk/out", "--batch_size", batch_size)
    process = start(*arguments)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "error: --save_dir disk/out: no space left on device" in err
    saved = masks(disk / "out")
    assert 0 < len(saved) < 40
    assert f"{40 - len(saved)} images were not tried" in err
    assert all(files.whole_png(str(disk / "out" / name)) for name in saved)
    assert resize("64m")
    process = start(*arguments, "--resume")
    assert "40 images done" in process.communicate()[0].replace(f"{40 - len(saved)} of ", "")
    assert process.returncode == 0
    assert len(masks(disk / "out")) == 40


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_run_waits_for_a_missing_output_folder_for_a_while(start, tmp_path, comes_back):
    for number in range(300):
        write_image(tmp_path / "in" / f"{number}.png", (300, 400), number)
    out, away = tmp_path / "output", tmp_path / "away"
    process = start("--image_path", "in", "--num_workers", "2")
    wait_until(lambda: len(masks(out)) > 5)
    out.rename(away)
    warning = "warning: --save_dir output can't be written to: the program waits and tries again"
    err = ""
    while warning not in err:
        line = process.stderr.readline()
        assert line, err
        err += line
    if comes_back:
        away.rename(out)
    err += process.stderr.read()
    output = process.stdout.read()
    process.wait()
    if comes_back:
        assert process.returncode == 0, err
        assert len(masks(out)) == 300
    else:
        assert process.returncode == 1
        assert "error: --save_dir output: no such file or directory" in err
        not_tried = int(re.search(r"(\d+) images were not tried", err)[1])
        assert len(masks(away)) == int(output.split()[0]) == 300 - not_tried
        assert not out.exists()


def test_another_worker_does_not_create_a_missing_output_folder_again(start, tmp_path):
    write_many_images(tmp_path / "in")
    out = tmp_path / "output"
    process = start("--image_path", "in")
    wait_until(lambda: len(masks(out)) > 5)
    out.rename(tmp_path / "away")
    os.kill(children(process)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: --save_dir output: no such file or directory" in err
    assert not out.exists()
    assert not [name for name in masks(tmp_path / "away") if not name.endswith((".png", ".part"))]


def test_a_batch_waits_only_once_for_the_output_folder(start, tmp_path):
    write_many_images(tmp_path / "in")
    process = start("--image_path", "in", "--batch_size", "24")
    wait_until(lambda: len(masks(tmp_path / "output")) > 5)
    (tmp_path / "output").rename(tmp_path / "away")
    process.communicate(timeout=40)  # a wait of 7.5 s for each image would take 180 s
    assert process.returncode == 1


def test_a_disk_that_turns_read_only_ends_the_run(start, small_disk, tmp_path):
    disk, resize = small_disk
    assert resize("64m")
    write_many_images(tmp_path / "in")
    process = start("--image_path", "in", "--save_dir", "disk/out")
    wait_until(lambda: len(masks(disk / "out")) > 5)
    while subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True).returncode:
        time.sleep(0.001)  # a file was open for writing
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "error: --save_dir disk/out: read-only file system" in err


@pytest.mark.parametrize("compares", [False, True])
def test_the_first_line_of_each_run_describes_it(infer, tmp_path, compares):
    demo = ROOT / "demo"
    command = ("--config", demo / "model" / "deploy.yaml", "--image_path", demo / "images")
    labels = ("--label_path", demo / "labels", "--ignore_index", "9") if compares else ()
    for _ in range(2):
        assert infer(*command, *labels, "--report", "report", "--resume").code == 0
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    places = [number for number, line in enumerate(lines) if "run" in line]
    assert places == [0, 6]  # a run has four images and a summary
    assert lines[0] == lines[6]
    assert lines[0]["run"] == {
        "folder": str(tmp_path),
        "save_dir": "output",
        "custom_color": ["paddleseg"],
        "network_size": False,
        "names": list(CLASSES),
        "classes": len(CLASSES) if compares else None,
        "ignore_index": 9 if compares else None,
    }
