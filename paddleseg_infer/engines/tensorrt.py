"""TensorRT inside Paddle: its engines, kept between runs."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from paddleseg_infer.config import Shapes
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines.native import create
from paddleseg_infer.engines.optimised import FORMAT, space_for
from paddleseg_infer.errors import shown
from paddleseg_infer.machine.gpu import gpu_state
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.machine.store import Store, Unusable, files_of, key_of
from paddleseg_infer.settings import EngineOptions

log = logging.getLogger("paddleseg_infer")


def create_predictor(
    core: Any,
    make_config: Callable[[], Any],
    gpu: int,
    *,
    deploy: DeployConfig,
    options: EngineOptions,
    build: PaddleBuild,
    shapes: Shapes,
) -> Any:
    """Paddle's predictor with TensorRT's engines, which are kept in the store.

    Of several processes one builds them: together they would also disturb its timings, by which
    TensorRT chooses kernels. Raises EngineError.
    """

    def create_in(folder: str) -> Any:
        config = make_config()
        config.set_optim_cache_dir(folder)
        return create(core, config)

    if options.cache_folder:
        store = Store(options.cache_folder)

        def build_in(folder: str) -> Any:
            store.need_space(space_for(deploy))
            log.info("TensorRT builds its engine, which takes minutes")
            return create_in(folder)

        try:
            tuned = options.auto_tuned_shape_file
            key = key_of(
                [deploy.graph, deploy.params, *([tuned] if tuned else [])],
                *(FORMAT, str(build), build.commit, gpu_state(core, gpu)),
                *(options.precision, options.min_subgraph_size, shapes),
            )
            return store.obtain(key, build_in, lambda entry: _create_from(entry, create_in))
        except (OSError, Unusable) as error:
            store.tell_unusable(error)
    with tempfile.TemporaryDirectory() as private:  # else Paddle makes one beside the model
        return create_in(private)


def _create_from(entry: str, create_in: Callable[[str], Any]) -> Any:
    """From a copy: Paddle writes into the folder where it doesn't find what it looks for."""
    with tempfile.TemporaryDirectory() as private:
        copy = shutil.copytree(entry, os.path.join(private, "engines"))
        predictor = create_in(copy)
        if files_of(copy) != files_of(entry):
            log.warning(
                "TensorRT has built an engine although the cache entry %s holds some", shown(entry)
            )
        return predictor
