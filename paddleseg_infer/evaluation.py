"""Counts the pixels of masks, and compares masks with the label maps of a data set."""

import io
import os
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import PngImagePlugin

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, ImageError, brief, reason, shown
from paddleseg_infer.formats.known import PNG_SIGNATURE, TIFF_SIGNATURES
from paddleseg_infer.forms import class_count
from paddleseg_infer.machine.optional import RASTERIO_HINT, gdal_errors, one_line, rasterio_module
from paddleseg_infer.outcomes import Areas, Job, Pixels
from paddleseg_infer.settings import MAX_LABEL, UNKNOWN, EvaluationOptions

# cv2.calcHist counts in float32, which is exact up to this number.
MOST_COUNTED = 1 << 24
BIT_DEPTH_AT = 24  # the place of a PNG's number of bits per value, which is in its first chunk
MODES = ("1", "L", "P", "I", "I;16")  # Pillow's names of images with one number per pixel
# What Pillow raises for a damaged PNG
DAMAGED = (OSError, SyntaxError, ValueError, LookupError, struct.error, zlib.error)
MOST_IDS_SHOWN = 5
ROWS_AT_ONCE = 256
NO_MEMORY = "there is not enough memory for it"
NO_LABEL = "the list of --label_path has no line for it, or no label map in its line"


@dataclass(frozen=True)
class Judge:
    """Counts the pixels of masks, and compares them with label maps if `classes` isn't None."""

    classes: int | None = None  # the number of the model's classes
    ignore_index: int = 255  # the id of the pixels of a label map that don't count

    def check(self, kind: str, channels: int) -> None:
        """Raises ConfigError if the model's output has another number of classes.

        `kind` is a result of `forms.output_kind`. `channels` are those of scores.
        """
        if self.classes and kind == "scores" and channels != self.classes:
            raise ConfigError(
                f"the model gives scores of {channels} classes, but `labels` in its deploy.yaml "
                f"names {self.classes}, and --label_path needs the right number: name all classes"
            )

    def pixels(self, job: Job, labels: np.ndarray) -> Pixels:
        """Returns the pixels of a mask, uint8 or uint16 [H, W].

        If its label map can't be used, the result says why; that is no error.
        """
        counts = histogram(labels)
        classes = {int(class_id): int(counts[class_id]) for class_id in np.flatnonzero(counts)}
        if self.classes is None:
            return Pixels(classes)
        try:
            if job.label is None:
                raise ImageError(NO_LABEL)
            extra = [each for each in classes if each >= self.classes and each != UNKNOWN]
            if extra:
                raise ImageError(
                    f"the mask contains the id {extra[0]}, but the model has {self.classes} "
                    "classes: the mask is of another model, or `labels` in deploy.yaml doesn't "
                    "name all classes"
                )
            truth = self._truth(job.label, labels.shape, self.classes)
            return Pixels(classes, areas_of(labels, truth, self.classes, self.ignore_index))
        except (ImageError, MemoryError) as error:
            return Pixels(classes, label_error=str(error) or NO_MEMORY)

    def _truth(self, path: str, size: tuple[int, ...], classes: int) -> np.ndarray:
        """Returns the label map of an image with the height and width `size`. Raises ImageError."""
        truth = read_label_map(path)
        if truth.shape != size:
            (rows, columns), (height, width) = truth.shape, size
            raise ImageError(f"it is {columns}x{rows}, but its image is {width}x{height}")
        ids = np.flatnonzero(histogram(truth))
        unknown = [int(each) for each in ids if each >= classes and each != self.ignore_index]
        if unknown:
            more = ", ..." if len(unknown) > MOST_IDS_SHOWN else ""
            found = ", ".join(map(str, unknown[:MOST_IDS_SHOWN])) + more
            advice = "if it means no class, give it as --ignore_index"
            if len(unknown) > 1 or self.ignore_index != UNKNOWN:
                advice = (
                    "the label map may be for another model; or give all pixels of no class one "
                    "id, and name it with --ignore_index"
                )
            raise ImageError(
                f"it contains ids that the model, with {classes} classes, doesn't have ({found}): "
                f"{advice}"
            )
        return truth


def judge_for(deploy: DeployConfig, evaluation: EvaluationOptions) -> Judge:
    """Returns a Judge for the model. Raises ConfigError if its number of classes is unknown."""
    if evaluation.label_path is None:
        return Judge()
    classes = class_count(deploy.graph_facts) or len(deploy.class_names)
    if not classes:
        raise ConfigError(
            f"--label_path needs the number of classes, which {shown(deploy.graph)} doesn't "
            f"declare: list the classes' names as `labels` in {shown(deploy.path)}"
        )
    return Judge(classes, evaluation.ignore_index)


def read_label_map(path: str) -> np.ndarray:
    """Returns the class ids of a PNG or TIFF file, uint8 or uint16 [H, W]. Raises ImageError.

    These are the pixel values of a grey picture, and the indices of a palette. TIFFs need rasterio.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ImageError(f"it can't be read: {reason(error)}") from None
    if data.startswith(TIFF_SIGNATURES):
        return _ids_of_tiff(path)
    if not data.startswith(PNG_SIGNATURE):
        raise ImageError("it is neither a PNG nor a TIFF")
    if b"acTL" in data[: data.find(b"IDAT")]:
        raise ImageError("it is an animation: save its ids as a PNG of one picture")
    try:
        # Not Image.open, which refuses images of more than 179 megapixels.
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        ids = np.asarray(image)
    except DAMAGED as error:
        raise ImageError(f"it is cut off or damaged ({brief(str(error))})") from None
    if image.mode not in MODES:
        raise ImageError(
            f"it has several values per pixel ({image.mode}), not one class id: save the ids as a "
            "grey PNG, or as a palette PNG"
        )
    bits = data[BIT_DEPTH_AT]
    if image.mode == "L" and bits < 8:  # Pillow spreads these values over 0 to 255
        ids = ids // (255 // ((1 << bits) - 1))
    return ids.astype(np.uint8 if ids.dtype.itemsize == 1 else np.uint16)


def _ids_of_tiff(path: str) -> np.ndarray:
    rasterio = rasterio_module()
    if rasterio is None:
        raise ImageError(f"it is a TIFF, which needs rasterio: {RASTERIO_HINT}")
    errors: tuple[type[Exception], ...] = (*gdal_errors(), OSError, ValueError, LookupError)
    try:
        with rasterio.open(os.path.abspath(path), driver="GTiff") as raster:
            bands, kind = raster.count, raster.dtypes[0]
            ids = raster.read(1)
    except errors as error:
        raise ImageError(f"it is cut off or damaged ({one_line(error)})") from None
    if bands != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ImageError(
            f"its bands are {bands} of {kind}, not one of whole numbers: save the class ids in one "
            "band"
        )
    if ids.size and (ids.min() < 0 or ids.max() > MAX_LABEL):
        raise ImageError(
            f"it has values from {ids.min()} to {ids.max()}, but a class id is 0 to {MAX_LABEL}: "
            "give pixels of no class such an id, and name it with --ignore_index"
        )
    return ids.astype(np.uint8 if ids.dtype.itemsize == 1 else np.uint16)


def areas_of(labels: np.ndarray, truth: np.ndarray, classes: int, ignore_index: int) -> Areas:
    """Returns the areas of the ids below `classes` in a mask and its label map, both [H, W].

    The formula is that of `calculate_area` in PaddleSeg's `paddleseg/utils/metrics.py`: the mask's
    pixels aren't counted where the label map has `ignore_index`. An id that isn't below `classes`
    belongs to no class.
    """
    counted = truth != ignore_index

    def of_classes(counts: np.ndarray) -> tuple[int, ...]:
        return tuple(np.pad(counts, (0, max(0, classes - len(counts))))[:classes].tolist())

    return Areas(
        of_classes(histogram(labels, counted & (labels == truth))),
        of_classes(histogram(labels, counted)),
        of_classes(histogram(truth)),
        int(np.count_nonzero(counted)),
    )


def histogram(ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Returns the number of pixels of each id in `ids`, int64 [256], or [65536] for uint16.

    `ids` is uint8 or uint16 [H, W]. With `mask`, bool [H, W], only the pixels where it is true are
    counted.
    """
    if ids.dtype != np.uint8:
        counts = np.zeros(1 << 16, np.int64)
        for top in range(0, len(ids), ROWS_AT_ONCE):  # bincount needs 8 bytes per pixel
            part = slice(top, top + ROWS_AT_ONCE)
            found = np.bincount((ids[part] if mask is None else ids[part][mask[part]]).ravel())
            counts[: len(found)] += found
        return counts
    counts = np.zeros(256, np.int64)
    rows = max(1, MOST_COUNTED // max(1, ids.shape[1]))
    for top in range(0, len(ids), rows):
        part = slice(top, top + rows)
        some = None if mask is None else mask[part].view(np.uint8)
        counts += cv2.calcHist([ids[part]], [0], some, [256], [0, 256]).ravel().astype(np.int64)
    return counts
