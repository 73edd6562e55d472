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
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from types import ModuleType
from typing import Any, BinaryIO, TypeVar

from paddleseg_infer.argmax import classes_of_json, classes_of_protobuf
from paddleseg_infer.errors import ConfigError, brief, reason, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.onednn import faults_of_json, faults_of_protobuf

T = TypeVar("T")

HEAD_BYTES = 4096

JSON_TYPES = {"f": "float", "bf": "bf", "i": "int", "ui": "uint"}  # the start of a type's name

# Bytes per element for each number of `VarType.Type` in Paddle's framework.proto.
ELEMENT_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16}


@dataclass(frozen=True)
class Port:
    """An input or an output, as the graph declares it."""

    name: str
    shape: tuple[int, ...] = ()  # -1 is any size; () if the graph declares no shape
    dtype: str = ""  # "float32", "int64", ...; "" if the graph declares no type


@dataclass(frozen=True)
class GraphFacts:
    """Facts that are read from a graph file."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: frozenset[str]  # types of the operators in the main block
    onednn_faults: tuple[str, ...]  # what oneDNN computes wrongly or can't run, in words
    argmax_classes: int | None = None  # how many scores the argmax compares; None if not declared

    @property
    def is_quantised(self) -> bool:
        """Whether the graph has quantisation operators, whose value ranges int8 needs."""
        return any("quantize" in kind for kind in self.operators)


LFS_START = b"version https://git-lfs"
LFS_POINTER = "a git-lfs pointer, not the file itself: run `git lfs pull`"


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


def refuse_pointer(path: str, content: bytes) -> None:
    """Raises ConfigError if a file has only the address of its content, which git-lfs keeps."""
    if content.startswith(LFS_START):
        raise ConfigError(f"{shown(path)} is {LFS_POINTER}")


def _read_graph(path: str, file: BinaryIO) -> GraphFacts:
    content = file.read()
    refuse_pointer(path, content)
    try:
        if content.lstrip().startswith(b"{"):
            held, facts = ".json", _facts_of_json(json.loads(content))
        else:
            held, facts = ".pdmodel", _facts_of_protobuf(content)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            f"{shown(path)} is not a Paddle graph, or is damaged: export or download the model "
            "again"
        ) from None
    named = ".json" if path.endswith(".json") else ".pdmodel"
    if held != named:
        raise ConfigError(
            f"{shown(path)} holds a {held} graph, but its name doesn't end in {held}: rename "
            "the file"
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
    inputs, outputs = [], {}
    for kind, operator in zip(kinds, block["ops"], strict=True):
        if kind in ("data", "fetch"):
            attributes = {each["N"]: each["AT"]["D"] for each in operator["A"]}
            port = _port_of_json(attributes["name"], operator["O"][0])
            if kind == "data":
                inputs.append(port)
            else:
                outputs[attributes["col"]] = port
    faults, classes = faults_of_json(block), classes_of_json(block)
    return GraphFacts(tuple(inputs), _in_order(outputs), frozenset(kinds), faults, classes)


def _in_order(ports: dict[int, Port]) -> tuple[Port, ...]:
    """The outputs by their numbers, which is the order in which Paddle returns them."""
    return tuple(ports[number] for number in sorted(ports))


def _port_of_json(name: str, value: Any) -> Port:
    """Returns what a value's type declares."""
    element, shape = value["TT"]["D"][:2]
    short = re.fullmatch(r"t_(f|bf|i|ui)(\d+)", element["#"].rpartition(".")[2])
    dtype = JSON_TYPES[short[1]] + short[2] if short else ""
    return Port(name, tuple(map(int, shape)), dtype)


def _facts_of_protobuf(content: bytes) -> GraphFacts:
    """Returns the facts of a pdmodel, which is a `ProgramDesc`.

    Raises ValueError or LookupError if it isn't one.
    """
    program = _parsed("ProgramDesc", content)
    block = program.blocks[0]
    declared = {variable.name: variable for variable in block.vars}
    inputs, outputs = [], {}
    for operator in block.ops:
        if operator.type == "feed":
            name = operator.outputs[0].arguments[0]
            inputs.append(_port_of_protobuf(name, declared.get(name)))
        elif operator.type == "fetch":
            name = operator.inputs[0].arguments[0]
            [number] = [each.i for each in operator.attrs if each.name == "col"]
            outputs[number] = _port_of_protobuf(name, declared.get(name))
    kinds = frozenset(operator.type for operator in block.ops)
    faults = faults_of_protobuf(program)
    classes = classes_of_protobuf(
        block, lambda name: _port_of_protobuf(name, declared.get(name)).shape
    )
    return GraphFacts(tuple(inputs), _in_order(outputs), kinds, faults, classes)


def _port_of_protobuf(name: str, variable: Any) -> Port:
    """Returns what a `VarDesc` declares, or only the name if there is none."""
    for kind in ("dense_tensor", "lod_tensor"):  # Paddle 3's name of the field, and Paddle 2's
        if variable is not None and hasattr(variable.type, kind):
            tensor = getattr(variable.type, kind).tensor
            word = _framework_proto().VarType.Type.Name(tensor.data_type).lower()
            return Port(name, tuple(tensor.dims), re.sub(r"fp(?=\d)", "float", word))
    return Port(name)


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
    refuse_pointer(path, file.read(100))
    file.seek(0)
    cut = ConfigError(f"{shown(path)} is cut off or damaged: export or download it again")
    try:
        while file.tell() < size:
            version, lod_levels = struct.unpack("<IQ", file.read(12))
            if version != 0 or lod_levels > 8:
                raise ConfigError(
                    f"{shown(path)} doesn't contain Paddle parameters: export or download it again"
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
