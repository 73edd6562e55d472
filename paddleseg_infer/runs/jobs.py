"""Finds the images of a run and names their masks. Decodes no image."""

import hashlib
import itertools
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from paddleseg_infer.errors import ConfigError, reason, shown
from paddleseg_infer.formats.known import (
    HEAD_BYTES,
    OTHER_SUFFIXES,
    SIGNATURE,
    SUFFIXES,
)
from paddleseg_infer.outcomes import Job, Outcome
from paddleseg_infer.pictures.files import GEOTIFF, target_of
from paddleseg_infer.runs.lists import place_finder, read_list


@dataclass
class Listing:
    """The images and errors that were found at `--image_path`."""

    jobs: list[Job]
    unreadable: list[Outcome] = field(default_factory=list)  # folders that can't be read
    repeated: int = 0  # lines of a list that name an image a second time
    not_read: Counter[str] = field(default_factory=Counter)  # pictures of other formats, by suffix


def find_jobs(image_path: str, save_dir: str, kinds: Sequence[str] = ("mask",)) -> Listing:
    """Finds the images of a file, a folder or a list, in a fixed order. Mask names are unique.

    `kinds` are the pictures that will be made of each image. Raises ConfigError if there is no
    image, if two pictures would have the same name, or if a picture would overwrite an image.
    """
    try:
        mode = os.stat(image_path).st_mode
    except OSError as error:
        raise ConfigError(f"--image_path {shown(image_path)}: {reason(error)}") from None
    if stat.S_ISDIR(mode):
        listing = _walk(image_path, save_dir)
    elif not stat.S_ISREG(mode):
        raise ConfigError(
            f"--image_path {shown(image_path)} is a pipe or a device: "
            "give an image, a folder or a list file"
        )
    elif _is_image(image_path):
        name = os.path.basename(image_path)
        listing = Listing(_named([(image_path, name)]))
    else:
        listing = _from_list(image_path)
    _refuse_clashes(listing.jobs, save_dir, kinds)
    return listing


def part_of(jobs: Sequence[Job], image_path: str, number: int, count: int) -> list[Job]:
    """Returns the jobs of part `number` of `count` parts, counted from 0.

    The part depends only on the image's path relative to the folder, or to the list's folder. So
    an image stays in its part when other images are added or removed.
    """
    base = image_path if os.path.isdir(image_path) else os.path.dirname(image_path)

    def part(job: Job) -> int:
        path = os.fsencode(os.path.relpath(job.image, base or os.curdir))
        return int.from_bytes(hashlib.sha256(path).digest()[:8], "big") % count

    return [job for job in jobs if part(job) == number]


def _walk(folder: str, save_dir: str) -> Listing:
    """Finds the images below `folder` by their suffix, in sorted order.

    Skips hidden files, `.ipynb_checkpoints` and `save_dir`. Raises ConfigError if none is found.
    """
    top, outputs = os.path.realpath(folder), os.path.realpath(save_dir)
    if top == outputs:
        raise ConfigError(
            f"--save_dir {shown(save_dir)} is the folder of the images: "
            "choose another, because a later run would read the masks as images"
        )
    unreadable: list[Outcome] = []
    found: list[tuple[str, str]] = []
    not_read: Counter[str] = Counter()

    def note(error: OSError) -> None:
        why = f"the folder can't be read: {reason(error)}"
        unreadable.append(Outcome(Job(error.filename, ""), "failed", why))

    for parent, folders, names in _folders(folder, note):
        below = os.path.relpath(parent, folder)
        folders[:] = sorted(
            name
            for name in folders
            if name != ".ipynb_checkpoints"
            and os.path.normpath(os.path.join(top, below, name)) != outputs
        )
        for name in sorted(names):
            if name.startswith("."):
                continue
            suffix = _suffix(name)
            if suffix in SUFFIXES:
                found.append((os.path.join(parent, name), os.path.normpath(f"{below}/{name}")))
            elif suffix in OTHER_SUFFIXES:
                not_read[suffix] += 1
    if not found:
        why = f"; it contains {counted(not_read)}" if not_read else ""
        why += "".join(f"; {shown(each.job.image)}: {each.reason}" for each in unreadable[:1])
        raise ConfigError(
            f"--image_path {shown(folder)} contains no image ({', '.join(sorted(SUFFIXES))}){why}"
        )
    return Listing(_named(found), unreadable, not_read=not_read)


def counted(not_read: Counter[str]) -> str:
    """Returns the numbers of files of formats that this program doesn't read, as text."""
    most_first = sorted(not_read.items(), key=lambda each: (-each[1], each[0]))
    each = ", ".join(f"{suffix} {count}" for suffix, count in most_first)
    total = not_read.total()
    files = f"{total} files of formats" if total > 1 else "1 file of a format"
    return f"{files} that this program does not read: {each}"


def _folders(
    top: str, note: Callable[[OSError], None]
) -> Iterator[tuple[str, list[str], list[str]]]:
    try:
        yield from os.walk(top, onerror=note)
    except RecursionError:  # only before Python 3.12
        raise ConfigError(
            f"--image_path {shown(top)} contains too many levels of folders"
        ) from None


def _from_list(path: str) -> Listing:
    """Finds the images that a list names. Raises ConfigError if it isn't a list."""
    place_of = place_finder()
    entries: dict[str, str] = {}  # place to path as given, in the list's order
    images = [line.image for line in read_list(path, "--image_path")]
    for image in images:
        entries.setdefault(place_of(image), image)
    if not entries:
        raise ConfigError(f"--image_path {shown(path)} is a list without image names")
    parent = os.path.commonpath([os.path.dirname(place) for place in entries])
    named = _named((image, os.path.relpath(place, parent)) for place, image in entries.items())
    return Listing(named, repeated=len(images) - len(entries))


def _is_image(path: str) -> bool:
    if _suffix(path) in SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise ConfigError(f"--image_path {shown(path)} can't be read: {reason(error)}") from None
    return SIGNATURE.match(head) is not None


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _named(found: Iterable[tuple[str, str]]) -> list[Job]:
    """Returns a job for each (path, name) pair.

    A mask's name is without the image's suffix, unless two masks would then have the same name.
    """
    images = list(found)
    sharing: defaultdict[str, int] = defaultdict(int)
    stems = [os.path.splitext(name)[0] for _, name in images]
    for stem in stems:
        sharing[stem.casefold()] += 1
    return [
        Job(image, name if sharing[stem.casefold()] > 1 else stem)
        for (image, name), stem in zip(images, stems, strict=True)
    ]


def _refuse_clashes(jobs: list[Job], save_dir: str, kinds: Sequence[str]) -> None:
    place_of = place_finder()
    by_target: dict[str, Job] = {}
    by_place: dict[str, Job] = {}
    for job in jobs:
        by_place[place_of(job.image)] = job
        if os.path.islink(job.image):
            by_place[os.path.realpath(job.image)] = job
    for job, kind in itertools.product(jobs, kinds):
        target = target_of(kind, job.stem)
        other = by_target.setdefault(target, job)
        if other is not job:
            raise ConfigError(
                f"pictures of {shown(other.image)} and {shown(job.image)} would have the same path "
                f"{shown(target)}: rename one of the images"
            )
        image = by_place.get(place_of(os.path.join(save_dir, target)))
        # The worker decides the suffix, so neither may be that of an image.
        geotiff = target_of(kind, job.stem, GEOTIFF)
        image = image or by_place.get(place_of(os.path.join(save_dir, geotiff)))
        if image:
            raise ConfigError(
                f"the {kind} of {shown(job.image)} would overwrite the image "
                f"{shown(image.image)}: choose another --save_dir"
            )
