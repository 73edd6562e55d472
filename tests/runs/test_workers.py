"""The number of workers does not change the masks, and no worker outlives the run."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import Pipe

import pytest
from conftest import ROOT, children, masks, read_mask, restore_sigint, wait_until, write_image

from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.outcomes import Job
from paddleseg_infer.runs.local import processes_for, sharing_shapes
from paddleseg_infer.runs.worker import Note, Reporting, orders_for
from paddleseg_infer.settings import ModelOptions, RunOptions, Settings

IMAGES = 200


@pytest.fixture
def started(model, tmp_path):
    """A function that starts a run over many images, and returns after some masks are saved."""
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "image", (400, 600))
    for number in range(IMAGES):
        (tmp_path / "photos" / f"{number}.png").symlink_to(tmp_path / "image")
    processes = []

    def start(*arguments):
        command = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", "photos"]
        process = subprocess.Popen(
            [*command, "--device", "cpu", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=restore_sigint,
        )
        processes.append(process)
        wait_until(lambda: len(masks(tmp_path / "output")) > 10)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def infer_main(model, photos, tmp_path):
    """A function that runs the command line in a process and returns the imported modules."""

    def run(*arguments):
        call = "import sys; from paddleseg_infer import cli; cli.main(); "
        call += "print(*sys.modules, file=sys.__stderr__)"
        command = [sys.executable, "-c", call, "--config", model, "--image_path", photos]
        process = subprocess.run(
            [*command, "--device", "cpu", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        return set(process.stderr.split())

    return run


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("flags", [["--num_workers", "2"], ["--num_workers", "3"]])
@pytest.mark.parametrize("batch_size", ["1", "2"])
def test_masks_equal_those_of_one_process(infer, model, photos, tmp_path, flags, batch_size):
    alone = infer("--config", model, "--image_path", photos, "--batch_size", "100")
    many = infer(
        "--config", model, "--image_path", photos, "--save_dir", "many", *flags,
        "--batch_size", batch_size,
    )  # fmt: skip
    assert (alone.code, many.code) == (0, 0)
    assert masks(tmp_path / "many") == masks(tmp_path / "output")
    for name in masks(tmp_path / "many"):
        one, other = (read_mask(tmp_path / folder / name) for folder in ("many", "output"))
        assert (one == other).all()


def test_each_note_is_printed_once_and_each_bad_image_fails_alone(infer, models, photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"")
    config = models / "logits" / "deploy.yaml"
    run = infer("--config", config, "--image_path", photos, "--num_workers", "3")
    assert run.code == 1
    assert len(masks(tmp_path / "output")) == 5
    note, failed = run.err.splitlines()
    assert note.startswith("note: this model gives scores")
    assert failed == f"failed: {photos}/bad.jpg: the file is empty"


@pytest.mark.parametrize(("batch_size", "loads"), [("1", False), ("100", True)])
def test_the_process_that_feeds_workers_loads_no_engine(infer_main, batch_size, loads):
    """A single batch needs no workers, so the process runs it and loads the engine."""
    modules = infer_main("--batch_size", batch_size)
    heavy = {"cv2", "numpy", "paddle.base.libpaddle"}
    assert heavy & modules == (heavy if loads else set())


def test_a_missing_package_gives_an_error_message(infer, model, photos, tmp_path):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "cv2.py").write_text("import nowhere_to_be_found")
    path = str(tmp_path / "modules")
    run = infer("--config", model, "--image_path", photos, "--num_workers", "2", PYTHONPATH=path)
    assert run.code == 2
    assert run.err.splitlines()[-1].startswith(
        "error: No module named 'nowhere_to_be_found': run pip install -r requirements.txt"
    )


def test_a_run_with_more_workers_than_batches_succeeds(infer, model, photos):
    run = infer("--config", model, "--image_path", photos, "--num_workers", "200")
    assert run.code == 0, run


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGSEGV])
def test_the_images_of_a_dead_worker_are_done_by_another_worker(started, tmp_path, signal_):
    process = started("--num_workers", "2")
    os.kill(children(process)[1], signal_)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.startswith(f"{IMAGES} of {IMAGES} images done")
    [line] = [line for line in err.splitlines() if "--enable_openvino" not in line]
    assert line.startswith(f"warning: the worker process ended with {signal_.name}: its ")
    whole = [name for name in masks(tmp_path / "output") if name.endswith(".png")]
    assert whole == sorted(f"{number}.png" for number in range(IMAGES))


def test_the_only_worker_is_replaced_if_it_dies(started):
    process = started()
    os.kill(children(process)[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert out.startswith(f"{IMAGES} of {IMAGES} images done")


def test_no_worker_outlives_a_run_that_is_killed(started):
    process = started("--num_workers", "2")
    workers = children(process)
    assert len(workers) == 2
    process.kill()
    process.wait(timeout=10)
    wait_until(lambda: not any(is_running(pid) for pid in workers), seconds=5)


@pytest.mark.parametrize(
    ("signal_", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
@pytest.mark.parametrize("to_all", [False, True])  # a terminal's Ctrl-C reaches the workers too
def test_a_signal_ends_the_run_within_five_seconds(started, tmp_path, signal_, code, to_all):
    process = started("--num_workers", "2")
    pids = children(process)
    for pid in [process.pid, *(pids if to_all else [])]:
        os.kill(pid, signal_)
    if to_all:  # `timeout` and schedulers send it to the process and to its group
        time.sleep(0.05)
        os.kill(process.pid, signal_)
    begun = time.monotonic()
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - begun < 5
    assert process.returncode == code
    saved = masks(tmp_path / "output")
    assert all(name.endswith(".png") and ".part" not in name for name in saved)
    assert out.startswith(f"{len(saved)} of {IMAGES} images done")
    assert "failed" not in err
    wait_until(lambda: not any(is_running(pid) for pid in pids), seconds=5)


def test_a_worker_that_dies_while_it_loads_ends_the_run(infer, model_copy, photos, tmp_path):
    """The second half of the graph is zeros. Paddle 3 crashes while it loads such a graph."""
    folder = model_copy("argmax")
    graph = folder / "model.pdmodel"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    graph.write_bytes(content)
    run = infer("--config", folder / "deploy.yaml", "--image_path", photos)
    assert run.code == 2, run
    assert run.err.startswith("error: ")
    assert not (tmp_path / "output").exists()


def test_messages_of_several_threads_arrive_whole():
    """As notes and outcomes do, which are longer than the system writes at once."""
    ours, theirs = Pipe()
    reporting = Reporting(theirs)
    sent = [Note(thread, str(thread) * 300_000) for thread in range(4)]
    with ThreadPoolExecutor(len(sent)) as pool, ours:
        for note in sent:
            pool.submit(lambda note=note: [reporting.send(note) for _ in range(25)])
        for _ in range(25 * len(sent)):
            assert ours.poll(60)
            assert ours.recv() in sent


def settings(**engine):
    run = RunOptions(config="deploy.yaml", image_path="in")
    return Settings(run, engine=EngineOptions(**engine))


JOBS = [Job(f"{number}.png", f"{number}") for number in range(3)]


@pytest.mark.parametrize(
    ("images", "processes"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (100, 3)]
)
def test_each_batch_has_a_worker_the_last_one_too_which_may_not_be_full(images, processes):
    three = replace(settings(num_workers=3), model=ModelOptions(batch_size=2))
    assert processes_for(images, three) == processes


def test_each_worker_has_its_own_gpu():
    orders = [orders_for(n, settings(), JOBS, False, True) for n in range(3)]
    assert [each.settings.engine.gpu for each in orders] == [0, 1, 2]
    assert [each.number for each in orders] == [0, 1, 2]


def test_with_tensorrt_a_worker_gets_all_images_for_the_shapes():
    assert orders_for(0, settings(), JOBS, False, True).sample == []
    sample = orders_for(0, settings(use_trt=True), JOBS, False, True).sample
    assert sample == ["0.png", "1.png", "2.png"]


def test_workers_share_one_file_of_tuned_shapes(tmp_path):
    engine = sharing_shapes(settings(enable_auto_tune=True).engine, str(tmp_path))
    assert engine.auto_tuned_shape_file == str(tmp_path / "shapes.pbtxt")
    assert engine.enable_auto_tune


def test_a_later_second_signal_ends_the_run_at_once(start, one_slow_image, tmp_path):
    process = start("--image_path", "in")
    wait_until(lambda: (tmp_path / "output" / "a.png").exists())  # b.png takes seconds
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=1) == -signal.SIGTERM
