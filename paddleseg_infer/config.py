"""Makes a `paddle.inference.Config` from engine options."""

import logging
from dataclasses import replace
from typing import Any, NamedTuple

from paddleseg_infer.cpu_config import not_quantised, set_cpu
from paddleseg_infer.deploy import EXPORT_PDMODEL, DeployConfig
from paddleseg_infer.engine_options import (
    CPU_PRECISIONS,
    MAX_THREADS,
    MOST_THREADS,
    PRECISIONS,
    TENSORRT_PRECISIONS,
    EngineOptions,
)
from paddleseg_infer.errors import ConfigError, brief, shown
from paddleseg_infer.machine.gpu import check_built_with_tensorrt
from paddleseg_infer.machine.limits import usable_processors
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.machine.processor import missing_for_bf16
from paddleseg_infer.option import without_effect

log = logging.getLogger("paddleseg_infer")


class Shapes(NamedTuple):
    """Shapes [N, C, H, W] of the network's input for which TensorRT builds its engine."""

    smallest: list[int]
    largest: list[int]
    usual: list[int]  # TensorRT optimises the engine for this one


def resolved(given: EngineOptions, build: PaddleBuild) -> EngineOptions:
    """Returns the options with the device, the number of threads and the precision decided.

    Logs a line for each option that has no effect. Raises ConfigError for options with a wrong
    value, and for options that this machine or this Paddle can't meet.
    """
    _check_values(given)
    if given.device is None and not build.has_gpu:
        log.warning(
            "Paddle is a CPU build, so the network runs on the CPU (--device cpu hides this line)"
        )
    device = given.device or ("gpu" if build.has_gpu else "cpu")
    if device == "gpu" and not build.has_gpu:
        raise ConfigError(
            "--device gpu needs paddlepaddle-gpu, but the installed Paddle is a CPU build: "
            "make an environment with requirements/gpu.txt (see docs/gpu.md), or run with "
            "--device cpu"
        )
    if given.enable_openvino and device != "cpu":
        raise ConfigError(
            "--enable_openvino works only on the CPU: add --device cpu, or remove --enable_openvino"
        )
    if given.precision == "bf16":
        _check_bf16(given, device)
    processors = usable_processors() // max(1, given.num_workers)
    use_trt = given.use_trt and device == "gpu"
    precisions = {"cpu": CPU_PRECISIONS, "gpu": TENSORRT_PRECISIONS if use_trt else ()}[device]
    options = replace(
        given,
        device=device,
        cpu_threads=given.cpu_threads or max(1, min(MOST_THREADS, processors)),
        use_trt=use_trt,
        precision=given.precision if given.precision in precisions else "fp32",
        auto_tuned_shape_file=given.auto_tuned_shape_file if given.enable_auto_tune else None,
    )
    for line in without_effect(given, options):
        log.warning("%s", line)
    return options


def _check_values(given: EngineOptions) -> None:
    """Raises ConfigError for a wrong value from a script; the parser checks the command line."""
    if given.device not in (None, "cpu", "gpu"):
        raise ConfigError(f"device must be cpu or gpu, not {given.device!r}")
    if given.precision not in PRECISIONS:
        choices = ", ".join(PRECISIONS)
        raise ConfigError(f"precision must be one of {choices}, not {given.precision!r}")
    if given.cpu_threads is not None and given.cpu_threads not in range(1, MAX_THREADS + 1):
        raise ConfigError(f"cpu_threads must be 1 to {MAX_THREADS}, not {brief(given.cpu_threads)}")
    if given.enable_mkldnn not in (None, True, False):
        raise ConfigError(f"enable_mkldnn must be True or False, not {given.enable_mkldnn!r}")


def _check_bf16(given: EngineOptions, device: str) -> None:
    if device != "cpu":
        raise ConfigError("--precision bf16 works only on the CPU: add --device cpu")
    if given.use_trt:
        raise ConfigError("--precision bf16 can't be used with --use_trt: remove --use_trt")
    if missing := missing_for_bf16():
        raise ConfigError(f"--precision bf16: {missing}: use --precision fp32")


def engine_config(
    core: Any,
    deploy: DeployConfig,
    options: EngineOptions,
    build: PaddleBuild,
    shapes: Shapes | None = None,
) -> Any:
    """Returns a `paddle.inference.Config` for `options`, which `resolved` must have returned.

    `core` is Paddle's native module (`paddle.base.libpaddle`), where this class has the name
    `AnalysisConfig`. `shapes` are the input shapes for TensorRT; with a tuned file, they are the
    shapes that the file contains for the network's input. Raises ConfigError if this Paddle can't
    run the model with these options.
    """
    if deploy.is_pir and build.version < (3, 0, 0) and any(build.version):
        raise ConfigError(
            f"{shown(deploy.graph)} is a json graph of Paddle 3, which Paddle {build} can't run: "
            f"install Paddle 3, or {EXPORT_PDMODEL}"
        )
    try:
        config = core.AnalysisConfig(deploy.graph, deploy.params)
    except TypeError:
        raise ConfigError(
            f"the path of {shown(deploy.graph)} isn't UTF-8, but Paddle opens only UTF-8 paths: "
            "rename the folder"
        ) from None
    if not options.print_detail:
        config.disable_glog_info()
    config.enable_memory_optim()
    if deploy.is_pir:
        config.enable_new_ir(True)
        config.enable_new_executor(True)
    if options.device == "gpu":
        gpu = options.gpu % max(1, core.get_cuda_device_count())
        config.enable_use_gpu(100, gpu)  # MB of the first memory pool; it can grow
        if options.use_trt:
            check_built_with_tensorrt(core, build)
            _set_tensorrt(core, config, deploy, options, shapes)
    else:
        set_cpu(core, config, deploy, options, build)
    return config


def _set_tensorrt(
    core: Any,
    config: Any,
    deploy: DeployConfig,
    options: EngineOptions,
    shapes: Shapes | None,
) -> None:
    name = input_name(deploy)
    if options.precision == "int8" and (why := not_quantised(deploy)):
        raise ConfigError(why)
    precision = core.AnalysisConfig.Precision
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=shapes.largest[0] if shapes else 1,
        min_subgraph_size=options.min_subgraph_size,
        precision_mode=getattr(precision, TENSORRT_PRECISIONS[options.precision]),
        use_static=True,  # keeps the built engine in the folder of set_optim_cache_dir
        use_calib_mode=False,
    )
    if options.auto_tuned_shape_file:
        # False: no rebuild during the run, because it would take minutes and change the file.
        config.enable_tuned_tensorrt_dynamic_shape(options.auto_tuned_shape_file, False)
    elif shapes:
        config.set_trt_dynamic_shape_info(*({name: shape} for shape in shapes))


def input_name(deploy: DeployConfig) -> str:
    """Returns the name of the graph's input. Raises ConfigError if TensorRT can't run the graph."""
    if deploy.is_pir:
        raise ConfigError(
            f"{shown(deploy.graph)} is a json graph, which TensorRT can't run: "
            f"{EXPORT_PDMODEL}, or run without --use_trt"
        )
    return deploy.graph_facts.inputs[0].name


def engine_state(config: Any) -> dict[str, Any]:
    """Returns the settings of a `paddle.inference.Config`, as --dry_run prints them."""
    state = {
        "graph": config.prog_file(),
        "params": config.params_file(),
        "device": "gpu" if config.use_gpu() else "cpu",
        "graph_optimisation": config.ir_optim(),
    }
    if not config.use_gpu():
        state["cpu_threads"] = config.cpu_math_library_num_threads()
        state["mkldnn"] = config.mkldnn_enabled()
        if hasattr(config, "openvino_engine_enabled"):
            state["openvino"] = config.openvino_engine_enabled()
        return state
    state["gpu"] = config.gpu_device_id()
    state["tensorrt"] = config.tensorrt_engine_enabled()
    if config.tensorrt_engine_enabled():
        state["tensorrt_precision"] = str(config.tensorrt_precision_mode()).rpartition(".")[2]
        state["tensorrt_dynamic_shape"] = config.tensorrt_dynamic_shape_enabled()
        state["tensorrt_tuned_shape"] = config.tuned_tensorrt_dynamic_shape()
    return state
