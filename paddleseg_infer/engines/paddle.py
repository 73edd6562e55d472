"""One model in Paddle's own engine, on the CPU or on a GPU."""

from dataclasses import replace
from typing import Any

import numpy as np

from paddleseg_infer.cpu_config import has_failing_resizes, with_right_onednn
from paddleseg_infer.engines import optimised
from paddleseg_infer.engines.contract import check_output
from paddleseg_infer.engines.native import create
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ENGINE_ERRORS, EngineError, gist
from paddleseg_infer.machine.gpu import check_gpu, hint
from paddleseg_infer.outcomes import Ran


class Predictor:
    """A predictor that Paddle has made, with the interface of `contract.Engine`."""

    def __init__(self, predictor: Any, config: Any, ran: Ran):
        """Raises EngineError for a graph without input or output."""
        self.config = config
        self._ran = ran
        self._predictor = predictor
        try:
            inputs, outputs = predictor.get_input_names(), predictor.get_output_names()
            self._input = predictor.get_input_handle(inputs[0])
            # Takes the first of several outputs, as PaddleSeg's script does.
            self._output = predictor.get_output_handle(outputs[0])
        except ENGINE_ERRORS as error:
            raise EngineError(gist(error), hint(str(error))) from error

    def __call__(self, tensor_nchw: np.ndarray) -> tuple[np.ndarray, Ran]:
        try:
            self._input.reshape(tensor_nchw.shape)
            self._input._copy_from_cpu_bind(tensor_nchw)
            self._predictor.run()
            output = self._output.copy_to_cpu()
        except ENGINE_ERRORS as error:
            raise EngineError(gist(error), hint(str(error))) from error
        check_output(output, len(tensor_nchw))
        return output, self._ran


def load_paddle(setup: Setup) -> Predictor:
    """Loads the model in Paddle's own engine. Raises ConfigError."""
    setup = replace(setup, options=with_right_onednn(setup.options, setup.deploy))
    config = setup.make_config()
    if setup.options.device == "gpu":
        check_gpu(setup.core, setup.build, use_trt=False)
    with setup.loading():
        return Predictor(optimised.create_predictor(setup, config), config, _ran(setup, config))


def load_collecting(setup: Setup, path: str) -> Predictor:
    """Loads the model without TensorRT, to collect the shapes inside the network.

    Paddle writes them to `path` when the predictor is deleted. Raises ConfigError.
    """
    config = setup.make_config()
    if setup.options.device == "gpu":
        check_gpu(setup.core, setup.build, use_trt=False)
    config.collect_shape_range_info(path)
    with setup.loading():
        return Predictor(create(setup.core, config), config, _ran(setup, config))


def _ran(setup: Setup, config: Any) -> Ran:
    uses_onednn = setup.options.device == "cpu" and config.mkldnn_enabled()
    if has_failing_resizes(setup.deploy, setup.build):  # then most of oneDNN is turned off
        uses_onednn = False
    return Ran("oneDNN" if uses_onednn else "Paddle", setup.options.precision)
