"""Runs PaddleX on the same model: python paddlex_loop.py DEPLOY.YAML FOLDER OUTPUT.

It must run in an environment with PaddleX. PaddleX requires other names of the model's files, so a
temporary folder has links with these names.
"""

import os
import sys
import tempfile

os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"

import yaml
from paddlex import create_model


def main() -> None:
    config_path, images, output = sys.argv[1:4]
    with open(config_path) as file:
        content = yaml.safe_load(file)
    folder = os.path.dirname(os.path.abspath(config_path))
    with tempfile.TemporaryDirectory() as model_dir:
        for key, name in (("model", "inference.pdmodel"), ("params", "inference.pdiparams")):
            os.symlink(os.path.join(folder, content["Deploy"][key]), os.path.join(model_dir, name))
        content["Global"] = {"model_name": "PP-LiteSeg-T"}
        with open(os.path.join(model_dir, "inference.yml"), "w") as file:
            yaml.safe_dump(content, file)
        model = create_model("PP-LiteSeg-T", model_dir=model_dir, device="cpu")
        os.makedirs(output, exist_ok=True)
        for result in model.predict(images, batch_size=1):
            result.save_to_img(output)


if __name__ == "__main__":
    main()
