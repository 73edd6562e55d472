"""Finds out how many classes a graph's argmax compares."""

from collections.abc import Mapping, Sequence
from typing import Any

ARGMAXES = {"arg_max", "argmax", "top_k_v2", "topk"}  # operators that give class ids


def classes_of_json(block: Any) -> int | None:
    """Returns how many scores the argmax of a json graph's main block compares for each pixel.

    Returns None if the graph has no argmax, or doesn't declare the number. Raises LookupError,
    TypeError, ValueError or AttributeError for a damaged graph.
    """
    shapes: dict[int, Sequence[int]] = {}
    constants: dict[int, float] = {}
    found = set()
    for operator in block["ops"]:
        made = operator["O"] if isinstance(operator["O"], list) else [operator["O"]]
        for value in made:
            if value.get("TT", {}).get("#", "").endswith(".t_dtensor"):
                shapes[value["%"]] = value["TT"]["D"][1]
        kind = operator["#"].rpartition(".")[2]
        if kind == "full":
            [number] = [each["AT"]["D"] for each in operator["A"] if each["N"] == "value"]
            constants[made[0]["%"]] = number
        elif kind in ARGMAXES:
            scores, axis = operator["I"][0]["%"], _axis_of_json(operator, constants)
            found.add(_side(shapes.get(scores, ()), axis))
    return found.pop() if len(found) == 1 else None


def _axis_of_json(operator: Any, constants: Mapping[int, float]) -> int:
    """Returns the axis, which is an attribute, or a constant: the last operand."""
    given = [each["AT"]["D"] for each in operator["A"] if each["N"] == "axis"]
    return int(given[0] if given else constants[operator["I"][-1]["%"]])


def classes_of_protobuf(block: Any) -> int | None:
    """Returns the same for the main block of a pdmodel, a `BlockDesc`."""
    found = set()
    declared = {variable.name: variable.type for variable in block.vars}
    for operator in block.ops:
        if operator.type in ARGMAXES:
            [name] = [each.arguments[0] for each in operator.inputs if each.parameter == "X"]
            # Paddle 3 has another name for the same field.
            kind = declared[name]
            held = kind.dense_tensor if hasattr(kind, "dense_tensor") else kind.lod_tensor
            axes = [each.l or each.i for each in operator.attrs if each.name == "axis"]
            found.add(_side(held.tensor.dims, axes[0] if axes else -1))
    return found.pop() if len(found) == 1 else None


def _side(shape: Sequence[int], axis: int) -> int | None:
    """Returns the number of elements along an axis, or None if it isn't declared."""
    return shape[axis] if -len(shape) <= axis < len(shape) and shape[axis] > 0 else None
