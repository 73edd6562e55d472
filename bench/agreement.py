#!/usr/bin/env python3
"""Measures how many labels of the engines are equal, and how sure the network is of the others.

python -m bench.agreement [--images FOLDER] [--labels FOLDER] [--most N] [DEPLOY.YAML]

The default is the demo's model on the demo's images and label maps. The other engines and bf16 are
compared with oneDNN, which is the default engine. So is int8, if --quantised names the deploy.yaml
of the same model after bench/quantise.py. The margin of a pixel is the difference between
its two highest scores; these are computed by the same network without its argmax. Two columns show
the margins of the pixels whose labels differ (median and maximum), and the usual margin (the median
of the images' medians). They are empty for a json graph. The mean IoU is that of --label_path.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.load import load
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import SegmentationError
from paddleseg_infer.evaluation import judge_for
from paddleseg_infer.label_maps import in_memory
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.processor import missing_for_bf16
from paddleseg_infer.outcomes import Job
from paddleseg_infer.postprocess import label_map, output_kind, restore
from paddleseg_infer.preprocess import prepare, read_image
from paddleseg_infer.runs.evaluation import Evaluation
from paddleseg_infer.runs.jobs import find_jobs
from paddleseg_infer.runs.labels import with_labels
from paddleseg_infer.settings import EvaluationOptions
from paddleseg_infer.transforms.frame import Resized

ROOT = Path(__file__).resolve().parent.parent

ENGINES = {  # OpenVINO is first, because it must be loaded before the rest of Paddle
    "OpenVINO": {"enable_openvino": True},
    "bf16": {"precision": "bf16"},
    "oneDNN": {},
    "plain": {"enable_mkldnn": False},
}
OF_JSON = ("bf16", "oneDNN", "plain")


def engine_of(config_path: Path, **how):
    build = find_paddle()
    options = resolved(EngineOptions("cpu", **how), build)
    return load(Setup(load_deploy_config(config_path), options, build))


def engines_of(config_path: Path, quantised: Path | None, is_pir: bool) -> dict:
    names = [name for name in ENGINES if not is_pir or name in OF_JSON]
    if missing := missing_for_bf16():
        print(f"bf16: {missing}", file=sys.stderr)
        names.remove("bf16")
    engines = {}
    tried = {name: (config_path, ENGINES[name]) for name in names}
    if quantised:
        tried["int8"] = quantised, {"precision": "int8"}
    for name, (path, how) in tried.items():
        try:
            engines[name] = engine_of(path, **how)
        except SegmentationError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return engines


def labels(output: np.ndarray) -> np.ndarray:
    return label_map(output[0], output_kind(output))


def twin_of(config_path: Path, folder: str):
    """Returns an engine of the same network without its argmax."""
    script = [sys.executable, ROOT / "bench" / "peers" / "logits_twin.py", config_path, folder]
    subprocess.run([str(word) for word in script], check=True, capture_output=True)
    return engine_of(Path(folder) / "deploy.yaml")


def margins(scores: np.ndarray) -> np.ndarray:
    """Returns the highest score minus the second highest of each pixel, [H, W].

    For one channel, it is the distance from 0.5, above which a pixel is class 1.
    """
    if len(scores) == 1:
        return abs(scores[0] - 0.5)
    best = np.partition(scores, len(scores) - 2, axis=0)
    return best[-1] - best[-2]


def compare(
    config_path: Path, quantised: Path | None, jobs: list[Job], evaluation: EvaluationOptions
) -> None:
    """Prints the rows of one model. If the jobs have label maps, the rows have the mean IoU."""
    deploy = load_deploy_config(config_path)
    judge = judge_for(deploy, evaluation)
    with tempfile.TemporaryDirectory() as folder:
        engines = engines_of(config_path, quantised, deploy.is_pir)
        twin = None if deploy.is_pir else twin_of(config_path, folder)
    pixels, done, everywhere = 0, 0, []
    unlike = {name: [] for name in engines}  # margins of the pixels that differ from oneDNN
    evaluations = {name: Evaluation() for name in engines}
    for job in jobs:
        try:
            image_bgr = read_image(job.image)
            frame = prepare(image_bgr, deploy.transforms)
            tensor = frame.tensor()[None]
            outputs = {name: labels(engine(tensor)[0]) for name, engine in engines.items()}
        except SegmentationError as error:
            print(f"{job.image}: {error}", file=sys.stderr)
            continue
        margin = margins(twin(tensor)[0][0]) if twin else np.full(outputs["oneDNN"].shape, np.nan)
        for name, got in outputs.items():
            unlike[name].append(margin[got != outputs["oneDNN"]])
            mask = restore(got, [*frame.undo, Resized(*frame.size)])
            compared = judge.pixels(job, in_memory(mask))
            if compared.areas:
                evaluations[name].add(compared.areas)
            elif compared.label_error:
                sys.exit(f"{job.image}: {job.label}: {compared.label_error}")
        pixels, done = pixels + margin.size, done + 1
        everywhere.append(float(np.median(margin)))
    if not done:
        sys.exit("no image could be compared")
    if "OpenVINO" in engines and not engines["OpenVINO"].is_used:
        print(f"{config_path}: OpenVINO can't run this model", file=sys.stderr)
        del engines["OpenVINO"]
    for name in engines:
        at = np.concatenate(unlike[name])
        there = f"{np.median(at):.2g}, at most {at.max():.2g}" if at.size and twin else "-"
        usual = f"{np.median(everywhere):.2g}" if twin else "-"
        mean_iou = evaluations[name].as_dict().get("mean_iou")
        iou = "-" if mean_iou is None else f"{mean_iou:.4f}"
        print(
            f"| {config_path.parent.name} | {done} | {pixels:,} | {name} | {at.size} "
            f"| {1 - at.size / pixels:.5%} | {there} | {usual} | {iou} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    demo = ROOT / "demo"
    parser.add_argument("model", nargs="?", type=Path, default=demo / "model" / "deploy.yaml")
    parser.add_argument("--quantised", type=Path, help="the deploy.yaml of the quantised model")
    parser.add_argument("--images", type=Path, default=demo / "images")
    parser.add_argument("--labels", type=Path, help="label maps (PNG) with the images' names")
    parser.add_argument("--ignore_index", type=int, default=255, help="the label to leave out")
    parser.add_argument("--most", type=int, default=1000, help="the maximum number of images")
    given = parser.parse_args()
    if given.images == demo / "images":
        given.labels = given.labels or demo / "labels"

    label_path = str(given.labels) if given.labels else None
    jobs = find_jobs(str(given.images), tempfile.gettempdir()).jobs[: given.most]
    if label_path:
        jobs = with_labels(jobs, label_path, tempfile.gettempdir(), ())
    heads = ["model", "images", "pixels", "engine", "labels that differ from oneDNN's"]
    heads += ["equal labels", "margin where labels differ", "usual margin", "mean IoU"]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    evaluation = EvaluationOptions(label_path, given.ignore_index)
    compare(given.model, given.quantised, jobs, evaluation)


if __name__ == "__main__":
    main()
