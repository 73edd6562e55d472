"""Makes the pictures of all images in several processes, and puts the page in its place."""

import contextlib
import itertools
import logging
import multiprocessing
import multiprocessing.connection
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import cv2
import tqdm

from paddleseg_infer.errors import ConfigError, RunError, reason, shown
from paddleseg_infer.gallery.figures import MOST_CLASSES, Figures, Making, figures_of, palette_of
from paddleseg_infer.gallery.lines import Record
from paddleseg_infer.gallery.page import GENERATOR, page_of
from paddleseg_infer.gallery.records import Reports
from paddleseg_infer.pictures.files import STALE_SECONDS
from paddleseg_infer.pictures.palettes import PADDLESEG

PAGE, PICTURES = "index.html", "pictures"
OWN_PICTURE = re.compile(r"\d{6,}\.(thumb|image|mask|mask_thumb|label|wrong)\.(jpg|png)")
UNFINISHED = ".paddleseg-infer.gallery-"  # the start of the names of folders that a page is made in
AT_ONCE = 16  # images that a process gets together
HEAD = 4096  # bytes of a page in which its generator is named


def make_gallery(reports: Reports, title: str, place: str, processes: int) -> str:
    """Makes the folder `place` with the page and its pictures. Returns the path of the page.

    An older page there is replaced when the new one is finished. Raises ConfigError, or RunError
    if a file can't be written.
    """
    records = list(reports.records.values())
    for folder in {record.run.pictures for record in records}:
        if not os.path.isdir(folder):
            raise ConfigError(
                f"--save_dir {shown(folder)} does not exist: give the folder of the run's pictures"
            )
    check_place(place)
    there = os.path.realpath(place)
    new = None
    try:
        os.makedirs(os.path.dirname(there), exist_ok=True)
        _sweep(os.path.dirname(there))
        new = tempfile.mkdtemp(prefix=UNFINISHED, dir=os.path.dirname(there))
        classes = reports.classes if reports.classes <= MOST_CLASSES else 0
        making = Making(
            os.path.join(new, PICTURES),
            os.path.abspath(place),
            reports.run.palette or _common_palette(records),
            classes,
        )
        os.mkdir(making.pictures)
        figures = list(_progress(_made(records, making, processes), len(records)))
        page = page_of(reports, figures, title, making.palette)
        path = os.path.join(new, PAGE)
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(page)
        check_place(place)  # again, because files may have been saved there meanwhile
        _put_in_place(new, there)
    except OSError as error:
        raise RunError(
            f"the page {shown(place)} can't be written: {reason(error)}: give another --gallery_dir"
        ) from None
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
    return os.path.join(place, PAGE)


def check_place(place: str) -> None:
    """Raises ConfigError if the page would replace something else than an older page."""
    try:
        if not os.listdir(place) or _is_page(place):
            return
    except FileNotFoundError:
        if not os.path.lexists(place):
            return
    except OSError as error:
        raise ConfigError(f"--gallery_dir {shown(place)} can't be used: {reason(error)}") from None
    raise ConfigError(
        f"--gallery_dir {shown(place)} has other files than those of a page: give another folder"
    )


def _is_page(place: str) -> bool:
    """Whether the folder contains a page of this program and nothing else. Raises OSError."""
    with open(os.path.join(place, PAGE), encoding="utf-8", errors="replace") as file:
        is_own = GENERATOR in file.read(HEAD) and set(os.listdir(place)) <= {PAGE, PICTURES}
    pictures = os.path.join(place, PICTURES)
    folders = os.listdir(pictures) if is_own and os.path.isdir(pictures) else []
    names = itertools.chain.from_iterable(
        os.listdir(os.path.join(pictures, folder)) for folder in folders if folder.isdigit()
    )
    return is_own and all(map(str.isdigit, folders)) and all(map(OWN_PICTURE.fullmatch, names))


def _sweep(folder: str) -> None:
    """Removes what killed galleries have left in the folder, if it is older than a day."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(UNFINISHED):
                with contextlib.suppress(FileNotFoundError):  # another gallery has finished it
                    if time.time() - entry.stat().st_mtime > STALE_SECONDS:
                        shutil.rmtree(entry.path, ignore_errors=True)


def _put_in_place(new: str, place: str) -> None:
    """Renames the new folder to `place`, and removes the older page there.

    Signals wait, so that none leaves the place without a page.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        _exchange(new, place)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _exchange(new: str, place: str) -> None:
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(new, 0o777 & ~mask)
    if not os.path.lexists(place):
        os.rename(new, place)
        return
    old = tempfile.mkdtemp(prefix=UNFINISHED, dir=os.path.dirname(new))
    kept = os.path.join(old, "page")
    os.rename(place, kept)
    try:
        os.rename(new, place)
    except OSError:
        os.rename(kept, place)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _common_palette(records: Sequence[Record]) -> bytes:
    """Returns the palette of the first mask that has one, as 768 RGB bytes."""
    for record in records:
        if "mask" in record.files:
            palette = palette_of(record.picture("mask"))
            if palette is not None and len(palette) == len(PADDLESEG):
                return palette
    return PADDLESEG


def _made(records: Sequence[Record], making: Making, processes: int) -> Iterator[Figures]:
    """Yields the figures of the records, in their order. Raises RunError."""
    processes = min(processes, -(-len(records) // AT_ONCE))
    do = partial(_one, making=making)
    if processes <= 1:
        yield from map(do, enumerate(records))
        return
    # Forked processes could hang, because libraries have started threads in this one.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin)
    try:
        # The processes start here. Ctrl-C waits, so that it doesn't end them before _begin.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            made = pool.map(do, enumerate(records), chunksize=AT_ONCE)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        yield from made
    except BrokenProcessPool:
        raise RunError(
            "a process that makes small pictures has died, probably because there was not enough "
            "memory: give fewer --num_workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _one(numbered: tuple[int, Record], making: Making) -> Figures:
    return figures_of(*numbered, making)


def _begin() -> None:
    """Prepares a process. Only the parent handles Ctrl-C. Each process uses one processor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    logging.disable()  # the page itself says what is unusual about an image


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _progress(figures: Iterator[Figures], total: int) -> Iterator[Figures]:
    return iter(tqdm.tqdm(figures, total=total, unit="image", disable=not sys.stderr.isatty()))
