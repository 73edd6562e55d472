#!/usr/bin/env python3
"""Makes the demo again: draws scenes, trains and exports a network, and saves images and labels.

python -m demo.make_demo [--seed N] [--folder DIR]

At the end it prints two mean IoUs on 50 scenes of another seed. The first is the exported model's,
measured through infer.py. The second is that of a classifier whose input is only the colour and the
row of one pixel. It shows that the task isn't too easy.
"""

import os

os.environ["FLAGS_enable_pir_api"] = "0"  # exports a pdmodel, which Paddle runs from 2.6 on

import argparse
import hashlib
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
from PIL import Image

from demo.canvas import CLASSES
from demo.network import DemoNet, export
from demo.scenes import demo_scenes, draw_scene
from demo.training import by_pixel, train

HERE = Path(__file__).resolve().parent
TRAINING_SCENES, TEST_SCENES = 700, 50


# ---- scenes ------------------------------------------------------------------------------------


def varied_scene(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a scene for training or testing. Seed and index also decide its size."""
    random = np.random.default_rng([seed, index, 1])
    height = int(random.integers(220, 320))
    return draw_scene(seed, index, int(height * random.uniform(1.34, 1.6)), height)


def draw_scenes(seed: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    pool = multiprocessing.get_context("spawn").Pool()
    scenes = pool.map(partial(varied_scene, seed), range(count), chunksize=8)
    pool.close()
    pool.join()  # a `with` would end the children by a signal, and Paddle would report that
    return scenes


def save_demo_images(seed: int, folder: Path) -> None:
    for name in ("images", "labels"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    for name, image, labels in demo_scenes(seed):
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 93])
        cv2.imwrite(str(folder / "labels" / f"{name}.png"), labels)


def digest(scenes: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Returns one hash of all pixels and labels, which is the same for the same seed."""
    whole = hashlib.sha256()
    for image, labels in scenes:
        whole.update(image.tobytes() + labels.tobytes())
    return f"sha256 {whole.hexdigest()[:16]}"


# ---- evaluation --------------------------------------------------------------------------------


def mean_iou(pairs) -> tuple[float, np.ndarray]:
    """Returns the mean IoU, and the IoU of each class, float64 [classes].

    IoU is intersection over union. `pairs` are label maps (true, predicted).
    """
    count = len(CLASSES)
    confusion = np.zeros((count, count), np.int64)
    for true, predicted in pairs:
        both = true.astype(np.int64) * count + predicted
        confusion += np.bincount(both.ravel(), minlength=count**2).reshape(count, count)
    hits = np.diag(confusion)
    ious = hits / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1) - hits, 1)
    return float(ious.mean()), ious


def run_infer(config: Path, images: Path, masks: Path, *more: str) -> None:
    command = [sys.executable, HERE.parent / "infer.py", "--config", config, "--device", "cpu"]
    command += ["--image_path", images, "--save_dir", masks, *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def through_infer(config: Path, scenes) -> list[np.ndarray]:
    """Returns the scenes' label maps, which infer.py makes from image files."""
    with tempfile.TemporaryDirectory() as folder:
        images, masks = Path(folder, "images"), Path(folder, "masks")
        images.mkdir()
        for number, (image, _) in enumerate(scenes):
            cv2.imwrite(str(images / f"{number}.png"), image)
        run_infer(config, images, masks)
        return [np.array(Image.open(masks / f"{number}.png")) for number in range(len(scenes))]


def draw_pictures(folder: Path, config: Path) -> None:
    """Writes the pages' pictures of the first demo image.

    These are overlay.png, and picture.png: the image, its mask and its overlay side by side.
    """
    image = cv2.imread(str(folder / "images" / "avenue.jpg"))
    with tempfile.TemporaryDirectory() as out:
        run_infer(config, folder / "images", Path(out), "--save", "mask", "overlay")
        mask = cv2.imread(str(Path(out, "avenue.png")))  # in colours: BGR [H, W, 3]
        overlay = cv2.imread(str(Path(out, "overlay", "avenue.png")))
        shutil.copy(Path(out, "overlay", "avenue.png"), folder / "overlay.png")
    below = len(overlay) - len(image)  # the legend, which the other two don't have
    white = [
        cv2.copyMakeBorder(each, 0, below, 0, 8, 0, value=(255,) * 3) for each in (image, mask)
    ]
    cv2.imwrite(str(folder / "picture.png"), np.hstack([*white, overlay]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    parser.add_argument("--folder", type=Path, default=HERE, help="output folder (default: demo)")
    options = parser.parse_args()
    started = time.monotonic()
    training = draw_scenes(options.seed, TRAINING_SCENES)
    test = draw_scenes(options.seed + 1000, TEST_SCENES)
    seconds = time.monotonic() - started
    print(f"{len(training) + len(test)} scenes drawn in {seconds:.0f} s")
    print(f"images and labels: {digest(training + test)}")
    model = options.folder / "model"
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.pdparams")
        train(training, options.seed, weights)
        network = DemoNet()
        network.set_state_dict(paddle.load(str(weights)))
    export(network, model)
    save_demo_images(options.seed, options.folder)
    truth = [labels for _, labels in test]
    mean, ious = mean_iou(zip(truth, through_infer(model / "deploy.yaml", test), strict=True))
    print(" ".join(f"{name} {iou:.3f}" for name, iou in zip(CLASSES, ious, strict=True)))
    print(f"mean IoU of the model, measured through infer.py: {mean:.3f}")
    mean, ious = mean_iou(zip(truth, by_pixel(training, test, options.seed), strict=True))
    print(" ".join(f"{name} {iou:.3f}" for name, iou in zip(CLASSES, ious, strict=True)))
    print(f"mean IoU of a classifier that uses only colour and row: {mean:.3f}")
    draw_pictures(options.folder, model / "deploy.yaml")
    size = sum(file.stat().st_size for file in model.iterdir())
    minutes = (time.monotonic() - started) / 60
    print(f"model: {size / 1e6:.2f} MB; total time: {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
