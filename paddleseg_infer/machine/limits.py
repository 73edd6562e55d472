"""What this machine has: the installed Paddle, processors and memory a process may use."""

import contextlib
import glob
import importlib.util
import os
import re
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paddleseg_infer.errors import ConfigError, shown


@dataclass(frozen=True)
class PaddleBuild:
    """The installed Paddle, known without importing it."""

    version: tuple[int, int, int]
    has_gpu: bool
    folder: str
    commit: str = ""
    cuda: str = "False"  # the versions it was built with
    cudnn: str = "False"

    @property
    def openvino_library(self) -> str | None:
        """The path of the OpenVINO that came with it, if one did."""
        found = glob.glob(os.path.join(glob.escape(self.folder), "libs", "libopenvino.so*"))
        return found[0] if found else None

    def __str__(self) -> str:
        return ".".join(map(str, self.version)) + (" (GPU build)" if self.has_gpu else "")


def find_paddle() -> PaddleBuild:
    """Reads `paddle/version`. Raises ConfigError where Paddle is missing or below 2.6."""
    spec = importlib.util.find_spec("paddle")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("Paddle is not installed: pip install -r requirements.txt")
    folder = spec.submodule_search_locations[0]
    try:
        with open(os.path.join(folder, "version", "__init__.py"), encoding="utf-8") as file:
            stated = dict(re.findall(r"^(\w+) *= *'(.*)'", file.read(), re.MULTILINE))
        numbers = [int(part) for part in re.findall(r"\d+", stated["full_version"])[:3]]
        major, minor, patch = [*numbers, 0, 0][:3]
    except (OSError, KeyError, ValueError):
        raise ConfigError(
            f"the Paddle in {shown(folder)} tells no version: install it again"
        ) from None
    version = (major, minor, patch)
    if (0, 0, 0) < version < (2, 6, 0):  # 0.0.0 is a build of the development branch
        raise ConfigError(
            f"Paddle {stated['full_version']} is too old: this program needs 2.6 or newer"
        )
    cuda, cudnn = (stated.get(f"{kind}_version", "False") for kind in ("cuda", "cudnn"))
    commit = stated.get("commit", "")
    return PaddleBuild(version, cuda != "False", folder, commit, cuda, cudnn)


def usable_processors() -> int:
    """How many processors this process may use: its affinity, and the quota of its cgroup."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, int(min(count, cgroup_quota())))


def available_memory() -> float:
    """Bytes that this process may have at the most; infinite where the system doesn't tell."""
    limits = [float("inf"), *map(float, resource.getrlimit(resource.RLIMIT_AS)[:1])]
    if limits[-1] == resource.RLIM_INFINITY:
        limits.pop()
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="utf-8") as file:
        found = re.search(r"^MemAvailable: *(\d+) kB", file.read(), re.MULTILINE)
        limits += [int(found[1]) * 1024] if found else []
    return min(*limits, cgroup_memory())


def cgroup_quota(groups: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> float:
    """Processors' worth of time that cgroup v2 or v1 grants; infinite where none is set."""
    limits = _limits("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), "cpu.max", groups, mount)
    return min((quota / period for quota, period in limits), default=float("inf"))


def cgroup_memory(groups: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> float:
    """Bytes that cgroup v2 or v1 grants; infinite where no limit is set.

    What of it is in use isn't subtracted: most of that is files, which the system gives back.
    """
    limits = _limits("memory", ("memory.limit_in_bytes",), "memory.max", groups, mount)
    return min((float(limit) for (limit,) in limits), default=float("inf"))


def _limits(
    controller: str, v1_names: Sequence[str], v2_name: str, groups: str, mount: str
) -> Iterator[list[int]]:
    """The numbers in the files of a limit, from the root group to this process's own."""
    try:
        with open(groups, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = f"{mount}/{controller}" if controllers else mount
        parts = [part for part in group.split("/") if part]
        for depth in range(len(parts) + 1):  # a limit may stand on any group above
            folder = os.path.join(root, *parts[:depth])
            words = []
            try:
                for name in v1_names if controllers else (v2_name,):
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        words += file.read().split()
            except OSError:
                continue  # not mounted here, or the root group, which has no limit
            if words and all(word.isdigit() for word in words):  # not "max" or -1
                yield [int(word) for word in words]
