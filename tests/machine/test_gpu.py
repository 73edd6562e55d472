"""Messages about problems with a GPU. test_gpu_config.py tests the errors of the real GPU build.

The libraries need not be installed: a fake module gives the versions that Paddle would give.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from paddleseg_infer.config import engine_config
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.errors import ConfigError, EngineError, gist
from paddleseg_infer.machine import gpu
from paddleseg_infer.machine.paddle_build import find_paddle

BUILD = replace(find_paddle(), version=(2, 6, 2), has_gpu=True, cuda="11.8", cudnn="8.6.0")


def fake_core(cudnn=8600, built_for=(8, 5, 3), tensorrt=(8, 5, 3), gpus=1, error=""):
    def current():
        raise OSError(error)

    return SimpleNamespace(
        get_cuda_device_count=lambda: gpus,
        get_cuda_current_device_id=current,
        cudnn_version=lambda: cudnn,
        get_trt_compile_version=lambda: built_for,
        get_trt_runtime_version=lambda: tensorrt,
    )


@pytest.mark.parametrize("cudnn", [8600, 8902])
def test_matching_libraries_are_accepted(cudnn, caplog):
    gpu.check_gpu(fake_core(cudnn), BUILD, use_trt=True)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("cudnn", "state"),
    [
        (-1, "isn't found"),
        (7605, "has version 7"),
        (90000, "has version 9"),
        (90100, "has version 9"),
    ],
)
def test_a_missing_or_wrong_cudnn_is_refused(cudnn, state):
    with pytest.raises(ConfigError) as raised:
        gpu.check_gpu(fake_core(cudnn), BUILD, use_trt=False)
    assert str(raised.value) == (
        "--device gpu needs cuDNN 8.6.0, for which Paddle 2.6.2 (GPU build) was built, and its "
        f"library (libcudnn.so) {state}: install that version and add its folder to "
        "LD_LIBRARY_PATH, or run with --device cpu"
    )


def test_another_major_version_of_tensorrt_is_refused_and_a_minor_one_is_logged(caplog):
    with pytest.raises(ConfigError, match=r"needs TensorRT 8\.5\.3.*and 10\.0\.1 is loaded: put"):
        gpu.check_gpu(fake_core(tensorrt=(10, 0, 1)), BUILD, use_trt=True)
    gpu.check_gpu(fake_core(tensorrt=(8, 6, 1)), BUILD, use_trt=True)
    assert "needs TensorRT 8.5.3" in caplog.text and "8.6.1 is loaded" in caplog.text


def test_a_build_without_tensorrt_is_refused(models):
    """The `Config` of such a build raises an error if TensorRT is turned on."""
    config = SimpleNamespace(
        enable_memory_optim=lambda: None,
        disable_glog_info=lambda: None,
        enable_use_gpu=lambda memory, gpu: None,
    )
    without = fake_core(built_for=(0, 0, 0))
    without.AnalysisConfig = lambda graph, params: config
    deploy = load_deploy_config(models / "argmax" / "deploy.yaml")
    options = EngineOptions(use_trt=True, device="gpu")
    with pytest.raises(ConfigError, match="built without TensorRT: run without --use_trt"):
        engine_config(without, deploy, options, BUILD)


def test_of_more_workers_than_gpus_some_share_one(models):
    """Worker after worker takes the next one; after the last comes the first again."""
    taken = []
    config = SimpleNamespace(
        enable_memory_optim=lambda: None,
        disable_glog_info=lambda: None,
        enable_use_gpu=lambda memory, number: taken.append(number),
    )
    two = fake_core(gpus=2)
    two.AnalysisConfig = lambda graph, params: config
    deploy = load_deploy_config(models / "argmax" / "deploy.yaml")
    for worker in range(5):
        engine_config(two, deploy, EngineOptions(device="gpu", gpu=worker), BUILD)
    assert taken == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("error", "visible", "advice"),
    [
        ("CUDA error(35), CUDA driver version is insufficient", "", "the NVIDIA driver is missing"),
        ("CUDA error(100), no CUDA-capable device", "7", "CUDA_VISIBLE_DEVICES is '7'"),
        ("CUDA error(100), no CUDA-capable device", None, "the driver may not find one: check it"),
    ],
)
def test_a_missing_gpu_gives_an_error_with_advice(error, visible, advice, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(
        ConfigError, match=rf"Paddle finds no GPU \(CUDA error.*\): {advice}.*--device cpu"
    ):
        gpu.check_gpu(fake_core(gpus=0, error=error), BUILD, use_trt=False)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("Out of memory error on GPU 0. Cannot allocate 1.0GB memory", "a smaller --batch_size"),
        ("CUBLAS_STATUS_ALLOC_FAILED", "a smaller --batch_size"),
        ("CUDA error(46), all CUDA-capable devices are busy or unavailable", "another process"),
        ("CUDA error(209), no kernel image is available", "a build for a newer CUDA"),
        ("some trt inputs dynamic shape info not set, check the INFO log", "--enable_auto_tune"),
        ("Input relu_1 not found in TRT engine min_input_shape", "--enable_auto_tune"),
        (
            "Cannot load cudnn shared library. Cannot invoke method cudnnGetVersion",
            "LD_LIBRARY_PATH",
        ),
        (
            "The third-party dynamic library (libcublas.so) that Paddle depends on is not "
            "configured correctly.",
            "LD_LIBRARY_PATH",
        ),
        ("CUDA error(700), an illegal memory access was encountered", "the GPU or its driver has"),
        ("The shape of input is wrong", ""),
    ],
)
def test_each_error_gets_the_right_hint(error, advice):
    assert gpu.hint(error).startswith(advice) if not advice else advice in gpu.hint(error)


def test_an_engine_error_contains_the_hint(monkeypatch):
    """The text comes from Paddle's source code, because only a GPU could raise the error."""
    text = (
        "C++ Traceback\n----------------------\nError Message Summary:\n----------------------\n"
        "ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 1.0GB memory.\n"
        "  [Hint: try a smaller batch] (at /paddle/gpu.cc:1)"
    )
    raised = EngineError(gist(RuntimeError(text)), gpu.hint(text))
    assert str(raised) == "Out of memory error on GPU 0. Cannot allocate 1.0GB memory"
    assert raised.advice.startswith("the GPU's memory is full")
