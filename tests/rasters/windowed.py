"""Segments rasters row by row, as if they were large, for the tests."""

from pathlib import Path

import numpy as np
import rasterio
from conftest import scene

from paddleseg_infer.outcomes import Job
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import EvaluationOptions, SavingOptions

RGB = np.moveaxis(scene(150, 200), 2, 0)
WINDOWS = {"crop_size": (64, 48), "stride": (50, 30)}
TILES = {"tiled": True, "blockxsize": 32, "blockysize": 32}
SCRIPT = """
import sys
from paddleseg_infer import cli
from paddleseg_infer.sources import large
large.LARGE = 0
sys.exit(cli.main(sys.argv[1:]))
"""


def save(model, path, folder, kinds=("mask", "label"), label_path=None, resume=False, **options):
    """Segments a raster, and returns its Result and the number of batches that were run."""
    batches = []
    with_windows = Segmenter(model / "deploy.yaml", device="cpu", **{**WINDOWS, **options})
    [result] = with_windows.save(
        [Job(str(path), "a", label_path)],
        SavingOptions(str(folder), kinds),
        EvaluationOptions(label_path),
        resume=resume,
        on_batch=lambda: batches.append(1),
    )
    return result, len(batches)


def ids(path):
    with rasterio.open(path) as file:
        return file.read(1)


def parts(folder):
    """Returns the files of rows and their neighbours, below the output folder."""
    return sorted(Path(folder).glob(".*.part/*"))
