"""Loads Paddle's native module, and makes predictors with it."""

import contextlib
import ctypes
import importlib.util
import logging
import os
import sys
import warnings
from types import ModuleType
from typing import Any

from paddleseg_infer.errors import ENGINE_ERRORS, ConfigError, EngineError, gist
from paddleseg_infer.machine.gpu import hint
from paddleseg_infer.machine.paddle_build import PaddleBuild

log = logging.getLogger("paddleseg_infer")

NATIVE_MODULE = "paddle.base.libpaddle"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MAX_REUSED = 1 << 28
FULL_IMPORT = "PADDLESEG_INFER_FULL_IMPORT"  # an environment variable; any value turns it on


def create(core: Any, config: Any) -> Any:
    """Returns Paddle's predictor for `config`. Raises EngineError."""
    try:
        return core.create_predictor(config)
    except ENGINE_ERRORS as error:
        raise EngineError(gist(error), hint(str(error))) from error


def load_core(build: PaddleBuild, use_gpu: bool) -> Any:
    """Loads and returns Paddle's native module. Imports the rest of Paddle only if necessary.

    `import paddle` takes 3 to 4 s, the native module alone 0.25 s. A GPU needs the whole import,
    which finds the CUDA libraries. The environment variable FULL_IMPORT forces it. Raises
    ConfigError if Paddle can't be imported.
    """
    # By default the engine's idle threads spin for 200 ms. Reading and saving need these
    # processors. With 3 ms a folder of large photos took 13 % less time, and no network was clearly
    # slower. With 0 ms small networks were slower.
    os.environ.setdefault("KMP_BLOCKTIME", "3")
    _reuse_memory()
    if not use_gpu and NATIVE_MODULE not in sys.modules and not os.environ.get(FULL_IMPORT):
        try:
            return _load_native(os.path.join(build.folder, "base", "libpaddle.so"))
        except ImportError as error:
            log.warning(
                "Paddle's native module can't be loaded alone (%s): all of Paddle is imported",
                error,
            )
    if use_gpu or NATIVE_MODULE not in sys.modules:
        try:
            with warnings.catch_warnings():  # about a missing GPU or compiler
                warnings.simplefilter("ignore")
                import paddle  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"Paddle {build} can't be imported: {error}") from error
    return sys.modules[NATIVE_MODULE]


def _reuse_memory() -> None:
    """Makes the C library keep freed memory of up to MAX_REUSED bytes for the next batch.

    By default glibc returns arrays above 32 MB to the system. The outputs of models that return
    logits are larger. New memory pages for 19x512x1024 scores take 3 to 5 % of a batch's time.
    """
    with contextlib.suppress(AttributeError, OSError):  # the C library isn't glibc
        c_library = ctypes.CDLL(None)
        c_library.mallopt(M_MMAP_THRESHOLD, MAX_REUSED)
        c_library.mallopt(M_TRIM_THRESHOLD, MAX_REUSED)


def _load_native(path: str) -> ModuleType:
    """Loads libpaddle.so as NATIVE_MODULE. With another name a later `import paddle` aborts."""
    spec = importlib.util.spec_from_file_location(NATIVE_MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NATIVE_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[NATIVE_MODULE]
        raise
    return module
