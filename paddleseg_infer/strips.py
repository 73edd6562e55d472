"""The label map of a large image in files of a few rows, from which a killed run can go on.

The files are in a folder beside the mask. At the end they become one label map.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from paddleseg_infer.batching import Item
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.errors import ImageError, RunError, reason
from paddleseg_infer.pictures.files import PART_SUFFIX, write_whole, written
from paddleseg_infer.pictures.geotiff import write_geotiff
from paddleseg_infer.pictures.large import LargeLabels, check_tiles, opened_labels
from paddleseg_infer.place import MIXED, Place
from paddleseg_infer.settings import UNKNOWN, ModelOptions
from paddleseg_infer.sources.large import LargeRaster, large_raster
from paddleseg_infer.sources.reading import Reading
from paddleseg_infer.tiling import Tiling

log = logging.getLogger("paddleseg_infer")

ENGINE_OPTIONS = ("device", "precision", "enable_openvino", "enable_mkldnn", "use_trt")
STATE, LOCK = "state.json", "lock"
NAME = re.compile(r"(\d{9})-(\d{9})\.(uint8|uint16)")  # of a file: first row, last row + 1, dtype


@dataclass(frozen=True)
class StripMaker:
    """Decides which images are written row by row, and opens their files."""

    deploy: DeployConfig
    model: ModelOptions
    engine: EngineOptions
    reading: Reading
    has_class_255: bool | None
    paddle: str  # the version and build
    save_dir: str
    resume: bool
    on_run_error: Callable[[RunError], None]

    def __call__(self, item: Item, tiling: Tiling) -> "Strips | None":
        """Returns None for an image that is read whole. Raises ImageError."""
        assert item.job is not None
        path = item.job.image
        if (large := large_raster(path, self.reading)) is None:
            return None
        rows = min(tiling.crop[0], large.size[0])
        try:
            found = os.stat(path)
            image = [*large.size, found.st_size, found.st_mtime_ns]
            return Strips(self, large, item.job.stem, {**self._state, "image": image}, rows)
        except OSError as error:
            large.close()
            raise ImageError(f"it can't be read: {reason(error)}") from None

    @cached_property
    def _state(self) -> dict[str, Any]:
        """What the label maps of all images depend on: the model's files, and the options."""
        digest = hashlib.sha256()
        for path in (self.deploy.path, self.deploy.graph, self.deploy.params):
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        of_engine = {name: getattr(self.engine, name) for name in ENGINE_OPTIONS}
        of_model = asdict(replace(self.model, min_area=None))  # regions are joined afterwards
        return {"model": digest.hexdigest(), "paddle": self.paddle, **of_model, **of_engine}


def _rows_of(name: str) -> slice:
    """Returns the rows that are in a file of this name."""
    return slice(int(name[:9]), int(name[10:19]))


class Strips:
    """The finished rows of one image's label map.

    Rows are added from the top to the bottom. `done` rows were finished by an earlier run: labels
    that are put there are ignored.
    """

    def __init__(
        self, maker: StripMaker, large: LargeRaster, stem: str, state: dict[str, Any], rows: int
    ):
        """`state` says on what the labels depend. At most `rows` rows are unfinished at a time."""
        self.large = large
        self._maker, self._save_dir = maker, maker.save_dir
        name = hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]
        self._below = os.path.join(os.path.dirname(stem), f".{name}{PART_SUFFIX}")
        self._folder = os.path.join(self._save_dir, self._below)
        self._state = state
        self._lock: int | None = None
        self._has_nodata = large.place.has_mask and not maker.has_class_255
        self._is_filled = False  # whether pixels without data have got the id UNKNOWN
        self._files: list[str] = []
        self.done = self._found() if maker.resume else 0
        self._top = self.done
        self._buffer = np.zeros((rows, large.size[1]), np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        return self.large.size

    def put(self, rows: slice, columns: slice, labels: np.ndarray) -> None:
        """Puts labels, uint8 or uint16, in their place. Those of finished rows are ignored."""
        start = max(rows.start, self._top)
        if start >= rows.stop:
            return
        if labels.dtype.itemsize > self._buffer.itemsize:
            self._buffer = self._buffer.astype(labels.dtype)
        here = slice(start - self._top, rows.stop - self._top)
        self._buffer[here, columns] = labels[start - rows.start :]

    def complete(self, stop: int) -> None:
        """Writes all rows above `stop` to a file. Raises ImageError or RunError."""
        if stop <= self._top:
            return
        try:
            self._complete(stop)
        except RunError as error:
            self.close()
            self._maker.on_run_error(error)
            raise

    def _complete(self, stop: int) -> None:
        if self._lock is None:
            self._begin()
        labels = self._buffer[: stop - self._top].copy()
        rows = slice(self._top, stop)
        place = Place(has_mask=self.large.place.has_mask, valid=self.large.valid(rows))
        self._has_nodata &= place.for_labels(labels, self._maker.has_class_255).has_mask
        self._is_filled |= place.valid is not None
        if self._is_filled and not self._has_nodata:  # one is in this part, the other in another
            raise ImageError(MIXED)
        place.fill(labels, UNKNOWN)
        name = f"{rows.start:09}-{rows.stop:09}.{labels.dtype.name}"
        data = zlib.compress(labels.tobytes(), 1)
        write_whole(data, self._save_dir, self._path(name))
        self._files.append(name)
        self._top = stop

    @contextlib.contextmanager
    def finished(self) -> Iterator[LargeLabels]:
        """Joins the files to one label map for the block. After it, removes all files.

        If the block raises an error, the files of rows stay. Raises ImageError or RunError.
        """
        try:
            if self._lock is None:  # an earlier run has finished all rows
                self._begin()
            place = replace(self.large.place, has_mask=self._has_nodata)
            valid = self._joined("valid", "uint8", self._valid()) if self._has_nodata else None
            dtype = "uint16" if any(name.endswith("uint16") for name in self._files) else "uint8"
            with opened_labels(self._joined("labels", dtype, self._labels()), valid, place) as all_:
                yield all_
            shutil.rmtree(self._folder, ignore_errors=True)
        except RunError as error:
            self._maker.on_run_error(error)
            raise
        finally:
            self.close()

    def _joined(self, name: str, dtype: str, parts: Iterator[np.ndarray]) -> str:
        """Writes parts of some rows to a TIFF, and returns its path."""
        path = os.path.join(self._folder, name)
        with written(path):
            write_geotiff(path, parts, self.size, dtype, Place())
            check_tiles(path)
        return path

    def _valid(self) -> Iterator[np.ndarray]:
        for rows in map(_rows_of, self._files):
            valid = self.large.valid(rows)
            shape = rows.stop - rows.start, self.size[1]
            yield np.ones(shape, np.uint8) if valid is None else valid.view(np.uint8)

    def close(self) -> None:
        self.large.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _labels(self) -> Iterator[np.ndarray]:
        for name in self._files:
            yield self._read(name)

    def _read(self, name: str) -> np.ndarray:
        """Returns the labels in a file. Raises OSError, ValueError or zlib.error."""
        rows = _rows_of(name)
        with open(os.path.join(self._folder, name), "rb") as file:
            data = zlib.decompress(file.read())
        dtype = name.rpartition(".")[2]
        return np.frombuffer(data, dtype).reshape(rows.stop - rows.start, self.size[1])

    def _found(self) -> int:
        """Finds the rows that an earlier run has finished. Returns their number."""
        try:
            with open(os.path.join(self._folder, STATE), "rb") as file:
                if json.load(file) != json.loads(json.dumps(self._state)):
                    log.info(
                        "%s: the earlier run had another model, other flags or another image: its "
                        "rows aren't used",
                        self.large.place.name,
                    )
                    return 0
            names = sorted(filter(NAME.fullmatch, os.listdir(self._folder)))
        except (OSError, ValueError):
            return 0
        done, has_255 = 0, False
        for name in names:
            rows = _rows_of(name)
            if rows.start != done:
                break
            try:
                has_255 |= bool((self._read(name) == UNKNOWN).any())
            except (OSError, ValueError, zlib.error):
                break
            self._files.append(name)
            done = rows.stop
        if self._maker.has_class_255 is None and has_255:
            # The files don't say whether these pixels are of a class or without data.
            self._files.clear()
            return 0
        if done:
            log.info("%s: %d of %d rows exist", self.large.place.name, done, self.size[0])
        return done

    def _begin(self) -> None:
        """Locks the folder, and removes files that aren't used. Raises ImageError or RunError."""
        write_whole(b"", self._save_dir, self._path(LOCK))  # makes the folder
        self._lock = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ImageError(
                "another run is working on this image: wait for its end, or choose another "
                "--save_dir"
            ) from None
        write_whole(json.dumps(self._state).encode(), self._save_dir, self._path(STATE))
        for name in set(os.listdir(self._folder)) - {STATE, LOCK, *self._files}:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, name))

    def _path(self, name: str) -> str:
        return os.path.join(self._below, name)
