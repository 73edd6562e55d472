"""The process of the bare engine: python bare_start.py MODEL_FOLDER onednn|bf16.

Loads Paddle's native module without the rest of Paddle, makes a predictor in oneDNN, or in OpenVINO
with bf16, and runs one image of 800x534 pixels. It has as many threads as there are processors.
"""

import importlib.util
import os
import sys
import tempfile

import numpy as np

NAME = "paddle.base.libpaddle"


def main() -> None:
    folder, kind = sys.argv[1:]
    os.environ["KMP_BLOCKTIME"] = "3"
    paddle = importlib.util.find_spec("paddle")
    spec = importlib.util.spec_from_file_location(
        NAME, os.path.join(os.path.dirname(paddle.origin), "base", "libpaddle.so")
    )
    core = sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    config = core.AnalysisConfig(f"{folder}/model.pdmodel", f"{folder}/model.pdiparams")
    config.disable_glog_info()
    config.enable_memory_optim()
    config.set_cpu_math_library_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as written:
        if kind == "bf16":
            config.enable_openvino_engine(core.AnalysisConfig.Precision.Bfloat16)
            config.set_optim_cache_dir(written)
        predictor = core.create_predictor(config)
        image = np.zeros((1, 3, 534, 800), np.float32)
        tensor = predictor.get_input_handle(predictor.get_input_names()[0])
        tensor.reshape(image.shape)
        tensor._copy_from_cpu_bind(image)
        predictor.run()
        predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


if __name__ == "__main__":
    main()
