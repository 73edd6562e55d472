#!/usr/bin/env python3
"""Measures the engines on a machine with a GPU: python -m bench.gpu [--made FOLDER].

For each engine and precision, it prints the time of the first and the second start, and the share
of labels that differ from the CPU's. For batch sizes and numbers of workers, it prints images per
second and memory. The last line is a verdict. The model and the images are the demo's, or those
that make.py made with --made.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.pairs import few_of, ours, seconds
from paddleseg_infer.engines.native import load_core
from paddleseg_infer.errors import ConfigError
from paddleseg_infer.machine.gpu import check_gpu
from paddleseg_infer.machine.paddle_build import find_paddle

ROOT = Path(__file__).resolve().parent.parent

ENGINES = {
    "GPU": (),
    "TensorRT fp32": ("--use_trt",),
    "TensorRT fp16": ("--use_trt", "--precision", "fp16"),
    "TensorRT fp32, tuned": ("--use_trt", "--enable_auto_tune"),
}
# Estimates, not measured on a GPU yet. Newer GPUs multiply fp32 in TF32, which has 10 bits.
MOST_UNLIKE = {"GPU": 1e-3, "TensorRT fp32": 1e-3, "TensorRT fp32, tuned": 1e-3}  # others: 1e-2


def on_gpu(model: Path, images: Path, masks: Path, *flags: object) -> list[object]:
    command = ours(model, images, *flags)
    command[command.index("--device") + 1] = "gpu"
    command[command.index("--save_dir") + 1] = masks
    if "--use_trt" in flags:  # the user's cache may already contain the engine
        command += ["--cache_dir", masks.parent / "cache"]
    return command


def unlike(masks: Path, others: Path) -> float:
    """Returns the share of pixels with different labels, from 0 to 1.

    Raises FileNotFoundError if a mask is missing.
    """
    different = pixels = 0
    for path in sorted(others.iterdir()):
        one, other = (np.array(Image.open(place / path.name)) for place in (masks, others))
        different, pixels = different + np.count_nonzero(one != other), pixels + one.size
    return different / pixels


def megabytes_in_use() -> int:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return sum(map(int, subprocess.check_output(query, text=True).split()))


def timed(command: list[object]) -> tuple[float, int]:
    """Returns the seconds that a command takes, and the GPUs' peak memory meanwhile in MB."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            peak[0] = max(peak[0], megabytes_in_use())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return seconds(command), peak[0]
    finally:
        ended.set()
        watcher.join()


def many(images: Path, folder: Path, count: int) -> Path:
    """Makes `folder` with `count` links to the images, repeating them in turn. Returns `folder`."""
    folder.mkdir()
    paths = sorted(images.iterdir())
    for number in range(count):
        path = paths[number % len(paths)].resolve()
        (folder / f"{number:04}{path.suffix}").symlink_to(path)
    return folder


def measure(model: Path, images: Path, folder: Path) -> bool:
    """Prints the tables; returns whether every engine's labels are close to the CPU's."""
    cpu = folder / "cpu"
    command = ours(model, images)
    command[command.index("--save_dir") + 1] = cpu
    seconds(command)
    is_good = True
    head = "first start, s | second start, s | labels that differ from the CPU's | verdict"
    print(f"| engine | {head} |\n| --- | --- | --- | --- | --- |")
    for name, flags in ENGINES.items():
        masks = folder / name.replace(" ", "_")
        try:
            starts = [seconds(on_gpu(model, images, masks, *flags)) for _ in range(2)]
            share = unlike(masks, cpu)
            if "--use_trt" in flags and starts[1] > starts[0] / 2:
                raise RuntimeError(
                    f"the second start took {starts[1]:.0f} s, and the first took "
                    f"{starts[0]:.0f} s: a kept engine should be faster"
                )
        except (RuntimeError, FileNotFoundError) as error:
            print(f"| {name} | failed: {' '.join(str(error).split())[-300:]} | | | bad |")
            is_good = False
            continue
        close = share <= MOST_UNLIKE.get(name, 1e-2)
        is_good = is_good and close
        told = "good" if close else "bad"
        print(f"| {name} | {starts[0]:.1f} | {starts[1]:.1f} | {share:.2e} | {told} |", flush=True)
    head = "| engine | batch | workers | images per second | MB |"
    print(f"\n{head}\n| --- | --- | --- | --- | --- |")
    hundred, thousand = many(images, folder / "100", 100), many(images, folder / "1000", 1000)
    for name in ("GPU", "TensorRT fp16"):
        for batch_size, workers in ((1, 1), (4, 1), (8, 1), (4, 2), (4, 4)):
            flags = (*ENGINES[name], "--batch_size", batch_size, "--num_workers", workers)
            try:
                # The first run isn't measured, because TensorRT builds its engine there.
                seconds(on_gpu(model, hundred, folder / "masks", *flags))
                few, _ = timed(on_gpu(model, hundred, folder / "masks", *flags))
                all_, peak = timed(on_gpu(model, thousand, folder / "masks", *flags))
            except RuntimeError as error:
                print(f"| {name} | {batch_size} | {workers} | failed: {str(error)[-200:]} | |")
                is_good = False
                continue
            is_good = is_good and all_ > few
            rate = 900 / (all_ - few) if all_ > few else float("nan")
            print(f"| {name} | {batch_size} | {workers} | {rate:.0f} | {peak} |", flush=True)
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--made", type=Path, help="the folder that make.py made")
    made = parser.parse_args().made
    try:
        build = find_paddle()
        if not build.has_gpu:
            raise ConfigError("the installed Paddle is a CPU build: install requirements/gpu.txt")
        check_gpu(load_core(build, use_gpu=True), build, use_trt=False)
        if shutil.which("nvidia-smi") is None:
            raise ConfigError("nvidia-smi was not found: install NVIDIA's driver")
    except ConfigError as error:
        print(f"the GPU can't be measured: {error}", file=sys.stderr)
        return 2
    started = time.monotonic()
    model, images = ROOT / "demo" / "model", ROOT / "demo" / "images"
    if made:
        model, images = made / "ppliteseg", few_of(made / "streets", 24)
    with tempfile.TemporaryDirectory() as folder:
        is_good = measure(model, images, Path(folder))
    print(f"\nPaddle {build}, {time.monotonic() - started:.0f} s: {'good' if is_good else 'BAD'}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
