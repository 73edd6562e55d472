"""The one policy for images whose worker died: how often, alone or not, when the run gives up.

A worker may die of one of its images, or of something else. So images that it held are tried again
alone, each in a worker that has nothing else; an image that was alone with several dead workers
fails. Where workers die of themselves nothing is gained by trying: the run ends.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from paddleseg_infer.outcomes import Job

MAX_DEATHS = 5  # in a row, without a result between them
DEATHS_ALONE = 2  # an image fails when so many workers died while it was their only image


@dataclass(frozen=True)
class Verdict:
    """What follows from a worker's death."""

    again: tuple[Job, ...] = ()  # these images are tried again, alone
    failed: tuple[Job, ...] = ()  # these fail
    no_start: bool = False  # nothing can be started
    hopeless: bool = False  # trying again gains nothing: the run ends


@dataclass
class Retries:
    """Counts deaths, and decides."""

    has_result: bool = False
    deaths_in_a_row: int = 0
    _alone: Counter[Job] = field(default_factory=Counter)

    def result(self) -> None:
        """An image has an outcome."""
        self.has_result, self.deaths_in_a_row = True, 0

    def death(self, held: Sequence[Job], is_alone: bool) -> Verdict:
        """A worker has died; it held these images, each alone if `is_alone`."""
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row >= MAX_DEATHS and not self.has_result:
            return Verdict(no_start=True)
        if self.deaths_in_a_row > MAX_DEATHS and not held:
            return Verdict(hopeless=True)
        return self.lost(held, is_alone)

    def lost(self, jobs: Sequence[Job], is_alone: bool) -> Verdict:
        """Images were lost with some worker."""
        if not is_alone:
            return Verdict(again=tuple(jobs))
        self._alone.update(jobs)
        failed = tuple(job for job in jobs if self._alone[job] >= DEATHS_ALONE)
        return Verdict(tuple(job for job in jobs if job not in failed), failed)
