"""How images and runs end."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """What became of one image."""

    status: str  # done, failed or skipped
    reason: str = ""
    size: tuple[int, int] | None = None  # width and height of what was saved
    times: tuple[float, ...] | None = None  # seconds, see batches.Times
    worker: int | str | None = None  # its number, or its node and process of a cluster


class Interrupted(Exception):
    """A signal has ended the run."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number
