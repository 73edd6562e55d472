"""A model in TensorRT. Its engines are kept between runs, and run only shapes within bounds."""

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
from paddleseg_infer.outcomes import Ran

log = logging.getLogger("paddleseg_infer")


class TensorRtEngine:
    """TensorRT's engine for shapes within bounds, and Paddle's own engine for other shapes.

    The bounds come from a sample of the images. They stay the same, because TensorRT takes minutes
    to build another engine. Has the interface of `contract.Engine`.
    """

    def __init__(self, setup: Setup):
        """`setup.shapes` must not be None. Raises ConfigError."""
        assert setup.shapes is not None
        self.config = setup.make_config()
        check_gpu(setup.core, setup.build, use_trt=True)
        with setup.loading():
            predictor = create_predictor(setup, self.config.gpu_device_id())
            self._inside = Predictor(
                predictor, self.config, Ran("TensorRT", setup.options.precision)
            )
        self._outside = Outside(setup.shapes, _without_tensorrt(setup))

    def __call__(self, tensor_nchw: np.ndarray) -> tuple[np.ndarray, Ran]:
        if self._outside.takes(tensor_nchw.shape):
            return self._outside(tensor_nchw)
        return self._inside(tensor_nchw)


class Outside:
    """Paddle's own engine, for shapes outside TensorRT's bounds. Loaded at the first such shape."""

    def __init__(self, shapes: Shapes, setup: Setup):
        self._shapes, self._setup = shapes, setup
        self._engine: Predictor | None = None
        self._failure = ""  # why it can't be loaded

    def takes(self, shape: tuple[int, ...]) -> bool:
        bounds = zip(self._shapes.smallest, shape, self._shapes.largest, strict=True)
        return not all(low <= side <= high for low, side, high in bounds)

    def __call__(self, tensor_nchw: np.ndarray) -> tuple[np.ndarray, Ran]:
        if self._engine is None:
            self._engine = self._load()
        return self._engine(tensor_nchw)

    def _load(self) -> Predictor:
        if self._failure:
            raise EngineError(self._failure)
        log.warning(
            "TensorRT's engine can run %s to %s: Paddle's own engine runs other sizes",
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
    """Returns Paddle's predictor with TensorRT's engines, which are kept in the store.

    Only one of several processes builds them. TensorRT chooses kernels by measured times, which
    would be wrong if several processes built at once. Raises EngineError.
    """
    if setup.options.cache_folder:
        building = _Building(setup, Store(setup.options.cache_folder))
        try:
            key = engine_key(setup, gpu_state(setup.core, gpu))
            return building.store.obtain(key, building.build_in, building.load)
        except (OSError, Unusable) as error:
            building.store.log_unusable(error)
    with tempfile.TemporaryDirectory() as private:  # otherwise Paddle uses the model's folder
        return create_in(private, setup)


def create_in(folder: str, setup: Setup) -> Any:
    """Returns a predictor that reads and writes TensorRT's engines in `folder`.

    Raises EngineError.
    """
    config = setup.make_config()
    config.set_optim_cache_dir(folder)
    return create(setup.core, config)


@dataclass(frozen=True)
class _Building:
    """Builds and loads an entry of the store."""

    setup: Setup
    store: Store

    def build_in(self, folder: str) -> Any:
        self.store.need_space(space_for(self.setup.deploy))
        log.info("TensorRT is building its engine, which takes minutes")
        return create_in(folder, self.setup)

    def load(self, entry: str) -> Any:
        """Loads a copy of the entry, because Paddle writes to it if an engine is missing."""
        with tempfile.TemporaryDirectory() as private:
            copy = shutil.copytree(entry, os.path.join(private, "engines"))
            predictor = create_in(copy, self.setup)
            if files_of(copy) != files_of(entry):
                log.warning(
                    "TensorRT has built an engine although the cache entry %s has one",
                    shown(entry),
                )
            return predictor


def engine_key(setup: Setup, gpu: list[str]) -> str:
    """Returns the key of TensorRT's engines: a digest of everything that they depend on.

    `gpu` is the result of `gpu_state`.
    """
    deploy, options, build = setup.deploy, setup.options, setup.build
    tuned = [options.auto_tuned_shape_file] if options.auto_tuned_shape_file else []
    settings = (FORMAT, str(build), build.commit, gpu, *kept_by("tensorrt", options), setup.shapes)
    return key_of([deploy.graph, deploy.params, *tuned], *settings)


def _without_tensorrt(setup: Setup) -> Setup:
    """Returns the setup for Paddle's own engine.

    That may be loaded hours later, so the copy of `deploy` checks the model's files again.
    """
    return replace(setup.in_fp32, deploy=replace(setup.deploy))
