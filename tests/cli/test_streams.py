"""Standard streams: full, closed, missing, or those of a notebook that calls `main`."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, masks, write_image

NOTEBOOK = """
import io, os, runpy, signal, sys, logging

class Cell(io.StringIO):  # a notebook's standard output: prints don't go to descriptor 1
    encoding = "utf-8"
    def fileno(self):
        raise io.UnsupportedOperation

def cell():
    from paddleseg_infer.cli import main
    return main(arguments)

def script():
    sys.argv = [infer, *arguments]
    try:
        runpy.run_path(infer, run_name="__main__")
    except SystemExit as end:
        return end.code

infer, how, *arguments = sys.argv[1:]
print("before")
terminal, descriptor, interrupt = sys.stdout, os.fstat(1), signal.getsignal(signal.SIGINT)
sys.stdout = Cell()
for _ in range(2):
    assert {"main": cell, "run": script}[how]() == 0
    print("between")
assert sys.stdout.getvalue().count("1 of 1 images done") == 2, sys.stdout.getvalue()
assert sys.stdout.getvalue().count("between") == 2
sys.stdout = terminal
assert os.path.samestat(os.fstat(1), descriptor)
assert signal.getsignal(signal.SIGINT) is interrupt
assert logging.getLogger("paddleseg_infer").propagate and not logging.getLogger().handlers
code = {"main": cell, "run": script}[how]()
print("after", code)
os.write(1, b"written\\n")
"""


@pytest.mark.parametrize("how", ["main", "run"])
@pytest.mark.parametrize("name", ["argmax", "mean"])
def test_a_notebook_keeps_its_standard_output(tmp_path, request, how, name):
    """`mean` is a model for which Paddle itself prints a line while it runs."""
    folder = request.getfixturevalue("json_models" if name == "mean" else "models") / name
    write_image(tmp_path / "a.png")
    run = subprocess.run(
        [
            *(sys.executable, "-c", NOTEBOOK, str(ROOT / "infer.py"), how),
            *("--config", str(folder / "deploy.yaml"), "--image_path", "a.png", "--device", "cpu"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    before, done, *after = run.stdout.splitlines()
    assert before == "before" and done.startswith("1 of 1 images done")
    assert after == ["after 0", "written"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "gone.yaml", "--image_path", "a.png"],
        ["--config", "gone.yaml", "--image_path", "gone.png"],
        ["--nonsense"],
    ],
)
def test_a_full_standard_error_does_not_change_the_exit_code(tmp_path, arguments):
    write_image(tmp_path / "a.png")
    with open("/dev/full", "w") as full:
        command = [sys.executable, ROOT / "infer.py", *arguments]
        run = subprocess.run(command, cwd=tmp_path, stderr=full, stdout=subprocess.PIPE)
    assert run.returncode == 2


def test_a_full_standard_error_does_not_stop_a_run(tmp_path, model):
    write_image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "bad.png").write_text("no picture")
    command = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", "in"]
    with open("/dev/full", "w") as full:
        run = subprocess.run([*command, "--device", "cpu"], cwd=tmp_path, stderr=full)
    assert run.returncode == 1
    assert masks(tmp_path / "output") == ["a.png"]


def test_a_root_without_a_null_device_will_do(tmp_path, model):
    """A chroot, for instance, may have no /dev."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root, and unshare")
    write_image(tmp_path / "a.png")
    hidden = 'mount -t tmpfs none /dev && exec "$@"'
    program = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", "a.png"]
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", *program, "--device", "cpu"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "permission denied" in run.stderr:
        pytest.skip("needs the right to mount")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("1 of 1 images done")
    assert "Traceback" not in run.stderr


def test_a_pattern_that_the_shell_has_expanded_is_explained(infer, model, photos):
    names = sorted(str(path) for path in photos.iterdir())
    run = infer("--config", model, "--image_path", *names)
    assert run.code == 2
    assert run.err.startswith(
        f"error: --image_path takes one path, but 4 more were given: {names[1]}, .... Name the "
        "folder, or a text file of one image a line"
    )
    run = infer("--config", model, "--image_path", names[0], "--imge", "x")
    assert run.err.startswith("error: unrecognized arguments: --imge x; ")
