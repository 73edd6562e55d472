"""Separate hosts on this machine: network namespaces with a bridge between them.

Needs root, and Debian's iproute2. All hosts see the same files, but each has its own folder for
Ray's files, its own network and its own processes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT, masks, report_lines, wait_until

IMAGES = 1000
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled"}
SUBNET = "10.77.0"
PORT = 6379
RAY = Path(sys.executable).with_name("ray")
# The first process of each host: its own disk for Ray's files.
HOST = "mkdir -p /tmp/ray && mount -t tmpfs -o size=2g none /tmp/ray && echo && exec sleep infinity"
# An empty disk hides each folder of `hidden`.
HIDE = 'for folder in $hidden; do mount -t tmpfs none "$folder"; done; exec "$@"'


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True)


class Hosts:
    """Hosts `0`, `1`, ... with the addresses 10.77.0.1, 10.77.0.2, ..."""

    def __init__(self, count):
        self._prefix = f"host-{os.getpid()}-"
        self._switch = f"{self._prefix}switch"
        self.count = count
        self._first = []
        try:
            self._make(count)
        except BaseException:
            self.remove()
            raise

    def _make(self, count):
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._switch, "link", "set", "bridge", "up")
        for number in range(count):
            name, port = self.name(number), f"port{number}"
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            pair = ("type", "veth", "peer", "name", port, "netns", self._switch)
            ip("-n", name, "link", "add", "eth0", *pair)
            ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            command = ["ip", "netns", "exec", name, "unshare", "--mount", "sh", "-c", HOST]
            self._first.append(subprocess.Popen(command, stdout=subprocess.PIPE))
            self._first[-1].stdout.readline()

    def name(self, number):
        return f"{self._prefix}{number}"

    def address(self, number):
        return f"{SUBNET}.{number + 1}"

    def start(self, number, *command, hidden=(), **how):
        """Starts a command on a host."""
        environment = {**os.environ, **how.pop("environment", {})}
        environment["hidden"] = " ".join(map(str, hidden))
        line = ["nsenter", f"--target={self._first[number].pid}", "--mount", "--net"]
        line += ["unshare", "--mount", "sh", "-c", HIDE, "sh"] if hidden else []
        return subprocess.Popen([*line, *map(str, command)], env=environment, **how)

    def link(self, number, state):
        """Connects a host (`up`) or cuts it off (`down`), at the switch."""
        ip("-n", self._switch, "link", "set", f"port{number}", state)

    def pids(self, number):
        command = ["ip", "netns", "pids", self.name(number)]
        return [int(pid) for pid in subprocess.check_output(command, text=True).split()]

    def kill(self, number):
        """Ends all processes of a host at once, and removes Ray's files."""
        while running := set(self.pids(number)) - {self._first[number].pid}:
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.start(number, "sh", "-c", "rm -rf /tmp/ray/*").wait()

    def remove(self):
        for number, first in enumerate(self._first):
            self.kill(number)
            first.kill()
            first.communicate()
        found = subprocess.check_output(["ip", "netns", "list"], text=True)
        for line in found.splitlines():
            if line.startswith(self._prefix):
                ip("netns", "delete", line.split()[0])


class Cluster:
    """A Ray cluster whose head is host 0."""

    def __init__(self, hosts, environment):
        self.hosts = hosts
        self.environment = {**environment, "RAY_USAGE_STATS_ENABLED": "0"}
        self.address = f"{hosts.address(0)}:{PORT}"

    def start_head(self):
        head = ("--head", f"--port={PORT}", "--include-dashboard=false")
        self._start(0, *head)
        self.wait_for(1)

    def start_node(self, number, *before, address="", **how):
        """Starts a node on a host, which isn't waited for. `before` is put before `ray start`."""
        self._start(number, f"--address={address or self.address}", before=before, **how)

    def _start(self, number, *words, before=(), environment=(), **how):
        words = ("start", *words, f"--node-ip-address={self.hosts.address(number)}")
        self.hosts.start(
            number,
            *(*before, RAY, *words, "--num-cpus=1", "--block"),
            environment={**self.environment, **dict(environment)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **how,
        )

    def nodes(self):
        """Returns the number of nodes that are alive."""
        code = (
            "import ray; from ray._private.state import GlobalState; "
            "from ray._raylet import GcsClientOptions; s = GlobalState(); "
            f"s._initialize_global_state(GcsClientOptions.create('{self.address}', None, True, "
            "False)); print(sum(n['Alive'] for n in s.node_table()))"
        )
        process = self.hosts.start(
            *(0, sys.executable, "-c", code),
            environment=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        out = process.communicate()[0].split()
        return int(out[-1]) if out else 0

    def wait_for(self, count, seconds=90):
        """Waits until so many nodes are alive."""
        deadline = time.monotonic() + seconds
        while self.nodes() != count:
            assert time.monotonic() < deadline, f"not {count} nodes"
            time.sleep(0.5)


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
        text = self.report.read_text() if self.report.exists() else ""
        whole = text.rpartition("\n")[0].splitlines()  # the last line may be incomplete
        return (
            len(whole) >= count and len({json.loads(each)["worker"] for each in whole}) >= workers
        )

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
            if "core_worker" not in line and f" of {IMAGES} images, " not in line
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


# A program that passes on what it gets, 0.2 s later.
PROXY = """
import asyncio, sys
async def pipe(reader, writer):
    while data := await reader.read(65536):
        await asyncio.sleep(0.2)
        writer.write(data)
        await writer.drain()
    writer.close()
async def connect(reader, writer):
    there = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(connect, sys.argv[1], int(sys.argv[3]))
    await server.serve_forever()
asyncio.run(main())
"""
