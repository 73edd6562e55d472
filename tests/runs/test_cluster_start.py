"""--ray before a cluster works: wrong addresses, missing files and packages, threads of workers."""

import numpy as np
import pytest

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
