"""The engine that runs the batches: Paddle's own, TensorRT or OpenVINO with that beside it."""

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from paddleseg_infer.config import Shapes, input_name
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines.paddle import Predictor
from paddleseg_infer.engines.shapes import (
    Expected,
    collect,
    dynamic_shapes,
    first_window,
    make_shape_file,
    tuned_shapes,
)
from paddleseg_infer.errors import ConfigError, EngineError
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.settings import EngineOptions
from paddleseg_infer.sources.source import Source

if TYPE_CHECKING:
    from paddleseg_infer.engines.openvino import OpenVinoPredictor

log = logging.getLogger("paddleseg_infer")


def load_engine(
    deploy: DeployConfig,
    options: EngineOptions,
    build: PaddleBuild,
    shapes: Shapes | None = None,
) -> "Predictor | OpenVinoPredictor | BoundedPredictor":
    """An engine to call with batches. Raises ConfigError.

    `options` must be resolved; `shapes` are TensorRT's.
    """
    if options.enable_openvino:
        from paddleseg_infer.engines.openvino import OpenVinoPredictor

        return OpenVinoPredictor(deploy, options, build)
    predictor = Predictor(deploy, options, build, shapes=shapes)
    if shapes is None:
        return predictor
    own = replace(options, use_trt=False)
    return BoundedPredictor(predictor, shapes, lambda: Predictor(deploy, own, build))


def load_for_images(
    deploy: DeployConfig, options: EngineOptions, build: PaddleBuild, expected: Expected
) -> "Predictor | OpenVinoPredictor | BoundedPredictor":
    """As `load_engine`, with TensorRT's shapes from the images to come."""
    if not options.use_trt:
        return load_engine(deploy, options, build)
    if not options.enable_auto_tune:
        return load_engine(deploy, options, build, dynamic_shapes(expected, deploy))
    with tempfile.TemporaryDirectory() as folder:  # read as the engine is made
        path = options.auto_tuned_shape_file or os.path.join(folder, "shapes.pbtxt")
        make_shape_file(path, lambda new: collect_shapes(deploy, options, build, expected, new))
        name = input_name(deploy)
        shapes = tuned_shapes(path, name, expected.batch_size)
        return load_engine(deploy, replace(options, auto_tuned_shape_file=path), build, shapes)


def collect_shapes(
    deploy: DeployConfig,
    options: EngineOptions,
    build: PaddleBuild,
    expected: Expected,
    path: str,
) -> int:
    """Has Paddle write the shapes that it meets to `path`; returns the number of runs."""
    engine = Predictor(deploy, options, build, collect_shapes_in=path)

    def run(image: Source, copies: int) -> None:
        pixels = first_window(image.pixels(), expected.crop)
        engine(np.stack([prepare(pixels, deploy.transforms).tensor()] * copies))

    return collect(run, expected, deploy)
    # Paddle writes the file as the engine and its handles go, with this function.


class BoundedPredictor:
    """An engine that takes shapes within bounds, as TensorRT's, and another for those outside.

    The bounds are those of a sample of the images; building TensorRT's engine again takes minutes.
    """

    def __init__(self, predictor: Predictor, shapes: Shapes, make_other: Callable[[], Predictor]):
        self._predictor, self._shapes, self._make_other = predictor, shapes, make_other
        self._failure = ""  # why the other can't be had

    @property
    def config(self) -> Any:
        return self._predictor.config

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        bounds = zip(self._shapes.smallest, tensor_nchw.shape, self._shapes.largest, strict=True)
        if all(low <= side <= high for low, side, high in bounds):
            return self._predictor(tensor_nchw)
        return self._other(tensor_nchw)

    @cached_property
    def _other(self) -> Predictor:
        if self._failure:
            raise EngineError(self._failure)
        smallest, largest = (
            f"{images} image{'s'[: images != 1]} of {width}x{height}"
            for images, _, height, width in (self._shapes.smallest, self._shapes.largest)
        )
        log.warning(
            "TensorRT's engine takes %s to %s: Paddle's own runs what is outside", smallest, largest
        )
        try:
            return self._make_other()
        except ConfigError as error:
            self._failure = str(error)
            raise EngineError(self._failure) from error
