"""Engines that may fail for some images, with Paddle's own engine in fp32 beside them.

These are OpenVINO, and oneDNN in bf16 or int8.
"""

import logging
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from paddleseg_infer.engines import openvino
from paddleseg_infer.engines.contract import CannotRun, Engine
from paddleseg_infer.engines.paddle import Predictor, load_paddle
from paddleseg_infer.engines.setup import Kind, Setup
from paddleseg_infer.errors import ConfigError, EngineError, shown
from paddleseg_infer.machine.streams import captured_errors
from paddleseg_infer.outcomes import Ran

log = logging.getLogger("paddleseg_infer")

MAX_RESTARTS = 3  # few, because Paddle never frees an OpenVINO engine
PADDLES_LINES = re.compile(rb"^(?:\x1b\[\d+m-|I\d{4} |WARNING: Logging before).*\n", re.MULTILINE)
SOME_INT8 = re.compile(rb"quantized [1-9]\d* \w+ ops")
NO_MEMORY = re.compile("alloc|memory|temporarily unavailable")


def load_guarded(setup: Setup) -> "GuardedEngine":
    """Loads the model in OpenVINO, or in oneDNN's bf16 or int8. Raises ConfigError."""
    if setup.kind is Kind.OPENVINO:
        openvino.prepare(setup.options, setup.build)
        return GuardedEngine(setup, "OpenVINO", lambda: openvino.OpenVino(setup))
    name = f"oneDNN in {setup.options.precision}"
    return GuardedEngine(setup, name, lambda: _load_low_precision(setup))


def _load_low_precision(setup: Setup) -> Predictor:
    """Loads the model in oneDNN's bf16 or int8. Raises CannotRun or ConfigError.

    Removes the lines that Paddle prints although its log is off. For this, all that the process
    writes to standard error is held back while the model is loaded.
    """
    captured = None
    try:
        with captured_errors() as captured:
            engine = load_paddle(setup)
    except ConfigError as error:
        if isinstance(error.__cause__, EngineError):
            raise CannotRun(str(error.__cause__)) from error
        raise
    finally:
        if captured:
            shown_lines = captured.text
            if not setup.options.print_detail:
                shown_lines = PADDLES_LINES.sub(b"", shown_lines)
            os.write(2, shown_lines)
    if setup.options.precision == "int8" and not SOME_INT8.search(captured.text):
        raise CannotRun("it finds no operator that it can run in int8")
    return engine


class GuardedEngine:
    """An engine that may fail, with the interface of `contract.Engine`.

    Paddle's own engine runs the sizes that the other can't run, and smaller ones. It runs
    everything if the other has failed more than MAX_RESTARTS times, or can't load the model. This
    is logged. Paddle's own engine computes in fp32. So with another precision, a model that the
    other engine can't load is an error.
    """

    def __init__(self, setup: Setup, name: str, start: Callable[[], Engine]):
        """`start` raises CannotRun or ConfigError if the engine can't run the model.

        Raises ConfigError.
        """
        self._setup, self._name, self._start = setup, name, start
        in_fp32 = "" if setup.options.precision == "fp32" else " in fp32"
        self._own_name = f"Paddle's own engine{in_fp32}"
        self._refused: list[tuple[int, int]] = []  # (height, width)
        self._failures = 0
        self._files = self._state_of_files()
        self._own: Predictor | None = None
        try:
            self._guarded: Engine | None = start()
        except CannotRun as error:
            self._loaded_own()  # first, because it raises errors of the files
            if in_fp32:
                raise ConfigError(
                    f"{name} can't run {shown(setup.deploy.graph)} ({error}), which --precision "
                    f"{setup.options.precision} needs: use --precision fp32"
                ) from None
            self._log_unused(error)

    @property
    def config(self) -> Any:
        return (self._guarded or self._loaded_own()).config

    @property
    def is_used(self) -> bool:
        """Whether batches still go to the engine that may fail."""
        return self._guarded is not None

    def __call__(self, tensor_nchw: np.ndarray) -> tuple[np.ndarray, Ran]:
        height, width = tensor_nchw.shape[2:]
        is_refused = any(height <= h and width <= w for h, w in self._refused)
        if self._guarded and not is_refused:
            try:
                return self._guarded(tensor_nchw)
            except EngineError as error:
                self._recover(height, width, str(error))
        return self._loaded_own()(tensor_nchw)

    def _loaded_own(self) -> Predictor:
        """Returns Paddle's own engine, which is loaded at the first call."""
        if self._own is None:
            self._check_files()
            self._own = load_paddle(self._setup.in_fp32)
        return self._own

    def _recover(self, height: int, width: int, why: str) -> None:
        """Logs a failure and restarts the engine, whose state may be wrong after a failure."""
        if NO_MEMORY.search(why):
            line = "%s failed at %dx%d (%s): %s runs this image"
        else:
            self._refused.append((height, width))
            line = "%s can't run %dx%d (%s): %s runs this size and smaller ones"
        log.warning(line, self._name, width, height, why, self._own_name)
        self._guarded = None
        self._failures += 1
        if self._failures > MAX_RESTARTS:
            log.warning(
                "%s has failed %d times: %s runs all other images",
                self._name,
                self._failures,
                self._own_name,
            )
            return
        self._check_files()
        try:
            self._guarded = self._start()
        except (CannotRun, ConfigError) as error:
            self._log_unused(error)

    def _log_unused(self, error: Exception) -> None:
        self._guarded = None
        log.warning("%s can't run this model (%s): %s runs it", self._name, error, self._own_name)

    def _check_files(self) -> None:
        """Raises EngineError if the model's files have changed since the start."""
        if self._state_of_files() != self._files:
            raise EngineError("the model's files have changed since the start of this run")

    def _state_of_files(self) -> list[tuple[int, int]]:
        deploy = self._setup.deploy
        try:
            found = [os.stat(path) for path in (deploy.graph, deploy.params)]
        except OSError:
            return []  # the engine will report the missing file
        return [(status.st_size, status.st_mtime_ns) for status in found]
