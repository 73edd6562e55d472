#!/usr/bin/env python3
"""Measures the gallery of 10,000 images: time, memory, sizes, and the browser's first paint.

The demo's scripts draw the images of 240x160 and their label maps, and the demo's model makes the
masks. The browser is Debian's Chromium; its times are medians of nine starts.
"""

import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from bench.memory import watch
from bench.pairs import ROOT, options
from demo.scenes import draw_scene

COUNT, DIFFERENT = 10_000, 100
KINDS = ("images", "labels")
STARTS = 9
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-background-networking".split()


def made_run(folder: Path) -> None:
    """Makes images, label maps and a run in the folder, unless they exist."""
    if (folder / "report.jsonl").exists():
        return
    for name in KINDS:
        (folder / name).mkdir(parents=True)
    for number in range(DIFFERENT):
        for name, picture in zip(KINDS, draw_scene(1, number, 240, 160), strict=True):
            cv2.imwrite(str(folder / name / f"{number:05}.png"), picture)
    for number, name in itertools.product(range(DIFFERENT, COUNT), KINDS):
        there = folder / name / f"{number % DIFFERENT:05}.png"
        os.link(there, folder / name / f"{number:05}.png")
    command = [sys.executable, ROOT / "infer.py", "--config", ROOT / "demo/model/deploy.yaml"]
    command += ["--image_path", "images", "--label_path", "labels", "--report", "report.jsonl"]
    subprocess.run([*command, "--device", "cpu", "--quiet"], cwd=folder, check=True)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def browser_times(page: Path) -> tuple[float, float]:
    """Returns the seconds from a start of loading to the first paint, and to the first images."""
    from selenium import webdriver

    driver_path = shutil.which("chromedriver")
    paints, images = [], []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as profile:
            chrome = webdriver.ChromeOptions()
            chrome.binary_location = shutil.which("chromium")
            for flag in [*FLAGS, f"--user-data-dir={profile}", "--window-size=1300,900"]:
                chrome.add_argument(flag)
            browser = webdriver.Chrome(chrome, webdriver.ChromeService(driver_path))
            browser.get(page.as_uri())
            while not browser.execute_script(
                "return [...document.querySelectorAll('#grid img')].slice(0, 12)"
                ".every((image) => image.complete && image.naturalWidth)"
            ):
                time.sleep(0.02)
            images.append(browser.execute_script("return performance.now()") / 1000)
            paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(browser.execute_script(paint) / 1000)
            browser.quit()
    return statistics.median(paints), statistics.median(images)


def main() -> None:
    folder = options().made / "gallery"
    made_run(folder)
    command = [sys.executable, "-m", "paddleseg_infer.gallery", folder / "report.jsonl"]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    taken = time.perf_counter() - started
    peak = max(memory for memory, _ in watch(command, 0.2))
    gallery = folder / "output" / "gallery"
    page = gallery / "index.html"
    print(f"\n### The gallery of {COUNT} images of 240x160, with label maps\n")
    print("| | |\n| --- | --- |")
    print(f"| time | {taken:.0f} s |")
    print(f"| peak memory of all processes | {peak:.0f} MB |")
    print(f"| size of the page | {page.stat().st_size / 1e6:.1f} MB |")
    print(f"| size of all files | {size_of(gallery) / 1e6:.0f} MB |")
    if shutil.which("chromium") and shutil.which("chromedriver"):
        paint, images = browser_times(page)
        print(f"| to the first paint | {paint:.2f} s |")
        print(f"| to the first images | {images:.2f} s |")


if __name__ == "__main__":
    main()
