"""`deploy.yaml` to a checked `DeployConfig`; engine options to a `paddle.inference.Config`."""

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from errors import ConfigError, brief, reason, shown
from machine import PaddleBuild, usable_processors
from transforms import Transform, make_transform

log = logging.getLogger("paddleseg_infer")

MAX_THREADS = 1024  # more end the process in the threading library
ANY_SHAPE = (-1, 3, -1, -1)
MAX_YAML_BYTES = 1 << 20
TENSORRT_PRECISIONS = {"fp32": "Float32", "fp16": "Half", "int8": "Int8"}


# ---- deploy.yaml -------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeployConfig:
    """What an exported `deploy.yaml` says, checked; the paths are those of existing files."""

    path: str
    graph: str  # .pdmodel, or .json from Paddle 3 (its new IR, "PIR")
    params: str
    transforms: tuple[Transform, ...]
    input_shape: tuple[int, int, int, int] = ANY_SHAPE  # batch, channels, height, width; -1: any

    @property
    def is_pir(self) -> bool:
        return self.graph.endswith(".json")


class _Loader(yaml.SafeLoader):
    """Refuses merge keys (`<<`), of which a few lines can stand for gigabytes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass


def load_deploy_config(path: str | os.PathLike[str]) -> DeployConfig:
    """Reads and checks `deploy.yaml`. Raises ConfigError: the file, what is wrong, what to do."""
    path = os.fspath(path)
    try:
        deploy = _read_deploy(path)
        folder = os.path.dirname(path)
        graph = _model_file(deploy, "model", folder)
        params = _model_file(deploy, "params", folder)
        return DeployConfig(path, graph, params, _transforms(deploy), _input_shape(deploy))
    except ConfigError as error:
        raise ConfigError(f"{shown(path)}: {error}") from None


def _read_deploy(path: str) -> Mapping[Any, Any]:
    try:
        if os.path.isdir(path):
            raise ConfigError("is a folder: name the deploy.yaml in it")
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could wait for ever
            raise ConfigError("is not a regular file")
        with open(path, "rb") as file:
            text = file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't be read: {reason(error)}") from None
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError("is too large for a deploy.yaml")
    try:
        content = yaml.load(text.decode("utf-8-sig"), _Loader)
    except UnicodeDecodeError:
        raise ConfigError("is not YAML but no text at all: give the deploy.yaml") from None
    except Exception as error:  # PyYAML lets many kinds through, KeyError of a wrong !!bool, say
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}: {getattr(error, 'problem', '')})" if mark else ""
        raise ConfigError(f"is not YAML{where}") from None
    if not isinstance(content, dict) or not isinstance(content.get("Deploy"), dict):
        raise ConfigError("has no map `Deploy`: give the deploy.yaml that PaddleSeg's export wrote")
    return content["Deploy"]


def _model_file(deploy: Mapping[Any, Any], key: str, folder: str) -> str:
    name = deploy.get(key)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"`{key}` of `Deploy` must name a file")
    path = os.path.join(folder, name)
    if os.path.isfile(path):
        return path
    # Under Paddle 3 PaddleSeg writes model.json and still names model.pdmodel.
    stem, suffix = os.path.splitext(path)
    twin = stem + {".pdmodel": ".json", ".json": ".pdmodel"}.get(suffix, suffix)
    if key == "model" and os.path.isfile(twin):
        return twin
    what = "graph" if key == "model" else "parameter"
    raise ConfigError(f"the {what} file {shown(path)} that it names (`{key}`) is not there")


def _transforms(deploy: Mapping[Any, Any]) -> tuple[Transform, ...]:
    entries = deploy.get("transforms") or []
    if not isinstance(entries, list):
        raise ConfigError("`transforms` must be a list")
    transforms = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise ConfigError(
                f"each of `transforms` must be a map with a `type`, not {brief(entry)}"
            )
        arguments = {key: value for key, value in entry.items() if key != "type"}
        transforms.append(make_transform(entry["type"], arguments))
    last = next(
        (t.name for t in reversed(transforms) if t.name in ("Normalize", "ScalePadding")), ""
    )
    if last == "ScalePadding":
        raise ConfigError(
            "after ScalePadding the image is uint8, which the network doesn't take: "
            "add a Normalize behind it"
        )
    return tuple(transforms)


def _input_shape(deploy: Mapping[Any, Any]) -> tuple[int, int, int, int]:
    shape = deploy.get("input_shape")
    if shape is None:
        return ANY_SHAPE
    sizes = [-1 if size is None else size for size in shape] if isinstance(shape, list) else []
    if len(sizes) != 4 or not all(
        type(size) is int and (0 < size < 1 << 31 or size == -1) for size in sizes
    ):
        raise ConfigError(
            "`input_shape` must be four whole numbers [batch, 3, height, width], -1 for any, "
            f"not {brief(shape)}"
        )
    batch, channels, height, width = sizes
    if channels not in (3, -1):
        raise ConfigError(
            f"`input_shape` asks for {channels} channels: only models of 3 (RGB) are supported"
        )
    return batch, 3, height, width


# ---- the engine --------------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is to run: the command line's flags, by their names."""

    device: str | None = None  # cpu, gpu; None: gpu, and the CPU where Paddle is built without
    use_trt: bool = False
    precision: str = "fp32"  # TensorRT's: fp32, fp16, int8
    min_subgraph_size: int = 3
    enable_auto_tune: bool = False
    auto_tuned_shape_file: str | None = None
    cpu_threads: int | None = None  # None: max(1, min(10, usable processors))
    enable_mkldnn: bool | None = None  # None: as Paddle does by itself, which is on
    print_detail: bool = False

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
                "install that in its place, or run with --device cpu"
            )
        threads = self.cpu_threads or min(10, usable_processors())
        use_trt = self.use_trt and device == "gpu"
        options = replace(self, device=device, cpu_threads=threads, use_trt=use_trt)
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
        }
        return [
            f"--{name} has no effect without {need}"
            for name, (need, met) in needs.items()
            if not met and getattr(given, name) != getattr(default, name)
        ]


def engine_config(
    core: Any, deploy: DeployConfig, options: EngineOptions, build: PaddleBuild
) -> Any:
    """A `paddle.inference.Config` for `options`, which must be resolved.

    `core` is Paddle's native module (`paddle.base.libpaddle`); its `AnalysisConfig` is that class.
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
        _set_gpu(core, config, deploy, options)
    else:
        _set_cpu(config, deploy, options, build)
    return config


def _set_cpu(config: Any, deploy: DeployConfig, options: EngineOptions, build: PaddleBuild) -> None:
    config.set_cpu_math_library_num_threads(options.cpu_threads)
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


def _set_gpu(core: Any, config: Any, deploy: DeployConfig, options: EngineOptions) -> None:
    config.enable_use_gpu(100, 0)  # MB of the first pool, which grows; the first visible GPU
    if not options.use_trt:
        return
    if deploy.is_pir:
        raise ConfigError(
            f"{shown(deploy.graph)} is a json graph, which TensorRT doesn't take: export again "
            "with FLAGS_enable_pir_api=0 for a .pdmodel, or run without --use_trt"
        )
    precision = core.AnalysisConfig.Precision
    config.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=1,
        min_subgraph_size=options.min_subgraph_size,
        precision_mode=getattr(precision, TENSORRT_PRECISIONS[options.precision]),
        use_static=False,
        use_calib_mode=False,
    )
    shapes = options.auto_tuned_shape_file if options.enable_auto_tune else None
    if shapes and os.path.isfile(shapes):  # a missing one Paddle takes without a word
        config.enable_tuned_tensorrt_dynamic_shape(shapes, True)


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
        return state
    state["tensorrt"] = config.tensorrt_engine_enabled()
    if config.tensorrt_engine_enabled():
        state["tensorrt_precision"] = str(config.tensorrt_precision_mode()).rpartition(".")[2]
        state["tensorrt_dynamic_shape"] = (
            config.tensorrt_dynamic_shape_enabled() or config.tuned_tensorrt_dynamic_shape()
        )
    return state
