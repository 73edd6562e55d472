#!/usr/bin/env python3
"""Measures the four figures at the top of the README: start, folder, bf16 and memory."""

from functools import partial

from bench.memory import watch
from bench.pairs import (
    ITS_THREADS,
    PROCESSORS,
    few_of,
    options,
    ours,
    paddleseg,
    seconds,
    steady,
    table,
)
from paddleseg_infer.machine.processor import missing_for_bf16

TWO = ("--num_workers", 2)


def main() -> None:
    given = options()
    net = given.made / "ppliteseg"
    few, more = few_of(given.made / "streets", 24), few_of(given.made / "streets", 50)
    loop = partial(paddleseg, net)
    rows = [
        (
            "one photo, 800x534",
            partial(seconds, ours(net, given.made / "photo")),
            f"PaddleSeg's loop, {ITS_THREADS} threads",
            partial(seconds, loop(given.made / "photo", 1, ITS_THREADS)),
        ),
        (
            "24 images of 1024x512, 2 workers",
            partial(seconds, ours(net, few, *TWO)),
            f"PaddleSeg's loop, {PROCESSORS} threads",
            partial(seconds, loop(few)),
        ),
    ]
    table("PP-LiteSeg, the whole process", "s", rows, given.pairs)
    if not missing_for_bf16():
        in_bf16 = partial(steady, lambda some: ours(net, some, "--precision", "bf16", *TWO), more)
        row = ("bf16, 2 workers", in_bf16, "PaddleSeg's loop", partial(steady, loop, more))
        table("PP-LiteSeg, 1024x512, after the start", "ms per image", [row], given.pairs)
    peaks = [
        partial(lambda command: max(memory for memory, _ in watch(command)), command)
        for command in (ours(net, few), loop(few))
    ]
    row = ("1 worker", peaks[0], "PaddleSeg's loop", peaks[1])
    table("PP-LiteSeg, 24 images of 1024x512, peak memory", "MB", [row], given.pairs)


if __name__ == "__main__":
    main()
