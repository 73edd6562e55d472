"""Shows the progress of a run: a bar on a terminal, otherwise a log line every minute."""

import logging
import os
import sys
import time
from typing import Any

from paddleseg_infer.outcomes import Outcome, Windows

log = logging.getLogger("paddleseg_infer")

SECONDS_BETWEEN_LINES = 60.0
IMAGES = "%d of %d images, %.1f per second, %.0f minutes left, %d failed"
WINDOWS = "%s: %d of %d windows"


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
            log.info(IMAGES, *self._counts())

    def windows(self, windows: Windows) -> None:
        """Shows how many windows of an image are done."""
        if self._bar is not None:
            name = os.path.basename(windows.image)
            shown = f"{name}: {windows.done} of {windows.total} windows"
            postfix = ", ".join(filter(None, [shown, self._failures]))
            self._bar.set_postfix_str(postfix, refresh=windows.done < windows.total)
        elif self._is_time_for_a_line():
            if self._ended:
                log.info(f"{IMAGES}; {WINDOWS}", *self._counts(), *windows)
            else:
                log.info(WINDOWS, *windows)

    @property
    def _failures(self) -> str:
        return f"failed={self._failed}" if self._failed else ""

    def _is_time_for_a_line(self) -> bool:
        now = time.monotonic()
        if self._quiet or now - self._last_line <= SECONDS_BETWEEN_LINES:
            return False
        self._last_line = now
        return True

    def _counts(self) -> tuple[int, int, float, float, int]:
        """Returns the numbers of IMAGES."""
        rate = max(1, self._ended - self._skipped) / (time.monotonic() - self._started)
        minutes = (self._total - self._ended) / rate / 60
        return self._ended, self._total, rate, minutes, self._failed

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._redirect.__exit__(None, None, None)
