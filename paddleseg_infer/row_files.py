"""The finished rows of a large image's label map, in files from which a killed run can go on."""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from paddleseg_infer.errors import ImageError, reason
from paddleseg_infer.pictures.files import PART_SUFFIX, make_folders, write_whole
from paddleseg_infer.settings import UNKNOWN

log = logging.getLogger("paddleseg_infer")

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems without them
STATE, LOCK = "state.json", "lock"
NAME = re.compile(r"(\d{9})-(\d{9})\.(uint8|uint16)")  # of a file: first row, last row + 1, dtype
IN_USE = "another run is working on this image: wait for its end, or choose another --save_dir"


class RowFiles:
    """A folder beside the image's mask with a file for each part of some rows.

    A lock makes sure that only one run uses it. `done` is the number of rows that are in files.
    """

    def __init__(
        self, name: str, save_dir: str, stem: str, width: int, state: dict[str, Any], resume: bool
    ):
        """`state` says on what the labels depend; `name` is the image's, for messages.

        With `resume`, rows of an earlier run with the same state are kept. Raises ImageError.
        """
        digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]
        self._below = os.path.join(os.path.dirname(stem), f".{digest}{PART_SUFFIX}")
        self.folder = os.path.join(save_dir, self._below)
        self.save_dir, self._name, self._width, self._state = save_dir, name, width, state
        self._lock: Any = None
        self._names: list[str] = []
        self._has_begun = False
        self.done = 0
        if os.path.isdir(self.folder):
            self.open()
            if resume:
                self._find()

    @property
    def dtype(self) -> str:
        return "uint16" if any(name.endswith("uint16") for name in self._names) else "uint8"

    @property
    def rows(self) -> list[slice]:
        """The rows in each file, from the top to the bottom."""
        return [_rows_of(name) for name in self._names]

    @property
    def has_255(self) -> bool:
        """Whether a pixel of the finished rows has the id UNKNOWN."""
        return any((part == UNKNOWN).any() for part in self.parts())

    def forget(self) -> None:
        """Begins again: no row is finished."""
        self._names.clear()
        self.done = 0

    def add(self, labels: np.ndarray) -> None:
        """Saves the next rows, uint8 or uint16 [rows, W]. Raises ImageError or RunError."""
        if not self._has_begun:
            self._begin()
        name = f"{self.done:09}-{self.done + len(labels):09}.{labels.dtype.name}"
        data = zlib.compress(labels.tobytes(), 1)
        write_whole(data, self.save_dir, os.path.join(self._below, name))
        self._names.append(name)
        self.done += len(labels)

    def parts(self) -> Iterator[np.ndarray]:
        """Yields the rows of each file, from the top to the bottom. Raises ImageError."""
        try:
            for name in self._names:
                yield self._read(name)
        except (OSError, ValueError, zlib.error):
            raise ImageError(
                f"the files of its rows are damaged ({name}): run the command again with --resume"
            ) from None

    def open(self) -> None:
        """Makes the folder and locks it. Raises ImageError or RunError."""
        if self._lock is not None:
            return
        make_folders(self.save_dir, self._below)
        path = os.path.join(self.folder, LOCK)
        try:
            self._lock = open(path, "a+b")  # noqa: SIM115
            self._take(self._lock)
            # Another run may have removed the folder meanwhile.
            is_own = os.path.samestat(os.fstat(self._lock.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            is_own = False
        except OSError as error:
            self.close()
            raise ImageError(f"the files of its rows can't be locked: {reason(error)}") from None
        if not is_own:
            self.close()
            raise ImageError(IN_USE)

    def _take(self, file: Any) -> None:
        """Locks a file. Raises BlockingIOError if another run has locked it, or OSError."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning(
                "%s: the disk of --save_dir has no locks: another run on this image isn't noticed",
                self._name,
            )

    def close(self) -> None:
        """Ends the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        """Removes files that aren't used, and saves the state. Raises ImageError or RunError."""
        self.open()
        for name in set(os.listdir(self.folder)) - {LOCK, *self._names}:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, name))
        state = json.dumps(self._state).encode()
        write_whole(state, self.save_dir, os.path.join(self._below, STATE))
        self._has_begun = True

    def _find(self) -> None:
        """Finds the rows that an earlier run has finished."""
        try:
            with open(os.path.join(self.folder, STATE), "rb") as file:
                state = json.load(file)
            names = sorted(filter(NAME.fullmatch, os.listdir(self.folder)))
        except (OSError, ValueError):
            return
        if state != json.loads(json.dumps(self._state)):
            log.info(
                "%s: the earlier run had another model, other flags or another image: its rows "
                "aren't used",
                self._name,
            )
            return
        for name in names:
            rows = _rows_of(name)
            if rows.start != self.done:
                break
            try:
                self._read(name)
            except (OSError, ValueError, zlib.error):
                break
            self._names.append(name)
            self.done = rows.stop

    def _read(self, name: str) -> np.ndarray:
        """Returns the labels in a file. Raises OSError, ValueError or zlib.error."""
        with open(os.path.join(self.folder, name), "rb") as file:
            data = zlib.decompress(file.read())
        rows = _rows_of(name)
        labels = np.frombuffer(data, name.rpartition(".")[2])
        return labels.reshape(rows.stop - rows.start, self._width)


def _rows_of(name: str) -> slice:
    """Returns the rows that are in a file of this name."""
    return slice(int(name[:9]), int(name[10:19]))
