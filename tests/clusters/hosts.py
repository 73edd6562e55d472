"""Hosts of their own on this machine: network namespaces with a bridge between them.

Needs root, and Debian's iproute2. All hosts see the same files, but each has its own folder for
Ray's files, its own network and its own processes.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SUBNET = "10.77.0"
PORT = 6379
RAY = Path(sys.executable).with_name("ray")
# Each host has its own folder /tmp/ray, and hides `hidden` behind an empty disk.
PRIVATE = """
mkdir -p /tmp/ray && mount -t tmpfs -o size=2g none /tmp/ray
for folder in $hidden; do mount -t tmpfs none "$folder"; done
exec "$@"
"""


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True)


class Hosts:
    """Hosts `0`, `1`, ... with the addresses 10.77.0.1, 10.77.0.2, ..."""

    def __init__(self, count):
        self._prefix = f"host-{os.getpid()}-"
        self._switch = f"{self._prefix}switch"
        self.count = count
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

    def name(self, number):
        return f"{self._prefix}{number}"

    def address(self, number):
        return f"{SUBNET}.{number + 1}"

    def start(self, number, *command, hidden=(), **how):
        """Starts a command on a host."""
        environment = {**os.environ, **how.pop("environment", {})}
        environment["hidden"] = " ".join(map(str, hidden))
        inside = ["unshare", "--mount", "sh", "-c", PRIVATE, "sh", *map(str, command)]
        line = ["ip", "netns", "exec", self.name(number), *inside]
        return subprocess.Popen(line, env=environment, **how)

    def link(self, number, state):
        """Connects a host (`up`) or cuts it off (`down`), at the switch."""
        ip("-n", self._switch, "link", "set", f"port{number}", state)

    def pids(self, number):
        command = ["ip", "netns", "pids", self.name(number)]
        return [int(pid) for pid in subprocess.check_output(command, text=True).split()]

    def kill(self, number):
        """Ends all processes of a host at once."""
        for pid in self.pids(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.pids(number):
            time.sleep(0.05)

    def remove(self):
        for number in range(self.count):
            self.kill(number)
            ip("netns", "delete", self.name(number))
        ip("netns", "delete", self._switch)


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
