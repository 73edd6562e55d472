"""The input shapes that TensorRT needs before the first image."""

import contextlib
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from paddleseg_infer.config import Shapes
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, EngineError, ImageError, reason, shown
from paddleseg_infer.machine.store import locked
from paddleseg_infer.preprocess import size_after
from paddleseg_infer.sources.source import Source
from paddleseg_infer.tiling import Size

log = logging.getLogger("paddleseg_infer")

MAX_HEADERS = 1000
MAX_TUNING_RUNS = 10
STEP = 64  # pixels; bounds are rounded to it, so that other folders can use the same engine


class Expected(NamedTuple):
    """The images, batch size and windows that TensorRT must support."""

    images: Sequence[Source]
    batch_size: int
    crop: Size | None = None  # the size of windows; None if images aren't split


def images_by_size(expected: Expected, deploy: DeployConfig) -> dict[Size, list[Source]]:
    """Groups images by the height and width of their tensors, or of their windows' tensors.

    Uses at most MAX_HEADERS images, evenly spread, and reads only the headers of files. If the
    graph's input size is fixed, that is the only size. Raises ConfigError if no size is known.
    """
    fixed_height, fixed_width = deploy.input_shape[2:]
    if -1 not in (fixed_height, fixed_width):
        return {(fixed_height, fixed_width): list(expected.images[:MAX_HEADERS])}
    by_size: dict[Size, list[Source]] = defaultdict(list)
    after: dict[Size, Size | ImageError] = {}  # size before the transforms: size after
    images = expected.images
    for image in images[:: max(1, -(-len(images) // MAX_HEADERS))]:
        size = image.size()
        if size is None:
            continue  # reading it later will raise the error
        if expected.crop:
            size = min(size[0], expected.crop[0]), min(size[1], expected.crop[1])
        if size not in after:
            after[size] = network_size(size, deploy)
        given = after[size]
        if not isinstance(given, ImageError):
            by_size[given].append(image)
    if not by_size:
        refusals = [str(refusal) for refusal in after.values()]
        why = (
            f"no image fits the model: {refusals[0]}"
            if refusals
            else "no image's size could be read"
        )
        if not images:
            why = "no images were given: pass them as `sample` of Segmenter"
        raise ConfigError(f"TensorRT needs the images' sizes, and {why}")
    return dict(by_size)


def network_size(size: Size, deploy: DeployConfig) -> Size | ImageError:
    """Returns the size after the transforms, or the error of the transforms or the graph."""
    try:
        after = size_after(*size, deploy.transforms)
        deploy.check_size(*after)
    except ImageError as error:
        return error
    except (OverflowError, ValueError):
        return ImageError(f"the transforms can't handle its size of {size[1]}x{size[0]}")
    return after


def _fewest_images(expected: Expected, deploy: DeployConfig) -> int:
    """Returns the fewest images of a batch: 1, or `batch_size` if the graph's batch is fixed."""
    return 1 if deploy.input_shape[0] == -1 else expected.batch_size


def dynamic_shapes(expected: Expected, deploy: DeployConfig) -> Shapes:
    """Returns bounds that include every size.

    Sides that vary are rounded outward to multiples of STEP.
    """
    by_size, batch_size = images_by_size(expected, deploy), expected.batch_size
    most_frequent = max(by_size, key=lambda size: len(by_size[size]))
    low, high, usual = [], [], []
    for sides, side in zip(zip(*by_size, strict=True), most_frequent, strict=True):
        shortest, longest = min(sides), max(sides)
        if shortest < longest:
            shortest = shortest // STEP * STEP or shortest
            longest = -(-longest // STEP) * STEP
            side = max(shortest, min(longest, round(side / STEP) * STEP))
        low.append(shortest)
        high.append(longest)
        usual.append(side)
    channels = deploy.channels
    return Shapes(
        [_fewest_images(expected, deploy), channels, *low],
        [batch_size, channels, *high],
        [batch_size, channels, *usual],
    )


def collect(run: Callable[[Source, int], None], expected: Expected, deploy: DeployConfig) -> int:
    """Runs batches of selected sizes with `run(image, copies)`. Returns the number of runs.

    First runs the smallest size in the smallest batch. Then runs full batches: of the largest size,
    or a smaller one if memory is short, and of the sizes with the shortest and longest sides. Last
    come runs of the most frequent size, up to MAX_TUNING_RUNS in total, because Paddle takes the
    side that was run most often as the usual one.
    """
    by_size, batch_size = images_by_size(expected, deploy), expected.batch_size
    trial = _Trial(run, by_size, batch_size)
    ascending = sorted(by_size, key=lambda size: size[0] * size[1])
    fewest = _fewest_images(expected, deploy)
    runs = int(any(trial.runs(size, fewest) for size in ascending[:MAX_TUNING_RUNS]))
    # Each step reduces the area by at least a quarter, because many sizes may be almost the same.
    smaller = list(reversed(ascending))
    while smaller and not trial.is_over and not trial.runs_full(size := smaller[0]):
        smaller = [each for each in smaller if each[0] * each[1] <= 0.75 * size[0] * size[1]]
    for side in (0, 1):
        in_order = sorted(by_size, key=lambda size: size[side])
        for size in (in_order[0], in_order[-1]):
            if not trial.is_over:
                trial.runs_full(size)
    runs += sum(trial.full.values())
    most_frequent_first = sorted(by_size, key=lambda size: -len(by_size[size]))
    usual = next((size for size in most_frequent_first if trial.full.get(size, True)), None)
    while usual and runs < MAX_TUNING_RUNS and trial.runs(usual, batch_size):
        runs += 1
    return runs


class _Trial:
    """Runs batches, and records which sizes can be run."""

    def __init__(
        self,
        run: Callable[[Source, int], None],
        by_size: dict[Size, list[Source]],
        batch_size: int,
    ):
        self._run, self._by_size, self._batch_size = run, by_size, batch_size
        self.full: dict[Size, bool] = {}  # for each tried size: whether a full batch ran

    @property
    def is_over(self) -> bool:
        return len(self.full) >= MAX_TUNING_RUNS

    def runs_full(self, size: Size) -> bool:
        """Returns whether a full batch of the size can be run. Tries each size only once."""
        if size not in self.full:
            self.full[size] = self.runs(size, self._batch_size)
        return self.full[size]

    def runs(self, size: Size, copies: int) -> bool:
        """Returns whether a batch of `copies` of one image can be run.

        If an image can't be read, tries another image of the size.
        """
        for image in self._by_size[size]:
            try:
                self._run(image, copies)
                return True
            except ImageError:
                continue
            except (EngineError, MemoryError):
                return False
        return False


def make_shape_file(path: str, collect_into: Callable[[str], int]) -> None:
    """Makes the file of tuned shapes if it doesn't exist. One process makes it, the others wait.

    `collect_into(path)` writes the file and returns the number of runs. Raises ConfigError.
    """
    try:
        was_there = os.path.exists(path)
        with locked(os.path.dirname(os.path.abspath(path))):
            if was_there:
                log.info("the dynamic shapes come from %s", shown(path))
            elif not os.path.exists(path):  # another process may have made it meanwhile
                _make_shape_file(path, collect_into)
    except OSError as error:
        raise ConfigError(
            f"--auto_tuned_shape_file {shown(path)} can't be written: {reason(error)}"
        ) from None


def _make_shape_file(path: str, collect_into: Callable[[str], int]) -> None:
    # Paddle ends the process if it can't write the file, so it writes a temporary one first.
    with tempfile.TemporaryDirectory() as private:
        collected = os.path.join(private, "shapes.pbtxt")
        if not collect_into(collected) or not os.path.getsize(collected):
            raise ConfigError("no image could be run, so the dynamic shapes can't be collected")
        part = f"{path}.{secrets.token_hex(8)}"
        try:
            shutil.copyfile(collected, part)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise


def tuned_shapes(path: str, name: str, batch_size: int) -> Shapes:
    """Reads the shapes of the input `name` from a file of tuned shapes.

    Raises ConfigError if the file is unreadable, for another model or for smaller batches.
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = file.read().split("shape_range_info")
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not a text file"
        raise ConfigError(f"--auto_tuned_shape_file {shown(path)} can't be read: {why}") from None
    change = "give another file, or delete this one; then the shapes are collected again"
    found = next((entry for entry in entries if f'name: "{name}"' in entry), "")
    shapes = Shapes(
        *(
            [int(side) for side in re.findall(rf"\b{kind}_shape: (\d+)", found)]
            for kind in ("min", "max", "opt")
        )
    )
    if any(len(shape) != 4 for shape in shapes):
        raise ConfigError(
            f"--auto_tuned_shape_file {shown(path)} has no shapes of this model's input {name}: "
            + change
        )
    if batch_size > shapes.largest[0]:
        raise ConfigError(
            f"--auto_tuned_shape_file {shown(path)} has shapes of batches of up to "
            f"{shapes.largest[0]}, "
            f"not {batch_size}: {change}"
        )
    return shapes
