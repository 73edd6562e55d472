"""The settings of a `paddle.inference.Config` for the CPU: threads, oneDNN, OpenVINO, precision."""

import logging
from dataclasses import replace
from typing import Any

from paddleseg_infer.deploy import EXPORT_PDMODEL, DeployConfig
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.errors import ConfigError, shown
from paddleseg_infer.machine.paddle_build import PaddleBuild

log = logging.getLogger("paddleseg_infer")

# oneDNN runs only these in int8. Paddle 3 gives convolutions the third name. With all operators, an
# adaptive pooling fails for most image sizes, and nothing is faster.
INT8_OPERATORS = {"conv2d", "depthwise_conv2d", "fused_conv2d"}


def runs_openvino(options: EngineOptions, deploy: DeployConfig) -> bool:
    """Returns whether OpenVINO runs the model: on request, and for a pdmodel in bf16.

    In Paddle's own engine a pdmodel fails in bf16: its operators get values of different types.
    """
    return options.enable_openvino or (options.precision == "bf16" and not deploy.is_pir)


def with_right_onednn(options: EngineOptions, deploy: DeployConfig) -> EngineOptions:
    """Returns the options for Paddle's own engine: without oneDNN if it isn't right for the graph.

    Logs a line then. Logs a warning if oneDNN was asked for, and leaves it on. bf16 and int8 need
    oneDNN: see `refusal`.
    """
    if options.device != "cpu" or options.enable_mkldnn is False:
        return options
    if not deploy.graph_facts.onednn_faults:
        return options
    graph, faults = shown(deploy.graph), " and ".join(deploy.graph_facts.onednn_faults)
    if options.enable_mkldnn:
        log.warning(
            "%s: oneDNN %s: leave out --enable_mkldnn True",
            graph,
            faults,
        )
        return options
    if options.precision != "fp32":
        return options
    log.warning(
        "%s: oneDNN %s, so the network runs without oneDNN, which is slower",
        graph,
        faults,
    )
    return replace(options, enable_mkldnn=False)


def refusal(options: EngineOptions, deploy: DeployConfig, build: PaddleBuild) -> str:
    """Returns why the model can't run on a CPU with these options, or ""."""
    if options.precision == "int8":
        return _no_int8(options, deploy)
    if runs_openvino(options, deploy):
        return _no_openvino(options, deploy, build)
    return _no_onednn_bf16(options, deploy, build) if options.precision == "bf16" else ""


def _no_int8(options: EngineOptions, deploy: DeployConfig) -> str:
    if options.enable_openvino:
        return (
            "--precision int8 runs in oneDNN, because OpenVINO can't convert a quantised graph: "
            "remove --enable_openvino"
        )
    if deploy.is_pir:
        return (
            f"--precision int8 can't run {shown(deploy.graph)}, because it is a json graph: "
            "export a .pdmodel and quantise it, or use --precision fp32"
        )
    return not_quantised(deploy) or _no_onednn(options, deploy)


def not_quantised(deploy: DeployConfig) -> str:
    """Returns "", or an error if the graph doesn't have the operators that int8 needs."""
    if deploy.graph_facts.is_quantised:
        return ""
    return (
        f"--precision int8 needs a quantised model, and {shown(deploy.graph)} isn't quantised: "
        "quantise it with python -m bench.quantise or PaddleSlim, or use another precision"
    )


def _no_openvino(options: EngineOptions, deploy: DeployConfig, build: PaddleBuild) -> str:
    flag = "--enable_openvino" if options.enable_openvino else "--precision bf16"
    if deploy.is_pir:
        return (
            f"{shown(deploy.graph)} is a json graph, which Paddle's OpenVINO engine can't run: "
            f"{EXPORT_PDMODEL}, or run without {flag}"
        )
    if options.precision == "bf16" and deploy.graph_facts.is_quantised:
        return (
            f"--precision bf16 can't run {shown(deploy.graph)}, because it is quantised: use "
            "--precision int8, or bf16 with the model before its quantisation"
        )
    if not build.openvino_library:
        return (
            f"Paddle {build} has no OpenVINO engine: install paddlepaddle 3, its CPU build for "
            f"x86, or run without {flag}"
        )
    return ""


def _no_onednn_bf16(options: EngineOptions, deploy: DeployConfig, build: PaddleBuild) -> str:
    if has_failing_resizes(deploy, build):
        return (
            f"Paddle {build} can't run the json graph {shown(deploy.graph)} in bf16, because it "
            "can't run its resizes under oneDNN: use Paddle 3.2.2, or --precision fp32"
        )
    return _no_onednn(options, deploy)


def _no_onednn(options: EngineOptions, deploy: DeployConfig) -> str:
    needed = f"--precision {options.precision} needs oneDNN for {shown(deploy.graph)}"
    if options.enable_mkldnn is False:
        return f"{needed}: remove --enable_mkldnn False, or use --precision fp32"
    if options.enable_mkldnn is None and (faults := deploy.graph_facts.onednn_faults):
        return f"{needed}, but oneDNN {' and '.join(faults)}: use --precision fp32"
    return ""


def has_failing_resizes(deploy: DeployConfig, build: PaddleBuild) -> bool:
    """Returns whether Paddle can't run the graph's bilinear resizes under oneDNN.

    Paddle 3.3 fails in all of a json graph ("Attribute not support [...]").
    """
    return deploy.is_pir and build.version[:2] == (3, 3)


def set_cpu(
    core: Any, config: Any, deploy: DeployConfig, options: EngineOptions, build: PaddleBuild
) -> None:
    """Sets up `config` for `options`. Raises ConfigError if this Paddle can't run them."""
    if why := refusal(options, deploy, build):
        raise ConfigError(why)
    config.set_cpu_math_library_num_threads(options.cpu_threads)
    if runs_openvino(options, deploy):
        precision = core.AnalysisConfig.Precision
        is_bf16 = options.precision == "bf16"
        config.enable_openvino_engine(precision.Bfloat16 if is_bf16 else precision.Float32)
    if options.enable_mkldnn is True:
        config.enable_mkldnn()
    elif options.enable_mkldnn is False:
        config.disable_mkldnn()
    if options.precision != "fp32" and not runs_openvino(options, deploy):
        _set_onednn_precision(config, options, build)
    elif config.mkldnn_enabled() and has_failing_resizes(deploy, build):
        config.delete_pass("onednn_placement_pass")
        log.warning(
            "Paddle 3.3 can't run the resizes of a json graph under oneDNN: most of oneDNN is "
            "turned off, which is slower; use Paddle 3.2.2, or a pdmodel"
        )


def _set_onednn_precision(config: Any, options: EngineOptions, build: PaddleBuild) -> None:
    if not config.mkldnn_enabled():
        raise ConfigError(
            f"--precision {options.precision} needs oneDNN, which Paddle {build} does not have on "
            "this processor: use --precision fp32"
        )
    if options.precision == "bf16":
        config.enable_mkldnn_bfloat16()
    else:
        config.enable_mkldnn_int8(INT8_OPERATORS)
