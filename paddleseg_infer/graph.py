"""Looks at graph and parameter files before Paddle does.

Given a graph that is none (a git-lfs pointer, a web page, zeros) Paddle doesn't raise: the process
dies of a segmentation fault. Given parameters whose last bytes are missing it doesn't even notice.
(A graph that is damaged further inside can still end the process.)
"""

import math
import os
import struct
from typing import BinaryIO

from paddleseg_infer.errors import ConfigError, reason, shown

HEAD_BYTES = 4096

# Bytes of an element by the numbers of `VarType.Type` in Paddle's framework.proto.
ELEMENT_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16}


def check_model_files(graph: str, params: str) -> None:
    """Raises ConfigError unless both files can be what their names say."""
    for path, check in ((graph, _check_graph), (params, _check_params)):
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise ConfigError(f"{shown(path)} is empty: export or download it again")
                check(path, file)
        except OSError as error:
            raise ConfigError(f"{shown(path)} can't be read: {reason(error)}") from None


def _check_graph(path: str, file: BinaryIO) -> None:
    head = file.read(HEAD_BYTES)
    named = ".json" if path.endswith(".json") else ".pdmodel"
    if head.lstrip().startswith(b"{") and b'"pir"' in head:
        held = ".json"
    elif _starts_as_program(head):
        held = ".pdmodel"
    elif head.startswith(b"version https://git-lfs"):
        raise ConfigError(
            f"{shown(path)} is a git-lfs pointer, not the graph itself: `git lfs pull` fetches it"
        )
    else:
        raise ConfigError(f"{shown(path)} is no Paddle graph: export or download the model again")
    if held != named:
        raise ConfigError(
            f"{shown(path)} holds a {held} graph, and Paddle goes by the name: rename the file to "
            f"end in {held}"
        )


def _starts_as_program(head: bytes) -> bool:
    """Whether a protobuf `ProgramDesc` begins here: block 0 (field 1), with idx 0 and a parent."""
    if head[:1] != b"\x0a":
        return False
    end = 1
    while end < min(len(head), 10) and head[end] & 0x80:
        end += 1
    return head[end + 1 : end + 4] == b"\x08\x00\x10"


def _check_params(path: str, file: BinaryIO) -> None:
    """Walks the tensors that Paddle's save_combine wrote one after another.

    Each: uint32 version, uint64 number of lod levels, each level's uint64 size and data, uint32
    version, int32 size of a protobuf `TensorDesc`, that, the elements.
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
            message = file.read(min(max(desc_size, 0), HEAD_BYTES))  # a few bytes for each dim
            if len(message) != desc_size:
                raise cut
            data_type, dims = _tensor_desc(message)
            if data_type not in ELEMENT_BYTES:
                return  # a type this table doesn't know: Paddle will judge
            file.seek(math.prod(dims) * ELEMENT_BYTES[data_type], os.SEEK_CUR)
    except (struct.error, IndexError, OverflowError, ValueError):
        raise cut from None
    if file.tell() != size:
        raise cut


def _tensor_desc(message: bytes) -> tuple[int, list[int]]:
    """Data type (field 1) and dims (field 2, one varint each) of a protobuf `TensorDesc`."""
    data_type, dims, at = -1, [], 0
    while at < len(message):
        tag = message[at]
        value, shift, at = 0, 0, at + 1
        while message[at] & 0x80:
            value |= (message[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
        value, at = value | message[at] << shift, at + 1
        if tag == 0x08:
            data_type = value
        elif tag == 0x10:
            dims.append(value)
    return data_type, dims
