"""What becomes of images that were on their way when nothing more can be saved."""

import pytest
from conftest import masks, write_image

from paddleseg_infer.errors import RunError
from paddleseg_infer.outcomes import Job
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import SavingOptions


def test_what_is_saved_although_the_disk_was_full_is_told_too(model, small_disk, tmp_path):
    """A small mask may find a place where a large one found none."""
    disk, _ = small_disk
    jobs = [
        Job(str(write_image(tmp_path / f"{name}.png", size)), name)
        for name, size in (("large", (1000, 1000)), ("small", (8, 8)))
    ]
    saving = SavingOptions(str(disk / "out"))
    told = []
    with pytest.raises(RunError, match="no space left on device"):
        for result in Segmenter(model, device="cpu", threads=1).save(jobs, saving):
            told.append(f"{result.item.job.stem}.png")
    assert told == masks(disk / "out") == ["small.png"]
