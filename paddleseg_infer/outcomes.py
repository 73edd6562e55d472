"""Jobs, the outcomes and times of images, and the exit codes."""

from dataclasses import dataclass
from typing import NamedTuple

DONE, SOME_FAILED, NOT_STARTED = 0, 1, 2  # exit codes; after a signal: 128 + its number


@dataclass(frozen=True, slots=True)
class Job:
    """One image and the name of its mask."""

    image: str  # path of the image
    target: str  # path of the mask, relative to save_dir


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

    @property
    def engines(self) -> str:
        """The engines and precisions that have run it, for example "OpenVINO bf16", or ""."""
        return "+".join(" ".join(each) for each in self.ran)


class Interrupted(Exception):
    """Raised when a signal has ended the run; `number` is the signal's number."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number
