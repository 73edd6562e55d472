"""Engine options to a `paddle.inference.Config`."""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from paddleseg_infer.errors import ConfigError, brief, shown
from paddleseg_infer.machine.gpu import check_built_with_tensorrt
from paddleseg_infer.machine.limits import PaddleBuild, usable_processors

if TYPE_CHECKING:  # the process that feeds workers has no use for what deploy.yaml needs
    from paddleseg_infer.deploy import DeployConfig
    from paddleseg_infer.engines.shapes import Shapes

log = logging.getLogger("paddleseg_infer")

MAX_THREADS = 1024  # more end the process in the threading library
TENSORRT_PRECISIONS = {"fp32": "Float32", "fp16": "Half", "int8": "Int8"}


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is to run: the command line's flags, by their names."""

    device: str | None = None  # cpu, gpu; None: gpu, and the CPU where Paddle is built without
    use_trt: bool = False
    precision: str = "fp32"  # TensorRT's: fp32, fp16, int8
    min_subgraph_size: int = 3
    enable_auto_tune: bool = False
    auto_tuned_shape_file: str | None = None
    cpu_threads: int | None = None  # None: max(1, min(10, usable processors / num_workers))
    num_workers: int = 1  # processes that share the usable processors
    enable_mkldnn: bool | None = None  # None: as Paddle does by itself, which is on
    enable_openvino: bool = False
    print_detail: bool = False
    gpu: int = 0  # among the visible ones, counted round: workers are spread over them
    cache_dir: str | None = None  # of optimised graphs (cache.py); None: the user's; "": none

    def resolved(self, build: PaddleBuild) -> "EngineOptions":
        """With device and thread count decided. Raises ConfigError for what can't be had."""
        if self.device not in (None, "cpu", "gpu"):
            raise ConfigError(f"device must be cpu or gpu, not {self.device!r}")
        if self.precision not in TENSORRT_PRECISIONS:
            raise ConfigError(f"precision must be fp32, fp16 or int8, not {self.precision!r}")
        if self.cpu_threads is not None and self.cpu_threads not in range(1, MAX_THREADS + 1):
            raise ConfigError(
                f"cpu_threads must be 1 to {MAX_THREADS}, not {brief(self.cpu_threads)}"
            )
        if self.enable_mkldnn not in (None, True, False):
            raise ConfigError(f"enable_mkldnn must be True or False, not {self.enable_mkldnn!r}")
        device = self.device or ("gpu" if build.has_gpu else "cpu")
        if self.device is None and not build.has_gpu:
            log.warning(
                "this Paddle is a CPU build: running on the CPU (--device cpu hides this line)"
            )
        if device == "gpu" and not build.has_gpu:
            raise ConfigError(
                "--device gpu needs paddlepaddle-gpu, and the installed Paddle is a CPU build: "
                "make an environment with requirements/gpu.txt (README, Install), or run with "
                "--device cpu"
            )
        if self.enable_openvino and device != "cpu":
            raise ConfigError(
                "--enable_openvino runs on the CPU: add --device cpu, or leave it out"
            )
        threads = self.cpu_threads or max(
            1, min(10, usable_processors() // max(1, self.num_workers))
        )
        use_trt = self.use_trt and device == "gpu"
        options = replace(
            self,
            device=device,
            cpu_threads=threads,
            use_trt=use_trt,
            auto_tuned_shape_file=self.auto_tuned_shape_file if self.enable_auto_tune else None,
        )
        for line in options._without_effect(self):
            log.warning("%s", line)
        return options

    def _without_effect(self, given: "EngineOptions") -> list[str]:
        """A line for each flag in `given` that changes nothing in this run."""
        on_gpu, default = self.device == "gpu", EngineOptions()
        needs = {
            "use_trt": ("--device gpu", on_gpu),
            "precision": ("--use_trt on a GPU", on_gpu and self.use_trt),
            "min_subgraph_size": ("--use_trt on a GPU", on_gpu and self.use_trt),
            "enable_auto_tune": ("--use_trt on a GPU", on_gpu and self.use_trt),
            "auto_tuned_shape_file": ("--enable_auto_tune", self.enable_auto_tune),
            "cpu_threads": ("--device cpu", not on_gpu),
            "enable_mkldnn": ("--device cpu", not on_gpu),
            "cache_dir": ("--device cpu or --use_trt", not on_gpu or self.use_trt),
        }
        return [
            f"--{name} has no effect without {need}"
            for name, (need, met) in needs.items()
            if not met and getattr(given, name) != getattr(default, name)
        ]


def engine_config(
    core: Any,
    deploy: "DeployConfig",
    options: EngineOptions,
    build: PaddleBuild,
    shapes: "Shapes | None" = None,
) -> Any:
    """A `paddle.inference.Config` for `options`, which must be resolved.

    `core` is Paddle's native module (`paddle.base.libpaddle`); its `AnalysisConfig` is that class.
    `shapes` are TensorRT's; with a tuned file they are those it holds for the network's input.
    Raises ConfigError for what this Paddle can't run.
    """
    if deploy.is_pir and build.version < (3, 0, 0) and any(build.version):
        raise ConfigError(
            f"{shown(deploy.graph)} is a json graph of Paddle 3, which Paddle {build} can't run: "
            "install Paddle 3, or export again with FLAGS_enable_pir_api=0 for a .pdmodel"
        )
    try:
        config = core.AnalysisConfig(deploy.graph, deploy.params)
    except TypeError:
        raise ConfigError(
            f"the path of {shown(deploy.graph)} isn't UTF-8, which Paddle needs: rename the folder"
        ) from None
    if not options.print_detail:
        config.disable_glog_info()
    config.enable_memory_optim()
    if deploy.is_pir:
        config.enable_new_ir(True)
        config.enable_new_executor(True)
    if options.device == "gpu":
        gpu = options.gpu % max(1, core.get_cuda_device_count())
        config.enable_use_gpu(100, gpu)  # MB of the first pool, which grows
        if options.use_trt:
            check_built_with_tensorrt(core, build)
            _set_tensorrt(core, config, deploy, options, shapes)
    else:
        _set_cpu(config, deploy, options, build)
    return config


def _set_cpu(
    config: Any, deploy: "DeployConfig", options: EngineOptions, build: PaddleBuild
) -> None:
    config.set_cpu_math_library_num_threads(options.cpu_threads)
    if options.enable_openvino:
        _set_openvino(config, deploy, build)
    if options.enable_mkldnn is True:
        config.enable_mkldnn()
    elif options.enable_mkldnn is False:
        config.disable_mkldnn()
    if deploy.is_pir and config.mkldnn_enabled() and build.version[:2] == (3, 3):
        # There every bilinear resize fails under oneDNN ("Attribute not support [...]").
        config.delete_pass("onednn_placement_pass")
        log.warning(
            "Paddle 3.3 can't run the resizes of a json graph under oneDNN: most of oneDNN is left "
            "out, which is slower; Paddle 3.2.2, or a pdmodel, has all of it"
        )


def _set_openvino(config: Any, deploy: "DeployConfig", build: PaddleBuild) -> None:
    if deploy.is_pir:
        raise ConfigError(
            f"{shown(deploy.graph)} is a json graph, which Paddle's OpenVINO engine doesn't take: "
            "export again with FLAGS_enable_pir_api=0 for a .pdmodel, or run without "
            "--enable_openvino"
        )
    if not build.openvino_library:
        raise ConfigError(
            f"Paddle {build} has no OpenVINO engine: install paddlepaddle 3, its CPU build for "
            "x86, or run without --enable_openvino"
        )
    config.enable_openvino_engine()


def _set_tensorrt(
    core: Any,
    config: Any,
    deploy: "DeployConfig",
    options: EngineOptions,
    shapes: "Shapes | None",
) -> None:
    from paddleseg_infer.engines.tensorrt import check_quantised, input_name

    name = input_name(core, deploy)
    if options.precision == "int8":
        check_quantised(core, deploy)
    precision = core.AnalysisConfig.Precision
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=shapes.largest[0] if shapes else 1,
        min_subgraph_size=options.min_subgraph_size,
        precision_mode=getattr(precision, TENSORRT_PRECISIONS[options.precision]),
        use_static=True,  # in a folder that cache.py names
        use_calib_mode=False,
    )
    if options.auto_tuned_shape_file:
        # Not to be widened during the run: Paddle then builds for minutes and changes the file.
        config.enable_tuned_tensorrt_dynamic_shape(options.auto_tuned_shape_file, False)
    elif shapes:
        config.set_trt_dynamic_shape_info(*({name: shape} for shape in shapes))


def engine_state(config: Any) -> dict[str, Any]:
    """What a `paddle.inference.Config` says of itself, for a person to check."""
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
