"""Finds the number of processors and the memory that this process may use."""

import contextlib
import os
import re
import resource
from collections.abc import Iterator, Sequence


def usable_processors() -> int:
    """Returns the number of processors that this process's affinity and cgroup allow."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, int(min(count, cgroup_quota())))


def available_memory() -> float:
    """Returns the most bytes that this process can get; infinity if the system has no limit."""
    limits = [float("inf"), *map(float, resource.getrlimit(resource.RLIMIT_AS)[:1])]
    if limits[-1] == resource.RLIM_INFINITY:
        limits.pop()
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="utf-8") as file:
        found = re.search(r"^MemAvailable: *(\d+) kB", file.read(), re.MULTILINE)
        limits += [int(found[1]) * 1024] if found else []
    return min(*limits, cgroup_memory())


def cgroup_quota(groups: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> float:
    """Returns the quota in processors of a cgroup, v1 or v2; infinity if none is set."""
    limits = _limits("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), "cpu.max", groups, mount)
    return min((quota / period for quota, period in limits), default=float("inf"))


def cgroup_memory(groups: str = "/proc/self/cgroup", mount: str = "/sys/fs/cgroup") -> float:
    """Returns the memory limit in bytes of a cgroup, v1 or v2; infinity if none is set.

    Used memory isn't subtracted: most of it is cached files, which the system frees.
    """
    limits = _limits("memory", ("memory.limit_in_bytes",), "memory.max", groups, mount)
    return min((float(limit) for (limit,) in limits), default=float("inf"))


def _limits(
    controller: str, v1_names: Sequence[str], v2_name: str, groups: str, mount: str
) -> Iterator[list[int]]:
    """Yields the numbers of a limit for each group, from the root to this process's own."""
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
        for depth in range(len(parts) + 1):  # any parent group may have a limit
            folder = os.path.join(root, *parts[:depth])
            words = []
            try:
                for name in v1_names if controllers else (v2_name,):
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        words += file.read().split()
            except OSError:
                continue  # not mounted here, or the root group without a limit
            if words and all(word.isdigit() for word in words):  # not "max" or -1
                yield [int(word) for word in words]
