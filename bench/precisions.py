#!/usr/bin/env python3
"""Measures bf16 and int8 on a CPU, as time per image after the start.

Compares bf16 with PaddleSeg's loop, one worker with the bare engine, and the quantised models,
which bench/quantise.py makes here, with their own fp32.
"""

import sys
from functools import partial
from pathlib import Path

from bench.pairs import bare, few_of, options, ours, paddleseg, quantised, steady, table
from paddleseg_infer.machine.processor import missing_for_bf16

# For each model: the folder of its images, and how many of them are run
MODELS = {
    "ppliteseg": ("streets", 50),
    "bisenetv2": ("streets", 50),
    "deeplabv3p": ("squares", 15),
    "ocrnet": ("squares", 15),
    "segformer_b0": ("squares", 40),
}
QUANTISED = {"ppliteseg": 40, "bisenetv2": 40, "humanseg_lite": 400, "segformer_b0": 16}
TWO = ("--num_workers", 2)


def in_bf16(made: Path):
    def run(name, *flags):
        folder, count = MODELS[name]
        images = few_of(made / folder, count)
        return partial(
            steady, lambda some: ours(made / name, some, "--precision", "bf16", *flags), images
        )

    def loop(name):
        folder, count = MODELS[name]
        return partial(steady, partial(paddleseg, made / name), few_of(made / folder, count))

    for name, (folder, _) in MODELS.items():
        yield f"{name}, {folder}, bf16, 2 workers", run(name, *TWO), "PaddleSeg's loop", loop(name)
    net = made / "ppliteseg"
    engine = partial(bare, "bf16", net, made / "streets", 1, 50)
    yield "ppliteseg, bf16, 1 worker", run("ppliteseg"), "the bare engine in bf16", engine


def in_int8(made: Path):
    for name, runs in QUANTISED.items():
        int8 = partial(bare, "int8", quantised(made, name), made / "streets", 1, runs)
        fp32 = partial(bare, "onednn", made / name, made / "streets", 1, runs)
        yield f"{name}, int8, the bare engine", int8, "the model before, fp32", fp32


def main() -> None:
    given = options()
    if missing := missing_for_bf16():
        print(f"bf16: {missing}", file=sys.stderr)
    else:
        title = "bf16, time per image after the start (streets: 1024x512, squares: 512x512)"
        table(title, "ms per image", in_bf16(given.made), given.pairs)
    table("int8, on 1024x512", "ms per image", in_int8(given.made), given.pairs)


if __name__ == "__main__":
    main()
