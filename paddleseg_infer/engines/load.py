"""Decides which engine runs the batches, and loads it. Used by a run and by `--dry_run`."""

import logging
import os
import tempfile
from dataclasses import replace
from functools import partial

import numpy as np

from paddleseg_infer.config import input_name
from paddleseg_infer.cpu_config import refusal
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.contract import Engine, check_graph, note_other_outputs
from paddleseg_infer.engines.paddle import load_collecting, load_paddle
from paddleseg_infer.engines.setup import Kind, Setup
from paddleseg_infer.engines.shapes import (
    Expected,
    collect,
    dynamic_shapes,
    make_shape_file,
    tuned_shapes,
)
from paddleseg_infer.errors import shown
from paddleseg_infer.machine.gpu import check_gpu
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.sources.source import Source
from paddleseg_infer.tiling import Size

log = logging.getLogger("paddleseg_infer")

NOTHING_EXPECTED = Expected((), 1)


def set_up(
    deploy: DeployConfig, options: EngineOptions, build: PaddleBuild, expected: Expected
) -> Setup:
    """Returns how the model will run. `options` come from `resolved`. Raises ConfigError.

    With TensorRT the setup has input shapes: those that the images in `expected` need, or those of
    the tuned file. It has no shapes if that file must be made first.
    """
    setup = Setup(deploy, options, build)
    if setup.kind is not Kind.TENSORRT:
        return setup
    if not options.enable_auto_tune:
        return replace(setup, shapes=dynamic_shapes(expected, deploy))
    path = options.auto_tuned_shape_file
    if path and os.path.exists(path):
        shapes = tuned_shapes(path, input_name(deploy), expected.batch_size)
        return replace(setup, shapes=shapes)
    return setup


def load(setup: Setup, expected: Expected = NOTHING_EXPECTED) -> Engine:
    """Loads the engine that the setup's options ask for. Raises ConfigError."""
    check_graph(setup.deploy)
    note_other_outputs(setup.deploy)
    if setup.kind is Kind.OWN:
        in_int8 = replace(setup.options, precision="int8")
        if in_int8.device == "cpu" and not refusal(in_int8, setup.deploy, setup.build):
            log.info("%s is quantised: --precision int8 may be faster", shown(setup.deploy.graph))
        return load_paddle(setup)
    if setup.kind in (Kind.OPENVINO, Kind.LOW_PRECISION):
        from paddleseg_infer.engines.guarded import load_guarded

        return load_guarded(setup)
    from paddleseg_infer.engines.tensorrt import TensorRtEngine

    if not setup.options.enable_auto_tune:
        return TensorRtEngine(setup)
    # Collecting shapes takes minutes, so errors of the model and the GPU are raised before it.
    setup.make_config()
    check_gpu(setup.core, setup.build, use_trt=True)
    with tempfile.TemporaryDirectory() as folder:  # the file is read while the engine is made
        path = setup.options.auto_tuned_shape_file or os.path.join(folder, "shapes.pbtxt")
        make_shape_file(path, partial(collect_shapes, setup, expected))
        options = replace(setup.options, auto_tuned_shape_file=path)
        return TensorRtEngine(set_up(setup.deploy, options, setup.build, expected))


def collect_shapes(setup: Setup, expected: Expected, path: str) -> int:
    """Runs batches so that Paddle writes the shapes inside the network to `path`.

    Returns the number of batches. Raises ConfigError.
    """
    engine = load_collecting(setup.in_fp32, path)
    run = partial(_run_copies, engine, setup.deploy, expected.crop)
    # Paddle writes the file when the engine is deleted, at the end of this function.
    return collect(run, expected, setup.deploy)


def _run_copies(
    engine: Engine, deploy: DeployConfig, crop: Size | None, source: Source, copies: int
) -> None:
    """Runs a batch of `copies` of one image, or of its first window if `crop` is given."""
    pixels = source.read().pixels
    window = pixels[: crop[0], : crop[1]] if crop else pixels
    engine(np.stack([prepare(window, deploy.transforms).tensor()] * copies))
