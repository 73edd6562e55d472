"""Re-exports names of `paddleseg_infer.config` for scripts in this folder."""

from paddleseg_infer.config import (
    EngineOptions,
    Shapes,
    engine_config,
    engine_state,
    input_name,
    resolved,
    with_right_onednn,
)

__all__ = [
    "EngineOptions",
    "Shapes",
    "engine_config",
    "engine_state",
    "input_name",
    "resolved",
    "with_right_onednn",
]
