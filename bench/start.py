#!/usr/bin/env python3
"""Measures the whole process on one photo, --help, and second starts.

The bare engine's process loads Paddle's native module, makes a predictor and runs it once.
"""

import os
import shutil
import sys
import tempfile
from functools import partial

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
from paddleseg_infer.machine.processor import missing_for_bf16


def main() -> None:
    given = options()
    model, photo = given.made / "ppliteseg", given.made / "photo"
    one = partial(seconds, ours(model, photo))

    def bare_start(precision: str) -> float:
        return seconds([sys.executable, PEERS / "bare_start.py", model, precision])

    rows = [
        *(
            (
                "this program",
                one,
                f"PaddleSeg's loop, {threads} threads",
                partial(seconds, paddleseg(model, photo, 1, threads)),
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
    rows.append(("this program", one, "the bare engine's process", partial(bare_start, "onednn")))
    if not missing_for_bf16():
        in_bf16 = partial(seconds, ours(model, photo, "--precision", "bf16"))
        rows.append(("--precision bf16", in_bf16, "this program", one))
        rows.append(("--precision bf16", in_bf16, "the bare engine's", partial(bare_start, "bf16")))
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
