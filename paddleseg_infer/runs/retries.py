"""Decides about images whose worker died: whether they are tried again, fail, or end the run.

One of its images may have killed the worker, or something else. So each of these images is tried
again alone, in a worker that has no other image. An image fails if DEATHS_ALONE workers died while
it was their only image. If workers die without having an image, the run ends.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from paddleseg_infer.outcomes import Job

MAX_DEATHS = 5  # in a row, without a result between them
DEATHS_ALONE = 2  # an image fails after so many workers died while it was their only image


@dataclass(frozen=True)
class Verdict:
    """The decision after a worker's death."""

    again: tuple[Job, ...] = ()  # these images are tried again, alone
    failed: tuple[Job, ...] = ()  # these fail
    no_start: bool = False  # workers die before any image is done: the run ends
    hopeless: bool = False  # workers die without an image: the run ends


@dataclass
class Retries:
    """Counts the deaths of workers, and decides what follows."""

    has_result: bool = False
    deaths_in_a_row: int = 0
    _alone: Counter[Job] = field(default_factory=Counter)

    def result(self) -> None:
        """Records that an image has an outcome."""
        self.has_result, self.deaths_in_a_row = True, 0

    def death(self, held: Sequence[Job], is_alone: bool) -> Verdict:
        """Returns the verdict after a worker died with `held`, each image alone if `is_alone`."""
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row >= MAX_DEATHS and not self.has_result:
            return Verdict(no_start=True)
        if self.deaths_in_a_row > MAX_DEATHS and not held:
            return Verdict(hopeless=True)
        return self.lost(held, is_alone)

    def lost(self, jobs: Sequence[Job], is_alone: bool) -> Verdict:
        """Returns the verdict on images that were lost with a worker. Counts them if `is_alone`."""
        if not is_alone:
            return Verdict(again=tuple(jobs))
        self._alone.update(jobs)
        failed = tuple(job for job in jobs if self._alone[job] >= DEATHS_ALONE)
        return Verdict(tuple(job for job in jobs if job not in failed), failed)
