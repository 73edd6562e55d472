"""Reads `deploy.yaml` into a checked `DeployConfig`."""

import logging
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from paddleseg_infer.errors import ConfigError, ImageError, brief, reason, shown
from paddleseg_infer.graph import LFS_POINTER, LFS_START, GraphFacts, look_into
from paddleseg_infer.transforms.paddleseg import Transform, make_transform

ANY_SHAPE = (-1, -1, -1, -1)
EXPORT_PDMODEL = (
    "export a .pdmodel, with Paddle 2.6 or, for some networks, with FLAGS_enable_pir_api=0"
)
MOST_CHANNELS = 512  # of an OpenCV image
USUAL_CHANNELS = (1, 3, 4)
log = logging.getLogger("paddleseg_infer")

MAX_YAML_BYTES = 1 << 20


@dataclass(frozen=True)
class DeployConfig:
    """The checked content of an exported `deploy.yaml`. The model's files exist."""

    path: str
    graph: str  # path of a .pdmodel, or of a .json from Paddle 3 (its new IR, "PIR")
    params: str  # path of the parameter file
    transforms: tuple[Transform, ...]
    input_shape: tuple[int, int, int, int] = ANY_SHAPE  # batch, channels, height, width; -1: any
    class_names: tuple[str, ...] = ()  # for the legend; some classes may have no name
    output_op: str = ""  # argmax, softmax or none; "" if deploy.yaml names none of these

    @property
    def is_pir(self) -> bool:
        return self.graph.endswith(".json")

    @cached_property
    def graph_facts(self) -> GraphFacts:
        """The facts in the graph file, read at the first use.

        Raises ConfigError if the graph or the parameters are damaged.
        """
        return look_into(self.graph, self.params)

    @cached_property
    def channels(self) -> int:
        """The channels of the model's images: those of `input_shape`, else those of the graph.

        3 if neither says a number. Raises ConfigError if they are too many, or if a transform is
        for another number.
        """
        channels = self.input_shape[1]
        if channels == -1:
            shapes = [port.shape for port in self.graph_facts.inputs if len(port.shape) == 4]
            channels = _channels_of(shapes[0]) if shapes else 3
        if channels > MOST_CHANNELS:
            raise ConfigError(
                f"{shown(self.path)}: the model takes {channels} channels, but at most "
                f"{MOST_CHANNELS} are supported"
            )
        for transform in self.transforms:
            try:
                transform.check_channels(channels)
            except ValueError as error:
                raise ConfigError(f"{shown(self.path)}: {error}") from None
        return channels

    def check_size(self, height: int, width: int) -> None:
        """Raises ImageError if the graph can't run a transformed image of this size in pixels."""
        fixed_height, fixed_width = self.input_shape[2:]
        if fixed_height not in (-1, height) or fixed_width not in (-1, width):
            raise ImageError(
                f"the model takes only {fixed_width}x{fixed_height} (`input_shape`; -1 means any "
                "size), but the "
                f"transforms make this image {width}x{height}: add a Resize to the transforms "
                f"in {shown(self.path)}, or export without --input_shape"
            )

    def batch_size_for(self, asked: int) -> int:
        """Returns the graph's fixed batch size, or `asked` if the graph allows any.

        Logs a line if the fixed batch size isn't `asked`.
        """
        if self.input_shape[0] in (-1, asked):
            return asked
        log.info(
            "this model was exported for batches of %d: --batch_size is set to that",
            self.input_shape[0],
        )
        return self.input_shape[0]


def _channels_of(shape: Sequence[int]) -> int:
    """Returns the channels of a graph's input, 3 if it declares none."""
    # An input NHWC is refused later, with a message about its layout.
    is_channels_last = shape[3] in USUAL_CHANNELS and shape[1] not in USUAL_CHANNELS
    channels = shape[3] if is_channels_last else shape[1]
    return channels if channels > 0 else 3


class _Loader(yaml.SafeLoader):
    """Refuses merge keys (`<<`), because a few lines of them can expand to gigabytes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass


def _tuple(loader: _Loader, node: Any) -> list[Any]:
    """Reads `!!python/tuple`, which PaddleSeg's loader reads too, as a list."""
    return loader.construct_sequence(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def load_deploy_config(path: str | os.PathLike[str]) -> DeployConfig:
    """Reads and checks `deploy.yaml`. Raises ConfigError; its message names the file."""
    path = os.fspath(path)
    try:
        deploy = _read_deploy(path)
        folder = os.path.dirname(path)
        graph = _model_file(deploy, "model", folder)
        params = _model_file(deploy, "params", folder)
        shape, names = _input_shape(deploy), _class_names(deploy)
        return DeployConfig(
            *(path, graph, params, _transforms(deploy), shape, names, _output_op(deploy))
        )
    except ConfigError as error:
        raise ConfigError(f"{shown(path)}: {error}") from None


def _read_deploy(path: str) -> Mapping[Any, Any]:
    try:
        if os.path.isdir(path):
            raise ConfigError("is a folder: give the path of the deploy.yaml in it")
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could block forever
            raise ConfigError("is not a regular file")
        with open(path, "rb") as file:
            text = file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't be read: {reason(error)}") from None
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError("is too large for a deploy.yaml")
    if text.startswith(LFS_START):
        raise ConfigError(f"is {LFS_POINTER}")
    try:
        content = yaml.load(text.decode("utf-8-sig"), _Loader)
    except UnicodeDecodeError:
        raise ConfigError("is not a text file: give the deploy.yaml") from None
    except Exception as error:  # PyYAML raises many kinds of errors
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}: {getattr(error, 'problem', '')})" if mark else ""
        raise ConfigError(f"is not YAML{where}") from None
    if not isinstance(content, dict) or not isinstance(content.get("Deploy"), dict):
        raise ConfigError(
            "has no entry `Deploy`: give the deploy.yaml that PaddleSeg's export wrote"
        )
    return content["Deploy"]


def _model_file(deploy: Mapping[Any, Any], key: str, folder: str) -> str:
    name = deploy.get(key)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"`{key}` of `Deploy` must name a file")
    path = os.path.join(folder, name)
    if os.path.isfile(path):
        return path
    # With Paddle 3, PaddleSeg writes model.json, but its deploy.yaml names model.pdmodel.
    stem, suffix = os.path.splitext(path)
    twin = stem + {".pdmodel": ".json", ".json": ".pdmodel"}.get(suffix, suffix)
    if key == "model" and os.path.isfile(twin):
        return twin
    what = "graph" if key == "model" else "parameter"
    raise ConfigError(f"the {what} file {shown(path)} that it names (`{key}`) does not exist")


def _transforms(deploy: Mapping[Any, Any]) -> tuple[Transform, ...]:
    entries = deploy.get("transforms") or []
    if not isinstance(entries, list):
        raise ConfigError("`transforms` must be a list")
    transforms = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise ConfigError(
                f"each of `transforms` must be a map with a `type`, not {brief(entry)}"
            )
        arguments = {key: value for key, value in entry.items() if key != "type"}
        transforms.append(make_transform(entry["type"], arguments))
    last = next(
        (t.name for t in reversed(transforms) if t.name in ("Normalize", "ScalePadding")), ""
    )
    if last == "ScalePadding":
        raise ConfigError(
            "after ScalePadding the image is uint8, which the network can't use: "
            "add a Normalize after it"
        )
    return tuple(transforms)


def _input_shape(deploy: Mapping[Any, Any]) -> tuple[int, int, int, int]:
    shape = deploy.get("input_shape")
    if shape is None:
        return ANY_SHAPE
    sizes = [-1 if size is None else size for size in shape] if isinstance(shape, list) else []
    if len(sizes) != 4 or not all(
        type(size) is int and (0 < size < 1 << 31 or size == -1) for size in sizes
    ):
        raise ConfigError(
            "`input_shape` must be four whole numbers [batch, channels, height, width]; -1 means "
            f"any size, not {brief(shape)}"
        )
    batch, channels, height, width = sizes
    return batch, channels, height, width


def _class_names(deploy: Mapping[Any, Any]) -> tuple[str, ...]:
    labels = deploy.get("labels")
    if labels is None:
        return ()
    if not isinstance(labels, list) or not all(isinstance(name, str | int) for name in labels):
        log.warning(
            "`labels` is not a list of names (%s): the legend shows the classes' numbers",
            brief(labels),
        )
        return ()
    return tuple(map(str, labels))


def _output_op(deploy: Mapping[Any, Any]) -> str:
    """Returns the export's `output_op`: argmax, softmax or none; "" if it is none of these."""
    output_op = deploy.get("output_op")
    return output_op if output_op in ("argmax", "softmax", "none") else ""
