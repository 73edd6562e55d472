"""Finds out why a network refuses a size, by trying others."""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines.contract import Engine
from paddleseg_infer.errors import ConfigError, EngineError, ImageError, shown

MULTIPLES = (2, 4, 8, 16, 32, 64)  # of the sides; networks halve images one to six times
LARGE = 256  # pixels, a multiple of twice the largest of these; large enough for most networks


class SizeTrial:
    """Tries sizes in an engine of its own, which is loaded for the first trial.

    A network that halves an image and adds it to another branch needs sides that are multiples of
    its strides. Whether it runs depends on the remainders of the sides, so small images with the
    same remainders show it.
    """

    def __init__(self, deploy: DeployConfig, load: Callable[[], Engine]):
        self._deploy = deploy
        self._load = load
        self._multiple = 0  # of the sides, once it is known
        self._tried: dict[tuple[int, int], bool] = {}  # whether the network runs, by remainders

    def refusal(
        self, height: int, width: int, error: EngineError | MemoryError, on_try: Callable[[], None]
    ) -> ImageError:
        """Returns the error of an image of this size that the network can't run.

        Calls `on_try` before each trial.
        """
        why = "there is not enough memory"
        if isinstance(error, EngineError):
            advice = error.advice or self.why_not(height, width, on_try)
            why = f"{advice}: {error}" if advice else str(error)
        return ImageError(f"the network can't run it at {width}x{height}: {why}")

    def why_not(self, height: int, width: int, on_try: Callable[[], None]) -> str:
        """Returns why the network refuses an input of this size, or "" if that isn't found.

        Calls `on_try` before each trial.
        """
        declared = self._deploy.graph_facts.inputs[0].shape[2:]
        if any(side not in (-1, own) for side, own in zip(declared, (height, width), strict=False)):
            named = zip(("height", "width"), declared, strict=True)
            fixed = " and ".join(f"{name} {side}" for name, side in named if side != -1)
            return (
                f"the graph takes only {fixed}: add a Resize to the transforms in "
                f"{shown(self._deploy.path)}"
            )
        step = max(MULTIPLES)
        remainders = height % step, width % step
        if not self._multiple and remainders not in self._tried:
            self._try(remainders, on_try)
        if self._multiple and (height % self._multiple or width % self._multiple):
            return (
                f"its sides must be multiples of {self._multiple}: use --crop_size with such "
                "multiples, no larger than the smallest image, or add `Padding` with a "
                "`target_size` of such multiples, no smaller than the largest image, to the "
                f"transforms in {shown(self._deploy.path)}"
            )
        larger_runs = self._multiple or self._tried[remainders]
        return (
            "it is too small for this network" if larger_runs and min(height, width) < LARGE else ""
        )

    def _try(self, remainders: tuple[int, int], on_try: Callable[[], None]) -> None:
        """Tries a large image with these remainders, then large images for each multiple."""
        height, width = (LARGE + side for side in remainders)
        self._tried[remainders] = self._runs(height, width, on_try)
        if self._tried[remainders]:
            return
        for multiple in MULTIPLES:
            # Two sides that have just this power of two as a factor: one alone may run because it
            # is a multiple of 3 or 5.
            sides = LARGE + multiple, LARGE + 3 * multiple
            if all(self._runs(side, side, on_try) for side in sides):
                self._multiple = multiple
                return

    def _runs(self, height: int, width: int, on_try: Callable[[], None]) -> bool:
        on_try()
        batch = max(1, self._deploy.input_shape[0])
        try:
            self._engine(np.zeros((batch, self._deploy.channels, height, width), np.float32))
        except (ConfigError, EngineError, MemoryError):  # the model's files may have gone meanwhile
            return False
        return True

    @cached_property
    def _engine(self) -> Engine:
        return self._load()
