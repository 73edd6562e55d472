#!/usr/bin/env python3
"""Quantises a model: `python -m bench.quantise DEPLOY.YAML IMAGES FOLDER`.

Paddle's own post-training quantisation measures the range of each operator's values on the images,
and adds operators that convert to int8 and back. The model must be a pdmodel. Its copy in FOLDER
has the same transforms. IMAGES is a folder, of which the first 32 images are used.
"""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
os.environ["FLAGS_enable_pir_api"] = "0"  # Paddle 3 could not save a pdmodel otherwise
import paddle  # noqa: E402
import yaml  # noqa: E402
from paddle.static.quantization import PostTrainingQuantization  # noqa: E402

from paddleseg_infer.deploy import load_deploy_config  # noqa: E402
from paddleseg_infer.errors import ConfigError  # noqa: E402
from paddleseg_infer.preprocess import prepare, read_image  # noqa: E402
from paddleseg_infer.runs.jobs import find_jobs  # noqa: E402

MOST_IMAGES = 32
OPERATORS = ("conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul_v2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="the exported deploy.yaml")
    parser.add_argument("images", help="images like those that the model will see")
    parser.add_argument("folder", type=Path, help="the folder for the quantised model")
    given = parser.parse_args()
    try:
        deploy = load_deploy_config(given.config)
        jobs = find_jobs(given.images, tempfile.gettempdir()).jobs
    except ConfigError as error:
        sys.exit(f"error: {error}")
    if deploy.is_pir:
        sys.exit(f"error: {deploy.graph} is a json graph: export a pdmodel")
    if given.folder.exists():
        sys.exit(f"error: {given.folder} exists already: give a new folder")
    paths = [job.image for job in jobs[:MOST_IMAGES]]

    class Samples(paddle.io.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, number):
            return prepare(read_image(paths[number]), deploy.transforms).tensor()

    paddle.enable_static()
    place = paddle.CPUPlace()
    name = deploy.graph_facts.inputs[0].name
    image = paddle.static.data(name, [None, 3, None, None], "float32")
    loader = paddle.io.DataLoader(Samples(), [image], place, batch_size=1, return_list=False)
    graph = os.path.basename(deploy.graph)
    quantisation = PostTrainingQuantization(
        executor=paddle.static.Executor(place),
        model_dir=os.path.dirname(deploy.graph),
        model_filename=graph,
        params_filename=os.path.basename(deploy.params),
        data_loader=loader,
        batch_nums=len(paths),
        algo="hist",
        quantizable_op_type=list(OPERATORS),
        weight_quantize_type="channel_wise_abs_max",
        onnx_format=True,
    )
    quantisation.quantize()
    quantisation.save_quantized_model(
        str(given.folder), model_filename="model.pdmodel", params_filename="model.pdiparams"
    )
    content = yaml.safe_load(given.config.read_text())
    content["Deploy"].update(model="model.pdmodel", params="model.pdiparams")
    (given.folder / "deploy.yaml").write_text(yaml.safe_dump(content))
    print(f"\nquantised: {given.folder / 'deploy.yaml'}; run it with --precision int8")


if __name__ == "__main__":
    main()
