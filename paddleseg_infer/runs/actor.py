"""What an actor of Ray Data's pool holds: a Segmenter, on some node of a cluster."""

import faulthandler
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Job, Outcome
from paddleseg_infer.runs.local import outcome_of

log = logging.getLogger("paddleseg_infer")


class Told(NamedTuple):
    """What an actor answers to a chunk."""

    outcomes: list[tuple[int, Outcome]]  # by the jobs' numbers
    notes: list[tuple[int, str]]  # lines for the user: level and text
    failure: ConfigError | RunError | None  # why it can't work, or go on


class Segment:
    """What an actor of the pool holds, for Ray Data's `map_batches`."""

    def __init__(
        self,
        seen: Sequence[str],
        paddle: str,
        saving: dict[str, Any],
        options: dict[str, Any],
        timeout: float | None,
        is_done: Callable[[Job], bool],
    ):
        import ray

        self._config_path, self._saving, self._options = seen[0], saving, options
        self._timeout, self._is_done = timeout, is_done
        why = obstacle(seen, paddle)
        self._failure: ConfigError | RunError | None = ConfigError(why) if why else None
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        self._notes = notes = list[tuple[int, str]]()

        class Note(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                notes.append((record.levelno, record.getMessage()))

        log.handlers, log.propagate = [Note()], False
        log.setLevel(logging.INFO)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """`rows` are one, with a chunk of jobs by their numbers; so is the answer."""
        outcomes: list[tuple[int, Outcome]] = []
        try:
            if not self._failure:
                for outcome in self._outcomes(pickle.loads(rows["chunk"][0])):
                    outcomes.append(outcome)
        except (ConfigError, RunError) as error:
            self._failure = error
        except ModuleNotFoundError as error:
            self._failure = ConfigError(f"{error}: {MISSING_HINT}")
        finally:
            faulthandler.cancel_dump_traceback_later()
        told = Told(outcomes, self._notes.copy(), self._failure)
        self._notes.clear()
        return {"told": [pickle.dumps(told)]}

    def _outcomes(self, chunk: list[tuple[int, Job]]) -> Iterator[tuple[int, Outcome]]:
        numbers = {job: number for number, job in chunk}
        for job in [job for job in numbers if self._is_done(job)]:
            yield numbers.pop(job), Outcome("skipped")
        for job, result in self._segmenter.save(list(numbers), **self._saving):
            self._wind()
            yield numbers[job], outcome_of(result)._replace(worker=self._name)

    @cached_property
    def _segmenter(self) -> Any:
        from paddleseg_infer.segmenter import Segmenter

        segmenter = Segmenter(self._config_path, **self._options)
        segmenter.on_batch = self._wind
        return segmenter

    def _wind(self) -> None:
        """Ends the process after `timeout` seconds from now: from C, whatever Python is at."""
        if self._timeout is not None:
            faulthandler.dump_traceback_later(self._timeout, exit=True)


def obstacle(seen: Sequence[str], paddle: str) -> str:
    """Why this node can't work, "" where it can. `seen` are deploy.yaml and files it must see."""
    for path in seen:
        if not os.path.exists(path):
            return (
                f"it doesn't see {shown(path)}: model, images and --save_dir must lie on a file "
                "system that all nodes see, under the same paths"
            )
    try:
        from paddleseg_infer.deploy import load_deploy_config

        load_deploy_config(seen[0])
        found = str(find_paddle())
    except (ConfigError, ModuleNotFoundError) as error:
        return str(error)
    return "" if found == paddle else f"it has Paddle {found}, and {paddle} is asked for"
