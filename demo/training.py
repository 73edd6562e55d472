"""Trains the demo's network in two processes, and the classifier with which it is compared."""

import time
from pathlib import Path

import numpy as np
import paddle
from paddle import distributed, nn
from paddle.nn import functional

from demo.canvas import CLASSES
from demo.network import DemoNet

CROP_WIDTH, CROP_HEIGHT = 208, 160
BATCH, STEPS, PEAK_RATE = 8, 1600, 6e-3  # BATCH is for each process
PROCESSES = 2
RARENESS = 0.15  # exponent of the class weights, 0 to 1: if larger, rare classes count for more

Scene = tuple[np.ndarray, np.ndarray]  # BGR uint8 [h, w, 3], labels uint8 [h, w]


def train(scenes: list[Scene], seed: int, weights: Path) -> None:
    """Trains the network and writes its weights to `weights`.

    There are several processes, because Paddle trains on one core in each.
    """
    distributed.spawn(
        train_one, args=(scenes, seed, weights), nprocs=PROCESSES, backend="gloo", join=True
    )


def train_one(scenes: list[Scene], seed: int, weights: Path) -> None:
    distributed.init_parallel_env()
    rank = distributed.get_rank()
    paddle.seed(seed)
    random = np.random.default_rng([seed, 2, rank])
    network = paddle.DataParallel(DemoNet())
    weight = class_weights(np.concatenate([labels.ravel() for _, labels in scenes]))
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
        if step % 200 == 0 and rank == 0:
            seconds = time.monotonic() - started
            print(f"step {step} of {STEPS}, loss {float(loss):.3f}, {seconds:.0f} s", flush=True)
    if rank == 0:
        paddle.save(network.state_dict(), str(weights))


def class_weights(labels: np.ndarray) -> paddle.Tensor:
    """Returns the weight of each class in the loss, float32 [classes], 1 on average."""
    counts = np.bincount(labels, minlength=len(CLASSES))
    weight = (counts.sum() / np.maximum(counts, 1)) ** RARENESS
    return paddle.to_tensor((weight / weight.mean()).astype(np.float32))


def batch_of(scenes: list[Scene], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, float32 RGB [N, 3, h, w], and their labels, int64 [N, h, w].

    They are random crops of random scenes, with random flips and brightness.
    """
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


# ---- the classifier of single pixels ----


def by_pixel(training: list[Scene], scenes: list[Scene], seed: int) -> list[np.ndarray]:
    """Returns label maps from a network whose input is one pixel's colour and row."""
    paddle.seed(seed)
    random = np.random.default_rng([seed, 3])
    network = nn.Sequential(
        nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(CLASSES))
    )
    optimizer = paddle.optimizer.Adam(3e-3, parameters=network.parameters())
    samples, targets = [], []
    for image, labels in training:
        chosen = random.integers(0, labels.size, 2000)
        samples.append(pixel_features(image)[chosen])
        targets.append(labels.ravel()[chosen])
    samples, targets = np.concatenate(samples), np.concatenate(targets).astype(np.int64)
    weight = class_weights(targets)
    for _ in range(1500):
        chosen = random.integers(0, len(targets), 4096)
        logits = network(paddle.to_tensor(samples[chosen]))
        functional.cross_entropy(logits, paddle.to_tensor(targets[chosen]), weight).backward()
        optimizer.step()
        optimizer.clear_grad()
    return [
        network(paddle.to_tensor(pixel_features(image)))
        .numpy()
        .argmax(axis=1)
        .reshape(image.shape[:2])
        for image, _ in scenes
    ]


def pixel_features(image: np.ndarray) -> np.ndarray:
    """Returns float32 [pixels, 4]: blue, green, red and row, each from -1 to 1."""
    rows = np.linspace(-1, 1, image.shape[0], dtype=np.float32)[:, None, None]
    colours = image.astype(np.float32) / 127.5 - 1
    rows = np.broadcast_to(rows, (*image.shape[:2], 1))
    return np.concatenate([colours, rows], axis=2).reshape(-1, 4)
