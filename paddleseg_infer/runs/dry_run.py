"""What a run would be, for `--dry_run`: nothing is run."""

import os
from dataclasses import replace
from typing import Any

from paddleseg_infer.config import engine_config, engine_state, input_name
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engines.load import load_engine
from paddleseg_infer.engines.native import load_core
from paddleseg_infer.engines.shapes import Expected, dynamic_shapes, tuned_shapes
from paddleseg_infer.errors import ConfigError
from paddleseg_infer.machine.gpu import check_gpu
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.settings import EngineOptions


def planned_run(
    config_path: str | os.PathLike[str], expected: Expected, **engine: Any
) -> tuple[dict[str, Any], ConfigError | None]:
    """The batch size and the state of the engine's `Config` for these options.

    The model is loaded, but TensorRT's engine isn't built; its shapes are of `expected`. With
    them why there is no running where the settings can be told all the same: on a GPU.
    """
    deploy = load_deploy_config(config_path)
    build = find_paddle()
    options = EngineOptions(**engine).resolved(build)
    batch_size = deploy.batch_size_for(expected.batch_size)
    expected = expected._replace(batch_size=batch_size)
    plan: dict[str, Any] = {"batch_size": batch_size}
    if options.device == "cpu":
        config = load_engine(deploy, options, build).config
        return {**plan, "engine": {"paddle": str(build), **engine_state(config)}}, None
    _ = deploy.graph_facts  # before Paddle sees the files
    core = load_core(build, use_gpu=True)
    shapes, failure = None, None
    if options.use_trt:
        if not options.enable_auto_tune:
            shapes = dynamic_shapes(expected, deploy)
        elif os.path.exists(options.auto_tuned_shape_file or ""):
            name = input_name(deploy)
            shapes = tuned_shapes(options.auto_tuned_shape_file or "", name, batch_size)
        else:
            # Paddle's `Config` wants a path, of a file that is only read when the engine is made.
            options = replace(options, auto_tuned_shape_file="to be collected")
    if options.use_trt and options.enable_auto_tune:
        plan["tensorrt_tuned_shapes"] = "collected first" if shapes is None else "of the file"
    if shapes:
        plan["tensorrt_shapes"] = {name: list(shape) for name, shape in shapes._asdict().items()}
    config = engine_config(core, deploy, options, build, shapes)
    try:
        check_gpu(core, build, options.use_trt)
        if not options.use_trt:
            load_engine(deploy, options, build)
    except ConfigError as error:
        failure = error
    return {**plan, "engine": {"paddle": str(build), **engine_state(config)}}, failure
