"""The interface of every engine, and the checks of graphs and outputs."""

from typing import Any, Protocol

import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, EngineError, shown


class Engine(Protocol):
    """A loaded model."""

    @property
    def config(self) -> Any:
        """The `paddle.inference.Config` that the engine was made with."""

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        """Runs float32 [N, 3, H, W] through the network.

        Returns a copy of its first output: integer labels [N, H, W] or [N, 1, H, W], or scores
        float32 [N, C, H, W]. Raises EngineError if the network fails.
        """


def check_graph(deploy: DeployConfig) -> None:
    """Raises ConfigError unless graph and parameters are intact and the graph has an input."""
    if not deploy.graph_facts.inputs:
        raise ConfigError(f"{shown(deploy.graph)} has no input: export the model again")


def check_output(output: np.ndarray, images: int) -> None:
    """Raises EngineError if the output is empty or its first axis isn't `images` long."""
    if output.shape[:1] != (images,) or not output.size:
        raise EngineError(f"its output is {list(output.shape)} for {images} images")
