"""Runs image-segmentation models that PaddleSeg exported, and saves colour masks.

>>> from paddleseg_infer import Segmenter
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddleseg_infer.errors import (
        ConfigError,
        EngineError,
        ImageError,
        RunError,
        SegmentationError,
    )
    from paddleseg_infer.segmenter import Segmenter

__all__ = [
    "ConfigError",
    "EngineError",
    "ImageError",
    "RunError",
    "SegmentationError",
    "Segmenter",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is used (PEP 562), because numpy and OpenCV load slowly.

    Raises AttributeError for any other name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "segmenter" if name == "Segmenter" else "errors"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
