"""Works like PaddleSeg's own script, with the same imports: reads, runs and saves in turn.

python paddleseg_loop.py DEPLOY.YAML FOLDER OUTPUT [BATCH_SIZE [THREADS]]

Uses PaddleSeg's transforms and palette, and Paddle's public predictor. The masks have the network's
size. The default of THREADS is the number of processors.
"""

import os
import sys

import numpy as np
import yaml
from paddle.inference import Config, create_predictor
from paddleseg.transforms import Compose
from paddleseg.utils.visualize import get_pseudo_color_map


def main() -> None:
    config_path, images, output = sys.argv[1:4]
    batch_size = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    threads = int(sys.argv[5]) if len(sys.argv) > 5 else len(os.sched_getaffinity(0))
    with open(config_path) as file:
        deploy = yaml.safe_load(file)["Deploy"]
    folder = os.path.dirname(config_path)
    config = Config(os.path.join(folder, deploy["model"]), os.path.join(folder, deploy["params"]))
    config.disable_glog_info()
    config.enable_memory_optim()
    config.set_cpu_math_library_num_threads(threads)
    predictor = create_predictor(config)
    tensor_in = predictor.get_input_handle(predictor.get_input_names()[0])
    tensor_out = predictor.get_output_handle(predictor.get_output_names()[0])
    transforms = Compose(made(deploy["transforms"]))
    os.makedirs(output, exist_ok=True)
    names = sorted(os.listdir(images))
    for first in range(0, len(names), batch_size):
        batch = names[first : first + batch_size]
        paths = [os.path.join(images, name) for name in batch]
        tensor = np.array([transforms({"img": path, "gt_fields": []})["img"] for path in paths])
        tensor_in.reshape(tensor.shape)
        tensor_in.copy_from_cpu(tensor)
        predictor.run()
        labels = tensor_out.copy_to_cpu()
        if labels.ndim == 4:
            labels = np.argmax(labels, axis=1)
        for name, mask in zip(batch, labels, strict=True):
            get_pseudo_color_map(mask).save(
                os.path.join(output, os.path.splitext(name)[0] + ".png")
            )


def made(entries: list[dict]) -> list:
    import paddleseg.transforms as kinds

    return [
        getattr(kinds, entry["type"])(**{k: v for k, v in entry.items() if k != "type"})
        for entry in entries
    ]


if __name__ == "__main__":
    main()
