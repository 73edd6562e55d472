"""Jobs, the outcomes and times of images, and the exit codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

DONE, SOME_FAILED, NOT_STARTED = 0, 1, 2  # exit codes; after a signal: 128 + its number


@dataclass(frozen=True, slots=True)
class Job:
    """One image and the name of its mask. A worker chooses the mask's suffix."""

    image: str  # path of the image
    stem: str  # path of the mask, relative to save_dir and without its suffix
    label: str | None = None  # path of the label map to compare its mask with


class Times(NamedTuple):
    """The seconds that one image took in each stage.

    The time of a batch is divided equally among its images.
    """

    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0

    def plus(
        self, preprocess: float = 0.0, inference: float = 0.0, postprocess: float = 0.0
    ) -> "Times":
        return Times(
            self.preprocess + preprocess,
            self.inference + inference,
            self.postprocess + postprocess,
        )


class Ran(NamedTuple):
    """What has run an image."""

    engine: str  # oneDNN, Paddle (on a CPU without oneDNN, or on a GPU), OpenVINO or TensorRT
    precision: str  # fp32, bf16, fp16 or int8


class Areas(NamedTuple):
    """The number of pixels of each class, in one image or in several: see `evaluation.areas_of`.

    The metrics are computed from these numbers.
    """

    intersection: tuple[int, ...]  # pixels that have the class in the mask and in the label map
    prediction: tuple[int, ...]  # pixels of the mask, without those that the label map ignores
    label: tuple[int, ...]  # pixels of the label map
    compared: int  # all pixels that the label map doesn't ignore

    @property
    def by_class(self) -> tuple[tuple[int, int, int], ...]:
        """For each class its intersection, prediction and label."""
        return tuple(zip(self.intersection, self.prediction, self.label, strict=True))

    def plus(self, other: "Areas") -> "Areas":
        """Returns the sums. Raises ValueError if the numbers of classes differ."""
        both, prediction, label = (
            tuple(map(sum, zip(mine, others, strict=True)))
            for mine, others in zip(self[:3], other[:3], strict=True)
        )
        return Areas(both, prediction, label, self.compared + other.compared)


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image's mask, and how they agree with its label map."""

    classes: Mapping[int, int]  # the pixels of each class that is in the mask
    areas: Areas | None = None  # None without a label map, and if that is bad
    label_error: str = ""  # why the label map can't be used


@dataclass(frozen=True)
class Outcome:
    """The final state of one image."""

    job: Job
    status: str  # done, failed or skipped
    reason: str = ""
    size: tuple[int, int] | None = None  # (width, height) of the saved label map
    times: Times | None = None
    ran: tuple[Ran, ...] = ()  # more than one if the windows of an image were run differently
    worker: int | str | None = None  # the worker's number; on a cluster, its node and process
    suffix: str = ".png"  # of its mask and label map: .png or .tif
    pixels: Pixels | None = None  # of a mask that was made, or was compared with its label map

    @property
    def engines(self) -> str:
        """The engines and precisions that have run it, for example "OpenVINO bf16", or ""."""
        return "+".join(" ".join(each) for each in self.ran)


class Windows(NamedTuple):
    """How many of the windows of an image are done."""

    image: str  # its path, for messages
    done: int
    total: int


def nothing(*_: object) -> None:
    """Is called where a caller wants no calls."""


class Interrupted(Exception):
    """Raised when a signal has ended the run; `number` is the signal's number."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number
