#!/usr/bin/env python3
"""Makes the demo again: scenes, a network trained on them, its export, images with true masks.

python demo/make_demo.py [--seed N] [--folder DIR]

At the end it prints two mean IoUs on 50 scenes of
another seed: the exported model's, measured through infer.py, and that of a classifier that sees
the colour and the row of one pixel alone, which shows that the task isn't too easy.
"""

import os

os.environ["FLAGS_enable_pir_api"] = "0"  # a pdmodel, which every Paddle from 2.6 runs

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import paddle
import yaml
from canvas import CLASSES
from paddle import nn
from paddle.nn import functional
from scenes import draw_scene

HERE = Path(__file__).resolve().parent
TRAINING_SCENES, TEST_SCENES = 700, 50
CROP_WIDTH, CROP_HEIGHT = 208, 160
BATCH, STEPS, PEAK_RATE = 8, 900, 5e-3
DEMO_IMAGES = {  # name to width, height
    "avenue": (480, 320),
    "crossing": (400, 300),
    "corner": (320, 320),
    "boulevard": (560, 300),
}


# ---- scenes ------------------------------------------------------------------------------------


def varied_scene(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A scene for training or testing; its size too comes from its number."""
    random = np.random.default_rng([seed, index, 1])
    height = int(random.integers(190, 330))
    return draw_scene(seed, index, int(height * random.uniform(1.34, 1.6)), height)


def draw_scenes(seed: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    pool = multiprocessing.get_context("spawn").Pool()
    scenes = pool.map(partial(varied_scene, seed), range(count), chunksize=8)
    pool.close()
    pool.join()  # leaving a `with` would end the children by a signal, which Paddle reports
    return scenes


# ---- network -----------------------------------------------------------------------------------


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1):
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2D(inputs, outputs, kernel, stride, padding, groups=groups, bias_attr=False),
        nn.BatchNorm2D(outputs),
        nn.ReLU(),
    )


def separable(inputs: int, outputs: int, stride: int = 1, kernel: int = 3):
    """A convolution for each channel, then one across the channels."""
    depthwise = convolution(inputs, inputs, kernel, stride, groups=inputs)
    return nn.Sequential(depthwise, convolution(inputs, outputs, 1))


class DemoNet(nn.Layer):
    """A small U-Net of separable convolutions: float32 [N, 3, H, W] to logits [N, 8, H, W].

    Nothing is convolved at full size, which would take most of the time: the last layer gives four
    pixels' logits for each pixel of half size.
    """

    def __init__(self):
        super().__init__()
        self.level2 = nn.Sequential(convolution(3, 24, 5, 2), separable(24, 32))
        self.level4 = nn.Sequential(separable(32, 64, 2), separable(64, 64))
        self.level8 = nn.Sequential(separable(64, 96, 2), separable(96, 96), separable(96, 96))
        self.level16 = nn.Sequential(
            separable(96, 128, 2, 5), separable(128, 128, 1, 5), separable(128, 128, 1, 5)
        )
        self.up8 = separable(128 + 96, 96)
        self.up4 = separable(96 + 64, 64)
        self.up2 = nn.Sequential(separable(64 + 32, 48), separable(48, 48))
        self.head = nn.Sequential(nn.Conv2D(48, 4 * len(CLASSES), 1), nn.PixelShuffle(2))

    def forward(self, image):
        half = self.level2(image)
        quarter = self.level4(half)
        eighth = self.level8(quarter)
        x = self.level16(eighth)
        x = self.up8(joined(x, eighth))
        x = self.up4(joined(x, quarter))
        x = self.up2(joined(x, half))
        height, width = paddle.shape(image)[2], paddle.shape(image)[3]
        return self.head(x)[:, :, :height, :width]  # an odd side has one pixel too many


def joined(coarse, fine):
    size = paddle.shape(fine)[2:]
    up = functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return paddle.concat([up, fine], axis=1)


class Labelled(nn.Layer):
    """The network as PaddleSeg exports it with `--output_op argmax`: int32 [N, H, W]."""

    def __init__(self, network: nn.Layer):
        super().__init__()
        self.network = network

    def forward(self, x):
        return paddle.argmax(self.network(x), axis=1, dtype="int32")


# ---- training ----------------------------------------------------------------------------------


def batch_of(scenes, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random crops, flips and brightness: float32 RGB [N, 3, h, w], int64 [N, h, w]."""
    images, labels = [], []
    for index in random.integers(0, len(scenes), BATCH):
        image, label = scenes[index]
        top = random.integers(0, image.shape[0] - CROP_HEIGHT + 1)
        left = random.integers(0, image.shape[1] - CROP_WIDTH + 1)
        part = np.s_[top : top + CROP_HEIGHT, left : left + CROP_WIDTH]
        image, label = image[part], label[part]
        if random.uniform() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        tensor = (image[..., ::-1].astype(np.float32) / 255 - 0.5) / 0.5
        images.append((tensor * random.uniform(0.85, 1.15)).transpose(2, 0, 1))
        labels.append(label)
    return np.stack(images).astype(np.float32), np.stack(labels).astype(np.int64)


def train(scenes, seed: int) -> DemoNet:
    paddle.seed(seed)
    random = np.random.default_rng([seed, 2])
    network = DemoNet()
    shares = np.bincount(np.concatenate([label.ravel() for _, label in scenes]), minlength=8)
    weight = (shares.sum() / shares) ** 0.35  # rare classes count for more
    weight = paddle.to_tensor((weight / weight.mean()).astype(np.float32))
    rate = paddle.optimizer.lr.OneCycleLR(PEAK_RATE, STEPS, phase_pct=0.15)
    optimizer = paddle.optimizer.AdamW(rate, parameters=network.parameters(), weight_decay=1e-3)
    started = time.monotonic()
    for step in range(1, STEPS + 1):
        images, labels = batch_of(scenes, random)
        logits = network(paddle.to_tensor(images))
        loss = functional.cross_entropy(logits, paddle.to_tensor(labels), weight, axis=1)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        rate.step()
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(f"step {step} of {STEPS}, loss {float(loss):.3f}, {seconds:.0f} s", flush=True)
    network.eval()
    return network


def export(network: DemoNet, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spec = paddle.static.InputSpec([None, 3, None, None], "float32", "x")
    static = paddle.jit.to_static(Labelled(network), input_spec=[spec])
    paddle.jit.save(static, str(folder / "model"))
    (folder / "model.pdiparams.info").unlink(missing_ok=True)
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


# ---- judging -----------------------------------------------------------------------------------


def mean_iou(pairs) -> tuple[float, np.ndarray]:
    """Mean and each class's intersection over union, of (true, predicted) label maps."""
    count = len(CLASSES)
    confusion = np.zeros((count, count), np.int64)
    for true, predicted in pairs:
        both = true.astype(np.int64) * count + predicted
        confusion += np.bincount(both.ravel(), minlength=count**2).reshape(count, count)
    hits = np.diag(confusion)
    ious = hits / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1) - hits, 1)
    return float(ious.mean()), ious


def through_infer(config: Path, scenes) -> list[np.ndarray]:
    """Label maps of the scenes, by way of files and infer.py."""
    with tempfile.TemporaryDirectory() as folder:
        images, masks = Path(folder, "images"), Path(folder, "masks")
        images.mkdir()
        for number, (image, _) in enumerate(scenes):
            cv2.imwrite(str(images / f"{number}.png"), image)
        command = [sys.executable, HERE.parent / "infer.py", "--config", config, "--device", "cpu"]
        command += ["--image_path", images, "--save_dir", masks]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        from PIL import Image

        return [np.array(Image.open(masks / f"{number}.png")) for number in range(len(scenes))]


def by_pixel(training, scenes, seed: int) -> list[np.ndarray]:
    """Label maps of a network that sees one pixel: its colour and its row."""

    def features(image):
        rows = np.linspace(-1, 1, image.shape[0], dtype=np.float32)[:, None, None]
        colours = image.astype(np.float32) / 127.5 - 1
        return np.concatenate([colours, np.broadcast_to(rows, (*image.shape[:2], 1))], axis=2)

    paddle.seed(seed)
    random = np.random.default_rng([seed, 3])
    network = nn.Sequential(
        nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(CLASSES))
    )
    optimizer = paddle.optimizer.Adam(3e-3, parameters=network.parameters())
    samples, targets = [], []
    for image, labels in training[:300]:
        chosen = random.integers(0, labels.size, 2000)
        samples.append(features(image).reshape(-1, 4)[chosen])
        targets.append(labels.ravel()[chosen])
    samples, targets = np.concatenate(samples), np.concatenate(targets).astype(np.int64)
    shares = np.bincount(targets, minlength=len(CLASSES))
    weight = paddle.to_tensor(np.sqrt(shares.sum() / np.maximum(shares, 1)).astype(np.float32))
    for _ in range(1500):
        chosen = random.integers(0, len(targets), 4096)
        logits = network(paddle.to_tensor(samples[chosen]))
        functional.cross_entropy(logits, paddle.to_tensor(targets[chosen]), weight).backward()
        optimizer.step()
        optimizer.clear_grad()
    maps = []
    for image, _ in scenes:
        logits = network(paddle.to_tensor(features(image).reshape(-1, 4)))
        maps.append(logits.numpy().argmax(axis=1).reshape(image.shape[:2]))
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of scenes and training (default: 1)")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to (default: demo)")
    options = parser.parse_args()
    started = time.monotonic()
    training = draw_scenes(options.seed, TRAINING_SCENES)
    test = draw_scenes(options.seed + 1000, TEST_SCENES)
    print(f"{len(training) + len(test)} scenes drawn in {time.monotonic() - started:.0f} s")
    network = train(training, options.seed)
    model = options.folder / "model"
    export(network, model)
    for name in ("images", "labels"):
        shutil.rmtree(options.folder / name, ignore_errors=True)
        (options.folder / name).mkdir()
    for number, (name, (width, height)) in enumerate(DEMO_IMAGES.items()):
        image, labels = draw_scene(options.seed + 2000, number, width, height)
        cv2.imwrite(str(options.folder / "images" / f"{name}.jpg"), image, [1, 93])
        cv2.imwrite(str(options.folder / "labels" / f"{name}.png"), labels)
    truth = [labels for _, labels in test]
    mean, ious = mean_iou(zip(truth, through_infer(model / "deploy.yaml", test), strict=True))
    print(" ".join(f"{name} {iou:.3f}" for name, iou in zip(CLASSES, ious, strict=True)))
    print(f"the model's mean IoU, through infer.py: {mean:.3f}")
    mean, ious = mean_iou(zip(truth, by_pixel(training, test, options.seed), strict=True))
    print(" ".join(f"{name} {iou:.3f}" for name, iou in zip(CLASSES, ious, strict=True)))
    print(f"a classifier of colour and row alone: {mean:.3f}")
    size = sum(file.stat().st_size for file in model.iterdir())
    print(f"model: {size / 1e6:.2f} MB; all in {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
