"""Checks of the GPU, its driver and its libraries, with a message for each failure."""

import logging
import os
import re
from typing import Any

from paddleseg_infer.errors import ConfigError, brief, gist
from paddleseg_infer.machine.paddle_build import PaddleBuild

log = logging.getLogger("paddleseg_infer")

NO_DRIVER = r"CUDA error\((35|803|804)\)"
# Advice for phrases in Paddle's error messages.
HINTS = {
    r"failed to map segment|could not create a (primitive(?! desc)|memory object)|bad_alloc": (
        "probably there is not enough memory: use --crop_size, a smaller batch, or fewer workers"
    ),
    r"Out of memory error on GPU|CUDA error\(2\)|_ALLOC_FAILED": (
        "the GPU's memory is full: use a smaller --batch_size or fewer --num_workers; nvidia-smi "
        "shows which other processes use it"
    ),
    r"CUDA error\(46\)": (
        "another process uses the GPU exclusively, and nvidia-smi shows which: wait for it, or "
        "name another GPU in CUDA_VISIBLE_DEVICES"
    ),
    r"CUDA error\(209\)": (
        "this Paddle doesn't support this kind of GPU: install a build for a newer CUDA"
    ),
    NO_DRIVER: "the driver is missing or too old for this Paddle: nvidia-smi shows its version",
    r"Cannot load cudnn|dynamic library .* not configured|cannot open shared object": (
        "a library of CUDA, cuDNN or TensorRT was not found: install the version that Paddle asks "
        "for, and add its folder to LD_LIBRARY_PATH"
    ),
    # PyPI's Paddle 2.6.2 has the last two phrases. The source of other builds has the first.
    r"dynamic shape info not set|not found in TRT engine|SetTRTDynamicShapeInfo": (
        "TensorRT needs the shapes inside the network too: --enable_auto_tune collects them; "
        "a larger --min_subgraph_size runs small parts in Paddle instead"
    ),
    r"CUDA error\(|CUBLAS|CUDNN|NVRTC": (
        "the GPU or its driver has failed; --print_detail may show more in the next run"
    ),
}


def hint(text: str) -> str:
    """Returns advice for an error message of Paddle, or "" if the error is unknown."""
    return next((advice for phrase, advice in HINTS.items() if re.search(phrase, text)), "")


def check_gpu(core: Any, build: PaddleBuild, use_trt: bool) -> None:
    """Raises ConfigError if there is no GPU or no cuDNN, or no TensorRT although it is needed.

    `core` is Paddle's native module, loaded by a whole `import paddle`.
    """
    if core.get_cuda_device_count() == 0:
        raise ConfigError(_why_no_gpu(core, build))
    check_cudnn(core, build)
    if use_trt:
        check_tensorrt(core, build)


def _why_no_gpu(core: Any, build: PaddleBuild) -> str:
    try:
        core.get_cuda_current_device_id()
        why = "it finds 0 GPUs"
    except (OSError, RuntimeError, ValueError) as error:
        why = gist(error)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if re.search(NO_DRIVER, why):
        advice = f"the NVIDIA driver is missing, or too old for CUDA {build.cuda}: install it"
    elif visible is not None:
        advice = f"CUDA_VISIBLE_DEVICES is {brief(visible)}, which may hide the GPU"
    else:
        advice = "the driver may not find one: check it"
    return f"Paddle finds no GPU ({why}): {advice} (nvidia-smi lists the GPUs), or use --device cpu"


def check_cudnn(core: Any, build: PaddleBuild) -> None:
    """Raises ConfigError unless the cuDNN that this Paddle was built for can be loaded."""
    number = core.cudnn_version()  # 8600 is 8.6.0, 90100 9.1.0, -1 none
    found = number // (10_000 if number >= 90_000 else 1000)
    if number < 0 or build.cudnn.split(".")[0] not in (str(found), "False"):
        state = "isn't found" if number < 0 else f"has version {found}"
        raise ConfigError(
            f"--device gpu needs cuDNN {build.cudnn}, for which Paddle {build} was built, and its "
            f"library (libcudnn.so) {state}: install that version and add its folder to "
            "LD_LIBRARY_PATH, or run with --device cpu"
        )


def check_built_with_tensorrt(core: Any, build: PaddleBuild) -> None:
    """Raises ConfigError if Paddle was built without TensorRT.

    Its `Config` then lacks methods that set up TensorRT.
    """
    if not any(core.get_trt_compile_version()):
        raise ConfigError(f"Paddle {build} is built without TensorRT: run without --use_trt")


def check_tensorrt(core: Any, build: PaddleBuild) -> None:
    """Raises ConfigError unless the TensorRT that this Paddle was built for can be loaded.

    Logs a warning if only the minor version differs.
    """
    built_for = core.get_trt_compile_version()
    version = ".".join(map(str, built_for))
    needed = f"--use_trt needs TensorRT {version}, for which Paddle {build} was built, and"
    try:
        found = core.get_trt_runtime_version()
    except RuntimeError:
        raise ConfigError(
            f"{needed} its libraries (libnvinfer.so) aren't found: install it and add its folder "
            "to LD_LIBRARY_PATH, or run without --use_trt"
        ) from None
    if found[0] != built_for[0]:
        raise ConfigError(
            f"{needed} {'.'.join(map(str, found))} is loaded: put the right version's folder first "
            "in LD_LIBRARY_PATH, or run without --use_trt"
        )
    if found[1] != built_for[1]:
        log.warning("%s %s is loaded", needed, ".".join(map(str, found)))


def gpu_state(core: Any, gpu: int) -> list[str]:
    """Returns the GPU and the library versions that TensorRT's engines depend on."""
    tensorrt = core.get_trt_runtime_version()
    return [str(core.get_device_properties(gpu)), str(tensorrt), str(core.cudnn_version())]
