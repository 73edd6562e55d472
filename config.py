"""Re-exports names of `paddleseg_infer.config` for scripts in this folder."""

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
