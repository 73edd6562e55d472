"""The engine that runs the batches: Paddle's own, or OpenVINO inside Paddle with that beside it.

Paddle's OpenVINO engine has two traps. A run that fails doesn't raise: it logs an error, and the
output is that of an earlier batch, then and until the shape changes. And it keeps kernels of every
shape it meets, up to 5,000 of each kind. So every run's log is read here, what OpenVINO can't run
goes through oneDNN, and OpenVINO is told to keep few kernels.
"""

import contextlib
import ctypes
import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import IO, Any
from xml.sax.saxutils import quoteattr

import numpy as np

import cache
from config import EngineOptions
from deploy import DeployConfig
from errors import reason
from machine import PaddleBuild
from predictor import ENGINE_ERRORS, NATIVE_MODULE, EngineError, Predictor, gist

log = logging.getLogger("paddleseg_infer")

KEPT_KERNELS = 64  # of each kind; with 5,000 memory grows by 1 MB with every size
MAX_RESTARTS = 3  # Paddle never frees an OpenVINO engine
RUN_FAILED = re.compile(rb"^E\d{4} .*engine\.cc:\d+\]|Exception from |bad_alloc", re.MULTILINE)


def load_engine(
    deploy: DeployConfig, options: EngineOptions, build: PaddleBuild
) -> "Predictor | OpenVinoPredictor":
    """An engine to call with batches. Raises ConfigError. `options` must be resolved."""
    make = OpenVinoPredictor if options.enable_openvino else Predictor
    return make(deploy, options, build)


class OpenVinoPredictor:
    """A model in OpenVINO, to be called like a `predictor.Predictor`.

    What OpenVINO can't run goes through oneDNN: a size that it has failed at and smaller ones, and
    everything where it can't take the graph or has failed often. Each of these is told in a line.
    """

    def __init__(self, deploy: DeployConfig, options: EngineOptions, build: PaddleBuild):
        self._deploy, self._options, self._build = deploy, options, build
        self._refused: list[tuple[int, int]] = []  # (height, width)
        self._restarts = 0
        self._openvino: _OpenVino | None = None
        _keep_few_kernels(options, build)
        self._start()

    @property
    def config(self) -> Any:
        return (self._openvino or self._onednn).config

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        height, width = tensor_nchw.shape[2:]
        is_refused = any(height <= h and width <= w for h, w in self._refused)
        if self._openvino and not is_refused:
            try:
                return self._openvino(tensor_nchw)
            except EngineError as error:
                self._refused.append((height, width))
                log.warning(
                    "OpenVINO can't run %dx%d (%s): oneDNN does, and what is smaller",
                    *(width, height, error),
                )
                self._restart()
        return self._onednn(tensor_nchw)

    @cached_property
    def _onednn(self) -> Predictor:
        return Predictor(self._deploy, replace(self._options, enable_openvino=False), self._build)

    def _start(self) -> None:
        try:
            self._openvino = _OpenVino(self._deploy, self._options, self._build)
        except _LeftOut as error:
            log.warning("OpenVINO can't take this graph (%s): oneDNN runs it", error)

    def _restart(self) -> None:
        """After a failure OpenVINO's state is not to be trusted."""
        self._openvino = None
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            log.warning("OpenVINO has failed %d times: oneDNN runs the rest", self._restarts)
        else:
            self._start()


class _LeftOut(Exception):
    """Paddle has made no predictor, or one without OpenVINO."""


class _OpenVino(Predictor):
    """Raises EngineError also where OpenVINO only logs an error."""

    _is_full_size: bool | None = None  # whether an output is as high and wide as its input

    def _create(self) -> Any:
        """Raises _LeftOut. What Paddle has made of the graph is seen by having it written."""
        with tempfile.TemporaryDirectory() as folder:
            self.config.set_optim_cache_dir(folder)
            self.config.enable_save_optim_model(True)
            try:
                predictor = self._core.create_predictor(self.config)
            except ENGINE_ERRORS as error:
                raise _LeftOut(gist(error)) from error
            try:
                with open(os.path.join(folder, cache.OPTIMIZED_GRAPH), "rb") as graph:
                    is_in = b"openvino_engine" in graph.read()
            except FileNotFoundError:
                is_in = False
            if not is_in:
                raise _LeftOut("Paddle has left it out")
        return predictor

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryFile() as logged:
            with _standard_error_to(logged):
                output = super().__call__(tensor_nchw)
            logged.seek(0)
            text = logged.read()
        if RUN_FAILED.search(text):
            raise EngineError(text.decode(errors="replace").strip().split("\n")[-1].rstrip("."))
        if text:
            os.write(2, text)
        is_full_size = output.shape[-2:] == tensor_nchw.shape[-2:]
        if self._is_full_size is None:
            self._is_full_size = is_full_size
        elif self._is_full_size and not is_full_size:
            raise EngineError(f"its output is {list(output.shape)}")
        return output


@contextlib.contextmanager
def _standard_error_to(file: IO[bytes]) -> Iterator[None]:
    """For C++ code too, which writes to the number and not to Python's stream."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


_loaded_with_settings = False  # of this process's one OpenVINO


def _keep_few_kernels(options: EngineOptions, build: PaddleBuild) -> None:
    """Has OpenVINO keep KEPT_KERNELS, or tells why not. To be called before Paddle is loaded.

    OpenVINO reads settings from a `plugins.xml` beside its library, and Paddle's has none: so a
    copy of the library is loaded, from the cache folder, with one beside it.
    """
    global _loaded_with_settings
    if _loaded_with_settings or not build.openvino_library:
        return
    try:
        if NATIVE_MODULE in sys.modules:
            raise cache.Unusable("Paddle was loaded before")
        if options.cache_dir == "":
            raise cache.Unusable("--cache_dir is empty")
        folder = cache.default_cache_dir() if options.cache_dir is None else options.cache_dir
        _load_with_settings(build.openvino_library, folder)
        _loaded_with_settings = True
    except (OSError, cache.Unusable) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        log.warning("OpenVINO's memory will grow with each new image size: %s", why)


def _load_with_settings(library: str, cache_dir: str) -> None:
    libs = os.path.dirname(library)
    plugin = os.path.join(libs, "libopenvino_intel_cpu_plugin.so")
    settings = (
        f'<ie><plugins><plugin name="CPU" location={quoteattr(plugin)}><properties>'
        f'<property key="CPU_RUNTIME_CACHE_CAPACITY" value="{KEPT_KERNELS}"/>'
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
    entry = cache.keep(cache_dir, hashlib.sha256(os.fsencode(key)).hexdigest(), fill)
    for needed in _those_of(libs, "libtbb.so"):
        ctypes.CDLL(needed)
    ctypes.CDLL(os.path.join(entry, os.path.basename(library)))


def _those_of(folder: str, name: str) -> list[str]:
    """Paths of the libraries `name`, of any version."""
    return [os.path.join(folder, found) for found in os.listdir(folder) if found.startswith(name)]
