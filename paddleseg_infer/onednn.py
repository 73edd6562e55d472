"""Finds the elementwise operators in a graph that oneDNN computes wrongly, or can't run.

`tests/elementwise.py` compares oneDNN with plain Paddle, and shows which these are.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

# The elementwise operators of a pdmodel that Paddle can run in oneDNN.
OF_ONEDNN = {f"elementwise_{name}" for name in ("add", "sub", "mul", "div")}
# oneDNN computes only with these types of elements. All others stay with plain Paddle.
FLOATS = {4: "f16", 5: "f32", 22: "bf16"}

Dims = tuple[int, ...]  # of a tensor of FLOATS; -1 is unknown until the run


def faults_of_json(block: Any) -> tuple[str, ...]:
    """Returns what oneDNN does wrong with the main block of a json graph, in words.

    Raises LookupError, TypeError or AttributeError for a damaged graph.
    """
    return _faults(_binary_of_json(block, {}))


def faults_of_protobuf(program: Any) -> tuple[str, ...]:
    """Returns what oneDNN does wrong with a `ProgramDesc`, in words."""
    return _faults(_binary_of_protobuf(program))


class _Binary(NamedTuple):
    """An elementwise operator of two operands."""

    kind: str
    first: Dims
    second: Dims  # with the same last side as `first`


def _faults(operators: Iterable[_Binary]) -> tuple[str, ...]:
    """Returns what oneDNN does wrong with these operators, in words.

    If the first operand has fewer elements than the second, Paddle exchanges the two for oneDNN,
    and oneDNN then divides the second by the first.
    """
    faults = set()
    for kind, first, second in operators:
        if kind.startswith("elementwise_") and bool(first) != bool(second):
            faults.add(f"can't run its operator {kind} (an operand has no dimensions)")
        elif kind in ("elementwise_div", "divide"):
            rank = max(len(first), len(second))
            sides = set(zip(_filled(first, rank), _filled(second, rank), strict=True))
            if any(one in (1, -1) and other not in (1, one) for one, other in sides):
                faults.add(f"computes its operator {kind} wrongly (the first operand is broadcast)")
            elif (-1, -1) in sides:
                faults.add(
                    f"may compute its operator {kind} wrongly (the graph doesn't declare whether "
                    "the first operand is broadcast)"
                )
    return tuple(sorted(faults))


def _filled(dims: Dims, rank: int) -> Dims:
    """Returns `dims` with sides of 1 in front, as many as `rank` needs."""
    return (1,) * (rank - len(dims)) + dims


def _binary_of_protobuf(program: Any) -> Iterator[_Binary]:
    """Yields the elementwise operators of all blocks of a `ProgramDesc`."""
    found = [
        (operator, {each.parameter: "".join(each.arguments) for each in operator.inputs})
        for block in program.blocks
        for operator in block.ops
        if operator.type in OF_ONEDNN
    ]
    names = {name for _, operands in found for name in operands.values()}
    dims: dict[str, Dims] = {}
    for block in program.blocks:
        for variable in block.vars:
            if variable.name in names:  # a large graph has thousands of others
                kind = variable.type
                # Paddle 3 has another name for the same field.
                held = kind.dense_tensor if hasattr(kind, "dense_tensor") else kind.lod_tensor
                if held.tensor.data_type in FLOATS:
                    dims[variable.name] = tuple(held.tensor.dims)
    for operator, operands in found:
        first, second = dims.get(operands["X"]), dims.get(operands["Y"])
        if first is not None and second is not None:
            yield _Binary(operator.type, first, _placed(second, len(first), operator))


def _placed(second: Dims, rank: int, operator: Any) -> Dims:
    """Returns `second` with sides of 1 at its end, so that it ends where the first operand ends."""
    if len(second) in (0, rank):
        return second
    [axis] = [each.i for each in operator.attrs if each.name == "axis"] or [-1]
    return second + (1,) * (rank - axis - len(second) if axis >= 0 else 0)


def _binary_of_json(block: Any, outside: Mapping[int, Dims | None]) -> Iterator[_Binary]:
    """Yields the divisions of a block, and of the blocks inside its operators.

    `outside` has the sides of the tensors of the surrounding blocks, by their numbers.
    """
    dims = {**outside, **dict(map(_tensor_of_json, block.get("args", ())))}
    for operator in block["ops"]:
        kind = operator["#"].rpartition(".")[2].rstrip("_")
        if kind == "divide":
            first, second = (dims.get(operand["%"]) for operand in operator["I"])
            if first is not None and second is not None:
                yield _Binary(kind, first, second)
        for region in operator.get("regions", ()):
            for inner in region["blocks"]:
                yield from _binary_of_json(inner, dims)
        made = operator["O"]
        dims.update(map(_tensor_of_json, made if isinstance(made, list) else [made]))


def _tensor_of_json(value: Any) -> tuple[int, Dims | None]:
    """Returns the number of a value, and its sides if it is a tensor of FLOATS."""
    number, kind = value.get("%", value.get("#")), value.get("TT", {})
    if kind.get("#", "").endswith(".t_dtensor"):
        element, sides = kind["D"][:2]
        if element["#"].rpartition(".t_")[2] in FLOATS.values():
            return number, tuple(sides)
    return number, None
