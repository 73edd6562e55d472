"""Optimised graphs, kept between runs: for a large network Paddle takes 20 s to make one.

Paddle itself keys such files by nothing and believes whatever it finds, so they lie in the store.
"""

import contextlib
import logging
import os
import platform
import re
import time
from collections.abc import Callable
from typing import Any

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines.native import create
from paddleseg_infer.graph import look_into
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.machine.store import Store, Unusable, files_of, key_of
from paddleseg_infer.settings import EngineOptions

log = logging.getLogger("paddleseg_infer")

# Graphs of 135 to 190 kB take Paddle 0.2 to 0.5 s, one of 820 kB 21 s.
MIN_GRAPH_BYTES = 200_000
SLOW_SECONDS = 2.0
FORMAT = 1  # raised when this program sets the engine up in another way
OPTIMIZED_GRAPH, OPTIMIZED_PARAMS = "_optimized.pdmodel", "_optimized.pdiparams"  # Paddle's names


def create_predictor(
    core: Any,
    make_config: Callable[[], Any],
    deploy: DeployConfig,
    options: EngineOptions,
    build: PaddleBuild,
) -> Any:
    """Paddle's predictor on the CPU, from the optimised graph of an earlier run if one is kept.

    What is wrong with the store is logged in a line and costs only time. Raises EngineError.
    """
    if not _is_kept(deploy, options, build):
        return create(core, make_config())
    store = Store(options.cache_folder)

    def make(folder: str) -> Any:
        store.need_space(space_for(deploy))
        config = make_config()
        config.set_optim_cache_dir(folder)
        config.enable_save_optim_model(True)
        started = time.monotonic()
        predictor = create(core, config)
        if time.monotonic() - started < SLOW_SECONDS:  # an empty entry says so
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
        return predictor

    def finish(folder: str) -> None:
        if os.listdir(folder):  # Paddle doesn't notice that a full disk cuts its files off
            look_into(*(os.path.join(folder, name) for name in (OPTIMIZED_GRAPH, OPTIMIZED_PARAMS)))

    def load(entry: str) -> Any:
        config = make_config()
        if files_of(entry):
            config.set_optim_cache_dir(entry)
            config.use_optimized_model(True)
        return create(core, config)

    try:
        return store.obtain(graph_key(deploy, options, build, processor()), make, load, finish)
    except (OSError, Unusable) as error:
        store.tell_unusable(error)
    return create(core, make_config())


def _is_kept(deploy: DeployConfig, options: EngineOptions, build: PaddleBuild) -> bool:
    """Whether the optimised graph of this model is worth keeping, and can be."""
    if not options.cache_folder or options.device != "cpu":
        return False
    if deploy.is_pir or build.version < (3, 0, 0):
        if options.cache_dir is not None:
            log.warning("--cache_dir has no effect: optimised graphs need a pdmodel and Paddle 3")
        return False
    return os.path.getsize(deploy.graph) >= MIN_GRAPH_BYTES


def graph_key(
    deploy: DeployConfig, options: EngineOptions, build: PaddleBuild, processor: str
) -> str:
    """The key of all that an optimised graph depends on."""
    settings = (FORMAT, str(build), build.commit, options.enable_mkldnn, processor)
    return key_of([deploy.graph, deploy.params], *settings)


def space_for(deploy: DeployConfig) -> int:
    """Bytes that what Paddle makes of a model may take."""
    return 3 * (os.path.getsize(deploy.graph) + os.path.getsize(deploy.params))


def processor() -> str:
    """Kind and features of the processor, by which Paddle chooses the layout of weights."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", file.read(), re.M)
        return "\n".join(sorted(set(lines)))
    return platform.processor()
