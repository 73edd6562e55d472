"""--resume: finds out which images are already done."""

import os

from paddleseg_infer.outcomes import Job
from paddleseg_infer.pictures.files import target_of, whole_npz, whole_png
from paddleseg_infer.settings import Settings


def is_done(job: Job, settings: Settings) -> bool:
    """Returns whether all pictures of a job exist, complete and with the image's size.

    Returns False without --resume.
    """
    if not settings.run.resume:
        return False
    sizes = {
        kind: (whole_npz if kind == "probability" else whole_png)(
            os.path.join(settings.saving.save_dir, target_of(kind, job.target))
        )
        for kind in settings.saving.save
    }
    if None in sizes.values():
        return False
    of_image = {size for kind, size in sizes.items() if kind != "overlay"}
    if settings.model.network_size or not of_image:
        return True
    from paddleseg_infer.formats.size import image_size

    return of_image == {image_size(job.image)}
