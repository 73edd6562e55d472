"""A model and the settings to run it with. Every engine is made from these."""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from paddleseg_infer.config import Shapes, engine_config
from paddleseg_infer.cpu_config import runs_openvino
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.contract import check_graph
from paddleseg_infer.engines.native import load_core
from paddleseg_infer.errors import ConfigError, EngineError, shown
from paddleseg_infer.machine.paddle_build import PaddleBuild


class Kind(enum.Enum):
    """The engines."""

    OWN = "Paddle's own engine"
    LOW_PRECISION = "Paddle's own engine on the CPU, in bf16 or int8"
    OPENVINO = "OpenVINO inside Paddle"
    TENSORRT = "TensorRT inside Paddle"


@dataclass(frozen=True)
class Setup:
    """A model, resolved options, the installed Paddle, and TensorRT's shapes."""

    deploy: DeployConfig
    options: EngineOptions
    build: PaddleBuild
    shapes: Shapes | None = None  # None without TensorRT, and until its shapes are collected

    @cached_property
    def core(self) -> Any:
        """Paddle's native module. Raises ConfigError for bad model files, before it is loaded."""
        check_graph(self.deploy)
        return load_core(self.build, self.options.device == "gpu")

    def make_config(self) -> Any:
        """Returns a new `paddle.inference.Config`. Raises ConfigError."""
        return engine_config(self.core, self.deploy, self.options, self.build, self.shapes)

    @property
    def kind(self) -> Kind:
        """The engine that runs the model."""
        if runs_openvino(self.options, self.deploy):
            return Kind.OPENVINO
        if self.options.use_trt:
            return Kind.TENSORRT
        return Kind.OWN if self.options.precision == "fp32" else Kind.LOW_PRECISION

    @property
    def collects_shapes(self) -> bool:
        """Whether TensorRT's shapes are collected from images before its engine is made."""
        return self.kind is Kind.TENSORRT and self.shapes is None

    @property
    def in_fp32(self) -> "Setup":
        """The same model in Paddle's own engine, which can run it if any engine can."""
        options = replace(self.options, enable_openvino=False, use_trt=False, precision="fp32")
        return replace(self, options=options)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Turns an EngineError in the block into a ConfigError that names the model's files."""
        try:
            yield
        except EngineError as error:
            advice = error.advice or (
                "the files may be damaged, or of different models: export the model again"
            )
            graph, params = shown(self.deploy.graph), shown(self.deploy.params)
            raise ConfigError(
                f"Paddle {self.build} can't load {graph} with {params}: {error}; {advice}"
            ) from error
