"""The engine that runs the batches: Paddle's own, TensorRT or OpenVINO with that beside it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from config import EngineOptions
from deploy import DeployConfig
from errors import ConfigError, EngineError
from machine import PaddleBuild
from predictor import Predictor
from trt import Shapes

if TYPE_CHECKING:
    from openvino_engine import OpenVinoPredictor

log = logging.getLogger("paddleseg_infer")


def load_engine(
    deploy: DeployConfig, options: EngineOptions, build: PaddleBuild, shapes: Shapes | None = None
) -> "Predictor | OpenVinoPredictor | BoundedPredictor":
    """An engine to call with batches. Raises ConfigError.

    `options` must be resolved; `shapes` are TensorRT's.
    """
    if options.enable_openvino:
        from openvino_engine import OpenVinoPredictor

        return OpenVinoPredictor(deploy, options, build)
    predictor = Predictor(deploy, options, build, shapes=shapes)
    if shapes is None:
        return predictor
    own = replace(options, use_trt=False)
    return BoundedPredictor(predictor, shapes, lambda: Predictor(deploy, own, build))


class BoundedPredictor:
    """An engine that takes shapes within bounds, as TensorRT's, and another for those outside.

    The bounds are those of a sample of the images; building TensorRT's engine again takes minutes.
    """

    def __init__(self, predictor: Predictor, shapes: Shapes, make_other: Callable[[], Predictor]):
        self._predictor, self._shapes, self._make_other = predictor, shapes, make_other

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
        (*_, low, left), (*_, high, right) = self._shapes.smallest, self._shapes.largest
        log.warning(
            "TensorRT's engine takes %dx%d to %dx%d: Paddle's own runs what is smaller or larger",
            *(left, low, right, high),
        )
        try:
            return self._make_other()
        except ConfigError as error:
            raise EngineError(str(error)) from error
