"""One model in TensorRT: its engines, kept between runs, within the shapes they were made for."""

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paddleseg_infer.config import Shapes
from paddleseg_infer.engines.native import create
from paddleseg_infer.engines.optimised import FORMAT, space_for
from paddleseg_infer.engines.paddle import Predictor, load_paddle
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ConfigError, EngineError, shown
from paddleseg_infer.machine.gpu import check_gpu, gpu_state
from paddleseg_infer.machine.store import Store, Unusable, files_of, key_of
from paddleseg_infer.option import kept_by

log = logging.getLogger("paddleseg_infer")


class TensorRtEngine:
    """TensorRT's engine for shapes within bounds, and Paddle's own for those outside.

    The bounds are those of a sample of the images; to build TensorRT's engine again takes minutes.
    See `contract.Engine`.
    """

    def __init__(self, setup: Setup):
        """`setup` has shapes. Raises ConfigError."""
        assert setup.shapes is not None
        self.config = setup.make_config()
        check_gpu(setup.core, setup.build, use_trt=True)
        with setup.loading():
            predictor = create_predictor(setup, self.config.gpu_device_id())
            self._inside = Predictor(predictor, self.config)
        self._outside = Outside(setup.shapes, _without_tensorrt(setup))

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        if self._outside.takes(tensor_nchw.shape):
            return self._outside(tensor_nchw)
        return self._inside(tensor_nchw)


class Outside:
    """Paddle's own engine for the shapes that TensorRT's doesn't take, loaded at the first."""

    def __init__(self, shapes: Shapes, setup: Setup):
        self._shapes, self._setup = shapes, setup
        self._engine: Predictor | None = None
        self._failure = ""  # why it can't be loaded

    def takes(self, shape: tuple[int, ...]) -> bool:
        bounds = zip(self._shapes.smallest, shape, self._shapes.largest, strict=True)
        return not all(low <= side <= high for low, side, high in bounds)

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        if self._engine is None:
            self._engine = self._load()
        return self._engine(tensor_nchw)

    def _load(self) -> Predictor:
        if self._failure:
            raise EngineError(self._failure)
        log.warning(
            "TensorRT's engine takes %s to %s: Paddle's own runs what is outside",
            _in_words(self._shapes.smallest),
            _in_words(self._shapes.largest),
        )
        try:
            return load_paddle(self._setup)
        except ConfigError as error:
            self._failure = str(error)
            raise EngineError(self._failure) from error


def _in_words(shape: list[int]) -> str:
    images, _, height, width = shape
    return f"{images} image{'' if images == 1 else 's'} of {width}x{height}"


def create_predictor(setup: Setup, gpu: int) -> Any:
    """Paddle's predictor with TensorRT's engines, which are kept in the store.

    Of several processes one builds them: together they would also disturb its timings, by which
    TensorRT chooses kernels. Raises EngineError.
    """
    if setup.options.cache_folder:
        building = _Building(setup, Store(setup.options.cache_folder))
        try:
            key = engine_key(setup, gpu_state(setup.core, gpu))
            return building.store.obtain(key, building.build_in, building.load)
        except (OSError, Unusable) as error:
            building.store.log_unusable(error)
    with tempfile.TemporaryDirectory() as private:  # else Paddle makes one beside the model
        return create_in(private, setup)


def create_in(folder: str, setup: Setup) -> Any:
    """A predictor that reads and writes TensorRT's engines in `folder`. Raises EngineError."""
    config = setup.make_config()
    config.set_optim_cache_dir(folder)
    return create(setup.core, config)


@dataclass(frozen=True)
class _Building:
    """How an entry of the store is made and used."""

    setup: Setup
    store: Store

    def build_in(self, folder: str) -> Any:
        self.store.need_space(space_for(self.setup.deploy))
        log.info("TensorRT builds its engine, which takes minutes")
        return create_in(folder, self.setup)

    def load(self, entry: str) -> Any:
        """From a copy: Paddle writes into the folder where it doesn't find what it looks for."""
        with tempfile.TemporaryDirectory() as private:
            copy = shutil.copytree(entry, os.path.join(private, "engines"))
            predictor = create_in(copy, self.setup)
            if files_of(copy) != files_of(entry):
                log.warning(
                    "TensorRT has built an engine although the cache entry %s holds some",
                    shown(entry),
                )
            return predictor


def engine_key(setup: Setup, gpu: list[str]) -> str:
    """The key of all that TensorRT's engines depend on. `gpu` is `gpu_state` of its GPU."""
    deploy, options, build = setup.deploy, setup.options, setup.build
    tuned = [options.auto_tuned_shape_file] if options.auto_tuned_shape_file else []
    settings = (FORMAT, str(build), build.commit, gpu, *kept_by("tensorrt", options), setup.shapes)
    return key_of([deploy.graph, deploy.params, *tuned], *settings)


def _without_tensorrt(setup: Setup) -> Setup:
    """For Paddle's own engine, which may be loaded hours later: it looks at the files again."""
    options = replace(setup.options, use_trt=False)
    return replace(setup, deploy=replace(setup.deploy), options=options)
