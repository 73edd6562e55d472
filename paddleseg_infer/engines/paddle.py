"""One model in Paddle's engine: tensor in, array out."""

from dataclasses import replace
from typing import Any

import numpy as np

from paddleseg_infer.config import Shapes, engine_config
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines import optimised, tensorrt
from paddleseg_infer.engines.native import create, load_core
from paddleseg_infer.errors import ENGINE_ERRORS, ConfigError, EngineError, gist, shown
from paddleseg_infer.machine.gpu import check_gpu, hint
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.settings import EngineOptions


class Predictor:
    """A loaded model, and the `paddle.inference.Config` that it was made with.

    Raises ConfigError where the files are no model, or not one that this Paddle can run.
    """

    def __init__(
        self,
        deploy: DeployConfig,
        options: EngineOptions,
        build: PaddleBuild,
        *,
        shapes: Shapes | None = None,
        collect_shapes_in: str | None = None,
    ):
        """`options` must be resolved; `shapes` are TensorRT's.

        With `collect_shapes_in` the predictor, without TensorRT, notes the shapes it meets and
        writes them to that file when it is deleted.
        """
        _ = deploy.graph_facts  # before Paddle sees the files
        self._core = load_core(build, options.device == "gpu")
        self._deploy, self._options, self._build, self._shapes = deploy, options, build, shapes
        self.config = self._make_config()
        if options.device == "gpu":
            check_gpu(self._core, build, options.use_trt)
        try:
            if collect_shapes_in:
                self._options = replace(options, use_trt=False)
                self.config = self._make_config()
                self.config.collect_shape_range_info(collect_shapes_in)
                self._predictor = create(self._core, self.config)
            else:
                self._predictor = self._create()
            inputs, outputs = self._predictor.get_input_names(), self._predictor.get_output_names()
            self._input = self._predictor.get_input_handle(inputs[0])
            # PaddleSeg's script too takes the first of several outputs.
            self._output = self._predictor.get_output_handle(outputs[0])
        except EngineError as error:
            advice = error.advice or (
                "the files may be damaged, or not belong together: export again"
            )
            raise ConfigError(
                f"Paddle {build} can't load {shown(deploy.graph)} with {shown(deploy.params)}: "
                f"{error}; {advice}"
            ) from error

    def _make_config(self) -> Any:
        return engine_config(self._core, self._deploy, self._options, self._build, self._shapes)

    def _create(self) -> Any:
        """Paddle's predictor. Raises EngineError."""
        if self._options.use_trt and self._shapes:
            return tensorrt.create_predictor(
                self._core,
                self._make_config,
                self.config.gpu_device_id(),
                deploy=self._deploy,
                options=self._options,
                build=self._build,
                shapes=self._shapes,
            )
        return optimised.create_predictor(
            *(self._core, self._make_config, self._deploy, self._options, self._build)
        )

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        """Runs float32 [N, 3, H, W] through the network.

        Returns a copy of its first output: integer labels [N, H, W] or [N, 1, H, W], or scores
        float32 [N, C, H, W]. Raises EngineError.
        """
        try:
            self._input.reshape(tensor_nchw.shape)
            self._input._copy_from_cpu_bind(tensor_nchw)
            self._predictor.run()
            output = self._output.copy_to_cpu()
        except ENGINE_ERRORS as error:
            raise EngineError(gist(error), hint(str(error))) from error
        if output.shape[:1] != tensor_nchw.shape[:1] or not output.size:
            raise EngineError(f"its output is {list(output.shape)} for {len(tensor_nchw)} images")
        return output
