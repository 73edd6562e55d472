#!/usr/bin/env python3
"""Measures the peak memory of runs, and memory and file handles during a run with many sizes.

Peak memory is that of all processes of a run together. The last table is for 2,000 images of
random sizes: it has a line with a bar for every hundred images.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

from bench.pairs import few_of, options, ours, paddleseg, quantised
from paddleseg_infer.machine.processor import missing_for_bf16

SIZES = 2000


def watch(command, every: float = 0.02):
    """Runs a command, and yields (megabytes, file handles) of its processes until it ends.

    Memory that several processes share is counted once (PSS).
    """
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    top = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [top, *top.children(recursive=True)]
            memory = sum(member.memory_full_info().pss for member in family) / 1e6
            yield memory, sum(member.num_fds() for member in family)
        except psutil.Error:
            continue
        time.sleep(every)
    assert process.returncode == 0, command


def main() -> None:
    given = options()
    print("\n### Peak memory in MB of all processes of a run, 24 images of 1024x512\n")
    columns = ["this program", "PaddleSeg's loop"]
    columns += [f"{column}, batch 4" for column in columns]
    print("| model | " + " | ".join(columns) + " |")
    print("| --- | --- | --- | --- | --- |")
    few = few_of(given.made / "streets", 24)
    for name in ("ppliteseg", "ppliteseg_logits", "humanseg_lite"):
        model = given.made / name
        commands = [ours(model, few), paddleseg(model, few)]
        commands += [ours(model, few, "--batch_size", 4), paddleseg(model, few, 4)]
        peaks = [max(memory for memory, _ in watch(command)) for command in commands]
        print(f"| {name} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + " |", flush=True)

    precisions = {"fp32": (), "fp32, OpenVINO": ("--enable_openvino",)}
    precisions |= {} if missing_for_bf16() else {"bf16": ("--precision", "bf16")}
    precisions["int8"] = ("--precision", "int8")
    print("\n### The same by precision, one worker and two\n")
    print("| model | workers | " + " | ".join(precisions) + " |")
    print("| --- " * (2 + len(precisions)) + "|")
    for name in ("ppliteseg", "bisenetv2"):
        for workers in (1, 2):
            peaks = []
            for precision, flags in precisions.items():
                is_int8 = precision == "int8"
                model = quantised(given.made, name) if is_int8 else given.made / name
                command = ours(model, few, *flags, "--num_workers", workers)
                peaks.append(max(memory for memory, _ in watch(command)))
            row = " | ".join(f"{peak:.0f}" for peak in peaks)
            print(f"| {name} | {workers} | {row} |", flush=True)

    print(f"\n### {SIZES} images of random sizes with PP-LiteSeg\n")
    print("| images done | memory, MB | open file handles |")
    print("| --- | --- | --- |", flush=True)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        images, output = Path(folder) / "images", Path(folder) / "masks"
        images.mkdir()
        for number in range(SIZES):
            height, width = random.integers(32, 400, 2)
            image = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
            cv2.imwrite(str(images / f"{number:04}.png"), cv2.resize(image, (width, height)))
        for precision, flags in precisions.items():
            print(f"| {precision} | | |")
            told = 0
            shutil.rmtree(output, ignore_errors=True)
            net = given.made / "ppliteseg"
            model = quantised(given.made, "ppliteseg") if precision == "int8" else net
            command = ours(model, images, *flags)
            command[command.index("--save_dir") + 1] = output
            for memory, handles in watch(command, 0.1):
                done = len(os.listdir(output)) if output.exists() else 0
                if done // 100 > told:
                    told = done // 100
                    bar = "#" * int(memory // 10)
                    print(f"| {done} | {memory:.0f} | {handles} | {bar}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
