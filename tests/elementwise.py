"""Compares oneDNN with plain Paddle on small networks, one for each elementwise operator and form.

python -m tests.elementwise [--operator divide ...] [--graph pdmodel|json] [--all] [--made FOLDER]

A form names the shapes of the two operands. `y` is the output of a convolution, [N, C, H, W], which
oneDNN keeps in a layout of its own. The operator is the last one, or a relu or a scale follows,
which Paddle joins with it. Prints a table of the rows that aren't right; with --all, of all rows.
The exit code is 1 if oneDNN is wrong or fails in a network for which the program uses it.

Paddle 3 can't export some of these networks as a pdmodel. --made keeps the networks in a folder,
and uses those that the folder already has. So run it with Paddle 2.6.2 first.
"""

import argparse
import logging
import operator
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import yaml

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.load import load
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import SegmentationError, gist
from paddleseg_infer.machine.paddle_build import find_paddle

ROOT = Path(__file__).resolve().parent.parent

CHANNELS, HEIGHT, WIDTH = 16, 12, 20  # 16: a whole block of oneDNN's layouts
# Paddle's names, and Python's operator where there is one, for which an operand may be a number.
OPERATORS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "maximum": None,
    "minimum": None,
    "pow": operator.pow,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "fmax": None,
    "fmin": None,
}
# Paddle runs these in oneDNN, and joins them with the next operator.
IN_ONEDNN = ("add", "subtract", "multiply", "divide")
BEHIND = ("", "relu", "scale")
# These operators jump. The last bit of the convolution decides where, so some pixels may differ.
JUMPING, MOST_JUMPS = {"floor_divide", "remainder"}, 0.01
TOLERANCE = 1e-3

PARAMETERS = {  # shapes of parameters; H and W need an input of fixed size
    "[1]": [1],
    "[W]": [WIDTH],
    "[C,1,1]": [CHANNELS, 1, 1],
    "[1,C,1,1]": [1, CHANNELS, 1, 1],
    "[1,1,H,W]": [1, 1, HEIGHT, WIDTH],
    "[1,C,H,W]": [1, CHANNELS, HEIGHT, WIDTH],
}
FIXED = ("[W]", "[1,1,H,W]", "[1,C,H,W]")
COMPUTED = ("[]", "[N,1,H,W]", "[N,C,1,1]", "same shape")
OTHERS = ("number", *PARAMETERS, *COMPUTED)
# What each network computes, its operator written as a comma.
FORMS = [form for other in OTHERS for form in (f"{other} , y", f"y , {other}")]
FORMS += ["[N,C,1,1] , [N,1,H,W]", "[N,1,H,W] , [N,C,1,1]"]


def export(folder, names):
    """Exports every network below `folder`: <operator>/<form>/<free or fixed>."""
    import paddle
    from paddle import nn

    class Network(nn.Layer):
        def __init__(self, name, operands, behind):
            super().__init__()
            self.name, self.operands, self.behind = name, operands, behind
            # All positive: powers and remainders are then defined.
            weights = nn.initializer.Uniform(0.01, 0.1)
            self.conv = nn.Conv2D(3, CHANNELS, 3, padding=1, weight_attr=weights)
            self.pool = nn.AdaptiveAvgPool2D(1)
            self.other = nn.Conv2D(3, CHANNELS, 3, padding=1, weight_attr=weights)
            for shape in (PARAMETERS[each] for each in operands if each in PARAMETERS):
                values = nn.initializer.Uniform(0.5, 2.5)
                self.parameter = self.create_parameter(shape, default_initializer=values)

        def operand(self, kind, x, y):
            if kind in PARAMETERS:
                return self.parameter
            return {
                "y": lambda: y,
                "number": lambda: 1.7,
                "[]": lambda: paddle.full([], 1.7),
                "[N,1,H,W]": lambda: paddle.mean(y, axis=1, keepdim=True),
                "[N,C,1,1]": lambda: self.pool(y),
                "same shape": lambda: self.other(x),
            }[kind]()

        def forward(self, x):
            y = self.conv(x)
            first, second = (self.operand(kind, x, y) for kind in self.operands)
            function = getattr(paddle, self.name)
            if "number" in self.operands:
                function = OPERATORS[self.name]
            z = function(first, second)
            if self.behind:
                z = z * 0.5 if self.behind == "scale" else paddle.nn.functional.relu(z)
            return z

    kept = []  # Paddle confuses a network with one that is gone
    for name, form, size, behind in networks(names):
        paddle.seed(1)
        network = Network(name, form.split(" , "), behind)
        network.eval()
        kept.append(network)
        shape = [2, 3, HEIGHT, WIDTH] if size == "fixed" else [None, 3, None, None]
        if size == "fixed" and "[1,C,H,W]" in form:
            shape[0] = None
        spec = paddle.static.InputSpec(shape, "float32", "x")
        target = os.path.join(folder, name, form, size, behind)
        os.makedirs(target)
        try:
            static = paddle.jit.to_static(network, input_spec=[spec])
            paddle.jit.save(static, os.path.join(target, "model"))
        except Exception as error:  # Paddle's are of many kinds
            Path(target, "error").write_text(gist(error))
        deploy = {"model": "model.pdmodel", "params": "model.pdiparams", "transforms": []}
        deploy["input_shape"] = [-1 if side is None else side for side in shape]
        Path(target, "deploy.yaml").write_text(yaml.safe_dump({"Deploy": deploy}))


def networks(names):
    """Operator, form, whether the input's size is free or fixed, what comes behind."""
    for name in names:
        for form in FORMS:
            if "number" in form and OPERATORS[name] is None:
                continue
            is_fixed = any(each in form.split(" , ") for each in FIXED)
            for size in ["fixed"] if is_fixed else ["free", "fixed"]:
                for behind in BEHIND if name in IN_ONEDNN else [""]:
                    yield name, form, size, behind


def output_of(config_path, mkldnn, tensor):
    build = find_paddle()
    options = EngineOptions("cpu", enable_mkldnn=mkldnn, cpu_threads=1, cache_dir="")
    setup = Setup(load_deploy_config(config_path), resolved(options, build), build)
    return load(setup)(tensor)


def compare(folder, tensor, may_jump):
    """The largest error, absolute, and a verdict."""
    if os.path.exists(folder / "error"):
        return None, "not exported: " + (folder / "error").read_text()
    config_path = folder / "deploy.yaml"
    try:
        plain = output_of(config_path, False, tensor)
    except SegmentationError as error:
        return None, f"plain Paddle fails: {error}"
    guard = "turned off" if load_deploy_config(config_path).graph_facts.onednn_faults else ""
    try:
        got = output_of(config_path, True, tensor)
    except SegmentationError as error:
        return None, f"{guard or 'FAILS'}: {error}"
    errors = abs(got - plain)
    differs = ~(errors <= TOLERANCE * np.maximum(1, abs(plain)))
    is_wrong = differs.mean() > (MOST_JUMPS if may_jump else 0)
    return errors.max(), (f"{guard or 'WRONG'}: wrong" if is_wrong else f"{guard}: right").strip(
        ": "
    )


def make(graph, names, folder):
    flags = {"FLAGS_enable_pir_api": str(int(graph == "json"))}
    code = f"from tests.elementwise import export; export({str(folder)!r}, {names!r})"
    command = [sys.executable, "-W", "ignore", "-c", code]
    made = subprocess.run(command, cwd=ROOT, env={**os.environ, **flags}, capture_output=True)
    if made.returncode:
        sys.exit(made.stderr.decode(errors="replace"))


def sweep(graph, names, folder, show_all):
    """Prints the rows of a graph form. Returns how many go wrong where oneDNN is used."""
    if not folder.exists():
        make(graph, names, folder)
    random = np.random.default_rng(1)
    tensor = random.uniform(0.5, 1.5, (2, 3, HEIGHT, WIDTH)).astype(np.float32)
    verdicts = Counter()
    for name, form, size, behind in networks(names):
        error, verdict = compare(folder / name / form / size / behind, tensor, name in JUMPING)
        verdicts["right" if verdict == "right" else verdict.split(":")[0]] += 1
        if show_all or verdict != "right":
            error = "-" if error is None else f"{error:.2g}"
            cells = (name, form, size, behind, graph, error, verdict)
            print("| " + " | ".join(cells) + " |", flush=True)
    print(f"{graph}:", ", ".join(f"{verdicts[key]} {key}" for key in verdicts), file=sys.stderr)
    return verdicts["WRONG"] + verdicts["FAILS"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operator", nargs="*", choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument("--graph", nargs="*", choices=["pdmodel", "json"])
    parser.add_argument("--all", action="store_true", help="print the rows that are right too")
    parser.add_argument("--made", type=Path, help="keep the networks here, or take those there")
    given = parser.parse_args()
    logging.disable()
    graphs = given.graph or (["pdmodel", "json"] if find_paddle().version >= (3,) else ["pdmodel"])
    heads = "operator, form, input, behind, graph, largest error of oneDNN, verdict"
    print("| " + heads.replace(", ", " | ") + " |\n" + "| --- " * 7 + "|")
    wrong = 0
    for graph in graphs:
        with tempfile.TemporaryDirectory() as folder:
            wrong += sweep(graph, given.operator, (given.made or Path(folder)) / graph, given.all)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
