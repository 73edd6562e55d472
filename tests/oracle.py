"""Computes the expected labels with PaddleSeg's transforms and Paddle's public predictor.

It runs one image at a time, as PaddleSeg's script does at batch size 1. It shares no code with the
program.
"""

import os
import warnings

import numpy as np
import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import paddle.inference
    import paddleseg.transforms as paddleseg_transforms


def compose(transforms):
    """Returns PaddleSeg's transforms for the entries of a `deploy.yaml`."""
    made = []
    for entry in transforms or []:
        arguments = {key: value for key, value in entry.items() if key != "type"}
        made.append(getattr(paddleseg_transforms, entry["type"])(**arguments))
    return paddleseg_transforms.Compose(made)


def transformed(image, transforms):
    """Returns PaddleSeg's float32 tensor [3, H, W] of a path or a BGR array.

    Each image gets new transforms, because ResizeByShort changes itself if an image reaches
    max_size.
    """
    if isinstance(image, np.ndarray):
        image = image.astype("float32")
    return compose(transforms)({"img": image, "gt_fields": []})["img"]


class Oracle:
    """A model in `paddle.inference`, set up with its public interface."""

    def __init__(self, config_path, mkldnn=None, threads=2):
        with open(config_path, encoding="utf-8") as file:
            deploy = yaml.safe_load(file)["Deploy"]
        folder = os.path.dirname(config_path)
        graph = os.path.join(folder, deploy["model"])
        if not os.path.exists(graph):
            graph = graph.replace(".pdmodel", ".json")
        config = paddle.inference.Config(graph, os.path.join(folder, deploy["params"]))
        config.disable_glog_info()
        if graph.endswith(".json"):
            config.enable_new_ir(True)
            config.enable_new_executor(True)
        config.set_cpu_math_library_num_threads(threads)
        if mkldnn is False:
            config.disable_mkldnn()
        elif mkldnn:
            config.enable_mkldnn()
        self.transforms = deploy.get("transforms")
        self.predictor = paddle.inference.create_predictor(config)

    def output(self, image):
        """Returns the network's first output for one image, which is a path or a BGR array."""
        tensor = transformed(image, self.transforms)
        handle = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        handle.reshape((1, *tensor.shape))
        handle.copy_from_cpu(np.ascontiguousarray(tensor[None]))
        self.predictor.run()
        name = self.predictor.get_output_names()[0]
        return self.predictor.get_output_handle(name).copy_to_cpu()

    def labels(self, image):
        """Returns the class ids [H, W] at the network's size."""
        output = self.output(image)
        if np.issubdtype(output.dtype, np.floating):
            output = np.argmax(output, axis=1)
        return output.reshape(output.shape[-2:])
