#!/usr/bin/env python3
"""Measures milliseconds per image of a run without its start.

Compares them with the bare engine, with PaddleSeg's loop, and two workers with one.
"""

from functools import partial

from bench.pairs import bare, options, ours, paddleseg, steady, table


def main() -> None:
    given = options()
    streets, large = given.made / "streets", given.made / "large"
    net, logits, tiny = (
        given.made / name for name in ("ppliteseg", "ppliteseg_logits", "humanseg_lite")
    )

    def run(model, flags="", images=streets):
        return partial(steady, lambda folder: ours(model, folder, *flags.split()), images)

    def loop(model, images=streets):
        return partial(steady, lambda folder: paddleseg(model, folder), images)

    def engine(model, batch_size=1):
        return partial(bare, "onednn", model, streets, batch_size)

    two = "--num_workers 2"
    rows = [
        ("PP-LiteSeg", run(net), "the bare engine", engine(net)),
        ("PP-LiteSeg, batch 4", run(net, "--batch_size 4"), "the same, batch 4", engine(net, 4)),
        ("logits", run(logits), "the bare engine", engine(logits)),
        ("PP-LiteSeg, 2 workers", run(net, two), "1 worker", run(net)),
        ("PP-HumanSeg-Lite, 2 workers", run(tiny, two), "1 worker", run(tiny)),
        ("PP-LiteSeg", run(net), "PaddleSeg's loop", loop(net)),
        ("logits", run(logits), "PaddleSeg's loop", loop(logits)),
        ("PP-HumanSeg-Lite", run(tiny), "PaddleSeg's loop", loop(tiny)),
        (
            "PP-HumanSeg-Lite, 12 megapixels",
            run(tiny, images=large),
            "PaddleSeg's loop",
            loop(tiny, large),
        ),
    ]
    title = "1024x512 (or 12 megapixels), time per image after the start"
    table(title, "ms per image", rows, given.pairs)


if __name__ == "__main__":
    main()
