"""A private folder of files that are kept between runs. They are checked before each use.

An entry is a folder whose name is a key: a digest of everything that its files depend on. Callers
pass the functions that make and load the files, so this module doesn't depend on their content.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

from paddleseg_infer.errors import ConfigError, EngineError, reason, shown

T = TypeVar("T")
log = logging.getLogger("paddleseg_infer")

UNUSED_SECONDS = 30 * 24 * 3600
ABANDONED_SECONDS = 24 * 3600
SILENT_SECONDS = 2.0  # of waiting for another process before a log line
DIGESTS = "sha256.json"
NEW_PREFIX, LOCK_PREFIX = ".new-", ".lock-"


class Unusable(Exception):
    """The store can't be used. The message is the reason."""


class Store:
    """A folder of entries. Its methods raise OSError or Unusable if it can't be used."""

    def __init__(self, folder: str):
        self.folder = folder

    def keep(self, key: str, fill: Callable[[str], None], waits: bool = True) -> str:
        """Returns the path of the entry `key`. If it doesn't exist, `fill(folder)` makes it.

        With `waits`, one process makes the entry, and the others wait; a long wait is logged.
        Without, each process makes one, and the first one is kept. Errors of `fill` are raised too.
        """
        self._prepare()
        self._sweep()
        entry = os.path.join(self.folder, key)
        if not _is_whole(entry):
            with contextlib.ExitStack() as stack:
                if waits:
                    stack.enter_context(self._only_one(key))
                new = stack.enter_context(self._new_folder())
                if not _is_whole(entry):
                    fill(new)
                    _keep(new, entry)
        os.utime(entry)
        return entry

    @contextlib.contextmanager
    def _only_one(self, key: str) -> Iterator[None]:
        """Locks this entry for the block. Waits while another process makes it."""
        path = os.path.join(self.folder, LOCK_PREFIX + key)
        with open(path, "w") as file:
            deadline = time.monotonic() + SILENT_SECONDS
            while not _try_lock(file):
                if time.monotonic() > deadline:
                    log.info("waiting for another process that makes the cache entry %s", key)
                    fcntl.flock(file, fcntl.LOCK_EX)
                    break
                time.sleep(0.05)
            try:
                yield
            finally:  # a waiting process has it open
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def obtain(
        self,
        key: str,
        make: Callable[[str], T],
        load: Callable[[str], T],
        finish: Callable[[str], None] = lambda folder: None,
        waits: bool = True,
    ) -> T:
        """Returns `load(entry)` if the entry exists. Otherwise makes it and returns `make(folder)`.

        `finish(folder)` is called after `make`, before the files are kept. If they can't be kept,
        that is logged and the result of `make` is still returned. If `load` raises EngineError, the
        entry is removed and made again, once. Errors of `make` are raised too. For `waits` see
        `keep`.
        """
        made: list[T] = []

        def fill(folder: str) -> None:
            made.append(make(folder))
            finish(folder)

        for _ in range(2):
            try:
                entry = self.keep(key, fill, waits)
            except (OSError, Unusable, ConfigError) as error:
                if not made:
                    raise
                log.warning("the result can't be kept in %s: %s", shown(self.folder), error)
            if made:
                return made[0]
            try:
                return load(entry)
            except EngineError as error:
                log.warning(
                    "the cache entry %s can't be loaded (%s), and is made again",
                    shown(entry),
                    error,
                )
                remove(entry)
        raise Unusable("the cache entry can't be loaded")

    def need_space(self, size: int) -> None:
        """Raises Unusable if the disk has less than `size` bytes free."""
        if shutil.disk_usage(self.folder).free < size:
            raise Unusable("the disk has too little space")

    def log_unusable(self, error: OSError | Unusable) -> None:
        """Logs why the store isn't used."""
        why = reason(error) if isinstance(error, OSError) else str(error)
        log.warning(
            "the cache %s is not used: %s (set another with --cache_dir)", shown(self.folder), why
        )

    def _prepare(self) -> None:
        """Makes the folder. Raises Unusable if other users may enter it.

        They could change graphs, which are executed like code.
        """
        if not os.path.isdir(self.folder):
            os.makedirs(os.path.dirname(os.path.abspath(self.folder)), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
        status = os.stat(self.folder)
        if not stat.S_ISDIR(status.st_mode):
            raise Unusable("it is not a folder")
        if hasattr(os, "geteuid"):
            if status.st_uid != os.geteuid():
                raise Unusable("it belongs to another user")
            if status.st_mode & 0o077:
                raise Unusable("other users can open it; chmod 700 makes it private")

    @contextlib.contextmanager
    def _new_folder(self) -> Iterator[str]:
        """Makes a folder for a new entry. Removes it at the end, unless `_keep` has renamed it."""
        new = os.path.join(self.folder, NEW_PREFIX + secrets.token_hex(8))
        os.mkdir(new, 0o700)
        try:
            yield new
        finally:
            remove(new)

    def _sweep(self) -> None:
        """Removes entries that were not used for UNUSED_SECONDS, and old files of killed runs."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as found:
            for item in found:
                is_new = item.name.startswith(NEW_PREFIX)
                if not (is_new or re.fullmatch(rf"({LOCK_PREFIX})?[0-9a-f]{{64}}", item.name)):
                    continue  # not a file of this store
                with contextlib.suppress(OSError):
                    age = time.time() - item.stat(follow_symlinks=False).st_mtime
                    if age > (ABANDONED_SECONDS if is_new else UNUSED_SECONDS):
                        remove(item.path)


def key_of(paths: list[str], *settings: Any) -> str:
    """Returns a key of 64 hexadecimal digits: the digest of files' content and of `settings`.

    `settings` are values that json can write.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256(path)))
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_of(entry: str) -> list[str]:
    """Returns the names of an entry's files, sorted and without DIGESTS."""
    return sorted(set(os.listdir(entry)) - {DIGESTS})


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_whole(entry: str) -> bool:
    """Returns whether the entry exists and its files are unchanged.

    A damaged entry is removed, and that is logged.
    """
    if not os.path.isdir(entry):
        return False
    try:
        with open(os.path.join(entry, DIGESTS), encoding="utf-8") as file:
            digests = json.load(file)
        is_same = all(sha256(os.path.join(entry, n)) == d for n, d in digests.items())
        if is_same and sorted(digests) == files_of(entry):
            return True
    except (OSError, ValueError, AttributeError):
        pass  # the entry is damaged, which is logged below
    log.warning("the cache entry %s is damaged, and is made again", shown(entry))
    remove(entry)
    return False


def _keep(new: str, entry: str) -> None:
    """Writes the digests of the new files, and renames their folder to `entry`.

    If another process has made the entry meanwhile, that one stays.
    """
    digests = {name: sha256(os.path.join(new, name)) for name in os.listdir(new)}
    with open(os.path.join(new, DIGESTS), "w", encoding="utf-8") as file:
        json.dump(digests, file)
    try:
        os.rename(new, entry)
    except OSError as error:
        if not os.path.isdir(entry):
            raise Unusable(f"the entry can't be saved: {reason(error)}") from None


def remove(path: str) -> None:
    """Removes a file or a folder.

    Renames it first, so that other processes never see a half-deleted entry.
    """
    going = os.path.join(os.path.dirname(path), NEW_PREFIX + secrets.token_hex(8))
    with contextlib.suppress(OSError):
        os.rename(path, going)
        if os.path.isdir(going):
            shutil.rmtree(going, ignore_errors=True)
        else:
            os.unlink(going)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Locks `folder` for the block. Waits while another process has the lock. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
