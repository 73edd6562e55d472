"""The options of a run."""

import logging
import os
from dataclasses import dataclass, replace

from paddleseg_infer.errors import ConfigError, brief
from paddleseg_infer.machine.limits import usable_processors
from paddleseg_infer.machine.paddle_build import PaddleBuild

log = logging.getLogger("paddleseg_infer")

KINDS = ("mask", "label", "overlay", "score")  # of pictures that can be saved
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
    cache_dir: str | None = None  # of optimised graphs; None: the user's; "": none

    @property
    def cache_folder(self) -> str:
        """Where files are kept between runs, "" for nowhere: `cache_dir`, or the user's cache."""
        if self.cache_dir is not None:
            return self.cache_dir
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):  # the XDG specification: others are to be ignored
            base = os.path.abspath(os.path.join(os.path.expanduser("~"), ".cache"))
        return os.path.join(base, "paddleseg-infer")

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
