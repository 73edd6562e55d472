"""The engine runs both graph formats like Paddle's public interface, and its errors are clear."""

import os
import shutil
import subprocess
import sys

import numpy as np
import oracle
import pytest
from conftest import PADDLE, ROOT, scene

from paddleseg_infer.config import engine_config, resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.native import load_core
from paddleseg_infer.engines.paddle import load_paddle
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ConfigError, EngineError, gist
from paddleseg_infer.machine.paddle_build import PaddleBuild, find_paddle
from paddleseg_infer.preprocess import prepare

BUILD = find_paddle()


def predictor(folder, **options):
    """Returns a function that runs a tensor through the model and returns its output."""
    deploy = load_deploy_config(folder / "deploy.yaml")
    engine = load_paddle(
        Setup(deploy, resolved(EngineOptions(device="cpu", **options), BUILD), BUILD)
    )
    return lambda tensor: engine(tensor)[0]


def tensor(size=(48, 64), images=1):
    return np.stack([prepare(scene(*size, n), []).tensor() / 255 for n in range(images)])


@pytest.mark.parametrize("mkldnn", [None, True, False])
@pytest.mark.parametrize("name", ["argmax", "logits", "keepdim", "foreground", "softmax"])
def test_outputs_equal_those_of_paddles_public_interface(models, name, mkldnn):
    config = models / name / "deploy.yaml"
    image = scene(48, 64)
    sample = prepare(image, load_deploy_config(config).transforms)
    output = predictor(models / name, enable_mkldnn=mkldnn, cpu_threads=2)(sample.tensor()[None])
    expected = oracle.Oracle(str(config), mkldnn, threads=2).output(image)
    assert output.dtype == expected.dtype
    assert np.array_equal(output, expected)


@pytest.mark.parametrize("mkldnn", [None, True, False])
def test_a_json_graph_runs_on_paddle_3(json_models, models, mkldnn, caplog):
    scores = predictor(json_models / "softmax", enable_mkldnn=mkldnn)(tensor())
    same = predictor(models / "softmax", enable_mkldnn=mkldnn)(tensor())
    assert np.allclose(scores, same, atol=1e-5)  # the same seed made the same network
    messages = [record.message for record in caplog.records]
    if PADDLE[:2] == (3, 3) and mkldnn is not False:
        assert len(messages) == 1
        assert "most of oneDNN is turned off" in messages[0]
    else:
        assert not messages


def test_a_json_graph_is_refused_before_paddle_2_reads_it(json_models):
    deploy = load_deploy_config(json_models / "softmax" / "deploy.yaml")
    paddle_2 = PaddleBuild((2, 6, 2), has_gpu=False, folder="")
    with pytest.raises(ConfigError, match=r"Paddle 2.6.2 can't run.*FLAGS_enable_pir_api=0"):
        engine_config(None, deploy, EngineOptions("cpu"), paddle_2)


def test_the_options_reach_the_engine(models):
    deploy = load_deploy_config(models / "argmax" / "deploy.yaml")
    core = load_core(BUILD, use_gpu=False)

    def state(**options):
        options = resolved(EngineOptions(device="cpu", **options), BUILD)
        return engine_config(core, deploy, options, BUILD)

    assert state(cpu_threads=3).cpu_math_library_num_threads() == 3
    assert state().mkldnn_enabled()  # Paddle's default
    assert state(enable_mkldnn=True).mkldnn_enabled()
    assert not state(enable_mkldnn=False).mkldnn_enabled()
    assert state().glog_info_disabled()
    assert not state(print_detail=True).glog_info_disabled()


def test_a_batch_gives_the_same_outputs_as_its_images_alone(models):
    run = predictor(models / "logits")
    batch = tensor(images=3)
    assert np.array_equal(run(batch), np.concatenate([run(batch[n : n + 1]) for n in range(3)]))


def test_a_size_that_the_network_refuses_is_an_error_and_later_runs_still_work(models):
    run = predictor(models / "needs16")
    before = run(tensor())
    with pytest.raises(EngineError) as caught:
        run(tensor((3, 5)))
    assert 10 < len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    assert np.array_equal(run(tensor()), before)


def test_the_output_is_a_copy(models):
    run = predictor(models / "logits")
    first = run(tensor())
    kept = first.copy()
    run(1 - tensor())
    assert np.array_equal(first, kept)


def test_an_output_of_fewer_rows_than_the_batch_is_an_error(models):
    run = predictor(models / "first_only")
    assert run(tensor()).shape == (1, 48, 64)
    with pytest.raises(EngineError, match=r"its output has the shape \[1, 48, 64\] for 3 images"):
        run(tensor(images=3))


def test_an_empty_output_is_an_error(models):
    run = predictor(models / "crops8", enable_mkldnn=False)
    assert run(tensor()).shape == (1, 40, 56)
    with pytest.raises(EngineError, match=r"the shape \[1, 0, 0\] for 1 images|numel must > 0"):
        run(tensor((8, 8)))


def test_a_path_that_is_not_utf8_gives_an_error_message(models, tmp_path):
    folder = tmp_path / os.fsdecode(b"mod\xe9l")
    shutil.copytree(models / "argmax", folder)
    with pytest.raises(ConfigError, match=r"mod\\xe9l.* isn't UTF-8, but Paddle opens only"):
        predictor(folder)


@pytest.mark.parametrize("name", ["logits", "classes300"])
def test_parameters_of_another_model_give_an_error_message(model_copy, models, name):
    folder = model_copy("argmax")
    (folder / "model.pdiparams").write_bytes((models / name / "model.pdiparams").read_bytes())
    with pytest.raises(ConfigError, match="can't load .*model.pdmodel with .*model.pdiparams"):
        predictor(folder)


def test_a_truncated_graph_gives_an_error_message(model_copy):
    folder = model_copy("argmax")
    graph = folder / "model.pdmodel"
    whole = graph.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 1):
        graph.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match="is not a Paddle graph, or is damaged"):
            predictor(folder)


def test_a_truncated_json_graph_gives_an_error_message(json_models, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(json_models / "argmax", folder)
    whole = (folder / "model.json").read_bytes()
    (folder / "model.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="is not a Paddle graph, or is damaged"):
        predictor(folder)


# ---- loading -----------------------------------------------------------------------------------


def python(code, **environment):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run


LOAD = "import sys; from paddleseg_infer.engines.native import load_core; "
LOAD += "from paddleseg_infer.machine.paddle_build import find_paddle; "
LOAD += "core = load_core(find_paddle(), False)"


def test_the_engine_loads_without_importing_paddle():
    assert python(LOAD + "; print('paddle' in sys.modules)").stdout == "False\n"


def test_paddle_can_be_imported_afterwards_and_is_the_same_engine():
    code = LOAD + "; import paddle.inference; print(paddle.inference.Config is core.AnalysisConfig)"
    assert python(code).stdout.endswith("True\n")


def test_a_paddle_that_was_imported_before_is_used():
    code = (
        "import paddle.inference; " + LOAD + "; import paddle; print(core is paddle.base.libpaddle)"
    )
    assert python(code).stdout.endswith("True\n")


def test_an_environment_variable_turns_the_full_import_on():
    run = python(LOAD + "; print('paddle' in sys.modules)", PADDLESEG_INFER_FULL_IMPORT="1")
    assert run.stdout.endswith("True\n")


def test_paddle_is_imported_with_a_warning_if_the_native_module_does_not_load():
    code = LOAD.replace("core = load_core(find_paddle(), False)", "core = load_core(build, False)")
    code = (
        "import dataclasses; from paddleseg_infer.machine.paddle_build import find_paddle; "
        "build = dataclasses.replace(find_paddle(), folder='/nowhere'); " + code
    )
    run = python(code + "; print('paddle' in sys.modules)")
    assert run.stdout.endswith("True\n")
    assert run.stderr.count("native module can't be loaded alone") == 1


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "\n\n----------------------\nError Message Summary:\n----------------------\n"
            "InvalidArgumentError: The size is wrong.\n  [Hint: Expected x == y]\n (at /p/a.cc:1)",
            "The size is wrong",
        ),
        ("(Unavailable) Cannot read it\n  [Hint: x] (at /paddle/b.cc:2)", "Cannot read it"),
        ("plain\n  words", "plain words"),
        ("In user code: File x.py\n InvalidArgumentError: It is wrong.", "It is wrong"),
        ("", "RuntimeError"),
    ],
)
def test_the_gist_of_a_paddle_error_is_one_sentence(text, expected):
    assert gist(RuntimeError(text)) == expected
