"""The form of a network's output: its layout, and what its values are."""

import numpy as np

from paddleseg_infer.graph import GraphFacts


def is_channels_last(
    output: np.ndarray, size: tuple[int, int], facts: GraphFacts | None = None
) -> bool:
    """Whether the output has the layout [N, H, W, C] and not [N, C, H, W].

    The declared shapes decide it, if only one layout agrees with them. Otherwise `output` decides,
    which belongs to an input of height and width `size`: NHWC must have just that size, NCHW may
    have it reduced. Raises ValueError if both layouts agree with it, or none.
    """
    if np.issubdtype(output.dtype, np.integer) and 1 in (output.shape[1], output.shape[3]):
        return output.shape[1] != 1
    if facts and len(facts.outputs[0].shape) == 4 and len(facts.inputs[0].shape) == 4:
        sides, declared = facts.inputs[0].shape[2:], facts.outputs[0].shape
        first, last = (
            all(found in (-1, side) for found, side in zip(axes, sides, strict=True))
            for axes in (declared[2:], declared[1:3])
        )
        if first != last:
            return last
    (height, width), (rows, columns) = size, output.shape[2:]
    first = abs(rows * width - columns * height) <= max(height, width)
    last = output.shape[1:3] == size
    if first == last:
        raise ValueError(
            f"the model's output has the shape {list(output.shape)} for an image of {width}x"
            f"{height}: {'both' if first else 'neither'} [N, classes, H, W] and [N, H, W, classes] "
            "fit; export the model with a fixed number of classes"
        )
    return last


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


def has_class_ids(output: np.ndarray) -> bool:
    """Whether all values are whole and not negative."""
    return bool(output.size and output.min() >= 0 and (output == np.rint(output)).all())


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
