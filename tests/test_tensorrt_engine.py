"""Around TensorRT's engines, which need a GPU: what is built there is stood in for by a file."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import scene

import tensorrt_engine
from cache import DIGESTS
from config import EngineOptions
from deploy import load_deploy_config
from engines import BoundedPredictor
from errors import ConfigError, EngineError
from machine import find_paddle
from predictor import Predictor
from trt import Shapes

BUILD = find_paddle()
SHAPES = Shapes([1, 3, 32, 32], [2, 3, 64, 64], [2, 3, 64, 64])


class Gpu:
    """Where Paddle's module and its Config would be: notes the folder, and builds into it."""

    def __init__(self, name="A", fails=False):
        self.name, self.fails = name, fails
        self.built, self.folders = 0, []

    def set_optim_cache_dir(self, folder):
        self.folders.append(folder)

    def gpu_device_id(self):
        return 0

    def get_trt_runtime_version(self):
        return (8, 5, 3)

    def cudnn_version(self):
        return 8600

    def get_device_properties(self, gpu):
        return f"{self.name} {gpu}"

    def create_predictor(self, config):
        if self.fails:
            raise OSError("(External) CUDA error(46), all CUDA-capable devices are busy")
        if "trt_serialized_1" not in os.listdir(self.folders[-1]):
            self.built += 1
            with open(os.path.join(self.folders[-1], "trt_serialized_1"), "w") as file:
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
            gpu, gpu, deploy, EngineOptions(use_trt=True, **options), BUILD, shapes
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


def test_without_a_cache_paddle_gets_a_folder_that_goes(start, tmp_path, caplog):
    for cache_dir in ("", str(tmp_path / "file")):
        (tmp_path / "file").write_text("")
        gpu = Gpu()
        assert start(gpu, cache_dir=cache_dir) == 1
        assert not os.path.exists(gpu.folders[0])
    assert "the cache " in caplog.text and "it is no folder" in caplog.text


def test_what_paddle_raises_is_not_taken_for_the_caches(start, tmp_path, caplog):
    gpu = Gpu(fails=True)
    with pytest.raises(OSError, match="busy"):
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
        "TensorRT's engine takes 32x32 to 64x64: Paddle's own runs what is smaller or larger"
    )


def test_where_the_other_can_not_be_had_the_image_fails(models):
    def make_other():
        raise ConfigError("no memory")

    engine = BoundedPredictor(None, SHAPES, make_other)
    with pytest.raises(EngineError, match="no memory"):
        engine(np.zeros((1, 3, 100, 100), np.float32))
