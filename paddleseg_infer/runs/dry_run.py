"""--dry_run: shows what a run would do. Decodes no image and builds no TensorRT engine."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import yaml

from paddleseg_infer.config import engine_state, resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engines.load import load, set_up
from paddleseg_infer.engines.setup import Kind, Setup
from paddleseg_infer.engines.shapes import Expected
from paddleseg_infer.errors import ConfigError, shown
from paddleseg_infer.evaluation import judge_for
from paddleseg_infer.machine.gpu import check_gpu
from paddleseg_infer.machine.optional import rasterio_module
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.outcomes import Job
from paddleseg_infer.pictures.files import GEOTIFF, target_of
from paddleseg_infer.runs.jobs import Listing
from paddleseg_infer.runs.local import processes_for
from paddleseg_infer.settings import Settings
from paddleseg_infer.sources.reading import reading_for
from paddleseg_infer.sources.source import source_of
from paddleseg_infer.tiling import checked_tiling

log = logging.getLogger("paddleseg_infer")


def dry_run(
    jobs: Sequence[Job], listing: Listing, settings: Settings, say: Callable[[str], None]
) -> None:
    """Prints the first ten images and the engine's settings, as YAML. Raises ConfigError.

    If the GPU can't run, the settings are still valid, so they are printed before the error.
    """
    plan: dict[str, Any] = {
        "images": len(jobs),
        "first_ten": [_described(job, settings.saving.save) for job in jobs[:10]],
        "unreadable_folders": [shown(each.job.image) for each in listing.unreadable],
        "save_dir": shown(settings.saving.save_dir),
    }
    if settings.evaluation.label_path is not None:
        judge_for(load_deploy_config(settings.run.config), settings.evaluation)  # raises its errors
        exists = [job.label is not None and os.path.exists(job.label) for job in jobs]
        plan["missing_label_maps"] = exists.count(False)
    setup, expected = _decided(jobs, settings)
    plan["batch_size"] = expected.batch_size
    if setup.kind is Kind.TENSORRT and setup.options.enable_auto_tune:
        plan["tensorrt_tuned_shapes"] = (
            "will be collected" if setup.collects_shapes else "read from the file"
        )
    if setup.shapes:
        shapes = setup.shapes._asdict().items()
        plan["tensorrt_shapes"] = {name: list(shape) for name, shape in shapes}
    config, failure = _tried(setup, expected)
    precision = setup.options.precision
    plan["engine"] = {
        "paddle": str(setup.build),
        **engine_state(config),
        "precision": precision,
    }
    say(yaml.safe_dump(plan, sort_keys=False, allow_unicode=True))
    if failure:
        raise failure


def _described(job: Job, kinds: Sequence[str]) -> dict[str, str]:
    pictures = {kind: shown(target_of(kind, job.stem)) for kind in kinds}
    if os.path.splitext(job.image)[1].lower() in (".tif", ".tiff") and rasterio_module():
        pictures["mask_if_georeferenced"] = shown(target_of("mask", job.stem, GEOTIFF))
    label = {"label_map": shown(job.label)} if job.label else {}
    return {"image": shown(job.image), **pictures, **label}


def _decided(jobs: Sequence[Job], settings: Settings) -> tuple[Setup, Expected]:
    deploy = load_deploy_config(settings.run.config)
    build = find_paddle()
    processes = processes_for(len(jobs), settings)
    options = resolved(replace(settings.engine, num_workers=processes), build)
    tiling = checked_tiling(settings.model.crop_size, settings.model.stride)
    batch_size = deploy.batch_size_for(settings.model.batch_size)
    reading = reading_for(deploy, settings.model.bands, settings.model.pixel_scale)
    images = [source_of(job.image, reading) for job in jobs]
    expected = Expected(images, batch_size, tiling.crop if tiling else None)
    return set_up(deploy, options, build, expected), expected


def _tried(setup: Setup, expected: Expected) -> tuple[Any, ConfigError | None]:
    """Returns the engine's `paddle.inference.Config`, and the error if this GPU can't run it."""
    if setup.options.device == "cpu":
        return load(setup, expected).config, None
    if setup.collects_shapes:
        # Paddle's `Config` needs a path. The file is only read when the engine is made.
        options = replace(setup.options, auto_tuned_shape_file="to be collected")
        setup = replace(setup, options=options)
    config = setup.make_config()
    try:
        check_gpu(setup.core, setup.build, use_trt=setup.kind is Kind.TENSORRT)
        if setup.kind is not Kind.TENSORRT:
            load(setup, expected)
    except ConfigError as error:
        return config, error
    return config, None
