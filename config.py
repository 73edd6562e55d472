"""For scripts in this folder: the names of `paddleseg_infer.config`."""

from paddleseg_infer.config import (
    EngineOptions,
    Shapes,
    engine_config,
    engine_state,
    input_name,
    resolved,
)

__all__ = [
    "EngineOptions",
    "Shapes",
    "engine_config",
    "engine_state",
    "input_name",
    "resolved",
]
