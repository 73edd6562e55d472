"""The settings of a `paddle.inference.Config` for the CPU: threads, oneDNN, OpenVINO, precision."""

import logging
from dataclasses import replace
from typing import Any

from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, shown
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.settings import EngineOptions

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

    Logs a line then. Logs a warning if oneDNN was asked for, and leaves it on. Raises ConfigError
    if the precision needs oneDNN.
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
        raise ConfigError(
            f"{graph}: oneDNN {faults}, and --precision {options.precision} needs oneDNN for this "
            "graph: use --precision fp32"
        )
    log.warning(
        "%s: oneDNN %s, so the network runs without oneDNN, which is slower",
        graph,
        faults,
    )
    return replace(options, enable_mkldnn=False)


def set_cpu(
    core: Any, config: Any, deploy: DeployConfig, options: EngineOptions, build: PaddleBuild
) -> None:
    """Sets up `config` for `options`. Raises ConfigError if this Paddle can't run them."""
    config.set_cpu_math_library_num_threads(options.cpu_threads)
    if runs_openvino(options, deploy):
        _set_openvino(core, config, deploy, options, build)
    if options.enable_mkldnn is True:
        config.enable_mkldnn()
    elif options.enable_mkldnn is False:
        config.disable_mkldnn()
    if options.precision == "int8":
        _set_int8(config, deploy, options)
    elif options.precision == "bf16" and deploy.is_pir:
        _set_onednn_bf16(config, deploy, build)
    elif deploy.is_pir and config.mkldnn_enabled() and build.version[:2] == (3, 3):
        # In Paddle 3.3, every bilinear resize fails under oneDNN ("Attribute not support [...]").
        config.delete_pass("onednn_placement_pass")
        log.warning(
            "Paddle 3.3 can't run the resizes of a json graph under oneDNN: most of oneDNN is "
            "turned off, which is slower; use Paddle 3.2.2, or a pdmodel"
        )


def _set_onednn_bf16(config: Any, deploy: DeployConfig, build: PaddleBuild) -> None:
    graph = shown(deploy.graph)
    if build.version[:2] == (3, 3):
        raise ConfigError(
            f"Paddle {build} can't run the json graph {graph} in bf16, because it can't run its "
            "resizes under oneDNN: use Paddle 3.2.2, or --precision fp32"
        )
    _check_onednn(config, "bf16")
    config.enable_mkldnn_bfloat16()


def _set_int8(config: Any, deploy: DeployConfig, options: EngineOptions) -> None:
    check_quantised(deploy)
    if deploy.is_pir:
        raise ConfigError(
            f"--precision int8 can't run {shown(deploy.graph)}, because it is a json graph: "
            "quantise a .pdmodel, or use --precision fp32"
        )
    if options.enable_openvino:
        raise ConfigError(
            "--precision int8 runs in oneDNN, because OpenVINO can't convert a quantised graph: "
            "remove --enable_openvino"
        )
    _check_onednn(config, "int8")
    config.enable_mkldnn_int8(INT8_OPERATORS)


def check_quantised(deploy: DeployConfig) -> None:
    """Raises ConfigError if the graph has no operators of a quantised model."""
    if not deploy.graph_facts.is_quantised:
        raise ConfigError(
            f"--precision int8 needs a quantised model, and {shown(deploy.graph)} isn't "
            "quantised: quantise it with PaddleSlim before the export, or use another precision"
        )


def _check_onednn(config: Any, precision: str) -> None:
    if not config.mkldnn_enabled():
        raise ConfigError(
            f"--precision {precision} needs oneDNN for this graph: remove --enable_mkldnn False, "
            "or use --precision fp32"
        )


def _set_openvino(
    core: Any, config: Any, deploy: DeployConfig, options: EngineOptions, build: PaddleBuild
) -> None:
    flag = "--enable_openvino" if options.enable_openvino else "--precision bf16"
    if deploy.is_pir:
        raise ConfigError(
            f"{shown(deploy.graph)} is a json graph, which Paddle's OpenVINO engine can't run: "
            f"export again with FLAGS_enable_pir_api=0 for a .pdmodel, or run without {flag}"
        )
    if not build.openvino_library:
        raise ConfigError(
            f"Paddle {build} has no OpenVINO engine: install paddlepaddle 3, its CPU build for "
            f"x86, or run without {flag}"
        )
    precision = core.AnalysisConfig.Precision
    config.enable_openvino_engine(
        precision.Bfloat16 if options.precision == "bf16" else precision.Float32
    )
