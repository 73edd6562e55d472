"""For scripts in this folder: the names of `paddleseg_infer.config`."""

from paddleseg_infer.config import Shapes, engine_config, engine_state, input_name, resolved

__all__ = ["Shapes", "engine_config", "engine_state", "input_name", "resolved"]
