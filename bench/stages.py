#!/usr/bin/env python3
"""Measures the steps before and after the engine, each compared with other code.

The other code, PaddleSeg's for the transforms, has the same result.
"""

import io
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bench.pairs import options, table
from paddleseg_infer import postprocess
from paddleseg_infer.pictures.kinds import encode_mask
from paddleseg_infer.pictures.palettes import PADDLESEG
from paddleseg_infer.preprocess import prepare, read_image
from paddleseg_infer.transforms.paddleseg import make_transform
from tests import oracle

REPEATS = 20


def milliseconds(function) -> float:
    started = time.perf_counter()
    for _ in range(REPEATS):
        function()
    return (time.perf_counter() - started) / REPEATS * 1000


def png(labels: np.ndarray, **how: int) -> bytes:
    mask, buffer = Image.fromarray(labels), io.BytesIO()
    mask.putpalette(PADDLESEG)
    mask.save(buffer, "PNG", **how)
    return buffer.getvalue()


def main() -> None:
    given = options()
    street = cv2.resize(read_image(str(given.made / "streets" / "000.jpg")), (2048, 1024))
    large = read_image(str(given.made / "large" / "000.jpg"))
    rows = []
    for name, image, entries in [
        ("Normalize, 2048x1024", street, [{"type": "Normalize"}]),
        (
            "Resize to 192x192, Normalize, 12 megapixels",
            large,
            [{"type": "Resize", "target_size": [192, 192]}, {"type": "Normalize"}],
        ),
    ]:
        transforms = [
            make_transform(e["type"], {k: v for k, v in e.items() if k != "type"}) for e in entries
        ]
        mine = partial(milliseconds, lambda i=image, t=transforms: prepare(i, t).tensor())
        theirs = partial(milliseconds, lambda i=image, e=entries: oracle.transformed(i, e))
        rows.append((name, mine, "PaddleSeg's transforms", theirs))

    scores = np.random.default_rng(0).standard_normal((19, 1024, 2048), np.float32)
    assert np.array_equal(postprocess.label_map(scores, "scores"), scores.argmax(0))
    argmax = partial(milliseconds, lambda: postprocess.label_map(scores, "scores"))
    rows.append(
        (
            "argmax, 19x1024x2048",
            argmax,
            "np.argmax",
            partial(milliseconds, lambda: scores.argmax(0)),
        )
    )
    small = Path(__file__).resolve().parent.parent / "demo" / "labels"
    labels = np.array(Image.open(sorted(small.iterdir())[0]))
    labels = cv2.resize(labels, (2048, 1024), interpolation=cv2.INTER_NEAREST)
    runs = partial(milliseconds, lambda: encode_mask(labels))
    size = len(encode_mask(labels)) // 1000
    for level in (1, 6):
        other = f"zlib level {level}: {len(png(labels, compress_level=level)) // 1000} kB"
        way = partial(milliseconds, lambda level=level: png(labels, compress_level=level))
        rows.append((f"palette PNG, 2048x1024, zlib's Z_RLE: {size} kB", runs, other, way))
    table("The stages before and after the engine", "ms", rows, given.pairs)


if __name__ == "__main__":
    main()
