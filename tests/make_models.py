"""Exports the small real models that the tests run: `python make_models.py FOLDER json|pdmodel`.

Each model is a folder with `deploy.yaml`, a graph and parameters, as PaddleSeg exports them.
The script runs in its own process, because Paddle 3 decides at import how it saves graphs.
"""

import os
import sys

FOLDER, FORM = sys.argv[1], sys.argv[2]
os.environ["FLAGS_enable_pir_api"] = "1" if FORM == "json" else "0"

import paddle  # noqa: E402
import yaml  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.nn import functional  # noqa: E402
from paddle.quantization import QAT, QuantConfig  # noqa: E402
from paddle.quantization.quanters import FakeQuanterWithAbsMaxObserver  # noqa: E402

NORMALIZE = [{"type": "Normalize"}]
RESIZE = [{"type": "Resize", "target_size": [64, 48]}, *NORMALIZE]


class Network(nn.Layer):
    """Two convolutions at half the image's size, a bilinear resize to the full size, an output."""

    def __init__(self, classes, output_op, kernel=3):
        super().__init__()
        self.first = nn.Conv2D(3, 8, 3, stride=2, padding=1)
        # A kernel of 3 is padded. A larger kernel fails on an image that is smaller than it.
        self.second = nn.Conv2D(8, classes, kernel, padding=1 if kernel == 3 else 0)
        self.output_op = output_op
        if output_op == "argmax_gain":
            self.gain = self.create_parameter([1, classes, 1, 1])

    def forward(self, x):
        features = functional.relu(self.first(x))
        scores = self.second(features)
        scores = functional.interpolate(scores, paddle.shape(x)[2:], mode="bilinear")
        if self.output_op == "argmax_first":  # only the first image of the batch
            scores = scores[:1]
        if self.output_op == "argmax_crop":  # the output of an 8x8 image is empty
            scores = scores[:, :, 8:, 8:]
        if self.output_op == "argmax_pair":  # accepts only batches of two
            scores = paddle.reshape(scores, [2, 4, 48, 64])
        if self.output_op == "argmax_pool":  # OpenVINO can't pool a single row, Paddle can
            pooled = functional.max_pool2d(functional.max_pool2d(features, 2), 2)
            pooled = functional.interpolate(pooled[:, :4], paddle.shape(x)[2:], mode="bilinear")
            scores = scores + pooled
        if self.output_op == "argmax_half":  # like argmax_pool, but the output has half the size
            pooled = functional.max_pool2d(functional.max_pool2d(features, 2), 2)
            scores = self.second(features)
            size = paddle.shape(scores)[2:]
            scores = scores + functional.interpolate(pooled[:, :4], size, mode="bilinear")
        # oneDNN computes these divisions wrongly, but the one by the gain correctly.
        if self.output_op.startswith("argmax_inverse"):
            scores = 1 / scores
        if self.output_op == "argmax_ratio":
            scores = paddle.mean(scores, axis=1, keepdim=True) / scores
        # These two divisions declare no height and no width. oneDNN computes the first one wrongly.
        if self.output_op == "argmax_unsure":
            mean = paddle.mean(functional.relu(scores), [2, 3], keepdim=True) + 1
            mean = paddle.reshape(mean, paddle.shape(scores[:, :, :1, :1]))
            scores = mean / paddle.reshape(scores, paddle.shape(scores))
        if self.output_op == "argmax_own_size":
            scores = scores / (functional.relu(scores) + 1)
        if self.output_op == "argmax_branch":
            is_low = paddle.mean(scores) < 1000
            scores = paddle.static.nn.cond(is_low, lambda: 1 / scores, lambda: scores)
        if self.output_op == "argmax_gain":
            scores = scores / self.gain
        if self.output_op == "argmax_level":  # in a pdmodel oneDNN fails at the mean's shape []
            scores = scores - paddle.mean(scores)
        if self.output_op.endswith("gamma"):  # OpenVINO doesn't support lgamma
            scores = paddle.lgamma(functional.relu(scores) + 1)
        if self.output_op == "argmax_mean":  # Paddle 3.2 prints a line when it runs this mean
            scores = scores + paddle.mean(scores, axis=1, keepdim=True)
        if self.output_op.startswith("argmax"):
            keepdim = self.output_op == "argmax_keepdim"
            if FORM == "pdmodel" and paddle.__version__.startswith("3.3"):
                # Paddle 3.3 can't save argmax in a pdmodel ("must be Value, but got Variable").
                labels = paddle.topk(scores, 1, axis=1)[1]
                return labels if keepdim else paddle.squeeze(labels, axis=1).astype("int32")
            return paddle.argmax(scores, 1, keepdim, "int64" if keepdim else "int32")
        return functional.softmax(scores, axis=1) if self.output_op == "softmax" else scores


def quantised(network):
    """Returns the network with the ranges that int8 needs, measured on one random image."""
    quanter = FakeQuanterWithAbsMaxObserver(moving_rate=0.9)
    network = QAT(QuantConfig(activation=quanter, weight=quanter)).quantize(network)
    network.train()
    network(paddle.rand([1, 3, 48, 64]))
    return network


def export(
    name,
    classes=4,
    output_op="argmax",
    transforms=NORMALIZE,
    shape=None,
    kernel=3,
    input_name="x",
    finish=lambda network: network,
):
    paddle.seed(len(name) + classes)
    network = finish(Network(classes, output_op, kernel))
    network.eval()
    shape = shape or [-1, 3, -1, -1]
    sides = [None if side == -1 else side for side in shape]
    spec = paddle.static.InputSpec(sides, "float32", input_name)
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder)
    paddle.jit.save(paddle.jit.to_static(network, input_spec=[spec]), os.path.join(folder, "model"))
    deploy = {
        "input_shape": shape,
        "model": "model.pdmodel",  # PaddleSeg writes this name for json graphs too
        "output_dtype": "int32",
        "output_op": output_op,
        "params": "model.pdiparams",
        "transforms": transforms,
    }
    with open(os.path.join(folder, "deploy.yaml"), "w", encoding="utf-8") as file:
        yaml.safe_dump({"Deploy": deploy}, file)


export("argmax")
export("resize", transforms=RESIZE)
export("softmax", output_op="softmax", transforms=RESIZE)
for divided in ("inverse", "ratio", "gain", "level", "unsure", "own_size"):
    export(divided, output_op=f"argmax_{divided}")
if FORM == "json":
    export("mean", output_op="argmax_mean")
    export("branch", output_op="argmax_branch")  # Paddle 3 can't save it in a pdmodel
else:
    export("logits", classes=19, output_op="none")
    export("keepdim", output_op="argmax_keepdim")
    export("foreground", classes=1, output_op="none")
    export("fixed", shape=[1, 3, 48, 64])
    export("classes300", classes=300, output_op="none")
    export("labels300", classes=300)
    export("pairs", output_op="argmax_pair", shape=[2, 3, 48, 64])
    export("crops8", output_op="argmax_crop")
    export("first_only", output_op="argmax_first")
    export("needs16", kernel=8)
    export("picture", input_name="picture")
    export("pools", output_op="argmax_pool")
    export("half", output_op="argmax_half")
    export("gamma", output_op="argmax_gamma")
    export("inverse_gamma", output_op="argmax_inverse_gamma")
    export("quantised", finish=quantised)
