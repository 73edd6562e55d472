"""--ray on three hosts of their own: nodes that are cut off, killed, slow or set up wrongly.

`make stress-hosts` runs it, and prints a line for each case: seconds, exit code, and what infer.py
printed.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from conftest import ROOT, masks, report_lines, scene, wait_until
from hosts import Cluster, Hosts

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("ip"), reason="needs Debian's iproute2"),
]
IMAGES = 1000
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with images, a model, and the masks of a run without Ray."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(ROOT / "demo" / "model", folder / "model")
    (folder / "in").mkdir()
    for number in range(IMAGES):
        path = folder / "in" / f"{number}.png"
        if number < 20:
            image = cv2.resize(scene(96, 128, number), (1280, 960))
            cv2.imwrite(str(path), image)
        else:
            os.link(folder / "in" / f"{number % 20}.png", path)
    command = [sys.executable, ROOT / "infer.py", "--config", folder / "model" / "deploy.yaml"]
    command += ["--image_path", folder / "in", "--save_dir", folder / "plain", "--quiet"]
    started = time.monotonic()
    subprocess.run(
        [*command, "--device", "cpu", "--cpu_threads", "1", "--num_workers", "2"], check=True
    )
    print(f"\nwithout Ray, two workers: {time.monotonic() - started:.0f} s")
    return folder


@pytest.fixture(scope="module")
def hosts():
    hosts = Hosts(3)
    yield hosts
    hosts.remove()


@pytest.fixture
def cluster(hosts):
    """A cluster of three nodes with one processor each, the first of which is the head."""
    cluster = Cluster(hosts, ENVIRONMENT)
    cluster.start_head()
    for number in (1, 2):
        hosts.link(number, "up")
        cluster.start_node(number)
    cluster.wait_for(3)
    yield cluster
    for number in range(3):
        hosts.kill(number)


class Run:
    """A run of infer.py on host 0."""

    def __init__(self, cluster, data, folder, *more):
        self.folder = folder
        self.report = folder / "report.jsonl"
        self.data = data
        command = [sys.executable, ROOT / "infer.py", "--ray", cluster.address, "--device", "cpu"]
        command += ["--config", data / "model" / "deploy.yaml", "--image_path", data / "in"]
        command += ["--num_workers", "3", "--save_dir", folder / "out", "--report", self.report]
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self.started = time.monotonic()
            self.process = cluster.hosts.start(
                *(0, *command, *more),
                environment=ENVIRONMENT,
                stdout=out,
                stderr=err,
            )

    def has_results(self, count, workers=1):
        """Returns whether so many images have results, from so many workers."""
        lines = report_lines(self.report) if self.report.exists() else []
        return len(lines) >= count and len({line.get("worker") for line in lines}) >= workers

    def wait_for_results(self, count, workers=3):
        wait_until(lambda: self.process.poll() is not None or self.has_results(count, workers), 120)
        assert self.process.poll() is None, self.err

    def end(self, bound):
        """Waits for the end. Returns the exit code."""
        code = self.process.wait(bound)
        print(f"\n{time.monotonic() - self.started:.0f} s, exit code {code}\n{self.out}{self.err}")
        return code

    @property
    def out(self):
        return self._out.read_text()

    @property
    def err(self):
        return "".join(
            line
            for line in self._err.read_text().splitlines(keepends=True)
            if "core_worker" not in line and " of 1000 images, " not in line
        )

    def check_complete(self):
        """Checks that all masks are those of the run without Ray, and that the report is whole."""
        found = [name for name in masks(self.folder / "out") if not name.endswith(".part")]
        assert found == masks(self.data / "plain")
        for name in found:
            plain = (self.data / "plain" / name).read_bytes()
            assert (self.folder / "out" / name).read_bytes() == plain
        lines = [line for line in report_lines(self.report) if "image" in line]
        assert len({line["image"] for line in lines}) == IMAGES
        assert {line["status"] for line in lines} <= {"done", "skipped"}


def test_undisturbed(cluster, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    assert run.end(300) == 0
    run.check_complete()


def test_a_link_is_down_for_twenty_seconds(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    hosts.link(2, "down")
    time.sleep(20)
    hosts.link(2, "up")
    assert run.end(300) == 0
    run.check_complete()


def test_a_link_is_down_for_good(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    hosts.link(2, "down")
    assert run.end(400) == 0
    run.check_complete()


def test_a_node_is_killed(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    hosts.kill(2)
    assert run.end(400) == 0
    run.check_complete()


def test_the_head_is_killed_and_resume_completes_the_run(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    for pid in hosts.pids(0):
        words = Path(f"/proc/{pid}/cmdline").read_text()
        if "gcs_server" in words or "raylet/raylet" in words:
            os.kill(pid, 9)
    assert run.end(400) in (1, 2)
    assert "error: --ray: " in run.err
    command = [sys.executable, ROOT / "infer.py", "--config", data / "model" / "deploy.yaml"]
    command += ["--image_path", data / "in", "--save_dir", tmp_path / "out", "--resume"]
    command += ["--report", run.report, "--device", "cpu", "--quiet"]
    assert subprocess.run(command).returncode == 0
    run.check_complete()
