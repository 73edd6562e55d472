"""The code that runs in the actors of Ray Data's pool. Each actor has a Segmenter."""

import faulthandler
import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from paddleseg_infer.errors import MISSING_HINT, ConfigError, RunError, shown
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.processor import missing_for_bf16
from paddleseg_infer.outcomes import Job, Outcome, Windows
from paddleseg_infer.runs.resume import skipped
from paddleseg_infer.runs.worker import Note
from paddleseg_infer.settings import Settings

if TYPE_CHECKING:  # a node may lack the packages it needs: obstacle() reports that
    from paddleseg_infer.segmenter import Segmenter

log = logging.getLogger("paddleseg_infer")


@dataclass(frozen=True)
class Needs:
    """What a node must have: the files, the version of Paddle, and for bf16 a processor with it."""

    files: Sequence[str]  # deploy.yaml first
    paddle: str
    precision: str  # the value of --precision


@dataclass(frozen=True)
class Answer:
    """The result of an actor for a chunk of images."""

    outcomes: list[Outcome]
    notes: list[Note]
    failure: ConfigError | RunError | None  # why the actor can't start, or can't go on


class NoteTaker(logging.Handler):
    """Collects log lines, to return them with the next answer."""

    def __init__(self) -> None:
        super().__init__()
        self._notes: list[Note] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.append(Note(record.levelno, record.getMessage()))

    def taken(self) -> list[Note]:
        notes, self._notes = self._notes, []
        return notes


class Segment:
    """The callable that each actor makes for Ray Data's `map_batches`."""

    def __init__(self, needs: Needs, settings: Settings, sample: Sequence[str]):
        import ray

        self._settings, self._sample = settings, sample
        why = obstacle(needs)
        self._failure: ConfigError | RunError | None = ConfigError(why) if why else None
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        self._finishing: set[str] = set()  # images whose windows are all done
        self._note_taker = NoteTaker()
        log.handlers, log.propagate = [self._note_taker], False
        log.setLevel(logging.INFO)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Segments a chunk of jobs and returns an Answer.

        `rows` has one row with the pickled chunk, the result one row with the pickled Answer.
        """
        outcomes: list[Outcome] = []
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
        answer = Answer(outcomes, self._note_taker.taken(), self._failure)
        return {"answer": [pickle.dumps(answer)]}

    def _outcomes(self, chunk: list[Job]) -> Iterator[Outcome]:
        to_do = []
        for job in chunk:
            if outcome := skipped(job, self._settings):
                yield outcome
            else:
                to_do.append(job)
        results = self._segmenter.save(
            to_do,
            self._settings.saving,
            self._settings.evaluation,
            # An image whose actor has died is alone in its chunk, as are some others: it goes on
            # below its finished rows. Rows of another run count only if all flags are the same.
            resume=self._settings.run.resume or len(chunk) == 1,
            make_save_dir=_make_nothing,
            on_batch=self._set_deadline,
            on_windows=self._on_windows,
        )
        for result in results:
            self._finishing.discard(result.item.name)
            self._set_deadline()
            yield replace(result.outcome, worker=self._name)

    @cached_property
    def _segmenter(self) -> "Segmenter":
        from paddleseg_infer.segmenter import Segmenter

        settings = self._settings
        return Segmenter(
            settings.run.config, model=settings.model, engine=settings.engine, sample=self._sample
        )

    def _on_windows(self, windows: Windows) -> None:
        """Removes the deadline while a large image is finished, which takes long."""
        if windows.done == windows.total:
            self._finishing.add(windows.image)
            faulthandler.cancel_dump_traceback_later()

    def _set_deadline(self) -> None:
        """Makes faulthandler end the process `timeout` seconds from now.

        It does that in C, so also while Python is blocked. Each call replaces the deadline.
        """
        if self._settings.run.timeout is not None and not self._finishing:
            faulthandler.dump_traceback_later(self._settings.run.timeout, exit=True)


def _make_nothing(save_dir: str) -> None:
    """The output folder was made before the actors were started."""


def obstacle(needs: Needs) -> str:
    """Returns why this node can't work, or "" if it can."""
    for path in needs.files:
        if not os.path.exists(path):
            return (
                f"it can't find {shown(path)}: model, images and --save_dir must be on a file "
                "system that all nodes see, under the same paths"
            )
    try:
        from paddleseg_infer.deploy import load_deploy_config

        load_deploy_config(needs.files[0])
        found = str(find_paddle())
    except (ConfigError, ModuleNotFoundError) as error:
        return str(error)
    if found != needs.paddle:
        return f"it has Paddle {found}, and this machine has {needs.paddle}"
    missing = missing_for_bf16() if needs.precision == "bf16" else ""
    advice = "use --precision fp32, or a cluster without this node"
    return f"for --precision bf16, {missing}: {advice}" if missing else ""
