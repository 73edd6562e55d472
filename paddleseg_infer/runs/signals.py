"""SIGINT and SIGTERM: the run handles the first one, and a second one ends the process."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from paddleseg_infer.outcomes import Interrupted

# `timeout` and schedulers send a signal to the process and to its group, so it arrives twice.
TOGETHER_SECONDS = 0.2


@contextlib.contextmanager
def answered_by(answer: Callable[[int], None]) -> Iterator[None]:
    """Calls `answer(number)` at the first signal; a later one ends the process at once.

    A signal that arrives within TOGETHER_SECONDS of the first belongs to it. A signal that is
    ignored stays ignored, so that Ctrl-C doesn't end a background process.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        time.sleep(TOGETHER_SECONDS)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        answer(number)

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(number: int) -> NoReturn:
    """Raises Interrupted: an answer for a run that waits in Python."""
    raise Interrupted(number)
