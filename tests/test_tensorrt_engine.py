"""Around TensorRT's engines, which need a GPU: what is built there is stood in for by a file."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, scene

from paddleseg_infer.config import Shapes
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engines import load as engines
from paddleseg_infer.engines import tensorrt as tensorrt_engine
from paddleseg_infer.engines.load import BoundedPredictor
from paddleseg_infer.engines.paddle import Predictor
from paddleseg_infer.engines.shapes import Expected
from paddleseg_infer.errors import ConfigError, EngineError
from paddleseg_infer.machine import store
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.store import DIGESTS, files_of
from paddleseg_infer.settings import EngineOptions
from paddleseg_infer.sources.array import ArraySource

BUILD = find_paddle()
SHAPES = Shapes([1, 3, 32, 32], [2, 3, 64, 64], [2, 3, 64, 64])


class Gpu:
    """Where Paddle's module and its Config would be: notes the folder, and builds into it."""

    def __init__(
        self, name="A", fails=False, refuses_kept=False, key=1, libraries=(8600, (8, 5, 3))
    ):
        self.name, self.fails, self.refuses_kept = name, fails, refuses_kept
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
        if self.refuses_kept and files_of(self.folders[-1]):
            raise RuntimeError("Engine deserialize failed")
        if self.engine not in os.listdir(self.folders[-1]):
            self.built += 1
            with open(os.path.join(self.folders[-1], self.engine), "w") as file:
                file.write("engine")
        return SimpleNamespace(config=config)


@pytest.fixture
def start(models, tmp_path):
    """Makes a predictor with these settings, and returns how many engines were built for it."""

    def started(gpu=None, shapes=SHAPES, model="argmax", **options):
        gpu = gpu or Gpu()
        deploy = load_deploy_config(models / model / "deploy.yaml")
        options = {"device": "gpu", "cache_dir": str(tmp_path / "cache"), **options}
        assert tensorrt_engine.create_predictor(
            *(gpu, lambda: gpu, 0),
            deploy=deploy,
            options=EngineOptions(use_trt=True, **options),
            build=BUILD,
            shapes=shapes,
        )
        return gpu.built

    return started


def test_an_engine_is_built_once(start, tmp_path):
    assert [start(), start()] == [1, 0]
    [entry] = (tmp_path / "cache").iterdir()
    assert list(json.loads((entry / DIGESTS).read_text())) == ["trt_serialized_1"]


def test_it_belongs_to_gpu_model_precision_and_shapes(start, tmp_path):
    start()
    other = SHAPES._replace(largest=[4, 3, 64, 64])
    tuned = tmp_path / "shapes"
    tuned.write_text("one")
    for change in (
        {"gpu": Gpu("B")},
        {"gpu": Gpu(libraries=(8902, (8, 5, 3)))},
        {"gpu": Gpu(libraries=(8600, (8, 6, 1)))},
        {"precision": "fp16"},
        {"min_subgraph_size": 9},
        {"shapes": other},
        {"model": "logits"},
        {"auto_tuned_shape_file": str(tuned)},
    ):
        assert start(**change) == 1
    tuned.write_text("two")
    assert start(auto_tuned_shape_file=str(tuned)) == 1


def test_a_damaged_one_is_built_again(start, tmp_path, caplog):
    start()
    [entry] = (tmp_path / "cache").iterdir()
    (entry / "trt_serialized_1").write_text("engime")
    assert [start(), start()] == [1, 0]
    assert "is damaged: it is made again" in caplog.text


def test_one_that_tensorrt_refuses_is_built_again(start, tmp_path, caplog):
    start()
    assert start(Gpu(refuses_kept=True)) == 1
    assert "can't be loaded (Engine deserialize failed): it is made again" in caplog.text
    assert start() == 0


def test_what_paddle_writes_beside_a_kept_one_does_not_harm_it(start, caplog):
    start()
    assert [start(Gpu(key=2)), start(Gpu(key=2)), start()] == [1, 1, 0]
    assert caplog.text.count("TensorRT has built an engine although the cache entry") == 2
    assert "damaged" not in caplog.text


def test_without_space_none_is_kept(start, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert [start(), start()] == [1, 1]
    assert "there is too little space left" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def test_of_several_processes_one_builds(tmp_path):
    call = f"""
import time
from paddleseg_infer.machine.store import Store
def fill(folder):
    time.sleep(0.5)
    open(folder + "/engine", "w").write("engine")
    print("built")
Store({str(tmp_path / "cache")!r}).keep("0" * 64, fill)
"""
    for _ in range(2):  # the second time with one that is damaged
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", call], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        assert "".join(process.communicate()[0] for process in processes) == "built\n"
        assert not any(process.returncode for process in processes)
        (tmp_path / "cache" / ("0" * 64) / "engine").write_text("engime")


def test_without_a_cache_paddle_gets_a_folder_that_goes(start, tmp_path, caplog):
    for cache_dir in ("", str(tmp_path / "file")):
        (tmp_path / "file").write_text("")
        gpu = Gpu()
        assert start(gpu, cache_dir=cache_dir) == 1
        assert not os.path.exists(gpu.folders[0])
    assert "the cache " in caplog.text and "it is no folder" in caplog.text


def test_what_paddle_raises_is_not_taken_for_the_caches(start, tmp_path, caplog):
    gpu = Gpu(fails=True)
    with pytest.raises(EngineError, match="busy"):
        start(gpu)
    assert len(gpu.folders) == 1
    assert list((tmp_path / "cache").iterdir()) == []
    assert caplog.text == ""


# ---- shapes outside the bounds -----------------------------------------------------------------


def test_shapes_outside_the_bounds_go_to_the_other_engine(models, caplog):
    """Two of Paddle's own engines, of two models, so that it is seen which of them ran."""
    options = EngineOptions(device="cpu", cache_dir="").resolved(BUILD)
    inner, outer = (
        Predictor(load_deploy_config(models / name / "deploy.yaml"), options, BUILD)
        for name in ("argmax", "logits")
    )
    engine = BoundedPredictor(inner, SHAPES, lambda: outer)
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
        expected = (inner if is_inside else outer)(images)
        assert np.array_equal(engine(images), expected)
    [line] = caplog.messages
    assert line == (
        "TensorRT's engine takes 1 image of 32x32 to 2 images of 64x64: Paddle's own runs what is "
        "outside"
    )


def test_where_the_other_can_not_be_had_each_image_outside_fails(caplog):
    tries = []

    def make_other():
        tries.append(1)
        raise ConfigError("no memory")

    engine = BoundedPredictor(None, SHAPES, make_other)
    for _ in range(3):
        with pytest.raises(EngineError, match="no memory"):
            engine(np.zeros((1, 3, 100, 100), np.float32))
    assert (len(tries), len(caplog.messages)) == (1, 1)


# ---- which engine is made ----------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """The arguments of each Predictor that is made; none is loaded."""
    made = []

    class Recorded:
        def __init__(self, deploy, options, build, *, shapes=None, collect_shapes_in=None):
            has_tuned_file = os.path.exists(options.auto_tuned_shape_file or "")
            made.append(
                SimpleNamespace(options=options, shapes=shapes, has_tuned_file=has_tuned_file)
            )

        def __call__(self, tensor_nchw):
            return tensor_nchw

    monkeypatch.setattr(engines, "Predictor", Recorded)
    return made


def load(models, images, **options):
    options = {"device": "gpu", "use_trt": True, **options}
    deploy = load_deploy_config(models / "argmax" / "deploy.yaml")
    expected = Expected([ArraySource(image) for image in images], batch_size=2)
    return engines.load_for_images(deploy, EngineOptions(**options), BUILD, expected)


IMAGES = [scene(40, 64), scene(100, 64)]


def test_tensorrt_is_given_the_images_shapes_and_what_is_outside_goes_beside_it(models, made):
    engine = load(models, IMAGES)
    assert isinstance(engine, BoundedPredictor)
    [only] = made
    assert only.options.use_trt
    assert only.shapes == ([1, 3, 40, 64], [2, 3, 128, 64], [2, 3, 64, 64])
    engine(np.zeros((2, 3, 40, 64), np.float32))
    assert len(made) == 1
    engine(np.zeros((2, 3, 39, 64), np.float32))
    assert [each.options.use_trt for each in made] == [True, False]


TUNED = "".join(
    f"  {kind}_shape: {side}\n"
    for kind, sides in (("min", (1, 3, 8, 8)), ("max", (4, 3, 9, 9)), ("opt", (2, 3, 8, 9)))
    for side in sides
)


def test_a_tuned_file_that_is_there_gives_the_shapes(models, made, tmp_path):
    path = tmp_path / "shapes"
    path.write_text(f'shape_range_info {{\n  name: "x"\n{TUNED}}}\n')
    load(models, IMAGES, enable_auto_tune=True, auto_tuned_shape_file=str(path))
    [only] = made
    assert only.options.auto_tuned_shape_file == str(path)
    assert only.shapes == ([1, 3, 8, 8], [4, 3, 9, 9], [2, 3, 8, 9])


def test_one_that_is_collected_first_is_there_when_the_engine_is_made(models, made, monkeypatch):
    def collect(deploy, options, build, expected, path):
        with open(path, "w") as file:
            file.write(f'shape_range_info {{\n  name: "x"\n{TUNED}}}\n')
        return 1

    monkeypatch.setattr(engines, "collect_shapes", collect)
    load(models, IMAGES, enable_auto_tune=True)
    [only] = made
    assert only.has_tuned_file
    assert not os.path.exists(only.options.auto_tuned_shape_file)  # it was a private one


def test_without_tensorrt_there_is_one_engine(models, made):
    assert not isinstance(load(models, [], use_trt=False), BoundedPredictor)
    assert made[0].shapes is None
