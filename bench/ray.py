#!/usr/bin/env python3
"""Measures Ray's own share of a run's time: `--ray local` against local workers.

The model and the scenes are the demo's; the 2,000 images of 240x160 are made in the folder --made.
"""

import os
from functools import partial
from pathlib import Path

import cv2

from bench.pairs import ROOT, options, ours, seconds, table
from demo.scenes import draw_scene

COUNT, DIFFERENT = 2000, 40


def small_images(made: Path) -> Path:
    """Returns a folder of COUNT images, DIFFERENT of which are files of their own."""
    folder = made / "small"
    if not folder.exists():
        folder.mkdir(parents=True)
        for number in range(DIFFERENT):
            cv2.imwrite(str(folder / f"{number}.png"), draw_scene(1, number, 240, 160)[0])
        for number in range(DIFFERENT, COUNT):
            os.link(folder / f"{number % DIFFERENT}.png", folder / f"{number}.png")
    return folder


def after_start(command: list[object]) -> float:
    """Returns the milliseconds per image of a run after its first fifth, by its masks' times."""
    seconds(command)
    masks = Path(str(command[command.index("--save_dir") + 1])).glob("*.png")
    times = sorted(mask.stat().st_mtime_ns for mask in masks)
    rest = times[len(times) // 5 :]
    return (rest[-1] - rest[0]) / (len(rest) - 1) / 1e6


def main() -> None:
    given = options()
    images = small_images(given.made)
    model = ROOT / "demo" / "model"
    two = ("--num_workers", 2, "--cpu_threads", 1, "--quiet")

    def with_ray(folder: Path) -> list[object]:
        return ours(model, folder, *two, "--ray", "local")

    def without(folder: Path) -> list[object]:
        return ours(model, folder, *two)

    names = "--ray local, two workers", "two local workers"
    for title, unit, measure in (
        (f"{COUNT} images, the whole process", "s", lambda command: seconds(command(images))),
        ("the same after the start", "ms per image", lambda command: after_start(command(images))),
    ):
        a, b = (partial(measure, command) for command in (with_ray, without))
        table(title, unit, [(names[0], a, names[1], b)], given.pairs)


if __name__ == "__main__":
    main()
