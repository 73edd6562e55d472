#!/usr/bin/env python3
"""Compares oneDNN and OpenVINO on several models: bare engines, whole runs and first starts."""

from functools import partial

from bench.pairs import bare, options, ours, seconds, steady, table

MODELS = ("ppliteseg", "humanseg_lite", "bisenetv2", "segformer_b0", "ocrnet", "unet")


def main() -> None:
    given = options()
    streets, small, photo = (given.made / name for name in ("streets", "small", "photo"))
    rows = []
    for name in MODELS:
        runs = {"humanseg_lite": 400, "ocrnet": 8, "unet": 4, "segformer_b0": 16}.get(name, 24)
        onednn, openvino = (
            partial(bare, kind, given.made / name, streets, 1, runs)
            for kind in ("onednn", "openvino")
        )
        rows.append((f"{name}, OpenVINO", openvino, "oneDNN", onednn))
    net, tiny = given.made / "ppliteseg", given.made / "humanseg_lite"
    inside, package = (partial(bare, kind, net, streets, 1) for kind in ("openvino", "package"))
    rows.append(("ppliteseg, OpenVINO in Paddle", inside, "the openvino package", package))
    table("The bare engines on 1024x512 (PP-HumanSeg-Lite: 192x192)", "ms", rows, given.pairs)

    def run(model, images, *flags):
        return partial(steady, lambda folder: ours(model, folder, *flags), images)

    fast = "--enable_openvino"
    rows = [
        ("ppliteseg, 1024x512, " + fast, run(net, streets, fast), "without", run(net, streets)),
        ("humanseg_lite, 256x256, " + fast, run(tiny, small, fast), "without", run(tiny, small)),
        (
            f"ppliteseg, {fast} --num_workers 2",
            run(net, streets, fast, "--num_workers", 2),
            "1 worker",
            run(net, streets, fast),
        ),
    ]
    table("Time per image after the start", "ms per image", rows, given.pairs)

    large = given.made / "ocrnet"
    rows = [
        (
            f"ocrnet, {fast}",
            partial(seconds, ours(large, photo, fast)),
            "without, no cache",
            partial(seconds, ours(large, photo, "--cache_dir", "")),
        ),
        (
            f"ppliteseg, {fast}",
            partial(seconds, ours(net, photo, fast)),
            "without",
            partial(seconds, ours(net, photo)),
        ),
    ]
    table("One photo, the whole process", "s", rows, min(3, given.pairs))


if __name__ == "__main__":
    main()
