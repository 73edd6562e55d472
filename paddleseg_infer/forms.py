"""The form of a network's output: its layout, and what its values are."""

from collections.abc import Sequence

import numpy as np

from paddleseg_infer.graph import GraphFacts


def is_channels_last(
    output: np.ndarray, size: tuple[int, int], facts: GraphFacts | None = None
) -> bool:
    """Whether the output has the layout [N, H, W, C] and not [N, C, H, W].

    The declared shapes decide it, if only one layout agrees with them. Otherwise `output` decides,
    which belongs to an input of height and width `size`. Raises ValueError if both layouts agree
    with it, or none.
    """
    channels = output.shape[1], output.shape[3]
    if np.issubdtype(output.dtype, np.integer) and channels.count(1) == 1:
        return channels[1] == 1
    if facts and (declared_last := _is_declared_last(facts)) is not None:
        return declared_last
    if output.shape[2:] == size != output.shape[1:3]:
        return False
    first, last = _fits(output.shape[2:], size), _fits(output.shape[1:3], size)
    if first == last:
        layouts = "[N, classes, H, W]", "[N, H, W, classes]"
        fit = "both {} and {} fit" if first else "neither {} nor {} fits"
        raise ValueError(
            f"the model's output has the shape {list(output.shape)} for an image of {size[1]}x"
            f"{size[0]}: {fit.format(*layouts)}; export a model whose output has the image's size"
        )
    return last


def _is_declared_last(facts: GraphFacts) -> bool | None:
    """Whether the graph declares the layout NHWC; None if its shapes don't decide it."""
    declared, of_input = facts.outputs[0].shape, facts.inputs[0].shape
    if len(declared) != 4 or len(of_input) != 4:
        return None
    first, last = _fits(declared[2:], of_input[2:]), _fits(declared[1:3], of_input[2:])
    return last if first != last else None


def class_count(facts: GraphFacts) -> int | None:
    """Returns the number of classes that the graph declares, or None if it doesn't.

    One channel of scores has two classes. Of labels, also as float values, it is the number of
    scores that the argmax compares.
    """
    if not facts.inputs or not facts.outputs:
        return None  # the engine refuses such a graph
    output = facts.outputs[0]
    if len(output.shape) != 4 or "int" in output.dtype:
        return facts.argmax_classes
    is_last = _is_declared_last(facts)
    channels = -1 if is_last is None else output.shape[3 if is_last else 1]
    if channels == 1:
        return facts.argmax_classes or 2
    return channels if channels > 0 else None


def _fits(sides: Sequence[int], image: Sequence[int]) -> bool:
    """Whether an output's height and width are the image's, or reduced by one factor.

    -1 is any size: it fits every size, and a known size doesn't fit any size.
    """
    if -1 in sides or -1 in image:
        return all(found in (-1, side) for found, side in zip(sides, image, strict=True))
    (rows, columns), (height, width) = sides, image
    return abs(rows * width - columns * height) <= max(height, width)  # rounded to whole pixels


def check_places(output: np.ndarray, size: tuple[int, int]) -> None:
    """Raises ValueError if the last two axes [H, W] are exchanged, or flattened to one."""
    (rows, columns), (height, width) = output.shape[-2:], size
    is_turned = (rows, columns) == (width, height) != (height, width)
    if is_turned or (rows == 1 < height and columns == height * width):
        raise ValueError(
            f"the model's output has the shape {list(output.shape)} for an image of {width}x"
            f"{height}: its last axes must be height and width"
        )


def output_kind(output: np.ndarray) -> str:
    """Returns the kind of a network's output: "labels", "scores" or "foreground".

    Labels are integers [N, H, W] or [N, 1, H, W]. Scores are floats [N, C, H, W]. Foreground is one
    channel of floats, [N, 1, H, W]. Raises ValueError for any other output.
    """
    is_label = np.issubdtype(output.dtype, np.integer)
    if is_label and (output.ndim == 3 or (output.ndim == 4 and output.shape[1] == 1)):
        return "labels"
    if output.ndim != 4 or not np.issubdtype(output.dtype, np.floating) or output.shape[1] < 1:
        raise ValueError(
            f"the model's output is {output.dtype} of shape {list(output.shape)}: neither labels "
            "[N, H, W] nor scores [N, classes, H, W]"
        )
    return "foreground" if output.shape[1] == 1 else "scores"


def is_whole(output: np.ndarray) -> bool:
    """Whether all values are whole numbers."""
    return bool(output.size and (output == np.rint(output)).all())


def are_probabilities(output: np.ndarray, kind: str) -> bool:
    """Whether the scores [N, C, H, W] are results of softmax, or of sigmoid for one channel.

    Checks every seventh pixel in each direction, and ignores pixels with NaN or infinite scores.
    """
    some = output[..., ::7, ::7].astype(np.float32)
    some = np.moveaxis(some, 1, -1)[np.isfinite(some).all(axis=1)]
    if not some.size:
        return False
    if kind == "foreground":
        return bool(some.min() >= 0 and some.max() <= 1)
    sums = some.sum(axis=-1)
    return bool(some.min() >= 0 and np.abs(sums - 1).max() < 0.02)  # sums of float16 differ by less
