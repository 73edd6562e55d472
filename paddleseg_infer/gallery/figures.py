"""What the page shows of one image: small pictures, numbers, and what is wrong with its files."""

import os
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
from PIL import Image

from paddleseg_infer.errors import ImageError, RunError, reason, shown
from paddleseg_infer.evaluation import histogram
from paddleseg_infer.formats.size import image_size
from paddleseg_infer.gallery import views
from paddleseg_infer.gallery.confusion import areas_in, areas_of, matrix_of
from paddleseg_infer.gallery.lines import Record, Triple
from paddleseg_infer.label_maps import LabelMap
from paddleseg_infer.pictures.kinds import encode_mask
from paddleseg_infer.preprocess import check_is_file

THUMBNAIL, PREVIEW = 320, 1600  # pixels of the longest side
IDS = ("mask", "label")  # the kinds of pictures that contain the class ids
PER_FOLDER = 1000  # images whose pictures are in one folder
WRONG_COLOUR = (255, 0, 255)
MOST_CLASSES = 1000  # with more, there is no confusion matrix
NOTHING: tuple[object, ...] = (None, "", [], {})  # values that the page doesn't need
NO_MEMORY = "there is not enough memory for it"


@dataclass(frozen=True)
class Making:
    """What all images of a page have in common."""

    pictures: str  # the folder for the page's own pictures
    place: str  # the folder of the finished page, as a browser is given it: links start there
    palette: bytes
    classes: int  # of the confusion matrix; 0 if there is none


@dataclass
class Entry:
    """One image for the page's script. What is empty is left out. URLs are relative to the page."""

    name: str
    status: str
    reason: str
    size: tuple[int, int] | None  # (width, height) of the pictures
    classes: Mapping[int, int] | None  # the pixels of the mask by class
    areas: Mapping[int, Triple] | None  # by class: pixels in both, in the mask, in the label map
    iou: float | None  # the image's mean IoU, 0 to 1
    label_error: str
    certainty: float | None = None  # the mean of its scores, 0 to 1
    notes: list[str] = field(default_factory=list)  # what is wrong with its files
    links: Mapping[str, str] = field(default_factory=dict)  # URLs of its own files by kind
    image: str = ""  # URLs of what an opened image shows
    mask: str = ""
    label: str = ""
    wrong: str = ""
    thumb: str = ""  # URLs of small pictures
    mask_thumb: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {name: each for name, each in vars(self).items() if each not in NOTHING}


@dataclass
class Figures:
    """What is known about one image when its pictures are made."""

    entry: Entry
    # The confusion matrix, see `matrix_of`: the places of the values that aren't 0, and the values
    matrix: tuple[np.ndarray, np.ndarray] | None = None


def figures_of(number: int, record: Record, making: Making) -> Figures:
    """Makes the page's pictures of an image. Raises RunError if they can't be written.

    Whatever is wrong with the image's own files becomes a note.
    """
    entry = Entry(
        shown(record.image),
        record.status,
        record.reason,
        record.size,
        record.classes,
        record.areas,
        record.mean_iou,
        record.label_error,
    )
    work = _Work(number, record, making, Figures(entry))
    # A failed image has a reason already.
    work.step("the image", record.path, work.image, is_noted=record.status != "failed")
    work.mask()
    if "score" in record.files:
        work.step("the score", record.picture("score"), work.score)
    entry.links = work.links()
    return work.figures


@dataclass(frozen=True)
class _Work:
    number: int
    record: Record
    making: Making
    figures: Figures

    def step(self, what: str, path: str, do: Callable[[str], None], is_noted: bool = True) -> None:
        """Calls `do` with the path of a file. A failure becomes a note about the file."""
        try:
            do(path)
        except (ImageError, MemoryError) as error:
            if is_noted:
                self.note(f"{what} {shown(path)} can't be shown: {str(error) or NO_MEMORY}")

    def note(self, text: str) -> None:
        self.figures.entry.notes.append(text)

    def image(self, path: str) -> None:
        size = image_size(path)
        expected = self.record.size if self.record.run.has_own_sizes else None
        if size and expected and size != expected:
            self.note(f"the image {shown(path)} was changed since the run")
        is_link = views.is_shown_by_browsers(path)
        image = views.small_image(path, THUMBNAIL if is_link else PREVIEW)
        if is_link:
            self.figures.entry.image = self.link(path)
        else:
            self.figures.entry.image = self.saved("image.jpg", views.encoded_jpeg(image))
        small = views.encoded_jpeg(views.shrunk(image, THUMBNAIL))
        self.figures.entry.thumb = self.saved("thumb.jpg", small)

    def mask(self) -> None:
        """Uses the class ids of the mask or the label picture, or else the overlay."""
        kind = next((kind for kind in IDS if kind in self.record.files), None)
        if kind is not None:
            self.step(f"the {kind}", self.record.picture(kind), self.ids)
        elif "overlay" in self.record.files:
            self.step("the overlay", self.record.picture("overlay"), self.overlay)

    def ids(self, path: str) -> None:
        record, entry = self.record, self.figures.entry
        with views.opened_ids(path) as mask:
            grid = views.Grid(mask.size, PREVIEW)
            small = np.zeros(grid.size, mask.dtype)
            counts = np.zeros(1 << 8 * mask.dtype.itemsize, np.int64)
            for part in mask.parts():
                ids = mask.rows(part)
                counts += histogram(ids)
                grid.sample(small, part, ids)
            found = {int(each): int(counts[each]) for each in np.flatnonzero(counts)}
            size = mask.size[::-1]
            is_changed = (record.classes or found) != found or (record.size or size) != size
            if is_changed:
                self.note(f"the mask {shown(path)} was changed since the run")
            entry.classes = found
            if path.endswith(".png") and "mask" in record.files:
                entry.mask = self.link(path)
                if palette_of(path) != self.making.palette:
                    self.note(f"the mask {shown(path)} has other colours than this page")
            else:
                entry.mask = self.saved("mask.png", self.coloured(small))
            tiny = self.coloured(_sampled(small, THUMBNAIL))
            entry.mask_thumb = self.saved("mask_thumb.png", tiny)
            if record.areas is not None and record.label is not None:
                compare = partial(self.label, mask=mask, grid=grid, is_noted=not is_changed)
                self.step("the label map", record.label, compare)

    def label(self, path: str, mask: LabelMap, grid: views.Grid, is_noted: bool) -> None:
        """Compares the mask with its label map again, pixel by pixel.

        With `is_noted`, a result that differs from the report's becomes a note.
        """
        classes, ignored = self.making.classes, self.record.run.ignore_index
        small, wrong = np.zeros(grid.size, np.uint16), np.zeros(grid.size, bool)
        matrix = np.zeros((classes, classes + 1), np.int64)
        with views.opened_ids(path) as truth:
            if truth.size != mask.size:
                raise ImageError("its size isn't that of the mask")
            for part in mask.parts():
                ids, true = mask.rows(part), truth.rows(part)
                grid.sample(small, part, true)
                grid.mark(wrong, part, (ids != true) & (true != ignored))
                if classes:
                    matrix += matrix_of(ids, true, classes, ignored)
        entry = self.figures.entry
        entry.label = self.saved("label.png", self.label_colours(small, ignored))
        entry.wrong = self.saved("wrong.png", _marks(wrong))
        if areas_of(matrix, ignored) == areas_in(self.record, ignored):
            places = np.flatnonzero(matrix)
            self.figures.matrix = places, matrix.ravel()[places]
        elif classes and is_noted:
            self.note(f"the mask or the label map {shown(path)} was changed since the run")

    def score(self, path: str) -> None:
        if self.record.size and image_size(path) != self.record.size:
            raise ImageError("its size isn't that of the image")
        self.figures.entry.certainty = round(views.mean_of_score(path), 4)

    def overlay(self, path: str) -> None:
        """Shows the overlay in the place of the mask, without the legend below it."""
        width, height = self.record.size or (0, 0)
        overlay = views.small_image(path, PREVIEW)
        full = image_size(path)
        if not full or not width or width > full[0] or height > full[1]:
            raise ImageError("its size isn't that of the image")
        scale = overlay.shape[1] / full[0]
        overlay = overlay[: max(1, round(scale * height)), : max(1, round(scale * width))]
        self.figures.entry.mask = self.saved("mask.jpg", views.encoded_jpeg(overlay))
        small = views.encoded_jpeg(views.shrunk(overlay, THUMBNAIL))
        self.figures.entry.mask_thumb = self.saved("mask_thumb.jpg", small)

    def links(self) -> Mapping[str, str]:
        """Returns links to the image's own files, by kind."""
        files = {kind: self.record.picture(kind) for kind in self.record.files}
        if self.record.label is not None:
            files["label map"] = self.record.label
        files = {"image": self.record.path, **files}
        missing = [kind for kind, path in files.items() if not os.path.isfile(path)]
        for kind in missing if self.record.status != "failed" else ():
            # A file that was opened has a note already, and a bad label map a reason.
            is_known = any(shown(files[kind]) in note for note in self.figures.entry.notes)
            if not is_known and not (kind == "label map" and self.record.label_error):
                self.note(f"the {kind} {shown(files[kind])} does not exist any more")
        return {kind: self.link(path) for kind, path in files.items() if kind not in missing}

    def link(self, path: str) -> str:
        """Returns the URL of a file, relative to the page."""
        folder, name = os.path.split(path)
        there = os.path.join(os.path.realpath(folder), name)
        return urllib.parse.quote(os.fsencode(os.path.relpath(there, self.making.place)))

    def coloured(self, ids: np.ndarray) -> bytes:
        """Returns a palette PNG of ids. The colours repeat after 256 classes."""
        return encode_mask(ids.astype(np.uint8), self.making.palette)

    def label_colours(self, ids: np.ndarray, ignored: int | None) -> bytes:
        """Returns such a PNG of a label map, in which the pixels of `ignored` are transparent."""
        small = ids.astype(np.uint8)
        used = histogram(small, ids != ignored) > 0
        if used.all():  # no id is free for the ignored pixels
            return self.coloured(ids)
        free = int(np.argmin(used))
        small[ids == ignored] = free
        return encode_mask(small, self.making.palette, free)

    def saved(self, name: str, data: bytes) -> str:
        """Writes one of the page's pictures, and returns its URL. Raises RunError."""
        below = os.path.join(str(self.number // PER_FOLDER), f"{self.number:06}.{name}")
        path = os.path.join(self.making.pictures, below)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
        except OSError as error:
            raise RunError(f"the page's {shown(path)} can't be written: {reason(error)}") from None
        return os.path.join(os.path.basename(self.making.pictures), below)


def _sampled(ids: np.ndarray, longest: int) -> np.ndarray:
    grid = views.Grid((ids.shape[0], ids.shape[1]), longest)
    small = np.zeros(grid.size, ids.dtype)
    grid.sample(small, slice(0, len(ids)), ids)
    return small


def _marks(wrong: np.ndarray) -> bytes:
    """Returns a PNG with a colour where `wrong` [H, W] is true, transparent elsewhere."""
    bgra = np.zeros((*wrong.shape, 4), np.uint8)
    bgra[wrong] = (*WRONG_COLOUR, 255)
    return cv2.imencode(".png", bgra)[1].tobytes()


def palette_of(path: str) -> bytes | None:
    """Returns the palette of a PNG, as RGB bytes; None if it has none."""
    try:
        check_is_file(path)
        with Image.open(path) as mask:
            return bytes(mask.getpalette("RGB") or ()) or None
    except (OSError, ValueError, SyntaxError, ImageError):
        return None
