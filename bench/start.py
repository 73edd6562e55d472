#!/usr/bin/env python3
"""Measures the whole process on one photo, --help, and the second start of a large network."""

import functools
import os
import shutil
import sys
import tempfile

from bench.pairs import (
    ITS_THREADS,
    PEERS,
    PROCESSORS,
    ROOT,
    options,
    ours,
    paddleseg,
    scratch,
    seconds,
    table,
)


def main() -> None:
    given = options()
    model, photo = given.made / "ppliteseg", given.made / "photo"
    one = functools.partial(seconds, ours(model, photo))
    rows = [
        *(
            (
                "this program",
                one,
                f"PaddleSeg's loop, {threads} threads",
                functools.partial(seconds, paddleseg(model, photo, 1, threads)),
            )
            for threads in (ITS_THREADS, PROCESSORS)
        ),
        (
            "this program",
            one,
            "this program, PADDLESEG_INFER_FULL_IMPORT=1",
            lambda: seconds(["env", "PADDLESEG_INFER_FULL_IMPORT=1", *ours(model, photo)]),
        ),
    ]
    if given.paddlex:
        script = [given.paddlex, PEERS / "paddlex_loop.py", model / "deploy.yaml", photo, scratch()]
        rows.append(("this program", one, "PaddleX", lambda: seconds(script)))
    shows_help = [sys.executable, ROOT / "infer.py", "--help"]
    rows.append(("--help", lambda: seconds(shows_help), "this program, the photo", one))
    table("One 800x534 photo with PP-LiteSeg, the whole process", "s", rows, given.pairs)

    large = given.made / "ocrnet"
    with tempfile.TemporaryDirectory() as kept:
        cache = os.path.join(kept, "cache")

        def first() -> float:
            shutil.rmtree(cache, ignore_errors=True)
            return seconds(ours(large, photo, "--cache_dir", cache))

        def second() -> float:
            if not os.path.isdir(cache):
                first()
            return seconds(ours(large, photo, "--cache_dir", cache))

        rows = [("second start", second, "first start", first)]
        table("The same photo with OCRNet-HRNet-W18", "s", rows, min(3, given.pairs))


if __name__ == "__main__":
    main()
