#!/usr/bin/env python3
"""Measures how many labels of the engines are equal, and how sure the network is of the others.

python -m bench.agreement [--images FOLDER] [--most N] [DEPLOY.YAML ...]

The models must be pdmodels whose output is labels or scores. The default is the demo's model on the
demo's images. Plain Paddle and OpenVINO are compared with oneDNN, which is the default engine. The
margin of a pixel is the difference between its two highest scores; these are computed by the same
network without its argmax. The last two columns show the margins of the pixels whose labels differ
(median and maximum), and the usual margin (the median of the images' medians).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engines.load import load
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import SegmentationError
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.postprocess import label_map, output_kind
from paddleseg_infer.preprocess import prepare, read_image
from paddleseg_infer.runs.jobs import find_jobs
from paddleseg_infer.settings import EngineOptions

ROOT = Path(__file__).resolve().parent.parent

ENGINES = {
    "oneDNN": {},
    "plain": {"enable_mkldnn": False},
    "OpenVINO": {"enable_openvino": True},
}


def engine_of(config_path: Path, **how):
    build = find_paddle()
    options = resolved(EngineOptions("cpu", **how), build)
    return load(Setup(load_deploy_config(config_path), options, build))


def labels(output: np.ndarray) -> np.ndarray:
    return label_map(output[0], output_kind(output))


def margins(scores: np.ndarray) -> np.ndarray:
    """Returns the highest score minus the second highest of each pixel, [H, W].

    For one channel, it is the distance from 0.5, above which a pixel is class 1.
    """
    if len(scores) == 1:
        return abs(scores[0] - 0.5)
    best = np.partition(scores, len(scores) - 2, axis=0)
    return best[-1] - best[-2]


def compare(config_path: Path, images: list[str]) -> None:
    deploy = load_deploy_config(config_path)
    with tempfile.TemporaryDirectory() as folder:
        twin = [sys.executable, ROOT / "bench" / "peers" / "logits_twin.py", config_path, folder]
        subprocess.run([str(word) for word in twin], check=True, capture_output=True)
        # OpenVINO is first, because it must be loaded before the rest of Paddle.
        engines = {name: engine_of(config_path, **ENGINES[name]) for name in reversed(ENGINES)}
        twin_of = engine_of(Path(folder) / "deploy.yaml")
    pixels, done, everywhere = 0, 0, []
    unlike = {name: [] for name in ENGINES}  # margins of the pixels that differ from oneDNN
    for path in images:
        try:
            tensor = prepare(read_image(path), deploy.transforms).tensor()[None]
            outputs = {name: labels(engine(tensor)) for name, engine in engines.items()}
        except SegmentationError as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        margin = margins(twin_of(tensor)[0])
        for name, got in outputs.items():
            unlike[name].append(margin[got != outputs["oneDNN"]])
        pixels, done = pixels + margin.size, done + 1
        everywhere.append(float(np.median(margin)))
    if not done:
        sys.exit("no image could be compared")
    if not engines["OpenVINO"].is_openvino:
        print(f"{config_path}: OpenVINO can't run this model", file=sys.stderr)
        del engines["OpenVINO"]
    for name in engines.keys() - {"oneDNN"}:
        at = np.concatenate(unlike[name])
        there = f"{np.median(at):.2g}, at most {at.max():.2g}" if at.size else "-"
        print(
            f"| {config_path.parent.name} | {done} | {pixels:,} | {name} | {at.size} "
            f"| {1 - at.size / pixels:.7%} | {there} | {np.median(everywhere):.2g} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    demo = ROOT / "demo"
    parser.add_argument("models", nargs="*", type=Path, default=[demo / "model" / "deploy.yaml"])
    parser.add_argument("--images", type=Path, default=demo / "images")
    parser.add_argument("--most", type=int, default=1000, help="the maximum number of images")
    given = parser.parse_args()
    jobs = find_jobs(str(given.images), tempfile.gettempdir()).jobs
    heads = ["model", "images", "pixels", "engine", "labels that differ from oneDNN's"]
    heads += ["equal labels", "margin where labels differ", "usual margin"]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for config_path in given.models:
        compare(config_path, [job.image for job in jobs][: given.most])


if __name__ == "__main__":
    main()
