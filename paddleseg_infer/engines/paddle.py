"""One model in Paddle's engine: tensor in, array out."""

import contextlib
import ctypes
import importlib.util
import logging
import os
import sys
import warnings
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from paddleseg_infer.config import EngineOptions, engine_config
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.engines import tensorrt as tensorrt_engine
from paddleseg_infer.engines.shapes import Shapes
from paddleseg_infer.errors import ENGINE_ERRORS, ConfigError, EngineError, gist, shown
from paddleseg_infer.graph import check_model_files
from paddleseg_infer.machine import store as cache
from paddleseg_infer.machine.gpu import check_gpu, hint
from paddleseg_infer.machine.limits import PaddleBuild

log = logging.getLogger("paddleseg_infer")

NATIVE_MODULE = "paddle.base.libpaddle"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MAX_REUSED = 1 << 28
FULL_IMPORT = "PADDLESEG_INFER_FULL_IMPORT"  # set to anything


class Predictor:
    """A loaded model, and the `paddle.inference.Config` that it was made with.

    Raises ConfigError where the files are no model, or not one that this Paddle can run.
    """

    def __init__(
        self,
        deploy: DeployConfig,
        options: EngineOptions,
        build: PaddleBuild,
        *,
        shapes: Shapes | None = None,
        collect_shapes_in: str | None = None,
    ):
        """`options` must be resolved; `shapes` are TensorRT's.

        With `collect_shapes_in` the predictor, without TensorRT, notes the shapes it meets and
        writes them to that file when it is deleted.
        """
        check_model_files(deploy.graph, deploy.params)
        self._core = load_core(build, options.device == "gpu")
        self._deploy, self._options, self._build, self._shapes = deploy, options, build, shapes
        self.config = self._make_config()
        if options.device == "gpu":
            check_gpu(self._core, build, options.use_trt)
        try:
            if collect_shapes_in:
                self._options = replace(options, use_trt=False)
                self.config = self._make_config()
                self.config.collect_shape_range_info(collect_shapes_in)
                self._predictor = self._core.create_predictor(self.config)
            else:
                self._predictor = self._create()
            inputs, outputs = self._predictor.get_input_names(), self._predictor.get_output_names()
            self._input = self._predictor.get_input_handle(inputs[0])
            # PaddleSeg's script too takes the first of several outputs.
            self._output = self._predictor.get_output_handle(outputs[0])
        except ENGINE_ERRORS as error:
            advice = hint(str(error)) or (
                "the files may be damaged, or not belong together: export again"
            )
            raise ConfigError(
                f"Paddle {build} can't load {shown(deploy.graph)} with {shown(deploy.params)}: "
                f"{gist(error)}; {advice}"
            ) from error

    def _make_config(self) -> Any:
        return engine_config(self._core, self._deploy, self._options, self._build, self._shapes)

    def _create(self) -> Any:
        """Paddle's predictor for `self.config`. Raises what Paddle raises."""
        if self._options.use_trt and self._shapes:
            return tensorrt_engine.create_predictor(
                self._core,
                self._make_config,
                self.config.gpu_device_id(),
                deploy=self._deploy,
                options=self._options,
                build=self._build,
                shapes=self._shapes,
            )
        return cache.create_predictor(
            *(self._core, self.config, self._make_config),
            *(self._deploy, self._options, self._build),
        )

    def __call__(self, tensor_nchw: np.ndarray) -> np.ndarray:
        """Runs float32 [N, 3, H, W] through the network.

        Returns a copy of its first output: integer labels [N, H, W] or [N, 1, H, W], or scores
        float32 [N, C, H, W]. Raises EngineError.
        """
        try:
            self._input.reshape(tensor_nchw.shape)
            self._input._copy_from_cpu_bind(tensor_nchw)
            self._predictor.run()
            output = self._output.copy_to_cpu()
        except ENGINE_ERRORS as error:
            raise EngineError(gist(error), hint(str(error))) from error
        if output.shape[:1] != tensor_nchw.shape[:1] or not output.size:
            raise EngineError(f"its output is {list(output.shape)} for {len(tensor_nchw)} images")
        return output


def load_core(build: PaddleBuild, use_gpu: bool) -> Any:
    """Paddle's native module, by itself where that is enough.

    `import paddle` takes 3 to 4 s, the native module alone a quarter of a second. On a GPU the
    whole import is needed: it finds the CUDA libraries. FULL_IMPORT in the environment asks for it.
    """
    # Between layers and batches the engine's threads spin for Paddle's 200 ms, if one lets them,
    # on processors that reading and saving need. With 3 ms a folder of large photos took 13 % less
    # time, and no network clearly more; with 0 small ones did.
    os.environ.setdefault("KMP_BLOCKTIME", "3")
    _reuse_memory()
    if not use_gpu and NATIVE_MODULE not in sys.modules and not os.environ.get(FULL_IMPORT):
        try:
            return _load_native(os.path.join(build.folder, "base", "libpaddle.so"))
        except ImportError as error:
            log.warning("Paddle's native module doesn't load by itself (%s): import paddle", error)
    if use_gpu or NATIVE_MODULE not in sys.modules:
        try:
            with warnings.catch_warnings():  # of a missing GPU, told below, and of compilers
                warnings.simplefilter("ignore")
                import paddle  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"Paddle {build} can't be imported: {error}") from error
    return sys.modules[NATIVE_MODULE]


def _reuse_memory() -> None:
    """Has the C library keep freed memory of up to MAX_REUSED for the next batch.

    By itself glibc returns arrays above 32 MB to the system, and each output of a logits model is
    one: fresh pages for 19x512x1024 scores cost 3 to 5 % of a batch's time.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        c_library = ctypes.CDLL(None)
        c_library.mallopt(M_MMAP_THRESHOLD, MAX_REUSED)
        c_library.mallopt(M_TRIM_THRESHOLD, MAX_REUSED)


def _load_native(path: str) -> ModuleType:
    """Loads libpaddle.so under its own name: under another a later `import paddle` would abort."""
    spec = importlib.util.spec_from_file_location(NATIVE_MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NATIVE_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[NATIVE_MODULE]
        raise
    return module
