"""The program finds Paddle's version, the processors and the memory without importing Paddle."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from paddleseg_infer.errors import ConfigError
from paddleseg_infer.machine import limits as machine
from paddleseg_infer.machine.paddle_build import find_paddle


@pytest.fixture
def fake_paddle(tmp_path, monkeypatch):
    """A function that puts a fake Paddle with this version file first on the import path."""

    def put(text):
        folder = tmp_path / "paddle" / "version"
        folder.mkdir(parents=True)
        (tmp_path / "paddle" / "__init__.py").write_text("raise SystemExit('imported')")
        (folder / "__init__.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "paddle", raising=False)

    return put


def test_the_version_found_is_that_of_the_installed_paddle():
    code = "import paddle; print(paddle.__version__, paddle.is_compiled_with_cuda())"
    process = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    version, has_gpu = process.stdout.decode().split()[-2:]
    build = find_paddle()
    assert ".".join(map(str, build.version)) == version
    assert str(build.has_gpu) == has_gpu


@pytest.mark.parametrize(
    ("text", "version", "has_gpu"),
    [
        ("full_version = '2.6.2'\ncuda_version = '11.8'", (2, 6, 2), True),
        ("full_version    = '3.0.0-beta1'\ncuda_version = 'False'", (3, 0, 0), False),
        ("full_version = '2.6.0'\n", (2, 6, 0), False),  # the oldest
        ("full_version = '3.4'\n", (3, 4, 0), False),
        ("full_version = '0.0.0'\n", (0, 0, 0), False),
    ],
)
def test_version_and_gpu_support_are_read(fake_paddle, text, version, has_gpu):
    fake_paddle(text)
    build = find_paddle()
    assert (build.version, build.has_gpu) == (version, has_gpu)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("full_version = '2.5.2'", "Paddle 2.5.2 is too old: this program needs 2.6"),
        ("nothing = 1", "has no readable version"),
    ],
)
def test_an_old_or_unknown_paddle_is_refused(fake_paddle, text, message):
    fake_paddle(text)
    with pytest.raises(ConfigError, match=message):
        find_paddle()


def test_a_missing_paddle_gives_an_error_message():
    code = "from paddleseg_infer.machine.paddle_build import find_paddle; find_paddle()"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert "Paddle is not installed: run pip install -r requirements.txt" in run.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_the_affinity_limits_the_number_of_processors():
    code = "import os; from paddleseg_infer.machine import limits as machine; "
    code += "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "print(machine.usable_processors())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "1\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, float("inf")),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"cpu.max": "800000 100000", "a/cpu.max": "400000 100000"}, 4),
        ("0::/gone/b\n", {"cpu.max": "400000 100000"}, 4),
        (
            "3:cpu,cpuacct:/x\n2:memory:/\n0::/\n",
            {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (
            "3:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            float("inf"),
        ),
        ("2:memory:/\n", {"cpu.max": "100000 100000"}, float("inf")),
        (  # a group of another controller, whose name only begins as cpu's does
            "4:cpuset:/x\n3:cpu:/y\n",
            {
                **{"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"},
                **{"cpu/y/cpu.cfs_quota_us": "200000", "cpu/y/cpu.cfs_period_us": "100000"},
            },
            2,
        ),
    ],
)
def test_the_processor_quota_of_a_container_is_found(tmp_path, cgroup, files, quota):
    (tmp_path / "self").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert machine.cgroup_quota(str(tmp_path / "self"), str(tmp_path / "fs")) == quota


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "max"}, float("inf")),
        ("0::/a\n", {"memory.max": "max", "a/memory.max": "4096"}, 4096),
        ("2:memory:/x\n", {"memory/x/memory.limit_in_bytes": "512"}, 512),
        ("2:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "512"}, float("inf")),
    ],
)
def test_the_memory_limit_of_a_container_is_found(tmp_path, cgroup, files, limit):
    (tmp_path / "self").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert machine.cgroup_memory(str(tmp_path / "self"), str(tmp_path / "fs")) == limit


def test_the_available_memory_is_a_plausible_number():
    assert 1 << 20 < machine.available_memory() < 1 << 60
