"""--resume: finds out which images are already done."""

import os

from paddleseg_infer.outcomes import Job, Outcome
from paddleseg_infer.pictures.files import (
    GEOTIFF,
    PNG,
    target_of,
    whole_geojson,
    whole_npz,
    whole_png,
    whole_tiff,
)
from paddleseg_infer.settings import Settings

CHECKS = {PNG: whole_png, GEOTIFF: whole_tiff, ".npz": whole_npz, ".geojson": whole_geojson}


def skipped(job: Job, settings: Settings) -> Outcome | None:
    """Returns the Outcome of a job whose pictures exist, complete and with the image's size.

    Returns None if the image must be segmented, which is always so without --resume.
    """
    if settings.run.resume:
        for suffix in (GEOTIFF, PNG):
            if _is_done(job, settings, suffix):
                return Outcome(job, "skipped", suffix=suffix)
    return None


def _is_done(job: Job, settings: Settings, suffix: str) -> bool:
    sizes = {}
    for kind in settings.saving.save:
        path = os.path.join(settings.saving.save_dir, target_of(kind, job.stem, suffix))
        sizes[kind] = CHECKS[os.path.splitext(path)[1]](path)
        if sizes[kind] is None:
            return False
    of_image = {size for kind, size in sizes.items() if kind != "overlay"}
    if settings.model.network_size or not of_image:
        return True
    from paddleseg_infer.formats.size import image_size

    # Whether an orientation was applied depends on the model's channels, which aren't known here.
    return of_image in ({image_size(job.image)}, {image_size(job.image, is_turned=False)})
