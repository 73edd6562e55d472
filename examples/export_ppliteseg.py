#!/usr/bin/env python3
"""Exports a PP-LiteSeg with the `paddleseg` wheel alone, as PaddleSeg's tools/export.py does.

    python examples/export_ppliteseg.py --save_dir export --weights model.pdparams --classes 19

Without --weights the network keeps random ones, and its masks mean nothing: enough to try the way.
"""

import argparse
from pathlib import Path

import paddle
import yaml
from paddleseg.deploy.export import WrappedModel
from paddleseg.models import STDC1, PPLiteSeg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save_dir", type=Path, default=Path("export"), help="default: export")
    parser.add_argument("--weights", help="a model.pdparams of the training (default: random)")
    parser.add_argument("--classes", type=int, default=19, help="default: 19, Cityscapes'")
    options = parser.parse_args()

    network = PPLiteSeg(num_classes=options.classes, backbone=STDC1())
    if options.weights:
        network.set_state_dict(paddle.load(options.weights))
    network.eval()
    any_size = paddle.static.InputSpec([None, 3, None, None], "float32", "x")
    static = paddle.jit.to_static(WrappedModel(network, "argmax"), input_spec=[any_size])
    paddle.jit.save(static, str(options.save_dir / "model"))

    deploy = {
        "model": "model.pdmodel",
        "params": "model.pdiparams",
        "transforms": [{"type": "Normalize"}],
        "input_shape": [-1, 3, -1, -1],
        "output_op": "argmax",
        "output_dtype": "int32",
    }
    (options.save_dir / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": deploy}))
    print(f"exported to {options.save_dir / 'deploy.yaml'}")


if __name__ == "__main__":
    main()
