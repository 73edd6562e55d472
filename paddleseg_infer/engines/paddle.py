"""One model in Paddle's own engine, on the CPU or on a GPU."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from paddleseg_infer.config import with_right_onednn
from paddleseg_infer.engines import optimised
from paddleseg_infer.engines.contract import Engine, check_output
from paddleseg_infer.engines.native import create
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ENGINE_ERRORS, EngineError, gist, shown
from paddleseg_infer.machine.gpu import check_gpu, hint

log = logging.getLogger("paddleseg_infer")

# A right oneDNN differs from plain Paddle by 1e-6 to 1e-4 of the values, and in up to 0.1 % of the
# labels. With a wrong division the values differ by 0.6 of themselves and more.
LARGEST_DIFFERENCE = 0.005


class Predictor:
    """A predictor that Paddle has made, with the interface of `contract.Engine`."""

    def __init__(self, predictor: Any, config: Any):
        """Raises EngineError for a graph without input or output."""
        self.config = config
        self._predictor = predictor
        try:
            inputs, outputs = predictor.get_input_names(), predictor.get_output_names()
            self._input = predictor.get_input_handle(inputs[0])
            # Takes the first of several outputs, as PaddleSeg's script does.
            self._output = predictor.get_output_handle(outputs[0])
        except ENGINE_ERRORS as error:
            raise EngineError(gist(error), hint(str(error))) from error

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        try:
            self._input.reshape(tensor_nchw.shape)
            self._input._copy_from_cpu_bind(tensor_nchw)
            self._predictor.run()
            output = self._output.copy_to_cpu()
        except ENGINE_ERRORS as error:
            raise EngineError(gist(error), hint(str(error))) from error
        check_output(output, len(tensor_nchw))
        return output


class Compared:
    """oneDNN, if its first output equals that of plain Paddle; otherwise plain Paddle.

    It is for graphs that don't declare whether oneDNN is right. The interface is `contract.Engine`.
    """

    def __init__(self, onednn: Predictor, load_plain: Callable[[], Predictor], graph: str):
        self._engine, self._load_plain, self._graph = onednn, load_plain, graph
        self._is_decided = False

    @property
    def config(self) -> Any:
        return self._engine.config

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        output = self._engine(tensor_nchw)
        if self._is_decided:
            return output
        plain = self._load_plain()
        expected = plain(tensor_nchw)
        self._is_decided = True
        if difference(output, expected) <= LARGEST_DIFFERENCE:
            return output
        log.warning(
            "%s: oneDNN computes the first batch wrongly, so the network runs without oneDNN, "
            "which is slower",
            shown(self._graph),
        )
        self._engine = plain
        return expected


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    """Returns how much two outputs of a network differ, from 0.

    Labels: the share of unequal ones. Scores: the largest difference, divided by the largest value.
    If only one of them has NaN or infinite values, the difference is infinite.
    """
    if not np.issubdtype(expected.dtype, np.floating):
        return float((output != expected).mean())
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(output)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = np.abs(expected[finite]).max()
    return float(np.abs(output[finite] - expected[finite]).max() / max(largest, 1e-30))


def load_paddle(setup: Setup) -> Engine:
    """Loads the model in Paddle's own engine. Raises ConfigError."""
    options = with_right_onednn(setup.options, setup.deploy)
    predictor = _load(replace(setup, options=options))
    doubts = setup.deploy.graph_facts.onednn.doubts
    if not doubts or options.enable_mkldnn is not None or not predictor.config.mkldnn_enabled():
        return predictor
    graph = setup.deploy.graph
    log.info(
        "%s: oneDNN %s: the first batch is run without oneDNN too, and compared",
        shown(graph),
        " and ".join(doubts),
    )
    without = replace(setup, options=replace(options, enable_mkldnn=False))
    return Compared(predictor, lambda: _load(without), graph)


def _load(setup: Setup) -> Predictor:
    config = setup.make_config()
    if setup.options.device == "gpu":
        check_gpu(setup.core, setup.build, use_trt=False)
    with setup.loading():
        return Predictor(optimised.create_predictor(setup, config), config)


def load_collecting(setup: Setup, path: str) -> Predictor:
    """Loads the model without TensorRT, to collect the shapes inside the network.

    Paddle writes them to `path` when the predictor is deleted. Raises ConfigError.
    """
    config = setup.make_config()
    if setup.options.device == "gpu":
        check_gpu(setup.core, setup.build, use_trt=False)
    config.collect_shape_range_info(path)
    with setup.loading():
        return Predictor(create(setup.core, config), config)
