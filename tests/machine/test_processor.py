"""The processor's features decide whether bf16 can be used."""

import shutil
import subprocess
import sys

import pytest
from conftest import BUILD, ROOT

from paddleseg_infer.machine.processor import described, missing_for_bf16

LINES = "processor\t: {n}\nmodel name\t: A processor\nflags\t\t: fpu sse2 {flags}\nMHz\t: {n}\n\n"


def cpu_info(folder, flags):
    path = folder / "cpuinfo"
    path.write_text("".join(LINES.format(n=n, flags=flags) for n in range(2)))
    return str(path)


@pytest.mark.parametrize(
    ("flags", "is_missing"),
    [
        ("avx512f avx512_bf16", False),
        ("avx512f amx_bf16 amx_tile", False),
        ("avx512f avx512_bf16x", True),
        ("avx512f avx512_vnni", True),
        ("", True),
    ],
)
def test_bf16_needs_one_of_two_features(tmp_path, flags, is_missing):
    missing = missing_for_bf16(cpu_info(tmp_path, flags))
    assert missing == ("this processor has neither avx512_bf16 nor amx_bf16" if is_missing else "")


def test_a_system_without_the_file_has_no_bf16(tmp_path):
    assert missing_for_bf16(str(tmp_path / "gone"))


def test_the_description_has_each_line_once_and_nothing_that_changes(tmp_path):
    found = described(cpu_info(tmp_path, "avx2"))
    assert found == "flags\t\t: fpu sse2 avx2\nmodel name\t: A processor"


def on_another_processor(tmp_path, *command):
    """Runs a command on a system that reports a processor without bf16."""
    (tmp_path / "cpuinfo").write_text("model name\t: Old\nflags\t\t: fpu sse2 avx2 avx512f\n")
    bind = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
    hidden = ["unshare", "--mount", "sh", "-c", bind, tmp_path / "cpuinfo"]
    if not shutil.which("unshare") or subprocess.run([*hidden, "true"]).returncode:
        pytest.skip("needs root, to show another /proc/cpuinfo to a process")
    return subprocess.run(
        [str(word) for word in [*hidden, sys.executable, *command]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_a_processor_without_bf16_is_an_error(models, photos, tmp_path):
    run = on_another_processor(
        tmp_path,
        *(ROOT / "infer.py", "--config", models / "argmax" / "deploy.yaml"),
        *("--image_path", "photos", "--device", "cpu", "--precision", "bf16"),
    )
    assert run.returncode == 2
    assert run.stderr == (
        "error: --precision bf16: this processor has neither avx512_bf16 nor amx_bf16: "
        "use --precision fp32\n"
    )
    assert not (tmp_path / "output").exists()


def test_a_node_whose_processor_has_no_bf16_is_refused(models, tmp_path):
    config = str(models / "argmax" / "deploy.yaml")
    call = f"""
from paddleseg_infer.runs.actor import Needs, obstacle
for precision in ("bf16", "fp32"):
    print(obstacle(Needs(({config!r},), {str(BUILD)!r}, precision)))
"""
    run = on_another_processor(
        tmp_path, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}){call}"
    )
    assert run.stdout.splitlines() == [
        "for --precision bf16, this processor has neither avx512_bf16 nor amx_bf16: "
        "use --precision fp32, or a cluster without this node",
        "",
    ]
