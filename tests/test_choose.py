"""`python -m paddleseg_infer.choose`: real runs, its table, and the flags that it advises."""

import os
import shlex
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, masks, write_image
from PIL import Image

from paddleseg_infer import choose
from paddleseg_infer.machine.limits import usable_processors
from paddleseg_infer.runs.timed_run import Measured, memory_of, timed_run

DEMO = ROOT / "demo" / "model" / "deploy.yaml"
OPENVINO, TWO = ("--enable_openvino",), ("--num_workers", "2", "--cpu_threads", "1")


def run_choose(folder, *arguments):
    command = [sys.executable, "-m", "paddleseg_infer.choose", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_table_has_each_candidate_and_the_advised_flags_give_the_same_labels(tmp_path):
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", (96, 128), number)
    run = run_choose(tmp_path, "--config", DEMO, "--image_path", "in", "--seconds", "20")
    assert run.returncode == 0, run.stderr
    title, *lines = run.stdout.splitlines()
    assert title.split() == ["images/s", "memory", "other", "labels", "flags"]
    rows = {line.partition("  --")[2] or line for line in lines if line.startswith("   ")}
    [default] = [row for row in rows if row.endswith("(the default)")]
    rate, memory, unit, differ = default.split()[:4]
    assert float(rate) > 1 and float(memory) > 100 and (unit, differ) == ("MB", "0")
    if usable_processors() > 1:
        assert any(row.endswith("num_workers 2 --cpu_threads 1") for row in rows)
    advice = lines[lines.index(next(line for line in lines if "no label differs" in line)) + 1]
    words = shlex.split(advice)
    assert words[:2] == ["python", "infer.py"]
    for flags, folder in ((words[2:], "advised"), (words[2:8], "default")):
        command = [sys.executable, ROOT / "infer.py", *flags, "--save_dir", folder, "--quiet"]
        assert subprocess.run(command, cwd=tmp_path).returncode == 0
    assert masks(tmp_path / "advised") == ["0.png", "1.png", "2.png"]
    for name in masks(tmp_path / "advised"):
        ones, others = ((tmp_path / part / name).read_bytes() for part in ("advised", "default"))
        assert ones == others


def test_runs_that_have_no_time_are_listed_as_untried(tmp_path):
    write_image(tmp_path / "a.png")
    run = run_choose(tmp_path, "--config", DEMO, "--image_path", "a.png", "--seconds", "0.1")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("untried  ") == len(choose.candidates(True, usable_processors())) - 1
    assert "not enough time (--seconds) or memory" in run.stdout


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"--config": "gone.yaml"}, "gone.yaml: can't be read: no such file or directory"),
        ({"--image_path": "gone"}, "--image_path gone: no such file or directory"),
        ({"--seconds": "0"}, "must be above 0, not '0'"),
        ({"--batch_size": "none"}, "must be a whole number from 1"),
        ({"--num_workers": "3"}, "--num_workers can't be given, because the runs get it"),
        ({"--nope": "1"}, "unrecognized arguments: --nope"),
    ],
)
def test_what_the_program_refuses_is_refused(tmp_path, changes, error):
    write_image(tmp_path / "a.png")
    given = {"--config": DEMO, "--image_path": "a.png", "--seconds": "1", **changes}
    run = run_choose(tmp_path, *(word for pair in given.items() for word in pair))
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("error: ") and error in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("images", "more", "is_shown"),
    [(101, (), True), (100, (), False), (101, ("--num_workers", "2"), False)],
)
def test_a_long_run_names_the_readmes_section(infer, model, tmp_path, images, more, is_shown):
    write_image(tmp_path / "image.png", (16, 16))
    (tmp_path / "many").mkdir()
    for number in range(images):
        (tmp_path / "many" / f"{number}.png").symlink_to(tmp_path / "image.png")
    run = infer("--config", model, "--image_path", "many", *more)
    assert run.code == 0
    assert ("note: other flags may be faster here: see Which flags are" in run.err) == is_shown
    assert "Which flags are fastest" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_workers_times_threads_are_the_processors():
    assert choose.candidates(False, 1) == [()]
    assert choose.candidates(True, 2) == [(), OPENVINO, TWO, (*OPENVINO, *TWO)]
    shares = [flags[1::2] for flags in choose.candidates(False, 48)]
    assert shares == [(), ("2", "10"), ("4", "10"), ("8", "6"), ("16", "3"), ("32", "1")]


def test_the_share_of_other_labels_is_that_of_the_masks_that_both_runs_saved(tmp_path):
    def save(folder, name, labels):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.uint8(labels)).save(tmp_path / folder / name)

    save("one", "a.png", [[0, 1], [2, 3]])
    save("two", "a.png", [[0, 1], [2, 0]])
    save("one", "b.png", [[0, 1], [2, 3]])
    assert choose.difference(tmp_path / "one", tmp_path / "two") == 0.25
    assert choose.difference(tmp_path / "one", tmp_path / "one") == 0
    assert choose.difference(tmp_path / "one", tmp_path / "gone") is None


def trial(flags, rate, differ, failure="", warnings=()):
    return choose.Trial(flags, Measured(rate, 1, 300_000_000, failure, warnings), differ)


def test_the_fastest_flags_with_equal_labels_come_before_the_fastest_of_all():
    trials = [
        trial((), 5, 0),
        trial(OPENVINO, 9, 0.0001, warnings=("warning: OpenVINO failed",)),
        trial(TWO, 7, 0),
        trial((*OPENVINO, *TWO), 0, None, failure="error: no"),
    ]
    lines = list(choose.report(trials, [], ["infer"]))
    assert [line.split()[0] for line in lines[1:5]] == ["9.0", "7.0", "5.0", "failed"]
    assert "0.01 %" in lines[1] and lines[4].endswith(": no")
    assert lines[5] == "--enable_openvino: warning: OpenVINO failed"
    assert lines[7] == "  infer --num_workers 2 --cpu_threads 1"
    assert lines[9] == "  infer --enable_openvino"
    only_one = list(choose.report([trials[0], trials[2]], [], ["infer"]))
    assert len(only_one) == 5 and only_one[-1] == "  infer --num_workers 2 --cpu_threads 1"


def test_a_run_without_images_ends_at_its_time_with_the_reason():
    ticks = []
    started = time.monotonic()
    waits = (
        "import sys, time; print('error: it waits', file=sys.stderr, flush=True); time.sleep(60)"
    )
    measured = timed_run([sys.executable, "-c", waits], 1, 2, lambda: ticks.append(1))
    assert time.monotonic() - started < 30
    assert (measured.rate, measured.start, measured.failure) == (0, 0, "error: it waits")
    assert ticks


def test_the_memory_of_a_process_contains_that_of_its_children():
    own = memory_of(os.getpid())
    if not own:
        pytest.skip("this system doesn't show the memory of processes")
    code = "x = bytearray(200_000_000); print('ready', flush=True); input()"
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipe) as child:
        child.stdout.readline()
        assert memory_of(os.getpid()) > own + 150_000_000
        child.communicate(b"\n")
