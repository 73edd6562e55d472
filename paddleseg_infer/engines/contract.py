"""The interface of every engine, and the checks of graphs and outputs."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, EngineError, brief, shown
from paddleseg_infer.graph import Port
from paddleseg_infer.outcomes import Ran

log = logging.getLogger("paddleseg_infer")


class NoBatchAxis(EngineError):
    """A single image's output has no batch axis."""


class CannotRun(Exception):
    """An engine can't run the model as it was asked to. The message is the reason."""


class Engine(Protocol):
    """A loaded model."""

    @property
    def config(self) -> Any:
        """The `paddle.inference.Config` that the engine was made with."""

    def __call__(self, tensor_nchw: np.ndarray) -> tuple[np.ndarray, Ran]:
        """Runs float32 [N, C, H, W] through the network.

        Returns a copy of its first output: labels [N, H, W] or [N, 1, H, W], or scores float32
        [N, C, H, W]. Either may have its channels last. Also returns what has run the network.
        Raises EngineError.
        """


def check_graph(deploy: DeployConfig) -> None:
    """Checks what the graph declares: one image in, labels or scores out.

    Raises ConfigError for another model, and for files that are damaged or no model.
    """
    facts = deploy.graph_facts
    wrong = (
        _wrong_inputs(facts.inputs, deploy)
        or _wrong_batch(facts.inputs, deploy)
        or _wrong_outputs(facts.inputs, facts.outputs)
    )
    if wrong:
        raise ConfigError(f"{shown(deploy.graph)} {wrong}")


def _wrong_inputs(inputs: Sequence[Port], deploy: DeployConfig) -> str:
    """Returns why this program can't feed the graph, or ""."""
    if not inputs:
        return "has no input: export the model again"
    if len(inputs) > 1:
        names = " and ".join(sorted(brief(port.name) for port in inputs))
        return f"has the inputs {names}: only models with one input, the image, are supported"
    [image] = inputs
    shape = list(image.shape)
    if image.dtype and image.dtype != "float32":
        return (
            f"needs {image.dtype} values, but this program gives float32: export it with a float32 "
            "input"
        )
    if not shape:
        return ""
    if len(shape) != 4:
        return f"needs an input of shape {shape}, but this program gives images [N, C, H, W]"
    channels = deploy.channels
    if shape[1] != channels and (shape[3] == channels or shape[1:3] == [-1, -1] != shape[2:]):
        return (
            f"needs images in the layout NHWC, {shape}, but this program gives NCHW, [N, C, H, W]: "
            "export the model in that layout"
        )
    if shape[1] not in (channels, -1):
        return (
            f"needs images of {shape[1]} channels, but `input_shape` in {shown(deploy.path)} says "
            f"{channels}: the files are of different models, or `input_shape` is wrong"
        )
    return ""


def _wrong_batch(inputs: Sequence[Port], deploy: DeployConfig) -> str:
    """Returns how deploy.yaml contradicts the batch size of the graph, or ""."""
    shape = inputs[0].shape
    if not shape or shape[0] < 2 or deploy.input_shape[0] != -1:
        return ""
    right = [shape[0], deploy.channels, *shape[2:]]
    return f"takes only batches of {shape[0]}: add `input_shape: {right}` to {shown(deploy.path)}"


def _wrong_outputs(inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """Returns why the first output holds neither labels nor scores, or ""."""
    if not outputs:
        return "has no output: export the model again"
    dtype, shape = outputs[0].dtype, list(outputs[0].shape)
    if dtype == "bf16":
        return "gives bf16 values, which Paddle can't copy: export it with a float32 output"
    if inputs[0].shape[:1] == (-1,) and shape and shape[0] > 1:
        return f"gives values of shape {shape}, without a batch axis: export it with its batch axis"
    if not shape or len(shape) == 4 or (len(shape) == 3 and not dtype.startswith("float")):
        return ""
    return (
        f"gives {dtype} values of shape {shape}: neither labels [N, H, W] nor scores "
        "[N, classes, H, W]; export the model with its batch axis"
    )


def note_other_outputs(deploy: DeployConfig) -> None:
    """Logs a line if the graph has outputs that are not used."""
    first, *others = [brief(port.name) for port in deploy.graph_facts.outputs]
    if others:
        log.info(
            "%s has %d outputs: the first, %s, is used, and the others are ignored: %s",
            shown(deploy.graph),
            1 + len(others),
            first,
            ", ".join(others),
        )


def check_output(output: np.ndarray, images: int) -> None:
    """Raises EngineError unless the output has a part for each image.

    A smaller batch may avoid that, but not if a single image's output has no batch axis: then the
    error is a NoBatchAxis.
    """
    if images == 1 and output.size and output.shape[:1] != (1,):
        raise NoBatchAxis(
            f"the model's output for one image has the shape {list(output.shape)}: its first axis "
            "must be the batch; export the model with its batch axis"
        )
    if output.shape[:1] != (images,) or not output.size:
        raise EngineError(f"its output has the shape {list(output.shape)} for {images} images")
