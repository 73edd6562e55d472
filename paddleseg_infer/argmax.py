"""Finds out how many classes a graph's argmax compares."""

from collections.abc import Callable, Sequence
from typing import Any

ARGMAXES = {"arg_max", "argmax", "top_k_v2", "topk"}  # operators that give class ids


def classes_of_json(block: Any) -> int | None:
    """Returns how many scores the argmax of a json graph's main block compares for each pixel.

    Returns None if the graph has no argmax, or doesn't declare the number or the axis. Raises
    LookupError, TypeError or AttributeError for a damaged graph.
    """
    shapes: dict[int, Sequence[int]] = {}
    constants: dict[int, Any] = {}
    found = set()
    for operator in block["ops"]:
        made = operator["O"] if isinstance(operator["O"], list) else [operator["O"]]
        for value in made:
            if value.get("TT", {}).get("#", "").endswith(".t_dtensor"):
                shapes[value["%"]] = value["TT"]["D"][1]
        kind = operator["#"].rpartition(".")[2]
        if kind == "full":
            constants[made[0]["%"]] = _attributes(operator).get("value")
        elif kind in ARGMAXES:
            scores, *others = (operand["%"] for operand in operator["I"])
            # The axis is an attribute, or a constant: the last operand.
            axis = _attributes(operator).get("axis")
            if axis is None and others:
                axis = constants.get(others[-1])
            found.add(_side(shapes.get(scores, ()), axis))
    return found.pop() if len(found) == 1 else None


def _attributes(operator: Any) -> dict[str, Any]:
    return {each["N"]: each["AT"].get("D") for each in operator["A"]}


def classes_of_protobuf(block: Any, shape_of: Callable[[str], Sequence[int]]) -> int | None:
    """Returns the same for the main block of a pdmodel, a `BlockDesc`.

    `shape_of` returns the declared shape of a variable, or () if none is declared.
    """
    found = set()
    for operator in block.ops:
        if operator.type in ARGMAXES:
            names = [each.arguments[0] for each in operator.inputs if each.parameter == "X"]
            axes = [each.l or each.i for each in operator.attrs if each.name == "axis"]
            found.add(_side(shape_of(names[0]), axes[0] if axes else -1))
    return found.pop() if len(found) == 1 else None


def _side(shape: Sequence[int], axis: Any) -> int | None:
    """Returns the number of elements along an axis, or None if it isn't declared."""
    is_axis = isinstance(axis, int | float) and -len(shape) <= axis < len(shape)
    return shape[int(axis)] if is_axis and shape[int(axis)] > 0 else None
