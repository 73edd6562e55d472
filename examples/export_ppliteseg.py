#!/usr/bin/env python3
"""Exports a PP-LiteSeg as PaddleSeg's tools/export.py does, with only the `paddleseg` package.

    python examples/export_ppliteseg.py --save_dir export --weights model.pdparams --classes 19

Without --weights, the weights are random and the masks mean nothing. This is enough to try the
export.
"""

import argparse
import warnings
from pathlib import Path

warnings.simplefilter("ignore")  # Paddle warns about compilers and its own deprecated calls

import paddle  # noqa: E402
import yaml  # noqa: E402
from paddleseg.deploy.export import WrappedModel  # noqa: E402
from paddleseg.models import STDC1, PPLiteSeg  # noqa: E402


def load_weights(network: paddle.nn.Layer, path: str) -> None:
    """Loads the weights in `path`. Ends the program if they don't fit the network.

    Paddle itself would leave random weights in the layers that don't fit.
    """
    if not Path(path).is_file():
        raise SystemExit(f"error: --weights {path}: the file does not exist")
    weights = paddle.load(path)
    for name, value in network.state_dict().items():
        if name not in weights or list(weights[name].shape) != list(value.shape):
            raise SystemExit(
                f"error: --weights {path}: the weights of {name} don't fit the network: the "
                "model must be a PP-LiteSeg with STDC1, and --classes must be its number of classes"
            )
    network.set_state_dict(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--save_dir", type=Path, default=Path("export"), help="output folder (default: export)")
    add("--weights", help="the file model.pdparams of your training (default: random weights)")
    add("--classes", type=int, default=19, help="number of classes (default: 19, as in Cityscapes)")
    options = parser.parse_args()

    network = PPLiteSeg(num_classes=options.classes, backbone=STDC1())
    if options.weights:
        load_weights(network, options.weights)
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
