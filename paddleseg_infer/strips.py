"""The label map of a large image, which is written row by row."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from paddleseg_infer.batching import Item
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.errors import ImageError, reason
from paddleseg_infer.pictures.large import Folder, LargeLabels, opened_labels
from paddleseg_infer.place import MIXED, Place
from paddleseg_infer.row_files import RowFiles
from paddleseg_infer.settings import UNKNOWN, ModelOptions
from paddleseg_infer.sources.large import LargeRaster, large_raster
from paddleseg_infer.sources.reading import Reading
from paddleseg_infer.tiling import Tiling

log = logging.getLogger("paddleseg_infer")

ENGINE_OPTIONS = ("device", "precision", "enable_openvino", "enable_mkldnn", "use_trt")
# The labels in the files don't depend on these: regions are joined afterwards.
NOT_IN_FILES = ("min_area", "batch_size", "with_argmax")


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

    def __call__(self, item: Item, tiling: Tiling) -> "Strips | None":
        """Returns None for an image that is read whole. Raises ImageError."""
        assert item.job is not None
        path, stem = item.job.image, item.job.stem
        if (large := large_raster(path, self.reading)) is None:
            return None
        try:
            check_is_utf8(os.path.join(self.save_dir, os.path.dirname(stem)))
            state = {**self._state, "image": [*large.size, *large.stamps]}
            name = large.place.name
            files = RowFiles(name, self.save_dir, stem, large.size[1], state, self.resume)
            return Strips(large, files, min(tiling.crop[0], large.size[0]), self.has_class_255)
        except BaseException as error:
            large.close()
            if isinstance(error, OSError):
                raise ImageError(f"it can't be read: {reason(error)}") from None
            raise

    @cached_property
    def _state(self) -> dict[str, Any]:
        """What the label maps of all images depend on: the model's files, and the options."""
        digest = hashlib.sha256()
        for path in (self.deploy.path, self.deploy.graph, self.deploy.params):
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        of_engine = {name: getattr(self.engine, name) for name in ENGINE_OPTIONS}
        of_model = {k: value for k, value in asdict(self.model).items() if k not in NOT_IN_FILES}
        return {"model": digest.hexdigest(), "paddle": self.paddle, **of_model, **of_engine}


def check_is_utf8(folder: str) -> None:
    """Raises ImageError unless GDAL can write to such a folder."""
    try:
        os.fsencode(os.path.abspath(folder)).decode("utf-8")
    except UnicodeDecodeError:
        raise ImageError(
            "the path of --save_dir isn't UTF-8, and GDAL writes only to such paths: choose another"
        ) from None


class Strips:
    """The label map of one image.

    Rows are added from the top to the bottom. `done` rows were finished by an earlier run: their
    labels are ignored.
    """

    def __init__(self, large: LargeRaster, files: RowFiles, rows: int, has_class_255: bool | None):
        """At most `rows` rows are unfinished at a time."""
        self.large = large
        self._files, self._has_class_255 = files, has_class_255
        self._has_nodata = large.place.has_mask and not has_class_255
        self._is_filled = False  # whether pixels without data have got the id UNKNOWN
        if files.done and has_class_255 is None and (files.has_255 or files.dtype == "uint16"):
            # The files don't say whether these pixels are of a class or without data.
            log.info(
                "%s: the model declares no number of classes: the earlier run's rows aren't used",
                large.place.name,
            )
            files.forget()
        if files.done:
            log.info("%s: %d of %d rows exist", large.place.name, files.done, self.size[0])
        self.done = files.done
        self._buffer = np.zeros((rows, large.size[1]), np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        return self.large.size

    def put(self, rows: slice, columns: slice, labels: np.ndarray) -> None:
        """Puts labels, uint8 or uint16, in their place. Those of finished rows are ignored."""
        top = self._files.done
        start = max(rows.start, top)
        if start >= rows.stop:
            return
        if labels.dtype.itemsize > self._buffer.itemsize:
            self._buffer = self._buffer.astype(labels.dtype)
        self._buffer[start - top : rows.stop - top, columns] = labels[start - rows.start :]

    def complete(self, stop: int) -> None:
        """Saves all rows above `stop`. Raises ImageError or RunError."""
        rows = slice(self._files.done, stop)
        if stop <= rows.start:
            return
        labels = self._buffer[: stop - rows.start].copy()
        place = Place(has_mask=self.large.place.has_mask, valid=self.large.valid(rows))
        self._has_nodata &= place.for_labels(labels, self._has_class_255).has_mask
        self._is_filled |= place.valid is not None
        if self._is_filled and not self._has_nodata:
            # Class 255 is in one part of the rows, and pixels without data are in another.
            raise ImageError(MIXED)
        place.fill(labels, UNKNOWN)
        self._files.add(labels)

    @contextlib.contextmanager
    def finished(self) -> Iterator[LargeLabels]:
        """Joins the files to one label map for the block. After it, removes all files.

        If the block raises an error, the files of rows stay. Raises ImageError or RunError.
        """
        try:
            if self.large.is_changed:
                raise ImageError("its file was changed while it was read: run the command again")
            files = self._files
            place = replace(self.large.place, has_mask=self._has_nodata)
            folder = Folder(files.folder, files.save_dir)
            folder.write("labels", files.parts(), self.size, files.dtype, Place())
            if self._has_nodata:
                folder.write("valid", self._valid(), self.size, "uint8", Place())
            with opened_labels(folder, place) as large:
                yield large
            files.remove()
        finally:
            self.close()

    def close(self) -> None:
        """Closes the image and its files. It may be called again."""
        self.large.close()
        self._files.close()

    def _valid(self) -> Iterator[np.ndarray]:
        for rows in self._files.rows:
            valid = self.large.valid(rows)
            shape = rows.stop - rows.start, self.size[1]
            yield np.ones(shape, np.uint8) if valid is None else valid.view(np.uint8)
