"""The engine alone, on tensors made before: ms an image of `run` and copying out.

python bare_engine.py paddle|openvino DEPLOY.YAML FOLDER IMAGES BATCH_SIZE: Paddle with oneDNN, or
the `openvino` package on the same graph; both with as many threads as processors.
"""

import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

from deploy import load_deploy_config
from preprocess import prepare, read_image

THREADS = len(os.sched_getaffinity(0))


def paddle_engine(deploy):
    from config import EngineOptions
    from machine import find_paddle
    from predictor import Predictor

    build = find_paddle()
    options = EngineOptions(device="cpu", cpu_threads=THREADS, cache_dir="").resolved(build)
    return Predictor(deploy, options, build)


def openvino_engine(deploy):
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
    # PaddleSeg's labels come of full precision; OpenVINO would take bfloat16 where it can.
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.Core().compile_model(deploy.graph, "CPU", settings).create_infer_request()
    return lambda tensor: np.array(request.infer([tensor])[0])


def main() -> None:
    kind, config_path, folder, images, batch_size = sys.argv[1:]
    deploy = load_deploy_config(config_path)
    engine = {"paddle": paddle_engine, "openvino": openvino_engine}[kind](deploy)
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
