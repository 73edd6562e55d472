"""Exports models that are not as PaddleSeg's: `python make_odd_models.py FOLDER json|pdmodel`.

Each is a folder as in make_models.py. Its `deploy.yaml` has no `input_shape`.
"""

import os
import sys

FOLDER, FORM = sys.argv[1], sys.argv[2]
os.environ["FLAGS_enable_pir_api"] = "1" if FORM == "json" else "0"

import paddle  # noqa: E402
import yaml  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.nn import functional  # noqa: E402


class Scores(nn.Layer):
    """Scores [N, classes, H, W] of images [N, channels, H, W]; `finish` changes their form."""

    def __init__(self, classes=5, channels=3, finish=lambda scores, image: scores):
        super().__init__()
        paddle.seed(1)  # the same weights in all models of as many classes
        self.convolution = nn.Conv2D(channels, classes, 3, padding=1)
        self.finish = finish

    def forward(self, image):
        return self.scores(image)

    def scores(self, image):
        return self.finish(self.convolution(image), image)


class TwoInputs(Scores):
    def forward(self, image, clicks):
        return self.scores(image + clicks)


class ChannelsLast(Scores):
    def forward(self, image):
        return self.scores(paddle.transpose(image, [0, 3, 1, 2]))


class UNet(nn.Layer):
    """Halves the image `depth` times and adds it, doubled again, to what it was before."""

    def __init__(self, depth):
        super().__init__()
        self.down = nn.LayerList([nn.Conv2D(3, 3, 3, 2, padding=1) for _ in range(depth)])

    def forward(self, image):
        small, before = image, []
        for halve in self.down:
            before.append(small)
            small = halve(small)
        for same in reversed(before):
            small = functional.interpolate(small, scale_factor=2) + same
        return small


def thirds(scores, image):
    """Needs sides that are multiples of three."""
    return functional.interpolate(functional.avg_pool2d(scores, 3, 3), scale_factor=3) + scores


class LargeKernel(nn.Layer):
    """A convolution that doesn't fit in an image of less than 40 pixels a side."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2D(3, 3, 40)

    def forward(self, image):
        scores = self.convolution(image)
        return functional.interpolate(scores, paddle.shape(image)[2:])


def export(name, network, *shapes, dtype="float32"):
    """`shapes` are those of the inputs, [-1, 3, -1, -1] by default; -1 is any size."""
    network.eval()
    specs = []
    for number, shape in enumerate(shapes or [(-1, 3, -1, -1)]):
        sides = [None if side == -1 else side for side in shape]
        specs.append(paddle.static.InputSpec(sides, dtype, "xyz"[number]))
    folder = os.path.join(FOLDER, name)
    os.makedirs(folder)
    paddle.jit.save(paddle.jit.to_static(network, input_spec=specs), os.path.join(folder, "model"))
    deploy = {
        "model": "model.pdmodel",
        "params": "model.pdiparams",
        "transforms": [{"type": "Normalize"}],
    }
    with open(os.path.join(folder, "deploy.yaml"), "w", encoding="utf-8") as file:
        yaml.safe_dump({"Deploy": deploy}, file)


def channels_last(scores, image):
    return paddle.transpose(scores, [0, 2, 3, 1])


def ids(scores, image):
    return paddle.argmax(scores, 1, keepdim=True)


def nan_on_the_left(scores, image):
    """Divides 0 by 0 in the three leftmost columns."""
    column = paddle.cumsum(paddle.ones_like(scores), axis=3)
    few = paddle.cast(column > 3, "float32")
    return scores * few / few


def undeclared(scores, image):
    """The same scores, and a graph that declares no size of theirs."""
    return paddle.reshape(scores, paddle.shape(scores))


def in_bf16(scores, image):
    return paddle.cast(scores, "bfloat16")


export("plain", Scores())
export("two_inputs", TwoInputs(), (-1, 3, -1, -1), (-1, 3, -1, -1))
for number in (1, 2, 4, 5, 13):
    export(f"channels_{number}", Scores(channels=number), (-1, number, -1, -1))
export("classes_256", Scores(classes=256))
export("channels_513", Scores(channels=513), (-1, 513, -1, -1))
export("nhwc_input", ChannelsLast(), (-1, -1, -1, 3))
export("nhwc_fixed", ChannelsLast(), (-1, 512, 512, 3))
export("ids_undeclared", Scores(finish=lambda s, i: paddle.cast((s * 0).sum(1) + 255, "int32")))
export("nhwc", Scores(finish=channels_last))
export("nhwc_undeclared", Scores(finish=lambda *of: undeclared(channels_last(*of), 0)))
export("nchw_undeclared", Scores(finish=undeclared))
export("nhwc_one_channel", Scores(1, finish=channels_last))
export("nhwc_ids", Scores(finish=lambda s, i: paddle.argmax(s, 1).unsqueeze(-1)))
export("float_ids", Scores(finish=lambda s, i: paddle.cast(ids(s, i), "float32")))
export("rounded", Scores(1, finish=lambda s, i: paddle.round(functional.relu(4 * s))))
export("no_batch", Scores(finish=lambda s, i: paddle.argmax(s, 1)[0]))
export("no_batch_scores", Scores(finish=lambda s, i: s[0]))
export("no_batch_whole", Scores(finish=lambda s, i: paddle.cast(s[0], "int32")))
export("classes_only", Scores(finish=lambda s, i: paddle.mean(s, axis=[2, 3])))
export("bf16", Scores(finish=in_bf16))
export("ids_from_minus_1", Scores(finish=lambda s, i: paddle.cast(ids(s, i) - 1, "float32")))
export("turned", Scores(finish=lambda s, i: paddle.transpose(paddle.argmax(s, 1), [0, 2, 1])))
export("flat", Scores(finish=lambda s, i: paddle.argmax(s, 1).flatten(1).unsqueeze(1)))
export("squeezed", Scores(finish=lambda s, i: paddle.argmax(s, 1).squeeze()))
export("nan", Scores(finish=nan_on_the_left))
export("infinite", Scores(finish=lambda s, i: s / functional.relu(s)))
export("three_outputs", Scores(finish=lambda s, i: (s, s + 1, paddle.argmax(s, 1))))
export("halved_twice", UNet(2))
export("halved_five_times", UNet(5))
export("thirds", Scores(finish=thirds))
export("large_kernel", LargeKernel())
export("float64", Scores(), dtype="float64")
