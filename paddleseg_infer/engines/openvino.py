"""OpenVINO inside Paddle.

Paddle's OpenVINO engine has two faults. If a run fails, it raises no exception: it logs an error
and returns the output of an earlier batch, and does so until the shape changes. Also, it keeps
kernels for every shape, up to 5,000 of each kind. So this module reads the log of every run, and
makes OpenVINO keep fewer kernels.
"""

import ctypes
import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
from html import escape
from typing import Any

import numpy as np

from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.contract import CannotRun
from paddleseg_infer.engines.native import NATIVE_MODULE, create
from paddleseg_infer.engines.optimised import OPTIMIZED_GRAPH, space_for
from paddleseg_infer.engines.paddle import Predictor
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ConfigError, EngineError, reason
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.machine.store import Store, Unusable
from paddleseg_infer.machine.streams import captured_errors
from paddleseg_infer.outcomes import Ran

log = logging.getLogger("paddleseg_infer")

# How many kernels of each kind OpenVINO keeps. With its default of 5,000, memory grew by 1 to 2 MB
# with each new size from 64x64 to 300x300. With 64 memory didn't grow, and new sizes were as fast.
KEPT_KERNELS = 64
RUN_FAILED = re.compile(rb"engine\.cc:\d+\] (.*?)(?:\n\n|\Z)|Exception from |bad_alloc", re.DOTALL)


class OpenVino:
    """A model in OpenVINO. An error that OpenVINO only logs raises EngineError too."""

    def __init__(self, setup: Setup):
        """Raises CannotRun if OpenVINO can't run the model."""
        self.config = setup.make_config()
        ran = Ran("OpenVINO", setup.options.precision)
        try:
            self._run = Predictor(_create(setup, self.config), self.config, ran)
        except EngineError as error:
            raise CannotRun(str(error)) from error
        self._is_full_size: bool | None = None  # whether outputs are as high and wide as inputs

    def __call__(self, tensor_nchw: np.ndarray) -> tuple[np.ndarray, Ran]:
        error = None
        with captured_errors() as captured:
            try:
                output, ran = self._run(tensor_nchw)
            except EngineError as raised:  # of a stale output perhaps: the log says more
                error = raised
        if failure := RUN_FAILED.search(captured.text):
            message = (failure[1] or captured.text).decode(errors="replace")
            raise EngineError(message.strip().split("\n")[-1].rstrip("."))
        if captured.text:
            os.write(2, captured.text)
        if error:
            raise error
        is_full_size = output.shape[-2:] == tensor_nchw.shape[-2:]
        if self._is_full_size is None:
            self._is_full_size = is_full_size
        elif self._is_full_size and not is_full_size:
            raise EngineError(f"its output has the shape {list(output.shape)}")
        return output, ran


def _create(setup: Setup, config: Any) -> Any:
    """Returns Paddle's predictor with OpenVINO in it. Raises CannotRun.

    Paddle writes the optimised graph to a temporary folder, and this function looks for OpenVINO in
    the graph. OpenVINO writes its weights to that folder too.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            if shutil.disk_usage(folder).free < space_for(setup.deploy):
                raise CannotRun("the temporary folder has too little space; set TMPDIR to another")
            config.set_optim_cache_dir(folder)
            config.enable_save_optim_model(True)
            predictor = create(setup.core, config)
            written = os.path.join(folder, OPTIMIZED_GRAPH)
            if os.path.isfile(written):
                with open(written, "rb") as graph:
                    if b"openvino_engine" in graph.read():
                        return predictor
            raise CannotRun("Paddle doesn't use OpenVINO for it")
    except OSError as error:
        raise CannotRun(
            f"the temporary folder can't be used: {reason(error)}; set TMPDIR to another"
        ) from error


_has_settings = False  # a process has only one OpenVINO


def prepare(options: EngineOptions, build: PaddleBuild) -> None:
    """Makes failures appear in the log, and gives OpenVINO this program's settings.

    Logs why it can't do the second. Call it before Paddle is loaded. Raises ConfigError if Paddle
    was loaded with settings of its log, because they may hide failures.

    OpenVINO reads settings only from a file `plugins.xml` in its library's folder. Paddle's folder
    has no such file. So a copy of the library in the cache folder is loaded, next to such a file.
    """
    for name in [name for name in os.environ if name.startswith("GLOG_")]:
        if NATIVE_MODULE in sys.modules:
            raise ConfigError(
                f"the environment variable {name} was set when Paddle was loaded, and may hide "
                "OpenVINO's failures: unset it, and start the process again"
            )
        del os.environ[name]
    global _has_settings
    if _has_settings or not build.openvino_library:
        return
    try:
        if NATIVE_MODULE in sys.modules:
            raise Unusable("Paddle was already loaded")
        if options.cache_dir == "":
            raise Unusable("--cache_dir is empty")
        _load_with_settings(build.openvino_library, options.cache_folder)
        _has_settings = True
    except (OSError, Unusable) as error:
        why = reason(error) if isinstance(error, OSError) and error.strerror else str(error)
        log.warning(
            "OpenVINO runs with its default settings (%s): it needs more memory for each new "
            "image size, and several workers slow each other down",
            why,
        )


def _load_with_settings(library: str, cache_dir: str) -> None:
    libs = os.path.dirname(library)
    plugin = os.path.join(libs, "libopenvino_intel_cpu_plugin.so")
    settings = (
        f'<ie><plugins><plugin name="CPU" location="{escape(plugin)}"><properties>'
        f'<property key="CPU_RUNTIME_CACHE_CAPACITY" value="{KEPT_KERNELS}"/>'
        # By default the threads of all workers are pinned to the same processors.
        '<property key="ENABLE_CPU_PINNING" value="NO"/>'
        "</properties></plugin></plugins></ie>\n"
    )

    def fill(folder: str) -> None:
        shutil.copy(library, folder)
        for frontend in _those_of(libs, "libopenvino_paddle_frontend.so"):
            os.symlink(frontend, os.path.join(folder, os.path.basename(frontend)))
        with open(os.path.join(folder, "plugins.xml"), "w", encoding="utf-8") as file:
            file.write(settings)

    status = os.stat(library)
    key = f"{library} {status.st_size} {status.st_mtime_ns} {settings}"
    entry = Store(cache_dir).keep(hashlib.sha256(os.fsencode(key)).hexdigest(), fill)
    for needed in _those_of(libs, "libtbb.so"):
        ctypes.CDLL(needed)
    ctypes.CDLL(os.path.join(entry, os.path.basename(library)))


def _those_of(folder: str, name: str) -> list[str]:
    """Returns the paths of all versions of the library `name` in `folder`."""
    return [os.path.join(folder, found) for found in os.listdir(folder) if found.startswith(name)]
