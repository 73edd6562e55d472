#!/usr/bin/env python3
"""Measures the whole process on a folder of 24 images, compared with PaddleSeg's loop."""

from functools import partial

from bench.pairs import ITS_THREADS, PROCESSORS, few_of, options, ours, paddleseg, seconds, table


def main() -> None:
    given = options()
    few, large = few_of(given.made / "streets", 24), given.made / "large"
    net, logits, tiny = (
        given.made / name for name in ("ppliteseg", "ppliteseg_logits", "humanseg_lite")
    )
    rows = [
        (
            f"this program, {name}, {flags or 'default flags'}",
            partial(seconds, ours(model, images, *flags.split())),
            f"PaddleSeg's loop, batch {batch}, {threads} threads",
            partial(seconds, paddleseg(model, images, batch, threads)),
        )
        for name, model, images, flags, batch, threads in [
            ("PP-LiteSeg", net, few, "", 1, ITS_THREADS),
            ("PP-LiteSeg", net, few, "", 1, PROCESSORS),
            ("PP-LiteSeg", net, few, "--num_workers 2", 1, PROCESSORS),
            ("logits", logits, few, "--batch_size 4", 4, ITS_THREADS),
            ("logits", logits, few, "--batch_size 4", 4, PROCESSORS),
            ("PP-HumanSeg-Lite, 12 megapixels", tiny, large, "", 1, ITS_THREADS),
            ("PP-HumanSeg-Lite, 12 megapixels", tiny, large, "", 1, PROCESSORS),
            ("PP-HumanSeg-Lite, 12 megapixels", tiny, large, "--num_workers 2", 1, PROCESSORS),
        ]
    ]
    table("24 images of 1024x512, or of 12 megapixels, the whole process", "s", rows, given.pairs)


if __name__ == "__main__":
    main()
