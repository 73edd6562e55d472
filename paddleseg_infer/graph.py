"""Checks graph and parameter files before Paddle reads them.

If the file isn't a graph (but a git-lfs pointer, a web page or zeros), Paddle raises no error: the
process ends with a segmentation fault. If the last bytes of the parameters are missing, Paddle
doesn't notice it.
"""

import functools
import importlib.util
import json
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from types import ModuleType
from typing import Any, BinaryIO, TypeVar

from paddleseg_infer.errors import ConfigError, brief, reason, shown
from paddleseg_infer.machine.paddle_build import find_paddle

T = TypeVar("T")

HEAD_BYTES = 4096

# Bytes per element for each number of `VarType.Type` in Paddle's framework.proto.
ELEMENT_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16}


@dataclass(frozen=True)
class GraphFacts:
    """Facts that are read from a graph file."""

    inputs: tuple[str, ...]  # names of the inputs
    operators: frozenset[str]  # types of the operators in the main block

    @property
    def is_quantised(self) -> bool:
        """Whether the graph has quantisation operators, whose value ranges int8 needs."""
        return any("quantize" in kind for kind in self.operators)


def look_into(graph: str, params: str) -> GraphFacts:
    """Returns the graph's facts, and checks the parameters.

    Raises ConfigError if a file is damaged, or isn't of the kind that its name says.
    """
    # Loaded first, so that an error of the protobuf package isn't reported as a damaged file.
    _framework_proto()
    facts = _open(graph, _read_graph)
    _open(params, _check_params)
    return facts


def _open(path: str, read: Callable[[str, BinaryIO], T]) -> T:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ConfigError(f"{shown(path)} is empty: export or download it again")
            return read(path, file)
    except OSError as error:
        raise ConfigError(f"{shown(path)} can't be read: {reason(error)}") from None


def _read_graph(path: str, file: BinaryIO) -> GraphFacts:
    content = file.read()
    if content.startswith(b"version https://git-lfs"):
        raise ConfigError(
            f"{shown(path)} is a git-lfs pointer, not the graph itself: `git lfs pull` fetches it"
        )
    try:
        if content.lstrip().startswith(b"{"):
            held, facts = ".json", _facts_of_json(json.loads(content))
        else:
            held, facts = ".pdmodel", _facts_of_protobuf(content)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            f"{shown(path)} is no Paddle graph, or damaged: export or download the model again"
        ) from None
    named = ".json" if path.endswith(".json") else ".pdmodel"
    if held != named:
        raise ConfigError(
            f"{shown(path)} holds a {held} graph, and Paddle goes by the name: rename the file to "
            f"end in {held}"
        )
    return facts


def _facts_of_json(program: Any) -> GraphFacts:
    """Returns the facts of a json graph of Paddle 3 ("PIR").

    Raises LookupError, TypeError, ValueError or AttributeError if it isn't such a graph.
    """
    if program["base_code"]["magic"] != "pir":
        raise LookupError("another json file")
    [block] = program["program"]["regions"][0]["blocks"]
    kinds = [operator["#"].rpartition(".")[2] for operator in block["ops"]]
    inputs = []
    for kind, operator in zip(kinds, block["ops"], strict=True):
        if kind == "data":
            attributes = {each["N"]: each["AT"]["D"] for each in operator["A"]}
            inputs.append(attributes["name"])
    return GraphFacts(tuple(inputs), frozenset(kinds))


def _facts_of_protobuf(content: bytes) -> GraphFacts:
    """Returns the facts of a pdmodel, which is a `ProgramDesc`.

    Raises ValueError or LookupError if it isn't one.
    """
    operators = _parsed("ProgramDesc", content).blocks[0].ops
    inputs = tuple(
        name
        for operator in operators
        if operator.type == "feed"
        for output in operator.outputs
        for name in output.arguments
    )
    return GraphFacts(inputs, frozenset(operator.type for operator in operators))


def _parsed(message: str, content: bytes) -> Any:
    """Parses a message of Paddle's framework.proto. Raises ValueError for other bytes."""
    from google.protobuf.message import DecodeError

    try:
        return attrgetter(message)(_framework_proto()).FromString(content)
    except DecodeError:
        raise ValueError(f"no {message}") from None


@functools.cache
def _framework_proto() -> ModuleType:
    """Loads only Paddle's protobuf classes, because `import paddle` takes seconds.

    Raises ConfigError.
    """
    path = os.path.join(find_paddle().folder, "base", "proto", "framework_pb2.py")
    spec = importlib.util.spec_from_file_location("framework_pb2", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{shown(path)} can't be loaded: install Paddle again")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # protobuf raises its own kinds of errors
        raise ConfigError(
            f"{shown(path)} can't be loaded by the protobuf package ({brief(str(error))}): "
            "pip install -r requirements.txt"
        ) from error
    return module


def _check_params(path: str, file: BinaryIO) -> None:
    """Raises ConfigError unless the file consists of tensors as Paddle's save_combine writes them.

    Each tensor: uint32 version; uint64 number of LoD levels; for each level a uint64 size in bytes
    and its data; uint32 version; int32 size of a protobuf `TensorDesc`; the `TensorDesc`; the
    elements.
    """
    size = os.fstat(file.fileno()).st_size
    cut = ConfigError(f"{shown(path)} is cut off or damaged: export or download it again")
    try:
        while file.tell() < size:
            version, lod_levels = struct.unpack("<IQ", file.read(12))
            if version != 0 or lod_levels > 8:
                raise ConfigError(
                    f"{shown(path)} holds no Paddle parameters: export or download it again"
                )
            for _ in range(lod_levels):
                file.seek(struct.unpack("<Q", file.read(8))[0], os.SEEK_CUR)
            _, desc_size = struct.unpack("<Ii", file.read(8))
            # A TensorDesc has only a few bytes per dimension.
            message = file.read(min(max(desc_size, 0), HEAD_BYTES))
            if len(message) != desc_size:
                raise cut
            tensor = _parsed("VarType.TensorDesc", message)
            if not tensor.HasField("data_type") or tensor.data_type not in ELEMENT_BYTES:
                return  # an unknown element type: the rest can't be checked here
            elements = math.prod(tensor.dims)
            file.seek(elements * ELEMENT_BYTES[tensor.data_type], os.SEEK_CUR)
    except (struct.error, OverflowError, ValueError):
        raise cut from None
    if file.tell() != size:
        raise cut
