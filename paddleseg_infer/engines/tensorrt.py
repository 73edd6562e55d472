"""TensorRT inside Paddle: its engines, kept between runs, and what it needs of the graph."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines.shapes import Shapes
from paddleseg_infer.errors import ENGINE_ERRORS, ConfigError, gist, shown
from paddleseg_infer.graph import check_model_files
from paddleseg_infer.machine import store as cache
from paddleseg_infer.machine.gpu import gpu_state
from paddleseg_infer.machine.limits import PaddleBuild

if TYPE_CHECKING:
    from paddleseg_infer.config import EngineOptions

log = logging.getLogger("paddleseg_infer")


def create_predictor(
    core: Any,
    make_config: Callable[[], Any],
    gpu: int,
    deploy: DeployConfig,
    options: "EngineOptions",
    build: PaddleBuild,
    shapes: Shapes,
) -> Any:
    """Paddle's predictor with TensorRT's engines, which are kept in the cache.

    Of several processes one builds them: together they would also disturb its timings, by which
    TensorRT chooses kernels. Raises what Paddle raises.
    """
    predictor, failure = None, None

    def create_in(folder: str) -> None:
        nonlocal predictor, failure
        config = make_config()
        config.set_optim_cache_dir(folder)
        try:
            predictor = core.create_predictor(config)
        except ENGINE_ERRORS as error:
            failure = error
            raise

    def build_in(folder: str) -> None:
        cache.need_space(folder, deploy)
        log.info("TensorRT builds its engine, which takes minutes")
        create_in(folder)

    if folder := cache.cache_dir_of(options):
        tuned = options.auto_tuned_shape_file
        settings = [options.precision, options.min_subgraph_size, shapes]
        try:
            key = cache.key_of(
                *(deploy, build, gpu_state(core, gpu), settings), tuned and cache.sha256(tuned)
            )
            entry = cache.keep(folder, key, build_in)
            if predictor is None:
                try:
                    _create_from(entry, create_in)
                except ENGINE_ERRORS as error:
                    log.warning(
                        "TensorRT doesn't take its engine in the cache entry %s (%s): it is built "
                        "again",
                        *(shown(entry), gist(error)),
                    )
                    cache.remove(entry)
                    cache.keep(folder, key, build_in)
        except (OSError, cache.Unusable) as error:
            if error is failure:
                raise  # it is Paddle's
            cache.tell_unusable(folder, error)
    if predictor is None:
        with tempfile.TemporaryDirectory() as private:  # else Paddle makes one beside the model
            create_in(private)
    return predictor


def _create_from(entry: str, create_in: Callable[[str], None]) -> None:
    """From a copy: Paddle writes into the folder where it doesn't find what it looks for."""
    with tempfile.TemporaryDirectory() as private:
        copy = shutil.copytree(entry, os.path.join(private, "engines"))
        before = set(os.listdir(copy))
        create_in(copy)
        if set(os.listdir(copy)) != before:
            log.warning(
                "TensorRT has built an engine although the cache entry %s holds some", shown(entry)
            )


def input_name(core: Any, deploy: DeployConfig) -> str:
    """The name of the graph's first input. `core` is Paddle's native module.

    Raises ConfigError for a graph that TensorRT doesn't take.
    """
    for kind, outputs in _operators(core, deploy):
        if kind == "feed":
            return outputs[0]
    raise ConfigError(f"{shown(deploy.graph)} has no input: export the model again")


def check_quantised(core: Any, deploy: DeployConfig) -> None:
    """Raises ConfigError for a graph without the ranges that int8 needs."""
    if not any("quantize" in kind for kind, _ in _operators(core, deploy)):
        raise ConfigError(
            f"--precision int8 needs a quantised model, and {shown(deploy.graph)} holds no "
            "quantisation: quantise it with PaddleSlim before the export, or ask for fp16"
        )


def _operators(core: Any, deploy: DeployConfig) -> list[tuple[str, list[str]]]:
    """Each operator's kind, and the names that inputs feed."""
    if deploy.is_pir:
        raise ConfigError(
            f"{shown(deploy.graph)} is a json graph, which TensorRT doesn't take: export again "
            "with FLAGS_enable_pir_api=0 for a .pdmodel, or run without --use_trt"
        )
    check_model_files(deploy.graph, deploy.params)
    with open(deploy.graph, "rb") as file:
        program = core.ProgramDesc(file.read())  # to be kept: its blocks and operators don't
    block = program.block(0)
    operators = [block.op(number) for number in range(block.op_size())]
    return [
        (each.type(), each.output("Out") if each.type() == "feed" else []) for each in operators
    ]
