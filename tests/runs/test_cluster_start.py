"""--ray before a cluster works: wrong addresses, missing files and packages, threads of workers."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from paddleseg_infer.runs.nodes import threads_for

pytest.importorskip("ray")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:9", "connection refused"),
        ("nonsense", "give auto, local or host:port"),
        ("ray://127.0.0.1:9", "no cluster answers: name or service not known"),
        ("host:port", "give auto, local or host:port"),
    ],
)
def test_an_address_without_a_cluster_is_an_error(infer, model, photos, address, why):
    run = infer("--config", model, "--image_path", photos, "--ray", address)
    assert run.code == 2
    assert run.err.startswith(f"error: --ray {address}: ") and why.lower() in run.err.lower()


def test_a_missing_model_is_an_error_before_a_cluster_is_started(infer, photos, tmp_path):
    run = infer("--config", "gone.yaml", "--image_path", photos, "--ray", "local")
    assert run.code == 2
    assert run.err == "error: gone.yaml: can't be read: no such file or directory\n"
    assert not (tmp_path / "output").exists()


def test_the_error_without_ray_says_how_to_install_it(infer, model, photos, tmp_path):
    (tmp_path / "without" / "ray.py").parent.mkdir()
    (tmp_path / "without" / "ray.py").write_text("raise ModuleNotFoundError('no Ray here')")
    arguments = ("--config", model, "--image_path", photos, "--ray", "auto")
    run = infer(*arguments, PYTHONPATH=str(tmp_path / "without"))
    assert run.code == 2
    assert "pip install -r requirements/ray.txt" in run.err


def test_workers_get_as_many_threads_as_possible_while_all_can_run():
    assert threads_for([8, 8], 2) == 8
    assert threads_for([8, 8], 3) == 4
    assert threads_for([64, 64], 2) == 10
    assert threads_for([1, 1], 8) == 1
    random = np.random.default_rng(0)
    for _ in range(200):
        processors = random.integers(1, 20, 4).tolist()
        workers = int(random.integers(1, 12))
        threads = threads_for(processors, workers)
        assert threads == 1 or sum(count // threads for count in processors) >= workers
        assert threads == 10 or sum(count // (threads + 1) for count in processors) < workers


LATER = """
import sys, time
from paddleseg_infer import cli
from paddleseg_infer.runs import cluster, report
def outcomes(jobs, settings, address, mark):
    from paddleseg_infer.outcomes import Outcome
    for number, job in enumerate(jobs):
        {what}
        yield Outcome(job, "done", size=(1, 1))
cluster._outcomes = outcomes
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("what", "code", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", 2, "ended with SIGKILL"),
        ("import os; number == 3 and os.kill(os.getpid(), 9)", 1, "ended with SIGKILL"),
        ("import os; number == 3 and os._exit(1)", 1, "the cluster's head has died or can't be"),
        ("import no_such_module", 2, "No module named 'no_such_module'"),
        ("if number == 3: raise ValueError('here')", 1, "in this program: ValueError: here"),
    ],
)
def test_the_end_of_the_connected_process_is_an_error(model, photos, tmp_path, what, code, why):
    """A process stands for the one that Ray ends: only a real cluster can lose its head."""
    command = [sys.executable, "-c", LATER.format(what=what), "--config", model]
    command += ["--image_path", photos, "--ray", "local", "--save_dir", tmp_path / "out"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == code
    assert why in run.stderr
    assert ("the cluster's head" in run.stderr) == ("os._exit" in what)
    assert ("Traceback" in run.stderr) == ("ValueError" in what)
    if code == 1:
        assert "2 images were not tried" in run.stderr


def test_an_error_in_the_program_ends_the_connected_process_too(model, photos, tmp_path):
    what = "time.sleep(0.1)"
    wrong = "def add(*_): raise ValueError('here')\nreport.Summary.add = add\n"
    script = LATER.format(what=what).replace("sys.exit", f"{wrong}sys.exit")
    command = [sys.executable, "-c", script, "--config", model, "--image_path", photos]
    command += ["--ray", "local", "--save_dir", tmp_path / "out"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "ValueError: here" in run.stderr
    assert run.returncode == 1
