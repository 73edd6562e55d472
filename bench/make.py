#!/usr/bin/env python3
"""Makes models and images for the benchmarks: `python -m bench.make FOLDER`, with Paddle 2.6.2.

All engines here can run a pdmodel, but newer versions of Paddle can't export these networks as a
pdmodel for images of any size. The weights are random, and the batch norms are calibrated on a few
images, so that every output depends on its input. The models are only for measurements: their masks
mean nothing.
"""

import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import paddle  # noqa: E402
import sklearn.cluster  # noqa: E402, F401 - before paddle, or the process crashes in zlib
import yaml  # noqa: E402
from paddleseg.deploy.export import WrappedModel  # noqa: E402
from paddleseg.models import (  # noqa: E402
    STDC1,
    BiSeNetV2,
    DeepLabV3P,
    HRNet_W18,
    MixVisionTransformer_B0,
    OCRNet,
    PPHumanSegLite,
    PPLiteSeg,
    ResNet50_vd,
    SegFormer,
    UNet,
)

from demo.scenes import draw_scene  # noqa: E402

NORMALIZE = [{"type": "Normalize"}]


def networks():
    """Yields the name, network, output operation and transforms of each model."""
    yield "ppliteseg", PPLiteSeg(19, STDC1()), "argmax", NORMALIZE
    yield "ppliteseg_logits", PPLiteSeg(19, STDC1()), "none", NORMALIZE
    small = [{"type": "Resize", "target_size": [192, 192]}, *NORMALIZE]
    yield "humanseg_lite", PPHumanSegLite(2), "softmax", small
    yield "ocrnet", OCRNet(19, HRNet_W18(), backbone_indices=[0]), "argmax", NORMALIZE
    yield "bisenetv2", BiSeNetV2(19), "argmax", NORMALIZE
    yield "deeplabv3p", DeepLabV3P(19, ResNet50_vd()), "argmax", NORMALIZE
    yield "segformer_b0", SegFormer(19, MixVisionTransformer_B0(), 256), "argmax", NORMALIZE
    yield "unet", UNet(19), "argmax", NORMALIZE


def calibrate(network: paddle.nn.Layer, images: list[np.ndarray]) -> None:
    """Sets the statistics of the batch norms to those of `images`, each uint8 RGB [H, W, 3]."""
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D | paddle.nn.SyncBatchNorm):
            layer._momentum = 0.0
    network.train()
    batch = np.stack(images).astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    with paddle.no_grad():
        network(paddle.to_tensor(batch))
    network.eval()


def make_models(folder: Path, images: list[np.ndarray]) -> None:
    paddle.seed(0)
    for name, network, output, transforms in networks():
        calibrate(network, images)
        any_size = paddle.static.InputSpec([None, 3, None, None], "float32", "x")
        exported = network if output == "none" else WrappedModel(network, output)
        static = paddle.jit.to_static(exported, input_spec=[any_size])
        paddle.jit.save(static, str(folder / name / "model"))
        deploy = {
            "model": "model.pdmodel",
            "params": "model.pdiparams",
            "transforms": transforms,
            "output_op": output,
        }
        (folder / name / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": deploy}))


def make_images(folder: Path, count: int, width: int, height: int) -> None:
    """Writes JPEGs of `width` x `height`: scenes drawn 480 pixels wide, resized, with noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(count):
        scene, _ = draw_scene(7, index, 480, round(480 * height / width))
        image = cv2.resize(scene, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = random.normal(0, 3, image.shape).astype(np.int8)
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
        cv2.imwrite(str(folder / f"{index:03}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


def cut_tiles(source: Path, folder: Path, side: int) -> None:
    folder.mkdir()
    for path in source.iterdir():
        image = cv2.imread(str(path))
        for top in range(0, image.shape[0], side):
            for left in range(0, image.shape[1], side):
                tile = image[top : top + side, left : left + side]
                cv2.imwrite(str(folder / f"{path.stem}_{top}_{left}.jpg"), tile)


def main() -> None:
    folder = Path(sys.argv[1])
    make_images(folder / "photo", 1, 800, 534)
    make_images(folder / "streets", 100, 1024, 512)
    make_images(folder / "large", 24, 4000, 3000)
    cut_tiles(folder / "streets", folder / "small", 256)
    cut_tiles(folder / "streets", folder / "squares", 512)
    few = [cv2.imread(str(folder / "streets" / f"{n:03}.jpg"))[..., ::-1] for n in range(4)]
    make_models(folder, few)


if __name__ == "__main__":
    main()
