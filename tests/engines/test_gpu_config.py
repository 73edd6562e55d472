"""Settings of the GPU build, read from Paddle's `Config`. `make test-gpu-config` needs no GPU."""

import itertools
import mmap
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, expected, scene, write_image

from paddleseg_infer.config import engine_config, resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines import shapes as trt
from paddleseg_infer.errors import ConfigError
from paddleseg_infer.machine import gpu
from paddleseg_infer.machine.paddle_build import find_paddle

BUILD = find_paddle()
pytestmark = pytest.mark.skipif(not BUILD.has_gpu, reason="this Paddle is a CPU build")
PRECISIONS = {"fp32": "Float32", "fp16": "Half"}


@pytest.fixture(scope="session")
def core():
    from paddleseg_infer.engines.native import load_core

    return load_core(BUILD, use_gpu=True)


def deploy_of(models, name="argmax"):
    return load_deploy_config(models / name / "deploy.yaml")


def config_of(core, deploy, shapes=None, **options):
    return engine_config(core, deploy, resolved(EngineOptions(**options), BUILD), BUILD, shapes)


@pytest.mark.parametrize("device", ["gpu", None, "cpu"])
def test_the_requested_device_is_used(core, models, device):
    config = config_of(core, deploy_of(models), device=device)
    assert config.use_gpu() == (device != "cpu")
    assert config.ir_optim()
    assert not config.tensorrt_engine_enabled()
    if device == "cpu":
        assert config.cpu_math_library_num_threads() <= 10


class Recorder:
    """Paddle's module, which records the calls to its `Config`. Not all settings have a getter."""

    def __init__(self, core):
        self._core, self.calls = core, {}

    def __getattr__(self, name):
        return getattr(self._core, name)

    @property
    def AnalysisConfig(self):
        real, calls = self._core.AnalysisConfig, self.calls

        class RecordingConfig:
            Precision = real.Precision

            def __init__(self, graph, params):
                self._config = real(graph, params)

            def __getattr__(self, name):
                def call(*args, **kwargs):
                    calls[name] = args or kwargs
                    return getattr(self._config, name)(*args, **kwargs)

                return call

        return RecordingConfig


@pytest.mark.parametrize(
    ("precision", "min_subgraph_size", "batch_size", "name", "tuning"),
    [
        *itertools.product(
            PRECISIONS,
            (3, 20),
            (1, 4),
            ("argmax", "picture", "resize", "fixed", "pairs"),
            (None, "new file", "existing file"),
        )
    ],
)
def test_the_flags_decide_the_settings_of_tensorrt(
    core, models, tmp_path, precision, min_subgraph_size, batch_size, name, tuning
):
    deploy = deploy_of(models, name)
    batch_size = deploy.batch_size_for(batch_size)
    images = expected([scene(48, 64), scene(100, 200)], batch_size)
    shapes, file = trt.dynamic_shapes(images, deploy), None
    if tuning:
        file = str(tmp_path / "shapes")
        if tuning == "existing file":
            (tmp_path / "shapes").write_text("")
    recorder = Recorder(core)
    config = config_of(
        *(recorder, deploy, shapes),
        use_trt=True,
        precision=precision,
        min_subgraph_size=min_subgraph_size,
        enable_auto_tune=tuning is not None,
        auto_tuned_shape_file=file,
    )
    assert config.use_gpu()
    assert config.tensorrt_engine_enabled()
    assert str(config.tensorrt_precision_mode()) == f"Precision.{PRECISIONS[precision]}"
    assert config.tensorrt_dynamic_shape_enabled() == (tuning is None)
    assert config.tuned_tensorrt_dynamic_shape() == (tuning is not None)
    assert not config.trt_allow_build_at_runtime()
    assert not config.shape_range_info_collected()
    arguments = recorder.calls["enable_tensorrt_engine"]
    assert arguments["min_subgraph_size"] == min_subgraph_size
    assert arguments["max_batch_size"] == batch_size
    assert (arguments["use_static"], arguments["use_calib_mode"]) == (True, False)
    if tuning:
        assert recorder.calls["enable_tuned_tensorrt_dynamic_shape"] == (file, False)
        return
    fewest = 2 if name == "pairs" else 1
    low, high, usual = [(48, 64)] * 3
    if name in ("argmax", "picture"):
        high, usual = (128, 256), (64, 64)
    graph_input = "picture" if name == "picture" else "x"
    assert recorder.calls["set_trt_dynamic_shape_info"] == (
        {graph_input: [fewest, 3, *low]},
        {graph_input: [batch_size, 3, *high]},
        {graph_input: [batch_size, 3, *usual]},
    )


@pytest.mark.parametrize(("worker", "gpu_id"), [(0, 0), (1, 1), (2, 0), (5, 1)])
def test_workers_are_spread_over_the_gpus(core, models, worker, gpu_id):
    recorder = Recorder(core)
    recorder.get_cuda_device_count = lambda: 2
    config_of(recorder, deploy_of(models), gpu=worker)
    assert recorder.calls["enable_use_gpu"] == (100, gpu_id)


def test_tensorrt_is_not_used_on_the_cpu(core, models):
    config = config_of(core, deploy_of(models), device="cpu", use_trt=True, precision="fp16")
    assert not config.tensorrt_engine_enabled()
    assert not config.use_gpu()


def test_a_shape_file_without_auto_tune_has_no_effect(core, models, caplog):
    deploy = deploy_of(models)
    shapes = trt.dynamic_shapes(expected([scene(48, 64)], 1), deploy)
    config = config_of(core, deploy, shapes, use_trt=True, auto_tuned_shape_file="nowhere")
    assert config.tensorrt_dynamic_shape_enabled()
    assert not config.tuned_tensorrt_dynamic_shape()
    assert "--auto_tuned_shape_file has no effect without --enable_auto_tune" in caplog.text


def test_int8_is_refused_for_a_graph_without_quantisation(core, models):
    with pytest.raises(ConfigError, match="--precision int8 needs a quantised model"):
        config_of(core, deploy_of(models), use_trt=True, precision="int8")


def test_int8_is_used_for_a_quantised_graph(core, models):
    deploy = deploy_of(models, "quantised")
    shapes = trt.dynamic_shapes(expected([scene(48, 64)], 1), deploy)
    config = config_of(core, deploy, shapes, use_trt=True, precision="int8")
    assert str(config.tensorrt_precision_mode()) == "Precision.Int8"


# ---- errors without driver and libraries ---------------------------------------------------------


def test_the_error_without_tensorrt_names_the_version_to_install(core):
    with pytest.raises(ConfigError, match=r"--use_trt needs TensorRT 8\.5\.3.*LD_LIBRARY_PATH"):
        gpu.check_tensorrt(core, BUILD)


def test_the_error_without_cudnn_names_the_version_to_install(core):
    with pytest.raises(ConfigError, match=r"needs cuDNN 8\.6\.0.*isn't found.*LD_LIBRARY_PATH"):
        gpu.check_cudnn(core, BUILD)


def test_paddles_error_without_a_driver_is_recognised(core):
    with pytest.raises(OSError, match=gpu.NO_DRIVER) as raised:
        core.get_cuda_current_device_id()
    assert gpu.hint(str(raised.value)).startswith("the driver is missing or too old")


@pytest.mark.parametrize(
    "phrase",
    [
        b"Out of memory error on GPU %d",
        b"CUDA error(",
        b"Cannot load cudnn shared library",
        b"not found in TRT engine min_input_shape",
        b"please enable trt dynamic_shape mode by SetTRTDynamicShapeInfo",
        b"that Paddle depends on is not configured correctly",
        b"/trt_serialized_",
    ],
)
def test_paddles_libraries_contain_the_phrases_that_hints_look_for(phrase):
    for library in ("base/libpaddle.so", "libs/libphi.so"):
        path = os.path.join(BUILD.folder, library)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(phrase) >= 0:
                return
    raise AssertionError(f"{phrase!r} is in no library")


def test_collecting_shapes_without_a_gpu_is_refused(models, tmp_path):
    from paddleseg_infer.segmenter import Segmenter

    path = tmp_path / "shapes"
    options = {"use_trt": True, "enable_auto_tune": True, "auto_tuned_shape_file": str(path)}
    segmenter = Segmenter(models / "argmax" / "deploy.yaml", sample=[scene(48, 64)], **options)
    with pytest.raises(ConfigError, match="Paddle finds no GPU"):
        segmenter.load()
    assert not path.exists()


def run_infer(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "infer.py", *arguments],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("more", [(), ("--use_trt",), ("--device", "gpu")])
def test_the_error_without_a_gpu_says_what_to_check(models, tmp_path, more):
    write_image(tmp_path / "a.png")
    model = models / "argmax" / "deploy.yaml"
    run = run_infer(tmp_path, "--config", model, "--image_path", "a.png", *more)
    assert run.returncode == 2
    assert run.stderr == (
        "error: Paddle finds no GPU (CUDA error(35), CUDA driver version is insufficient for CUDA "
        "runtime version): the NVIDIA driver is missing, or too old for CUDA 11.8: "
        "install it (nvidia-smi lists the GPUs), or use --device cpu\n"
    )


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1", b"\0" * 99])
@pytest.mark.parametrize(
    "more", [("--dry_run",), ("--dry_run", "--use_trt"), ("--use_trt", "--enable_auto_tune")]
)
def test_a_file_that_is_not_a_graph_gives_an_error_message(model_copy, tmp_path, content, more):
    folder = model_copy("argmax")
    (folder / "model.pdmodel").write_bytes(content)
    write_image(tmp_path / "a.png")
    shapes = tmp_path / "shapes"
    shapes.write_text("")
    more = [*more, "--auto_tuned_shape_file", shapes] if "--enable_auto_tune" in more else more
    run = run_infer(tmp_path, "--config", folder / "deploy.yaml", "--image_path", "a.png", *more)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert re.search(r"error: .*model.pdmodel", run.stderr)


def test_int8_for_an_unquantised_model_is_refused_before_shapes_are_collected(models, tmp_path):
    given = ("--config", models / "argmax" / "deploy.yaml", "--image_path", ROOT / "demo/images")
    run = run_infer(tmp_path, *given, "--use_trt", "--enable_auto_tune", "--precision", "int8")
    assert run.returncode == 2
    assert "--precision int8 needs a quantised model" in run.stderr


def test_dry_run_prints_the_settings_of_tensorrt(models, tmp_path):
    write_image(tmp_path / "photos" / "a.png", (48, 64))
    write_image(tmp_path / "photos" / "b.png", (100, 200))
    run = run_infer(
        tmp_path,
        *("--config", models / "picture" / "deploy.yaml", "--image_path", "photos", "--dry_run"),
        *("--use_trt", "--precision", "fp16", "--batch_size", "4"),
    )
    plan = yaml.safe_load(run.stdout)
    assert plan["tensorrt_shapes"] == {
        "smallest": [1, 3, 48, 64],
        "largest": [4, 3, 128, 256],
        "usual": [4, 3, 64, 64],
    }
    engine = plan["engine"]
    assert (engine["device"], engine["gpu"], engine["tensorrt"]) == ("gpu", 0, True)
    assert (engine["tensorrt_precision"], engine["tensorrt_dynamic_shape"]) == ("Half", True)
    assert engine["tensorrt_tuned_shape"] is False
    assert (run.returncode, run.stderr.count("Paddle finds no GPU")) == (2, 1)


def test_the_gpu_build_runs_on_the_cpu_too(models, tmp_path):
    write_image(tmp_path / "a.png")
    model = models / "argmax" / "deploy.yaml"
    run = run_infer(tmp_path, "--config", model, "--image_path", "a.png", "--device", "cpu")
    assert (run.returncode, run.stderr) == (0, "")
