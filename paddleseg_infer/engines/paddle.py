"""One model in Paddle's own engine, on the CPU or on a GPU."""

import logging
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

# Between the two cases that were measured. If oneDNN is right, its scores differ from those of
# plain Paddle by less than 0.0001 of the largest one, and less than 0.1 % of the labels differ.
# If its division is wrong, the scores differ by more than half of that, and most labels differ.
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
    """oneDNN as long as its outputs equal those of plain Paddle; otherwise plain Paddle.

    It is for graphs that don't declare whether oneDNN is right. It compares the first batch, and
    each batch that is higher or wider than all before, because oneDNN may be right for a small
    image only. The interface is `contract.Engine`.
    """

    def __init__(self, onednn: Predictor, plain: Predictor, graph: str):
        self._engine, self._plain, self._graph = onednn, plain, graph
        self._compared = (0, 0)  # the largest height and width so far

    @property
    def config(self) -> Any:
        return self._engine.config

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        output = self._engine(tensor_nchw)
        height, width = (
            max(pair) for pair in zip(tensor_nchw.shape[2:], self._compared, strict=True)
        )
        if self._engine is self._plain or (height, width) == self._compared:
            return output
        expected = self._plain(tensor_nchw)
        if difference(output, expected) > LARGEST_DIFFERENCE:
            log.warning(
                "%s: oneDNN computes a batch wrongly, so the network runs without oneDNN, which is "
                "slower",
                shown(self._graph),
            )
            self._engine = self._plain
            return expected
        if expected.min() != expected.max():  # the same label everywhere would show nothing
            self._compared = (height, width)
        return output


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    """Returns how much two outputs of a network differ, from 0.

    Labels: the share of unequal ones. Scores: the largest difference, divided by the largest value.
    The difference is infinite if the shapes differ, or if only one has NaN or infinite values.
    """
    if output.shape != expected.shape:
        return float("inf")
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
        "%s: oneDNN %s: the first batch is also run without oneDNN, and compared",
        shown(graph),
        " and ".join(doubts),
    )
    without = replace(setup, options=replace(options, enable_mkldnn=False))
    return Compared(predictor, _load(without), graph)


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
