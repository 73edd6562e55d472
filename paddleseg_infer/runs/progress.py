"""Shows the progress of a run: a bar on a terminal, otherwise a log line every minute."""

import logging
import os
import sys
import time
from typing import Any

from paddleseg_infer.outcomes import Outcome, Windows

log = logging.getLogger("paddleseg_infer")

SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts outcomes and shows the progress. Shows nothing if `quiet` is true."""

    def __init__(self, total: int, quiet: bool):
        self._total, self._ended, self._failed, self._skipped = total, 0, 0, 0
        self._started = self._last_line = time.monotonic()
        self._quiet = quiet
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            import tqdm  # slow to import
            from tqdm.contrib.logging import logging_redirect_tqdm

            tqdm.tqdm.monitor_interval = 0  # no tqdm thread, because workers are forked
            self._bar = tqdm.tqdm(total=total, unit="image", dynamic_ncols=True)
            self._redirect = logging_redirect_tqdm()
            self._redirect.__enter__()

    def add(self, outcome: Outcome) -> None:
        status = outcome.status
        self._ended += 1
        self._failed += status == "failed"
        self._skipped += status == "skipped"  # takes no time, so not in the rate
        if self._bar is not None:
            self._bar.set_postfix_str(self._failures, refresh=False)
            self._bar.update()
        elif self._is_time_for_a_line():
            log.info("%s", self._line())

    def windows(self, windows: Windows) -> None:
        """Shows how many windows of an image are done."""
        if self._bar is not None:
            name = os.path.basename(windows.image)
            shown = f"{name}: {windows.done} of {windows.total} windows"
            postfix = ", ".join(filter(None, [shown, self._failures]))
            self._bar.set_postfix_str(postfix, refresh=windows.done < windows.total)
        elif self._is_time_for_a_line():
            images = f"{self._line()}; " if self._ended else ""
            log.info("%s%s: %d of %d windows", images, *windows)

    @property
    def _failures(self) -> str:
        return f"failed={self._failed}" if self._failed else ""

    def _is_time_for_a_line(self) -> bool:
        now = time.monotonic()
        if self._quiet or now - self._last_line <= SECONDS_BETWEEN_LINES:
            return False
        self._last_line = now
        return True

    def _line(self) -> str:
        rate = max(1, self._ended - self._skipped) / (time.monotonic() - self._started)
        minutes = (self._total - self._ended) / rate / 60
        return (
            f"{self._ended} of {self._total} images, {rate:.1f} per second, {minutes:.0f} minutes "
            f"left, {self._failed} failed"
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._redirect.__exit__(None, None, None)
