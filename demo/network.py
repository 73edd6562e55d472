"""The demo's network, and its export in PaddleSeg's format."""

from pathlib import Path

import paddle
import yaml
from paddle import nn

from demo.canvas import CLASSES


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1):
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2D(inputs, outputs, kernel, stride, padding, groups=groups, bias_attr=False),
        nn.BatchNorm2D(outputs),
        nn.ReLU(),
    )


class PixelShuffle(nn.Layer):
    """Turns [N, 4 * C, H, W] into [N, C, 2 * H, 2 * W], as `nn.PixelShuffle(2)` does.

    OpenVINO doesn't support the operator of `nn.PixelShuffle`.
    """

    def forward(self, x):
        shape = paddle.shape(x)
        channels, height, width = x.shape[1] // 4, shape[2], shape[3]
        squares = paddle.reshape(x, [0, channels, 2, 2, height, width])
        rows = paddle.transpose(squares, [0, 1, 4, 2, 5, 3])
        return paddle.reshape(rows, [0, channels, 2 * height, 2 * width])


class Up(nn.Layer):
    """Doubles the coarse map's size with a pixel shuffle, and joins it with the finer map."""

    def __init__(self, coarse: int, fine: int, outputs: int):
        super().__init__()
        half = outputs // 2
        self.grow = nn.Sequential(nn.Conv2D(coarse, 4 * half, 1), PixelShuffle())
        self.mix = convolution(half + fine, outputs)

    def forward(self, coarse, fine):
        return self.mix(paddle.concat([cut(self.grow(coarse), fine), fine], axis=1))


def cut(grown, like):
    """Cuts `grown` to the size of `like`: if a side is odd, doubling adds one pixel too many."""
    height, width = paddle.shape(like)[2], paddle.shape(like)[3]
    return grown[:, :, :height, :width]


class DemoNet(nn.Layer):
    """A small U-Net: from float32 [N, 3, H, W] to logits [N, 8, H, W], for any height and width.

    It is designed for training on a CPU. No convolution runs at full size. Maps are enlarged by
    pixel shuffle, because on a CPU Paddle's interpolation and depthwise convolutions take longer
    than dense convolutions.
    """

    def __init__(self):
        super().__init__()
        self.half = convolution(3, 16, 5, 2)
        self.quarter = nn.Sequential(convolution(16, 32, 3, 2), convolution(32, 32))
        self.eighth = nn.Sequential(convolution(32, 56, 3, 2), convolution(56, 56))
        self.sixteenth = nn.Sequential(
            convolution(56, 72, 3, 2),
            convolution(72, 72),
            convolution(72, 72, 7, groups=72),  # a large receptive field on a small map is cheap
            convolution(72, 72, 1),
        )
        self.to_eighth, self.to_quarter = Up(72, 56, 48), Up(48, 32, 40)
        self.to_half = Up(40, 16, 32)
        self.head = nn.Sequential(nn.Conv2D(32, 4 * len(CLASSES), 1), PixelShuffle())

    def forward(self, image):
        half = self.half(image)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        x = self.to_eighth(self.sixteenth(eighth), eighth)
        x = self.to_half(self.to_quarter(x, quarter), half)
        return cut(self.head(x), image)


class Labelled(nn.Layer):
    """The network as PaddleSeg exports it with `--output_op argmax`: labels int32 [N, H, W]."""

    def __init__(self, network: nn.Layer):
        super().__init__()
        self.network = network

    def forward(self, x):
        return paddle.argmax(self.network(x), axis=1, dtype="int32")


def export(network: nn.Layer, folder: Path) -> None:
    """Writes model.pdmodel, model.pdiparams and deploy.yaml into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    spec = paddle.static.InputSpec([None, 3, None, None], "float32", "x")
    static = paddle.jit.to_static(Labelled(network), input_spec=[spec])
    paddle.jit.save(static, str(folder / "model"))
    (folder / "model.pdiparams.info").unlink(missing_ok=True)
    forget_sources(folder / "model.pdmodel")
    deploy = {
        "input_shape": [-1, 3, -1, -1],
        "labels": list(CLASSES),
        "model": "model.pdmodel",
        "output_dtype": "int32",
        "output_op": "argmax",
        "params": "model.pdiparams",
        "transforms": [{"type": "Normalize"}],
    }
    (folder / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": deploy}, sort_keys=True))


def forget_sources(graph: Path) -> None:
    """Removes the operators' call stacks from a pdmodel: they name files of this machine."""
    paddle.enable_static()
    program = paddle.static.deserialize_program(graph.read_bytes())
    for block in program.blocks:
        for operator in block.ops:
            if operator.has_attr("op_callstack"):
                operator._remove_attr("op_callstack")
    graph.write_bytes(program.desc.serialize_to_string())
    paddle.disable_static()
