"""--ray on three separate hosts: nodes that are cut off, killed, slow or set up wrongly.

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
from conftest import ROOT, masks, scene
from hosts import ENVIRONMENT, IMAGES, PORT, PROXY, Cluster, Hosts, Run

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("ip"), reason="needs Debian's iproute2"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with images, a model, and the masks of a run without Ray."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(ROOT / "demo" / "model", folder / "model")
    (folder / "in").mkdir()
    for number in range(IMAGES):
        path = folder / "in" / f"{number}.png"
        if number < 20:
            image = cv2.resize(scene(96, 128, number), (640, 480))
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


def test_undisturbed(cluster, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    assert run.end(300) == 0
    run.check_complete()


def test_a_link_is_down_for_twenty_seconds(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    hosts.link(2, "down")
    time.sleep(20)
    assert run.process.poll() is None
    hosts.link(2, "up")
    assert run.end(300) == 0
    run.check_complete()


def test_a_link_is_down_for_good(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    hosts.link(2, "down")
    assert run.end(400) == 0
    assert "workers died" in run.err
    run.check_complete()


def test_a_node_is_killed(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    hosts.kill(2)
    assert len(hosts.pids(2)) == 1
    assert run.end(400) == 0
    assert "has been marked dead" in run.err
    run.check_complete()


def test_the_head_is_killed_and_resume_completes_the_run(cluster, hosts, data, tmp_path):
    run = Run(cluster, data, tmp_path)
    run.wait_for_results(100)
    for pid in hosts.pids(0):
        words = Path(f"/proc/{pid}/cmdline").read_text()
        if "gcs_server" in words or "raylet/raylet" in words:
            os.kill(pid, 9)
    assert run.end(400) == 1
    assert "error: --ray: the cluster's head has died or can't be reached" in run.err
    assert "images were not tried: run the command again with --resume" in run.err
    command = [sys.executable, ROOT / "infer.py", "--config", data / "model" / "deploy.yaml"]
    command += ["--image_path", data / "in", "--save_dir", tmp_path / "out", "--resume"]
    command += ["--report", run.report, "--device", "cpu", "--quiet"]
    assert subprocess.run(command).returncode == 0
    run.check_complete()


# ---- nodes that are slow, or set up wrongly ------------------------------------------------------


@pytest.fixture
def two_nodes(hosts):
    """A cluster of two nodes. The third host has none yet."""
    cluster = Cluster(hosts, ENVIRONMENT)
    cluster.start_head()
    cluster.start_node(1)
    cluster.wait_for(2)
    yield cluster
    for number in range(3):
        hosts.kill(number)


def test_the_way_to_the_head_is_slow(two_nodes, hosts, data, tmp_path):
    """A proxy delays what the third host and Ray's head send to each other by 0.2 s."""
    ports = (str(PORT), str(PORT + 1))
    hosts.start(0, sys.executable, "-c", PROXY, hosts.address(0), *ports)
    two_nodes.start_node(2, address=f"{hosts.address(0)}:{PORT + 1}")
    two_nodes.wait_for(3)
    run = Run(two_nodes, data, tmp_path)
    assert run.end(300) == 0
    run.check_complete()


@pytest.mark.skipif(not shutil.which("faketime"), reason="needs Debian's faketime")
def test_a_clock_is_an_hour_fast(two_nodes, data, tmp_path):
    two_nodes.start_node(2, "faketime", "-f", "+1h")
    two_nodes.wait_for(3)
    run = Run(two_nodes, data, tmp_path)
    assert run.end(300) == 0
    run.check_complete()


def test_a_node_has_another_paddle(two_nodes, data, tmp_path):
    other = tmp_path / "other"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", other]
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", other]
    subprocess.run([*command, "paddlepaddle==3.1.1"], check=True)
    two_nodes.start_node(2, environment={"PYTHONPATH": str(other)})
    two_nodes.wait_for(3)
    run = Run(two_nodes, data, tmp_path)
    assert run.end(120) == 2
    assert (
        f"node {two_nodes.hosts.address(2)} can't run this program: it has Paddle 3.1.1" in run.err
    )
    assert masks(tmp_path / "out") == []


def test_a_node_has_no_model(two_nodes, data, tmp_path):
    two_nodes.start_node(2, hidden=[data / "model"])
    two_nodes.wait_for(3)
    run = Run(two_nodes, data, tmp_path)
    assert run.end(120) == 2
    assert f"it can't find {data / 'model'}" in run.err
    assert masks(tmp_path / "out") == []


def test_the_own_disk_of_a_node_is_full(two_nodes, hosts, data, tmp_path):
    """The disk with Ray's files, not that of the masks."""
    two_nodes.start_node(2)
    two_nodes.wait_for(3)
    run = Run(two_nodes, data, tmp_path)
    run.wait_for_results(100)
    fill = "dd if=/dev/zero of=/tmp/ray/filling bs=1M 2>/dev/null; df /tmp/ray | grep -q 100%"
    assert hosts.start(2, "sh", "-c", fill).wait() == 0
    assert run.end(300) == 0
    run.check_complete()


@pytest.mark.skipif(not shutil.which("sshd"), reason="needs Debian's openssh-server")
def test_the_example_with_ssh(hosts, data, tmp_path):
    """examples/ray.sh. The nodes don't have the head's token before."""
    for name in ("host", "user"):
        key = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    config = tmp_path / "sshd.conf"
    config.write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\n"
        "PermitRootLogin yes\nUsePAM no\nPidFile none\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    for number in (1, 2):
        token = Path.home() / ".ray"
        token.mkdir(exist_ok=True)
        hosts.start(number, shutil.which("sshd"), "-D", "-f", config, hidden=[token])
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -q -i {tmp_path}/user "
        '-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "$@"\n'
    )
    ssh.chmod(0o755)
    (tmp_path / "home" / ".ray").mkdir(parents=True)
    (tmp_path / "home" / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    environment = {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "MODEL": str(data / "model"),
        "IMAGES": str(data / "in"),
        "MASKS": str(tmp_path / "out"),
    }
    started = time.monotonic()
    script = ROOT / "examples" / "ray.sh"
    how = {"environment": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = hosts.start(0, script, hosts.address(1), hosts.address(2), text=True, **how)
    out = process.communicate(timeout=300)[0]
    print(f"\n{time.monotonic() - started:.0f} s, exit code {process.returncode}\n{out[-2000:]}")
    assert process.returncode == 0
    assert "3 nodes, 3 workers" in out
    assert [each for each in masks(tmp_path / "out") if ".part" not in each] == masks(
        data / "plain"
    )
    for number in range(3):
        hosts.kill(number)
