"""The confusion matrix of an image, and the areas that come from it."""

import numpy as np

from paddleseg_infer.gallery.lines import Record, Triple


def matrix_of(ids: np.ndarray, true: np.ndarray, classes: int, ignored: int | None) -> np.ndarray:
    """Returns the number of pixels by class in the label map (rows) and in the mask (columns).

    int64 [classes, classes + 1], from `ids` of the mask and `true` ids of the label map, uint8 or
    uint16 [rows, W]. The last column is for ids of no class, such as 255. Pixels of the id
    `ignored` don't count.
    """
    counted = true != ignored
    counted &= true < classes
    rows = true[counted].astype(np.int64) * (classes + 1)
    rows += np.minimum(ids[counted].astype(np.int64), classes)
    return np.bincount(rows, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def areas_of(matrix: np.ndarray, ignored: int | None) -> dict[int, Triple]:
    """Returns the areas of each class that occurs, as a report has them."""
    columns = zip(
        matrix.diagonal().tolist(),
        matrix.sum(axis=0).tolist(),
        matrix.sum(axis=1).tolist(),
        strict=False,  # the last column has no row
    )
    return {n: each for n, each in enumerate(columns) if any(each) and n != ignored}


def areas_in(record: Record, ignored: int | None) -> dict[int, Triple]:
    """Returns the areas in the report, without an ignored class, whose pixels don't count."""
    return {n: each for n, each in (record.areas or {}).items() if n != ignored}
