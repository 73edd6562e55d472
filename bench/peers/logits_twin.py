"""Saves a model without its last argmax: python logits_twin.py DEPLOY.YAML FOLDER.

The model must be a pdmodel; Paddle itself loads and saves it. If the model's output is scores
already, its files are copied.
"""

import os
import shutil
import sys

os.environ["FLAGS_enable_pir_api"] = "0"

import paddle
import yaml


def main() -> None:
    config_path, folder = sys.argv[1:]
    with open(config_path) as file:
        content = yaml.safe_load(file)
    deploy, source = content["Deploy"], os.path.dirname(config_path)
    os.makedirs(folder, exist_ok=True)
    paddle.enable_static()
    executor = paddle.static.Executor(paddle.CPUPlace())
    stem = os.path.join(source, os.path.splitext(deploy["model"])[0])
    program, inputs, _ = paddle.static.load_inference_model(stem, executor)
    block = program.global_block()
    argmaxes = [op for op in block.ops if op.type == "arg_max"]
    if argmaxes:
        scores = block.var(argmaxes[-1].input("X")[0])
        paddle.static.save_inference_model(
            os.path.join(folder, "model"),
            [block.var(name) for name in inputs],
            [scores],
            executor,
            program=program,
        )
    else:
        shutil.copy(os.path.join(source, deploy["model"]), os.path.join(folder, "model.pdmodel"))
        shutil.copy(os.path.join(source, deploy["params"]), os.path.join(folder, "model.pdiparams"))
    deploy.update(model="model.pdmodel", params="model.pdiparams", output_op="none")
    with open(os.path.join(folder, "deploy.yaml"), "w") as file:
        yaml.safe_dump(content, file)


if __name__ == "__main__":
    main()
