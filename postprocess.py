"""Network output to label maps, label maps back to the image's size, masks to files."""

import contextlib
import errno
import functools
import io
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image

from errors import ConfigError, ImageError, reason, shown
from frame import Padded, Resized

MAX_CLASSES = 256  # a palette PNG has 8 bits a pixel
PART_SUFFIX = ".paddleseg-infer.part"
STALE_SECONDS = 24 * 3600


# ---- labels ------------------------------------------------------------------------------------


def output_kind(output: np.ndarray) -> str:
    """What a network's output [N, ...] holds: "labels", "scores", or "foreground" (one channel).

    Raises ValueError for a form that is none of PaddleSeg's, or of more than 256 classes.
    """
    is_label = np.issubdtype(output.dtype, np.integer)
    if is_label and (output.ndim == 3 or (output.ndim == 4 and output.shape[1] == 1)):
        return "labels"
    if output.ndim != 4 or not np.issubdtype(output.dtype, np.floating) or output.shape[1] < 1:
        raise ValueError(
            f"the model's output is {output.dtype} of shape {list(output.shape)}: neither labels "
            "[N, H, W] nor scores [N, classes, H, W]"
        )
    if output.shape[1] > MAX_CLASSES:
        raise ValueError(
            f"the model has {output.shape[1]} classes: a mask of 8 bits a pixel holds {MAX_CLASSES}"
        )
    return "foreground" if output.shape[1] == 1 else "scores"


def label_map(output: np.ndarray, kind: str) -> np.ndarray:
    """Labels uint8 [H, W] of one image of the output: [H, W], [1, H, W] or [C, H, W].

    Scores: the class of the highest, the first of equals, as np.argmax (but for NaN). Foreground:
    1 where the value is above 0.5, as it stands. Raises ImageError for a label beyond 0 to 255.
    """
    if kind == "labels":
        labels = output.reshape(output.shape[-2:])
        if labels.size and (labels.min() < 0 or labels.max() >= MAX_CLASSES):
            raise ImageError(
                f"the model gave it labels from {labels.min()} to {labels.max()}: "
                f"a mask of 8 bits a pixel holds 0 to {MAX_CLASSES - 1}"
            )
        return labels.astype(np.uint8)
    scores = output.astype(np.float32) if output.dtype == np.float16 else output
    if kind == "foreground":
        return (scores[0] > 0.5).astype(np.uint8)
    best, labels = scores[0], np.zeros(scores.shape[1:], np.uint8)
    for class_id in range(1, len(scores)):
        higher = cv2.compare(scores[class_id], best, cv2.CMP_GT)  # 255 where higher, else 0
        # A class's id is above all before it: the larger of the two is the latest winner.
        labels = cv2.max(labels, higher & np.uint8(class_id))
        best = cv2.max(scores[class_id], best)
    return labels


def restore(labels: np.ndarray, undo: Sequence[Resized | Padded]) -> np.ndarray:
    """Brings labels uint8 [H, W] back through the transforms, to the image's size, by nearest."""
    for step in reversed(undo):
        if isinstance(step, Padded):
            labels = labels[step.top : step.top + step.height, step.left : step.left + step.width]
        else:
            labels = resize_labels(labels, step.width, step.height)
    return np.ascontiguousarray(labels)


def resize_labels(labels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Labels uint8 [H, W] at another size, by OpenCV's nearest."""
    if labels.shape == (height, width):
        return labels
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)


# ---- masks -------------------------------------------------------------------------------------


@functools.cache
def paddleseg_palette() -> bytes:
    """256 RGB colours: Pascal VOC's map of interleaved bits, without its first, black.

    Bit 3k+c of a class's number plus one is bit 7-k of its channel c.
    """
    palette = np.zeros((256, 3), np.uint8)
    numbers = np.arange(1, 257)
    for bit in range(9):
        palette[:, bit % 3] |= ((numbers >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return palette.tobytes()


def encode_mask(labels: np.ndarray) -> bytes:
    """A palette PNG whose pixel values are the class ids, uint8 [H, W]."""
    mask = Image.fromarray(labels)
    mask.putpalette(paddleseg_palette())
    buffer = io.BytesIO()
    # Level 1: half the time of Pillow's 6 for files of nearly twice the (small) size.
    mask.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


# ---- files -------------------------------------------------------------------------------------


def write_whole(data: bytes, save_dir: str, target: str) -> None:
    """Writes `data` to `target` below `save_dir`, under that name whole or not at all.

    Raises ImageError. Makes folders below `save_dir`, never `save_dir` itself: if it vanishes
    while the program runs, a disk is gone.
    """
    path = os.path.join(save_dir, target)
    try:
        folder = _make_folders(save_dir, os.path.dirname(target))
        # A name of its own: a mask's may already be as long as names can be.
        part = os.path.join(folder, f".{secrets.token_hex(8)}{PART_SUFFIX}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise ImageError(f"its mask can't be written: {reason(error)}") from None


def _make_folders(save_dir: str, below: str) -> str:
    folder = save_dir
    for name in below.split(os.sep) if below else ():
        folder = os.path.join(folder, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        if not _is_inside(folder, save_dir):  # nothing is made there either
            raise ImageError("its mask would lie outside the output folder, behind a link")
    return folder


def _is_inside(folder: str, save_dir: str) -> bool:
    root = os.path.realpath(save_dir)
    return os.path.commonpath([os.path.realpath(folder), root]) == root


def check_save_dir(save_dir: str) -> None:
    """Raises ConfigError where the output folder can't be made or written to. Makes nothing."""
    if not save_dir:
        raise ConfigError("--save_dir is empty: name a folder")
    folder = os.path.abspath(save_dir)
    try:
        while not _is_folder(folder):
            folder = os.path.dirname(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(save_dir, error) from None


def _is_folder(path: str) -> bool:
    """False where nothing is there. Raises OSError for a file, or a name that can't be."""
    try:
        os.stat(os.path.join(path, ""))
    except FileNotFoundError:
        return False
    return True


def _unwritable(save_dir: str, error: OSError) -> ConfigError:
    return ConfigError(f"--save_dir {shown(save_dir)} can't be written to: {reason(error)}")


def prepare_save_dir(save_dir: str, targets: Iterable[str]) -> None:
    """Makes the output folder and tries it. Raises ConfigError where nothing can be written."""
    check_save_dir(save_dir)
    try:
        os.makedirs(save_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=save_dir):
            pass
    except OSError as error:
        raise _unwritable(save_dir, error) from None
    for folder in sorted({os.path.dirname(target) for target in targets}):
        if _is_inside(os.path.join(save_dir, folder), save_dir):
            _sweep_parts(os.path.join(save_dir, folder))


def _sweep_parts(folder: str) -> None:
    """Removes what a killed run left half-written in `folder`, once it is a day old.

    Younger ones may belong to a run that is still at work.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(PART_SUFFIX):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)
