"""Tests of the cache of TensorRT's engines. A file replaces the engine, which would need a GPU."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, expected, scene

from paddleseg_infer.config import Shapes, resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.load import set_up
from paddleseg_infer.engines.paddle import load_paddle
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.engines.tensorrt import Outside, create_predictor
from paddleseg_infer.errors import EngineError
from paddleseg_infer.machine import store
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.store import DIGESTS, files_of

BUILD = find_paddle()
SHAPES = Shapes([1, 3, 32, 32], [2, 3, 64, 64], [2, 3, 64, 64])


class FakeGpu:
    """Replaces Paddle's module and its `Config`. It writes an engine to the folder that it gets."""

    def __init__(
        self, name="A", fails=False, refuses_cached=False, key=1, libraries=(8600, (8, 5, 3))
    ):
        self.name, self.fails, self.refuses_cached = name, fails, refuses_cached
        self.engine = f"trt_serialized_{key}"
        self.libraries = libraries
        self.built, self.folders = 0, []

    def set_optim_cache_dir(self, folder):
        self.folders.append(folder)

    def get_trt_runtime_version(self):
        return self.libraries[1]

    def cudnn_version(self):
        return self.libraries[0]

    def get_device_properties(self, gpu):
        return f"{self.name} {gpu}"

    def create_predictor(self, config):
        if self.fails:
            raise OSError("(External) CUDA error(46), all CUDA-capable devices are busy")
        if self.refuses_cached and files_of(self.folders[-1]):
            raise RuntimeError("Engine deserialize failed")
        if self.engine not in os.listdir(self.folders[-1]):
            self.built += 1
            with open(os.path.join(self.folders[-1], self.engine), "w") as file:
                file.write("engine")
        return SimpleNamespace(config=config)


@dataclass(frozen=True, kw_only=True)
class OnGpu(Setup):
    """A setup whose module and `Config` are a `FakeGpu`."""

    gpu: FakeGpu

    @property
    def core(self):
        return self.gpu

    def make_config(self):
        return self.gpu


@pytest.fixture
def start(models, tmp_path):
    """A function that makes a predictor and returns how many engines were built for it."""

    def started(gpu=None, shapes=SHAPES, model="argmax", **options):
        gpu = gpu or FakeGpu()
        deploy = load_deploy_config(models / model / "deploy.yaml")
        options = {"device": "gpu", "cache_dir": str(tmp_path / "cache"), **options}
        options = EngineOptions(use_trt=True, **options)
        assert create_predictor(OnGpu(deploy, options, BUILD, shapes, gpu=gpu), 0)
        return gpu.built

    return started


def test_an_engine_is_built_once(start, tmp_path):
    assert [start(), start()] == [1, 0]
    [entry] = (tmp_path / "cache").iterdir()
    assert list(json.loads((entry / DIGESTS).read_text())) == ["trt_serialized_1"]


def test_another_gpu_model_setting_or_shape_gets_its_own_engine(start, tmp_path):
    start()
    other = SHAPES._replace(largest=[4, 3, 64, 64])
    tuned = tmp_path / "shapes"
    tuned.write_text("one")
    for change in (
        {"gpu": FakeGpu("B")},
        {"gpu": FakeGpu(libraries=(8902, (8, 5, 3)))},
        {"gpu": FakeGpu(libraries=(8600, (8, 6, 1)))},
        {"precision": "fp16"},
        {"min_subgraph_size": 9},
        {"shapes": other},
        {"model": "logits"},
        {"auto_tuned_shape_file": str(tuned)},
    ):
        assert start(**change) == 1
    tuned.write_text("two")
    assert start(auto_tuned_shape_file=str(tuned)) == 1


def test_a_damaged_engine_is_built_again(start, tmp_path, caplog):
    start()
    [entry] = (tmp_path / "cache").iterdir()
    (entry / "trt_serialized_1").write_text("engime")
    assert [start(), start()] == [1, 0]
    assert "is damaged, and is made again" in caplog.text


def test_an_engine_that_tensorrt_refuses_is_built_again(start, tmp_path, caplog):
    start()
    assert start(FakeGpu(refuses_cached=True)) == 1
    assert "can't be loaded (Engine deserialize failed), and is made again" in caplog.text
    assert start() == 0


def test_another_engine_in_an_entry_does_not_damage_the_cached_one(start, caplog):
    start()
    assert [start(FakeGpu(key=2)), start(FakeGpu(key=2)), start()] == [1, 1, 0]
    assert caplog.text.count("TensorRT has built an engine although the cache entry") == 2
    assert "damaged" not in caplog.text


def test_no_engine_is_cached_without_disk_space(start, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert [start(), start()] == [1, 1]
    assert "the disk has too little space" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def test_only_one_of_several_processes_builds_the_engine(tmp_path):
    call = f"""
import time
from paddleseg_infer.machine.store import Store
def fill(folder):
    time.sleep(0.5)
    open(folder + "/engine", "w").write("engine")
    print("built")
Store({str(tmp_path / "cache")!r}).keep("0" * 64, fill)
"""
    for _ in range(2):  # the second time, the entry is damaged
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", call], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        assert "".join(process.communicate()[0] for process in processes) == "built\n"
        assert not any(process.returncode for process in processes)
        (tmp_path / "cache" / ("0" * 64) / "engine").write_text("engime")


def test_without_a_cache_paddle_gets_a_temporary_folder(start, tmp_path, caplog):
    for cache_dir in ("", str(tmp_path / "file")):
        (tmp_path / "file").write_text("")
        gpu = FakeGpu()
        assert start(gpu, cache_dir=cache_dir) == 1
        assert not os.path.exists(gpu.folders[0])
    assert "the cache " in caplog.text and "it is not a folder" in caplog.text


def test_an_error_of_paddle_is_not_taken_for_an_error_of_the_cache(start, tmp_path, caplog):
    gpu = FakeGpu(fails=True)
    with pytest.raises(EngineError, match="busy"):
        start(gpu)
    assert len(gpu.folders) == 1
    assert list((tmp_path / "cache").iterdir()) == []
    assert caplog.text == ""


# ---- shapes outside the bounds -----------------------------------------------------------------


def test_shapes_outside_the_bounds_run_in_paddles_own_engine(models, caplog):
    options = resolved(EngineOptions(device="cpu", cache_dir=""), BUILD)
    setup = Setup(load_deploy_config(models / "argmax" / "deploy.yaml"), options, BUILD)
    own = load_paddle(setup)
    outside = Outside(SHAPES, setup)
    for count, height, width, is_inside in [
        (1, 32, 32, True),
        (2, 64, 64, True),
        (2, 40, 64, True),
        (3, 40, 40, False),
        (1, 31, 40, False),
        (1, 40, 65, False),
    ]:
        image = scene(height, width).transpose(2, 0, 1).astype(np.float32) / 255
        images = np.stack([image] * count)
        assert outside.takes(images.shape) == (not is_inside)
        if not is_inside:
            assert np.array_equal(outside(images)[0], own(images)[0])
    [line] = caplog.messages
    assert line == (
        "TensorRT's engine can run 1 image of 32x32 to 2 images of 64x64: Paddle's own engine runs "
        "other sizes"
    )


def test_each_image_outside_the_bounds_fails_if_paddles_own_engine_cannot_load(model_copy, caplog):
    folder = model_copy("argmax")
    options = resolved(EngineOptions(device="cpu", cache_dir=""), BUILD)
    outside = Outside(SHAPES, Setup(load_deploy_config(folder / "deploy.yaml"), options, BUILD))
    whole = (folder / "model.pdmodel").read_bytes()
    (folder / "model.pdmodel").write_bytes(b"")
    for _ in range(3):
        with pytest.raises(EngineError, match="model.pdmodel is empty"):
            outside(np.zeros((1, 3, 100, 100), np.float32))
        (folder / "model.pdmodel").write_bytes(whole)  # loading isn't tried again
    assert len(caplog.messages) == 1


# ---- decisions before the engine is loaded -----------------------------------------------------

IMAGES = [scene(40, 64), scene(100, 64)]


def setup_for(models, images=IMAGES, **options):
    options = EngineOptions(**{"device": "gpu", "use_trt": True, **options})
    deploy = load_deploy_config(models / "argmax" / "deploy.yaml")
    return set_up(deploy, options, BUILD, expected(images, batch_size=2))


def test_tensorrt_gets_the_shapes_of_the_images(models):
    setup = setup_for(models)
    assert setup.shapes == ([1, 3, 40, 64], [2, 3, 128, 64], [2, 3, 64, 64])
    assert not setup.collects_shapes


TUNED = "".join(
    f"  {kind}_shape: {side}\n"
    for kind, sides in (("min", (1, 3, 8, 8)), ("max", (4, 3, 9, 9)), ("opt", (2, 3, 8, 9)))
    for side in sides
)


def test_an_existing_shape_file_gives_the_shapes(models, tmp_path):
    path = tmp_path / "shapes"
    path.write_text(f'shape_range_info {{\n  name: "x"\n{TUNED}}}\n')
    setup = setup_for(models, enable_auto_tune=True, auto_tuned_shape_file=str(path))
    assert setup.shapes == ([1, 3, 8, 8], [4, 3, 9, 9], [2, 3, 8, 9])
    assert not setup.collects_shapes


@pytest.mark.parametrize("file", [None, "/nowhere/shapes"])
def test_shapes_are_collected_if_the_shape_file_does_not_exist(models, file):
    setup = setup_for(models, enable_auto_tune=True, auto_tuned_shape_file=file)
    assert setup.collects_shapes


def test_without_tensorrt_no_shapes_are_needed(models):
    setup = setup_for(models, [], use_trt=False)
    assert setup.shapes is None
    assert not setup.collects_shapes
