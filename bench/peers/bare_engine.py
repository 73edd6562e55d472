"""Measures the engine alone: milliseconds per image to run a tensor and copy the output.

python bare_engine.py ENGINE DEPLOY.YAML FOLDER IMAGES BATCH_SIZE

The engine is one of ENGINES: Paddle with oneDNN in fp32 or int8, Paddle with its OpenVINO in fp32
or bf16, or the `openvino` package on the same graph. It has as many threads as there are
processors. The tensor is made before the measurement.
"""

import functools
import os
import sys
import time

import numpy as np

from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.preprocess import prepare, read_image

THREADS = len(os.sched_getaffinity(0))


def paddle_engine(deploy, **how):
    from paddleseg_infer.config import resolved
    from paddleseg_infer.engine_options import EngineOptions
    from paddleseg_infer.engines.load import load
    from paddleseg_infer.engines.setup import Setup
    from paddleseg_infer.machine.paddle_build import find_paddle

    build = find_paddle()
    options = resolved(EngineOptions(device="cpu", cpu_threads=THREADS, **how), build)
    return load(Setup(deploy, options, build))


def openvino_engine(deploy):
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
    # PaddleSeg computes in float32. By default, OpenVINO uses bfloat16 if the processor has it.
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.Core().compile_model(deploy.graph, "CPU", settings).create_infer_request()
    return lambda tensor: np.array(request.infer([tensor])[0])


ENGINES = {
    "onednn": paddle_engine,
    "openvino": functools.partial(paddle_engine, enable_openvino=True),
    "int8": functools.partial(paddle_engine, precision="int8"),
    "bf16": functools.partial(paddle_engine, precision="bf16"),
    "package": openvino_engine,
}


def main() -> None:
    kind, config_path, folder, images, batch_size = sys.argv[1:]
    deploy = load_deploy_config(config_path)
    engine = ENGINES[kind](deploy)
    names = sorted(os.listdir(folder))[: int(batch_size)]
    samples = [prepare(read_image(os.path.join(folder, name)), deploy.transforms) for name in names]
    tensor = np.stack([sample.tensor() for sample in samples])
    for _ in range(3):
        engine(tensor)
    runs = max(1, int(images) // int(batch_size))
    started = time.perf_counter()
    for _ in range(runs):
        engine(tensor)
    print((time.perf_counter() - started) / (runs * int(batch_size)) * 1000)


if __name__ == "__main__":
    main()
