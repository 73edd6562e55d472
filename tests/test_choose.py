"""`python -m paddleseg_infer.choose`: real runs, its table, and the flags that it advises."""

import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import BUILD, PADDLE, ROOT, children, masks, restore_sigint, wait_until, write_image
from PIL import Image

from paddleseg_infer import choose
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.machine.limits import usable_processors
from paddleseg_infer.machine.processor import missing_for_bf16
from paddleseg_infer.runs.candidates import candidates, engines_for
from paddleseg_infer.runs.timed_run import Measured, memory_of, timed_run

DEMO = ROOT / "demo" / "model" / "deploy.yaml"
OPENVINO, TWO = ("--enable_openvino",), ("--num_workers", "2", "--cpu_threads", "1")


def run_choose(folder, *arguments):
    command = [sys.executable, "-m", "paddleseg_infer.choose", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_table_has_each_candidate_and_the_advised_command_gives_the_same_masks(tmp_path):
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", (96, 128), number)
    (tmp_path / "in" / "2.png").rename(tmp_path / "in" / "no suffix")
    (tmp_path / "list").write_text("in/0.png\nin/1.png\nin/no suffix\n")
    run = run_choose(tmp_path, "--config", DEMO, "--image_path", "list", "--seconds", "20")
    assert run.returncode == 0, run.stderr
    title, *lines = run.stdout.splitlines()
    assert title.split() == ["images/s", "memory", "labels", "differ", "flags"]
    for flags in candidates(engines_for(load_deploy_config(DEMO), BUILD), usable_processors()):
        ending = f"  {shlex.join(flags) or '(the default)'}"
        assert sum(line.endswith(ending) and "python" not in line for line in lines) == 1
    advised = lines[lines.index(next(line for line in lines if "gave the same labels" in line)) + 1]
    words = shlex.split(advised)
    assert words[:3] == ["python", "-m", "paddleseg_infer"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for flags, folder in ((words[1:], "advised"), (words[1:9], "default")):
        command = [sys.executable, *flags, "--save_dir", folder, "--quiet"]
        assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0
    assert len(masks(tmp_path / "advised")) == 3
    for name in masks(tmp_path / "advised"):
        ones, others = ((tmp_path / part / name).read_bytes() for part in ("advised", "default"))
        assert ones == others


def test_runs_that_have_no_time_are_listed_as_untried(tmp_path):
    write_image(tmp_path / "a.png")
    run = run_choose(tmp_path, "--config", DEMO, "--image_path", "a.png", "--seconds", "0.1")
    assert run.returncode == 0, run.stderr
    tried = candidates(engines_for(load_deploy_config(DEMO), BUILD), usable_processors())
    assert run.stdout.count("untried  ") == len(tried) - 1
    assert ("not enough time (--seconds) or memory" in run.stdout) == (len(tried) > 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_runs_and_leaves_no_files(tmp_path, number, code):
    write_image(tmp_path / "in" / "a.png")
    command = [sys.executable, "-m", "paddleseg_infer.choose", "--config", DEMO]
    process = subprocess.Popen(
        [*command, "--image_path", "in"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        preexec_fn=restore_sigint,
    )
    wait_until(lambda: list(tmp_path.glob("tmp*/masks/*.png")))
    runs = children(process)
    process.send_signal(number)
    assert process.wait() == code
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in runs)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"--config": "gone.yaml"}, "gone.yaml: can't be read: no such file or directory"),
        ({"--image_path": "gone"}, "--image_path gone: no such file or directory"),
        ({"--seconds": "0"}, "must be above 0, not '0'"),
        ({"--batch_size": "none"}, "must be a whole number from 1"),
        ({"--image_path": "bad.png"}, "error: bad.png: it can't be decoded"),
        ({"stray": "word"}, "unrecognized arguments: stray word"),
        ({"--use_trt": "True"}, "--use_trt can't be given"),
        ({"--num_workers": "3"}, "--num_workers can't be given: this program decides"),
        ({"--nope": "1"}, "unrecognized arguments: --nope"),
    ],
)
def test_what_the_program_refuses_is_refused(tmp_path, changes, error):
    write_image(tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("not a picture")
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
def test_a_long_run_names_choose(infer, model, tmp_path, images, more, is_shown):
    write_image(tmp_path / "image.png", (16, 16))
    (tmp_path / "many").mkdir()
    for number in range(images):
        (tmp_path / "many" / f"{number}.png").symlink_to(tmp_path / "image.png")
    run = infer("--config", model, "--image_path", "many", *more)
    assert run.code == 0
    line = "note: python -m paddleseg_infer.choose tries other flags, which may be faster here"
    line += "" if missing_for_bf16() else ", for example --precision bf16"
    assert (line in run.err) == is_shown


def test_workers_times_threads_are_the_processors():
    assert candidates([()], 1) == [()]
    assert candidates([(), OPENVINO], 2) == [(), OPENVINO, TWO, (*OPENVINO, *TWO)]
    for processors, expected in [
        (3, [("2", "1"), ("3", "1")]),
        (6, [("2", "3"), ("4", "1"), ("6", "1")]),
        (48, [("2", "10"), ("4", "10"), ("8", "6"), ("16", "3"), ("32", "1"), ("48", "1")]),
    ]:
        shares = [flags[1::2] for flags in candidates([()], processors)]
        assert shares == [(), *expected]


def test_the_engines_and_precisions_are_those_that_can_run_the_model(models, request):
    def engines(folder):
        return engines_for(load_deploy_config(folder / "deploy.yaml"), BUILD)

    bf16, int8 = ("--precision", "bf16"), ("--precision", "int8")
    has_bf16, has_openvino = not missing_for_bf16(), bool(BUILD.openvino_library)
    expected = [(), *[OPENVINO] * has_openvino, *[bf16] * (has_bf16 and has_openvino)]
    assert engines(models / "argmax") == expected
    assert engines(models / "quantised") == [(), int8]
    if PADDLE >= (3, 0, 0):
        json = request.getfixturevalue("json_models")
        runs_bf16 = has_bf16 and PADDLE[:2] != (3, 3)
        assert engines(json / "argmax") == [(), *[bf16] * runs_bf16]
        assert engines(json / "inverse") == [()]  # oneDNN is wrong for it


def test_the_share_of_other_labels_is_that_of_the_masks_that_both_runs_saved(tmp_path):
    def save(folder, name, labels):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(labels)).save(tmp_path / folder / name)

    save("one", "a.png", [[0, 1], [2, 3]])
    save("two", "a.png", [[0, 1], [2, 0]])
    save("one", "b.png", [[0, 1], [2, 3]])
    save("labels/label", "a.png", [[0, 1], [0, 0]])
    save("others/label", "a.png", [[0, 0], [0, 0]])
    assert choose.difference(tmp_path / "one", tmp_path / "two") == (0.25, 1)
    assert choose.difference(tmp_path / "one", tmp_path / "one") == (0, 2)
    assert choose.difference(tmp_path / "one", tmp_path / "gone") == (None, 0)
    assert choose.difference(tmp_path / "labels", tmp_path / "others") == (0.25, 1)


def trial(flags, rate, differ, failure="", warnings=(), failed=0):
    measured = Measured(rate, 1, 300_000_000, failed, failure, warnings)
    return choose.Trial(flags, measured, differ, 20)


def test_the_fastest_flags_with_equal_labels_come_before_the_fastest_of_all():
    trials = [
        trial((), 5, 0),
        trial(OPENVINO, 9, 0.0001, warnings=("warning: OpenVINO failed",)),
        trial(TWO, 7, 0),
        trial((*OPENVINO, *TWO), 0, None, failure="no"),
    ]
    lines = list(choose.table(trials, [], ["infer"]))
    assert [line.split()[0] for line in lines[1:5]] == ["9.0", "7.0", "5.0", "failed"]
    assert "0.01 %" in lines[1] and lines[4].endswith(": no")
    assert lines[5] == "--enable_openvino: warning: OpenVINO failed"
    assert lines[7] == "  infer --num_workers 2 --cpu_threads 1"
    assert lines[9] == "  infer --enable_openvino"
    few = list(choose.table([trial((), 5, 0, failed=3), trial(TWO, 0, None)], [], ["infer"]))
    assert few[2].split()[:2] == ["no", "time"] and "(the default): warning: 3 images failed" in few
    alone = list(choose.table([trials[0]], [OPENVINO], ["infer"]))
    assert alone[-1] == "No flags were compared: give more --seconds."
    only_one = list(choose.table([trials[0], trials[2]], [], ["infer"]))
    assert len(only_one) == 5 and only_one[-1] == "  infer --num_workers 2 --cpu_threads 1"


def measured(script, workers=1, seconds=1, start_seconds=60):
    """Measures a Python script that has `line(worker)`, which writes a line of the report."""
    start = """
import json, os, signal, sys, time
report = open(sys.argv[sys.argv.index("--report") + 1], "a")
def line(worker, status="done"):
    print(json.dumps({"status": status, "worker": worker}), file=report, flush=True)
"""
    return timed_run([sys.executable, "-c", start + script], workers, seconds, start_seconds, quiet)


def quiet():
    pass


def test_the_rate_begins_when_all_workers_have_given_a_result():
    script = "for _ in range(500): line(0)\ntime.sleep(0.5)\nfor _ in range(40): line(1)"
    script += "\nfor number in range(1000): time.sleep(0.1); line(number % 2)"
    found = measured(script, workers=2, seconds=3)
    assert 0 < found.rate < 11  # and not that of the burst
    assert found.start > 0.4 and found.failure == ""


def test_a_few_results_at_once_are_no_rate():
    """Ten seconds an image, but both workers finish at the same time."""
    found = measured("line(0); time.sleep(0.1); line(1); time.sleep(60)", workers=2)
    assert (found.rate, found.failure) == (0, "")


def test_a_run_that_ends_by_itself_is_measured_until_its_last_image():
    found = measured("for _ in range(20): line(0); time.sleep(0.05)", seconds=60)
    assert 0 < found.rate < 21 and found.failure == ""


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("print('error: it waits', file=sys.stderr); time.sleep(60)", "it waits"),
        ("line(0); print('error: the disk is full', file=sys.stderr)", "the disk is full"),
        ("line(0, 'failed'); print('failed: a.png: damaged', file=sys.stderr)", "a.png: damaged"),
        ("line(0); print('failed: a.png: damaged', file=sys.stderr)", ""),
        ("line(0); os.kill(os.getpid(), signal.SIGSEGV)", "it ended with exit code -11"),
    ],
)
def test_a_failure_is_found(script, failure):
    assert measured(script, start_seconds=3).failure == failure


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
