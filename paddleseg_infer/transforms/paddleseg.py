"""PaddleSeg's deterministic transforms: their arguments, and what they do to a `Frame`.

Each is a frozen dataclass whose fields are the transform's arguments in `deploy.yaml`. The formulas
are those of `paddleseg/transforms` 2.8.0, and the results have the same bits. `round` is Python's,
which rounds halves to the even number.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

import cv2

from paddleseg_infer.errors import ConfigError, brief
from paddleseg_infer.transforms.arguments import (
    divisor,
    divisors,
    flag,
    interpolation,
    number,
    of_channels,
    optional_whole,
    positive,
    short_side,
    size_wh,
    uint8_value,
)
from paddleseg_infer.transforms.frame import Frame, Outline


def argument(check: Callable[[Any], Any], default: Any = MISSING) -> Any:
    """Returns a dataclass field whose value `make_transform` checks with `check`."""
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class Transform:
    """Base class of the transforms.

    `ignored` contains the names of arguments that change only the labels in training.
    """

    ignored: ClassVar[frozenset[str]] = frozenset()

    def apply(self, frame: Frame | Outline) -> None:
        """Applies the transform to `frame`. Raises ImageError if the image's size forbids it."""
        raise NotImplementedError

    def check_channels(self, channels: int) -> None:
        """Raises ValueError if the transform can't be applied to images of so many channels."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def _scale_to(self, frame: Frame | Outline, scale: float) -> None:
        """Resizes both sides by the factor `scale`, with LINEAR interpolation."""
        height, width = frame.size
        frame.resize(round(width * scale), round(height * scale), cv2.INTER_LINEAR, self.name)


@dataclass(frozen=True)
class Normalize(Transform):
    """Normalises each channel of the tensor: (x / 255 - mean) / std."""

    mean: tuple[float, ...] = argument(of_channels, (0.5,))
    std: tuple[float, ...] = argument(divisors, (0.5,))

    def check_channels(self, channels: int) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"{name} of transform Normalize has {len(values)} values, but the model's "
                    f"images have {channels} channels: give one value, or one for each channel"
                )

    def apply(self, frame: Frame | Outline) -> None:
        frame.normalize(self.mean, self.std)


@dataclass(frozen=True)
class Resize(Transform):
    """Resizes to `target_size`, which is (width, height).

    With `keep_ratio`, resizes by one factor so that the long side is at most the longer side of
    `target_size`, and the short side at most the shorter one. `size_divisor` then rounds both sides
    up to a multiple of it.
    """

    target_size: tuple[int, int] = argument(size_wh, (512, 512))
    keep_ratio: bool = argument(flag, False)
    size_divisor: int | None = argument(divisor, None)
    interp: str = argument(interpolation, "LINEAR")

    def apply(self, frame: Frame | Outline) -> None:
        size = self.target_size
        if self.keep_ratio:
            height, width = frame.size
            scale = min(max(size) / max(height, width), min(size) / min(height, width))
            size = round(width * scale), round(height * scale)
        if self.size_divisor:
            step = self.size_divisor
            size = math.ceil(size[0] / step) * step, math.ceil(size[1] / step) * step
        frame.resize(*size, getattr(cv2, f"INTER_{self.interp}"), self.name)


@dataclass(frozen=True)
class ResizeByLong(Transform):
    """Resizes the long side to `long_size`."""

    long_size: float = argument(positive)

    def apply(self, frame: Frame | Outline) -> None:
        self._scale_to(frame, self.long_size / max(frame.size))


@dataclass(frozen=True)
class ResizeByShort(Transform):
    """Resizes the short side to `short_size`; less if the long side would exceed `max_size`."""

    short_size: float = argument(short_side)
    max_size: float = argument(positive, 1e10)

    def apply(self, frame: Frame | Outline) -> None:
        short, long = min(frame.size), max(frame.size)
        size = self.short_size
        if size / short * long > self.max_size:
            size = int(self.max_size / long * short)
        self._scale_to(frame, size / short)


@dataclass(frozen=True)
class LimitLong(Transform):
    """Resizes the image if needed, so that the long side is from `min_long` to `max_long`."""

    max_long: int | None = argument(optional_whole, None)
    min_long: int | None = argument(optional_whole, None)

    def __post_init__(self) -> None:
        if self.max_long and self.min_long and self.min_long > self.max_long:
            raise ValueError("min_long must not be above max_long")

    def apply(self, frame: Frame | Outline) -> None:
        long = max(frame.size)
        if self.max_long and long > self.max_long:
            self._scale_to(frame, self.max_long / long)
        elif self.min_long and long < self.min_long:
            self._scale_to(frame, self.min_long / long)


@dataclass(frozen=True)
class ResizeRangeScaling(Transform):
    """Resizes the long side to `min_value`, which must equal `max_value`.

    With different values, PaddleSeg chooses a random size, for training.
    """

    min_value: float = argument(positive, 400)
    max_value: float = argument(positive, 600)

    def __post_init__(self) -> None:
        if self.min_value != self.max_value:
            raise ValueError(
                "min_value and max_value must be equal: otherwise the size is random, which is for "
                "training"
            )

    def apply(self, frame: Frame | Outline) -> None:
        self._scale_to(frame, self.max_value / max(frame.size))


@dataclass(frozen=True)
class ResizeStepScaling(Transform):
    """Resizes by the factor `min_scale_factor`, which must be the only possible one.

    If there are several, PaddleSeg chooses one at random, for training.
    """

    min_scale_factor: float = argument(positive, 0.75)
    max_scale_factor: float = argument(positive, 1.25)
    scale_step_size: float = argument(number, 0.25)

    def __post_init__(self) -> None:
        span = self.max_scale_factor - self.min_scale_factor
        if span < 0:
            raise ValueError("min_scale_factor must not be above max_scale_factor")
        if span and not self.scale_step_size > span:
            raise ValueError(
                "min_scale_factor and max_scale_factor must be equal: otherwise the size is "
                "random, which is for training"
            )

    def apply(self, frame: Frame | Outline) -> None:
        self._scale_to(frame, self.min_scale_factor)


@dataclass(frozen=True)
class Padding(Transform):
    """Pads to `target_size`, at the right and the bottom."""

    ignored = frozenset({"label_padding_value"})
    target_size: tuple[int, int] = argument(size_wh)
    im_padding_value: float = argument(number, 127.5)

    def apply(self, frame: Frame | Outline) -> None:
        frame.pad(*self.target_size, self.im_padding_value, self.name)


@dataclass(frozen=True)
class PaddingByAspectRatio(Transform):
    """Pads at the right or the bottom, so that width / height is `aspect_ratio`."""

    ignored = frozenset({"label_padding_value"})
    aspect_ratio: float = argument(positive, 1)
    im_padding_value: float = argument(number, 127.5)

    def apply(self, frame: Frame | Outline) -> None:
        height, width = frame.size
        if width / height > self.aspect_ratio:
            height = int(width / self.aspect_ratio)
        elif width / height < self.aspect_ratio:
            width = int(height * self.aspect_ratio)
        frame.pad(width, height, self.im_padding_value, self.name)


@dataclass(frozen=True)
class ScalePadding(Transform):
    """Pads to a centred square, truncates to uint8, then resizes to `target_size` with CUBIC."""

    ignored = frozenset({"label_padding_value"})
    target_size: tuple[int, int] = argument(size_wh, (512, 512))
    im_padding_value: float = argument(uint8_value, 127.5)

    def apply(self, frame: Frame | Outline) -> None:
        frame.pad_to_square(self.im_padding_value)
        frame.resize(*self.target_size, cv2.INTER_CUBIC, self.name)


TRANSFORMS: dict[str, type[Transform]] = {
    kind.__name__: kind
    for kind in (
        Normalize,
        Resize,
        ResizeByLong,
        ResizeByShort,
        LimitLong,
        ResizeRangeScaling,
        ResizeStepScaling,
        Padding,
        PaddingByAspectRatio,
        ScalePadding,
    )
}

TRAINING_ONLY = frozenset(
    """RandomHorizontalFlip RandomVerticalFlip RandomPaddingCrop RandomCenterCrop RandomNoise
    RandomBlur RandomRotation RandomScaleAspect RandomDistort RandomAffine
    GenerateInstanceTargets""".split()
)


def make_transform(name: Any, arguments: Mapping[str, Any]) -> Transform:
    """Returns the transform with this name in `deploy.yaml`.

    Raises ConfigError for an unknown name or a wrong argument.
    """
    if name in TRAINING_ONLY:
        raise ConfigError(f"transform {name} is for training: remove it from the list")
    if name not in TRANSFORMS:
        raise ConfigError(f"transform {brief(name)} is unknown: use one of {', '.join(TRANSFORMS)}")
    kind = TRANSFORMS[name]
    known = {item.name: item for item in fields(kind)}
    for key in arguments:
        if key not in known and key not in kind.ignored:
            takes = ", ".join(known)
            raise ConfigError(f"transform {name} has no argument {brief(key)}; it takes {takes}")
    values = {}
    for key, item in known.items():
        if key not in arguments:
            if item.default is MISSING:
                raise ConfigError(f"transform {name} needs the argument {key}")
            continue
        try:
            values[key] = item.metadata["check"](arguments[key])
        except ValueError as error:
            raise ConfigError(
                f"{key} of transform {name} must be {error}, not {brief(arguments[key])}"
            ) from None
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"transform {name}: {error}") from None
