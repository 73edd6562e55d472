"""Writes pictures to files, completely or not at all, and never outside the output folder."""

import contextlib
import errno
import logging
import os
import re
import secrets
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

from paddleseg_infer.errors import ConfigError, ImageError, RunError, reason, shown
from paddleseg_infer.formats import tags
from paddleseg_infer.machine.optional import gdal_errors, one_line

PNG, GEOTIFF = ".png", ".tif"
OWN_SUFFIXES = {"probability": ".npz", "geojson": ".geojson"}
SOFTWARE = "paddleseg-infer"  # the tag of a GeoTIFF that names the program
PART_SUFFIX = ".paddleseg-infer.part"
STALE_SECONDS = 24 * 3600
# Seconds to wait when the output folder is unreachable. A line is logged before each wait, so that
# a waiting worker isn't mistaken for a hanging one.
WAITS = (0.5, *[1.0] * 7)
FULL = 1 << 20  # a disk with fewer free bytes is full
FOR_ALL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # all other pictures would fail with them too

log = logging.getLogger("paddleseg_infer")

_given_up: set[str] = set()  # output folders that stayed unreachable: there is no second wait


def target_of(kind: str, stem: str, suffix: str = PNG) -> str:
    """Returns the path of one of an image's files, relative to save_dir.

    All kinds but the mask are in a folder with the kind's name. `suffix` is that of masks and label
    maps, PNG or GEOTIFF. Kinds that aren't in OWN_SUFFIXES are PNGs.
    """
    own = {"mask": suffix, "label": suffix, **OWN_SUFFIXES}.get(kind, PNG)
    return stem + own if kind == "mask" else os.path.join(kind, stem + own)


def write_whole(data: bytes, save_dir: str, target: str) -> None:
    """Writes `data` to `target` below `save_dir`. The file is never incomplete.

    Makes folders below `save_dir`, but never `save_dir` itself: if that vanishes while the program
    runs, a disk was disconnected. Then this function waits, 7.5 s at most, and tries again. Raises
    ImageError, or RunError if no other picture can be saved either.
    """
    _patiently(save_dir, lambda: _write(data, save_dir, target))


def make_folders(save_dir: str, below: str) -> None:
    """Makes folders below `save_dir`. For waits and errors see `write_whole`."""
    _patiently(save_dir, lambda: _make_folders(save_dir, below))


def move_whole(path: str, save_dir: str, target: str) -> None:
    """Moves a file to `target` below `save_dir`, and replaces one there.

    For waits and errors see `write_whole`.
    """

    def move() -> None:
        folder = _make_folders(save_dir, os.path.dirname(target))
        os.replace(path, os.path.join(folder, os.path.basename(target)))

    _patiently(save_dir, move)


def _patiently(save_dir: str, do: Callable[[], object]) -> None:
    """Calls `do`, which writes below `save_dir`, until that folder can be written to."""
    for seconds in (*WAITS, None):
        try:
            do()
            _given_up.discard(save_dir)
            return
        except OSError as error:
            failure = _failure(error, save_dir)
            if isinstance(failure, ImageError):
                raise failure from None
            if error.errno in FOR_ALL or seconds is None or save_dir in _given_up:
                _given_up.add(save_dir)
                raise failure from None
        log.warning(
            "--save_dir %s can't be written to: the program waits and tries again", shown(save_dir)
        )
        time.sleep(seconds)


def _failure(error: OSError, save_dir: str) -> ImageError | RunError:
    if error.errno in FOR_ALL or not _may_write(save_dir):
        return RunError(f"--save_dir {shown(save_dir)}: {reason(error)}")
    return ImageError(f"it can't be saved: {reason(error)}")


def _write(data: bytes, save_dir: str, target: str) -> None:
    folder = _make_folders(save_dir, os.path.dirname(target))
    # A random name, because the picture's name with a suffix could be too long for the system.
    part, name = f".{secrets.token_hex(8)}{PART_SUFFIX}", os.path.basename(target)
    # With a descriptor, the file is written into the folder even if that is renamed meanwhile.
    there = os.open(folder, os.O_RDONLY)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=there)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(part, name, src_dir_fd=there, dst_dir_fd=there)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=there)
            raise
    finally:
        os.close(there)


@contextlib.contextmanager
def written(path: str, save_dir: str) -> Iterator[None]:
    """Removes a file below `save_dir` if the block, which writes it, raises an error.

    Turns GDAL's errors and OSError to ImageError, and all three to RunError if no other picture can
    be saved either.
    """
    errors: tuple[type[Exception], ...] = (*gdal_errors(), OSError, ImageError)
    try:
        yield
    except errors as error:
        number = error.errno if isinstance(error, OSError) else None
        try:
            found = os.statvfs(save_dir)
            if found.f_bavail * found.f_frsize < FULL:  # GDAL's errors don't say so
                number = errno.ENOSPC
            os.unlink(path)
        except OSError as second:
            number = number or (None if _may_write(save_dir) else second.errno)
        if number:
            raise _failure(OSError(number, os.strerror(number)), save_dir) from None
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"it can't be saved: {one_line(error)}") from None


def _may_write(save_dir: str) -> bool:
    return os.path.isdir(save_dir) and os.access(save_dir, os.W_OK | os.X_OK)


def _make_folders(save_dir: str, below: str) -> str:
    folder = save_dir
    for name in below.split(os.sep) if below else ():
        folder = os.path.join(folder, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        # Checked for each folder, so that no folder is made outside `save_dir`.
        if not _is_inside(folder, save_dir):
            raise ImageError("its folder is a link to a place outside the output folder")
    return folder


def _is_inside(folder: str, save_dir: str) -> bool:
    root = os.path.realpath(save_dir)
    return os.path.commonpath([os.path.realpath(folder), root]) == root


PNG_HEAD, PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0\0\0\0IEND\xaeB`\x82"


def whole_png(path: str) -> tuple[int, int] | None:
    """Returns (width, height) of a PNG file that is complete, else None."""
    try:
        with open(path, "rb") as file:
            head = file.read(24)
            file.seek(-len(PNG_END), os.SEEK_END)
            is_whole = head.startswith(PNG_HEAD) and file.read() == PNG_END
    except OSError:
        return None
    return (*struct.unpack(">II", head[16:24]),) if is_whole else None  # type: ignore[return-value]


def whole_tiff(path: str) -> tuple[int, int] | None:
    """Returns (width, height) of a complete GeoTIFF that this program made, else None.

    All its tiles must be inside the file: one that was cut off opens without an error.
    """
    try:
        with open(path, "rb") as file:
            length = file.seek(0, os.SEEK_END)
            tiff = tags.Tags(file)
            starts, sizes = tiff.all(tags.TILES), tiff.all(tags.TILE_BYTES)
            size = tiff.first(tags.WIDTH), tiff.first(tags.HEIGHT)
            is_own = tiff.text(tags.SOFTWARE) == SOFTWARE
    except (OSError, *tags.DAMAGED):
        return None
    ends = [start + count for start, count in zip(starts, sizes, strict=False) if count]
    is_whole = ends and len(ends) == len(starts) and max(*ends, tiff.end(every=True)) <= length
    return size if is_whole and is_own else None


GEOJSON_SIZE, GEOJSON_END = "size", b"\n]}\n"  # the member with the size, and the last bytes


def whole_geojson(path: str) -> tuple[int, int] | None:
    """Returns (width, height) of the image of a complete file of polygons, else None."""
    try:
        with open(path, "rb") as file:
            head = file.read(200)
            file.seek(-len(GEOJSON_END), os.SEEK_END)
            is_whole = file.read() == GEOJSON_END
    except OSError:
        return None
    size = re.search(rb'"%s": \[(\d+), (\d+)\]' % GEOJSON_SIZE.encode(), head)
    return (int(size[1]), int(size[2])) if size and is_whole else None


PROBABILITY_ENTRY = "probability.npy"  # the name of the array's file in an .npz file


def whole_npz(path: str) -> tuple[int, int] | None:
    """Returns (width, height) of the probabilities in a complete .npz file, else None."""
    # Imported here, because the start of other runs doesn't need them
    import zipfile
    import zlib

    from paddleseg_infer.formats import npy

    # What zipfile and zlib raise for a damaged file
    damaged = (
        *(OSError, LookupError, ValueError, RuntimeError, EOFError),
        *(zipfile.BadZipFile, zlib.error, struct.error),
    )
    try:
        # The table of contents is at the end, so it is missing in a file that was cut off.
        with zipfile.ZipFile(path) as archive, archive.open(PROBABILITY_ENTRY) as entry:
            shape, _, _ = npy.header(entry)
    except damaged:
        return None
    return (shape[2], shape[1]) if len(shape) == 3 else None


def check_save_dir(save_dir: str) -> None:
    """Raises ConfigError if the output folder can't be made or written to.

    Changes nothing on the disk.
    """
    if not save_dir:
        raise ConfigError("--save_dir is empty: give a folder")
    folder = os.path.abspath(save_dir)
    try:
        while not _is_folder(folder):
            folder = os.path.dirname(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(save_dir, error) from None


def _is_folder(path: str) -> bool:
    """Whether the folder exists. Raises OSError if `path` is a file or an impossible name."""
    try:
        os.stat(os.path.join(path, ""))
    except FileNotFoundError:
        return False
    return True


def _unwritable(save_dir: str, error: OSError) -> ConfigError:
    return ConfigError(f"--save_dir {shown(save_dir)} can't be written to: {reason(error)}")


def prepare_save_dir(save_dir: str) -> None:
    """Makes the output folder and writes a test file. Raises ConfigError if that fails."""
    check_save_dir(save_dir)
    try:
        os.makedirs(save_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=save_dir):
            pass
    except OSError as error:
        raise _unwritable(save_dir, error) from None


def sweep_parts(save_dir: str, targets: Iterable[str]) -> None:
    """Removes incomplete files of killed runs in the folders of `targets`, if older than a day."""
    for folder in sorted({os.path.dirname(target) for target in targets}):
        if _is_inside(os.path.join(save_dir, folder), save_dir):
            _sweep_folder(os.path.join(save_dir, folder))


def _sweep_folder(folder: str) -> None:
    # Newer files may belong to a run that is still going on.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(PART_SUFFIX):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)
