"""The options of the engine: see settings.py."""

import os
from dataclasses import dataclass

from paddleseg_infer.option import ENGINE, TENSORRT, option

MOST_THREADS = 10  # the largest default number of CPU threads of an engine
MAX_THREADS = 1024  # with more, the threading library ends the process
TENSORRT_PRECISIONS = {"fp32": "Float32", "fp16": "Half", "int8": "Int8"}
CPU_PRECISIONS = ("fp32", "bf16", "int8")
PRECISIONS = tuple(dict.fromkeys((*CPU_PRECISIONS, *TENSORRT_PRECISIONS)))


@dataclass(frozen=True)
class EngineOptions:
    """How the engine runs."""

    device: str | None = option(
        None,
        ENGINE,
        "the device that runs the network",
        "text",
        choices=("cpu", "gpu"),
        shown_default="gpu, or cpu if Paddle is a CPU build",
    )
    cpu_threads: int | None = option(
        None,
        ENGINE,
        "CPU threads of each worker",
        "whole",
        metavar="N",
        most=MAX_THREADS,
        shown_default=f"{MOST_THREADS}, or the usable processors divided by the number of workers "
        "if that is less",
        needs="cpu",
    )
    num_workers: int = option(
        1,
        ENGINE,
        "the number of worker processes; if all images fit in one batch, none is started",
        "whole",
        metavar="N",
        most=256,
        idle_with=("benchmark",),
    )
    enable_mkldnn: bool | None = option(
        None,
        ENGINE,
        "use oneDNN on the CPU; int8, and bf16 for a json graph, need it",
        shown_default="True, but False if the graph has a division that oneDNN computes wrongly or "
        "may compute wrongly",
        needs="cpu",
        kept_by="graph",
    )
    enable_openvino: bool = option(
        False,
        ENGINE,
        "run a pdmodel in OpenVINO, which is part of Paddle 3's CPU build; this is faster for most "
        "models, and a few labels in a million may differ",
    )
    precision: str = option(
        "fp32",
        ENGINE,
        "the precision of the network's computations; bf16, fp16 and int8 are usually faster than "
        "fp32, but some labels differ; bf16 works only on CPUs with avx512_bf16 or amx_bf16, int8 "
        "only with a quantised pdmodel, fp16 only with --use_trt",
        "text",
        choices=PRECISIONS,
        needs="precision",
        kept_by="tensorrt",
    )
    cache_dir: str | None = option(
        None,
        ENGINE,
        "the folder for files that make the next start faster: TensorRT's engines, graphs that "
        "Paddle takes more than 0.1 s to optimise for fp32, and OpenVINO's settings",
        "text",
        metavar="DIR",
        shown_default='~/.cache/paddleseg-infer; "" keeps no files',
        needs="kept files",
    )
    print_detail: bool = option(False, ENGINE, "show Paddle's own log")
    use_trt: bool = option(False, TENSORRT, "run the network in TensorRT", needs="gpu")
    min_subgraph_size: int = option(
        3,
        TENSORRT,
        "the smallest number of operators that TensorRT runs as one subgraph",
        "whole",
        metavar="N",
        needs="tensorrt",
        kept_by="tensorrt",
    )
    enable_auto_tune: bool = option(
        False,
        TENSORRT,
        "run up to ten images first, and collect the dynamic shapes from these runs",
        shown_default="False: the shapes are the sizes in the images' headers",
        needs="tensorrt",
    )
    auto_tuned_shape_file: str | None = option(
        None,
        TENSORRT,
        "with --enable_auto_tune: the file that keeps the collected shapes; if it exists, it is "
        "used and nothing is collected",
        "text",
        metavar="FILE",
        shown_default="a temporary file",
        needs="tuning",
    )
    gpu: int = 0  # index of a visible GPU, modulo their number: workers are spread over all GPUs

    @property
    def cache_folder(self) -> str:
        """The folder for cached files: `cache_dir`, or a default in the user's cache folder.

        It is "" if no files are to be cached.
        """
        if self.cache_dir is not None:
            return self.cache_dir
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):  # the XDG specification: ignore a relative path
            base = os.path.abspath(os.path.join(os.path.expanduser("~"), ".cache"))
        return os.path.join(base, "paddleseg-infer")
