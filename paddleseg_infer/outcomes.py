"""What is to be done with an image, how images and runs end, and the exit codes."""

from dataclasses import dataclass
from typing import NamedTuple

DONE, SOME_FAILED, NOT_STARTED = 0, 1, 2  # exit codes; after a signal it is 128 and its number


@dataclass(frozen=True, slots=True)
class Job:
    """One image and the name of its mask."""

    image: str
    target: str  # below save_dir


class Times(NamedTuple):
    """Seconds that one image took in each stage; of what a batch shares, its part."""

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


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    job: Job
    status: str  # done, failed or skipped
    reason: str = ""
    size: tuple[int, int] | None = None  # width and height of what was saved
    times: Times | None = None
    worker: int | str | None = None  # its number, or its node and process of a cluster


class Interrupted(Exception):
    """A signal has ended the run."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number
