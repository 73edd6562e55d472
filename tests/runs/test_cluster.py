"""--ray on a real cluster of two nodes. Nodes die, take too long or don't see the files."""

import contextlib
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, loads_paddle, masks, report_lines, wait_until, write_image
from PIL import Image

from paddleseg_infer.errors import ConfigError
from paddleseg_infer.runs import actor
from paddleseg_infer.settings import RunOptions, Settings

cluster_utils = pytest.importorskip("ray.cluster_utils")
# pytest-xdist runs the tests of a group in one process, so these start one cluster.
share_a_cluster = pytest.mark.xdist_group("cluster")


@pytest.fixture(scope="module")
def started_cluster():
    """A cluster of one node, which the tests of this module share: a start takes seconds."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            environment.delenv(name, raising=False)  # else coverage measures Ray's processes too
        config = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": config}
        )
        cluster.second = None
        yield cluster
        cluster.shutdown()


@pytest.fixture
def cluster(started_cluster):
    """A cluster of two nodes with one processor each. It detects a dead node within seconds."""
    if started_cluster.second is None:
        started_cluster.second = started_cluster.add_node(num_cpus=1)
    return started_cluster


def remove_second_node(cluster, **how):
    cluster.remove_node(cluster.second, **how)
    cluster.second = None  # the next test adds another


def is_descendant(pid):
    """Returns whether the tests started this process. Other tests may have a cluster too."""
    while int(pid) > 1:
        if int(pid) == os.getpid():
            return True
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            return False
    return False


def actors():
    """Returns the process ids of the actors that have started to load Paddle."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_one = b"ray::MapWorker(MapBatches(Segment)" in (process / "cmdline").read_bytes()
        except OSError:
            continue
        if is_one and is_descendant(process.name) and loads_paddle(process.name):
            found.append(int(process.name))
    return found


def workers(report):
    """Returns the workers that have given results."""
    lines = report_lines(report) if report.exists() else []
    return {line["worker"] for line in lines if "worker" in line}


@share_a_cluster
def test_no_result_is_lost_if_a_node_is_killed(start, cluster, tmp_path):
    names = [f"{number % 7}/{number}.png" for number in range(64)]
    for number, name in enumerate(names):
        write_image(tmp_path / "in" / name, (300 + number % 5, 400), number)
    (tmp_path / "in" / "3" / "bad.png").write_text("not a picture")
    plain = start("--image_path", "in", "--save_dir", "plain", "--cpu_threads", "1")
    assert plain.wait() == 1
    process = start(
        *("--image_path", "in", "--save_dir", "out", "--report", "report"),
        *("--ray", cluster.address, "--num_workers", "2"),
    )
    wait_until(lambda: len(workers(tmp_path / "report")) == 2)
    remove_second_node(cluster, allow_graceful=False)
    assert process.poll() is None
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "64 of 65 images done" in out
    assert "raylet" not in out  # Ray's own messages are hidden
    assert "failed: in/3/bad.png: " in err
    # The killed worker may leave the unfinished part of a picture, which a later run deletes.
    finished = [name for name in masks(tmp_path / "out") if not name.endswith(".part")]
    assert finished == masks(tmp_path / "plain") == sorted(names)
    for name in names:
        ours, others = (tmp_path / folder / name for folder in ("out", "plain"))
        assert ours.read_bytes() == others.read_bytes()
    *images, _ = report_lines(tmp_path / "report")
    assert {line["image"] for line in images} == {f"in/{name}" for name in [*names, "3/bad.png"]}


@share_a_cluster
def test_resume_makes_only_the_missing_masks_and_compares_all(start, cluster, tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name)
        labels = Image.fromarray(np.random.default_rng(0).integers(0, 8, (48, 64), np.uint8))
        (tmp_path / "labels").mkdir(exist_ok=True)
        labels.save(tmp_path / "labels" / name)
    compares = ("--label_path", "labels", "--report")
    plain = ("--image_path", "in", "--save_dir", "plain", *compares, "plain.jsonl")
    assert start(*plain).wait() == 0
    assert start("--image_path", "in/a.png").wait() == 0
    before = (tmp_path / "output" / "a.png").stat()
    process = start(
        *("--image_path", "in", "--resume", "--batch_size", "2", *compares, "ray.jsonl"),
        *("--ray", cluster.address, "--num_workers", "3"),
    )
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "1 of 2 images done" in out and "1 skipped" in out
    after = (tmp_path / "output" / "a.png").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert masks(tmp_path / "output") == ["a.png", "b.png"]
    here, there = (report_lines(tmp_path / f"{run}.jsonl")[-1] for run in ("plain", "ray"))
    assert here["summary"]["evaluation"] == there["summary"]["evaluation"]


@share_a_cluster
def test_an_image_that_takes_too_long_twice_fails_alone(start, one_slow_image, cluster, tmp_path):
    # With the other three 22 images, so that every chunk has two
    names = [f"{chr(number)}.png" for number in range(ord("d"), ord("d") + 19)]
    for name in names:
        write_image(tmp_path / "in" / name)
    arguments = ("--image_path", "in", "--timeout", "1", "--ray", cluster.address)
    process = start(*arguments, "--num_workers", "2")  # a worker gets chunks of two images
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    failures = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert [line.partition(" its")[0] for line in failures] == ["failed: in/b.png:"]
    assert "--timeout 1 seconds, 2 times" in failures[0]
    assert masks(tmp_path / "output") == ["a.png", "c.png", *names]
    again = [int(number) for number in re.findall(r"died: (\d+) of their images", err)]
    # Whole chunks first, then images alone. On a busy machine a small image may be late too.
    assert len(again) == 2 and again[0] in (2, 4) and again[1] < again[0]


@share_a_cluster
def test_five_deaths_before_the_first_result_end_the_run(start, one_slow_image, cluster, tmp_path):
    for number in range(30):  # enough chunks for five deaths
        write_image(tmp_path / "in" / f"{number}.png")
    process = start("--image_path", "in", "--ray", cluster.address, "--num_workers", "2")
    while process.poll() is None:
        for pid in actors():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert "error: --ray: workers died before the first image was done: " in err


def test_a_signal_ends_the_run_in_seconds(start, tmp_path):
    for image in range(2000):
        write_image(tmp_path / "in" / f"{image}.png", seed=image % 10)
    process = start("--image_path", "in", "--ray", "local")
    wait_until(lambda: (tmp_path / "output").exists() and len(masks(tmp_path / "output")) > 10)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.wait() == 143
    assert time.monotonic() - started < 5
    wait_until(lambda: not actors())
    # All images that have an outcome are in the summary.
    done = int(re.match(r"(\d+) of 2000 images done", process.stdout.read())[1])
    assert f"{2000 - done} images were not tried" in process.stderr.read()
    for name in masks(tmp_path / "output"):
        assert (tmp_path / "output" / name).read_bytes().endswith(b"IEND\xaeB`\x82"), name


@share_a_cluster
def test_a_full_disk_stops_the_run(start, small_disk, cluster, tmp_path):
    for number in range(40):
        write_image(tmp_path / "in" / f"{number}.png", (300, 400), number)
    process = start("--image_path", "in", "--save_dir", "disk/out", "--ray", cluster.address)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "error: --save_dir " in err and "no space left on device" in err, err
    assert " images were not tried" in err


@share_a_cluster
def test_a_node_that_does_not_see_a_folder_ends_the_run(start, models, cluster, tmp_path):
    """The node sees an empty disk in the place of one folder."""
    remove_second_node(cluster)
    for folder in ("here", "unseen"):
        write_image(tmp_path / folder / "in" / "a.png")
        (tmp_path / folder / "out").mkdir()
        shutil.copytree(models / "argmax", tmp_path / folder / "model")
    hidden = f'mount -t tmpfs none "{tmp_path / "unseen"}" && exec "$@"'
    node = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={cluster.address}"]
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", *node, "--num-cpus=1", "--block"]
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: second.poll() is not None or len(nodes(cluster)) == 2)
        if second.poll() is not None:
            pytest.skip(f"needs the right to mount: {second.stderr.read().decode().strip()}")
        for unseen in ("in", "out", "model"):
            paths = {name: f"here/{name}" for name in ("in", "out", "model")}
            paths[unseen] = f"unseen/{unseen}"
            process = start(
                *("--image_path", paths["in"], "--save_dir", paths["out"]),
                *("--ray", cluster.address),
                model=tmp_path / paths["model"] / "deploy.yaml",
            )
            _, err = process.communicate(timeout=300)
            assert process.returncode == 2
            assert err.startswith("error: --ray: node ")
            assert f"can't run this program: it can't find {tmp_path / paths[unseen]}/" in err
            assert masks(tmp_path / paths["out"]) == []
    finally:
        second.terminate()
        second.wait()
    wait_until(lambda: len(nodes(cluster)) == 1)


def test_a_node_that_joins_later_and_does_not_see_the_files_is_an_error(tmp_path):
    before = actor.log.handlers, actor.log.propagate, actor.log.level
    try:
        settings = Settings(RunOptions("deploy.yaml", "in"))
        late = actor.Segment(actor.Needs([str(tmp_path / "gone")], "", "fp32"), settings, [])
    finally:
        actor.log.handlers, actor.log.propagate = before[:2]
        actor.log.setLevel(before[2])
    answer = pickle.loads(late({"chunk": [pickle.dumps([])]})["answer"][0])
    assert isinstance(answer.failure, ConfigError)
    assert "gone: model, images and --save_dir must be on" in str(answer.failure)
    assert answer.outcomes == []


def nodes(cluster):
    return [node for node in cluster.global_state.node_table() if node["Alive"]]


def test_an_actor_that_waits_for_its_next_images_is_not_late(model, tmp_path):
    """A child, which would end: it waits longer than --timeout after its images."""
    image = write_image(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    call = f"""
import pickle, time
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Job
from paddleseg_infer.runs.actor import Needs, Segment
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.settings import RunOptions, SavingOptions, Settings
run = RunOptions({str(model)!r}, {str(image)!r}, timeout=5)
settings = Settings(run, SavingOptions({str(tmp_path / "out")!r}), engine=EngineOptions("cpu"))
actor = Segment(Needs([run.config], str(find_paddle()), "fp32"), settings, [])
answer = actor({{"chunk": [pickle.dumps([Job(run.image_path, "a")])]}})
[outcome] = pickle.loads(answer["answer"][0]).outcomes
time.sleep(6)
print(outcome.status)
"""
    run = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "done\n", run.stderr


@share_a_cluster
def test_more_threads_than_any_node_has_processors_are_refused(start, cluster, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    process = start("--image_path", "in", "--ray", cluster.address, "--cpu_threads", "2")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert err == (
        "error: --ray: --cpu_threads is 2, but the processors of the largest node are 1: use a "
        "smaller --cpu_threads\n"
    )
