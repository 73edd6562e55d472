"""Compares A and B on a machine whose speed varies: measures them in turn, in pairs.

The result is the ratio A / B of each pair.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
PROCESSORS = len(os.sched_getaffinity(0))
ITS_THREADS = 10  # the default of PaddleSeg's script
Measure = Callable[[], float]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--made", type=Path, required=True, help="the folder that make.py made")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--paddlex", help="the Python of an environment with PaddleX")
    return parser.parse_args()


def compare(a: Measure, b: Measure, pairs: int) -> tuple[float, float, list[float]]:
    """Returns the medians of A and of B, and the quartiles of A / B.

    Each ratio is of two measurements that follow each other directly.
    """
    measured = []
    for number in range(pairs):
        # The order alternates, so that neither of them is always second, on a warmer machine.
        first, second = (a, b) if number % 2 else (b, a)
        one, other = first(), second()
        measured.append((one, other) if number % 2 else (other, one))
    ratios = [one / other for one, other in measured]
    quartiles = statistics.quantiles(ratios, n=4) if pairs > 1 else ratios * 3
    medians = [statistics.median(column) for column in zip(*measured, strict=True)]
    return medians[0], medians[1], quartiles


def table(title: str, unit: str, rows: Sequence[tuple[str, Measure, str, Measure]], pairs: int):
    """Measures each row, and prints it at once as a row of a Markdown table."""
    print(f"\n### {title}\n\n| A | B | A, {unit} | B, {unit} | A / B (quartiles) |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for name_a, a, name_b, b in rows:
        one, other, (low, middle, high) = compare(a, b, pairs)
        ratio = f"{middle:.3g} ({low:.3g} to {high:.3g})"
        print(f"| {name_a} | {name_b} | {one:.4g} | {other:.4g} | {ratio} |", flush=True)


def seconds(command: Sequence[object]) -> float:
    """Returns the seconds that a command takes. Raises RuntimeError if it fails."""
    started = time.perf_counter()
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    taken = time.perf_counter() - started
    if run.returncode:
        raise RuntimeError(f"{command}: {run.stderr[-2000:]}")
    return taken


def ours(model: Path, images: Path, *flags: object) -> list[object]:
    return [
        *(sys.executable, ROOT / "infer.py", "--config", model / "deploy.yaml"),
        *("--image_path", images, "--device", "cpu", "--save_dir", scratch(), *flags),
    ]


def paddleseg(
    model: Path, images: Path, batch_size: int = 1, threads: int = PROCESSORS
) -> list[object]:
    script = PEERS / "paddleseg_loop.py"
    return [sys.executable, script, model / "deploy.yaml", images, scratch(), batch_size, threads]


def bare(kind: str, model: Path, images: Path, batch_size: int = 1, count: int = 80) -> float:
    """Returns the milliseconds per image of the engine alone."""
    script = PEERS / "bare_engine.py"
    command = [sys.executable, script, kind, model / "deploy.yaml", images, count]
    run = subprocess.run(
        [str(word) for word in [*command, batch_size]], capture_output=True, text=True, check=True
    )
    return float(run.stdout.split()[-1])


def steady(command: Callable[[Path], list[object]], images: Path) -> float:
    """Returns the milliseconds per image of a run without its start.

    It is the time for all images minus the time for a fifth of them.
    """
    number = len(os.listdir(images))
    few = few_of(images, number // 5)
    taken = seconds(command(images)) - seconds(command(few))
    return taken / (number - number // 5) * 1000


def few_of(folder: Path, count: int) -> Path:
    """Returns a folder of links to the first `count` images; the first call makes it."""
    few = folder.parent / f"{folder.name}_{count}"
    if not few.exists():
        few.mkdir()
        for name in sorted(os.listdir(folder))[:count]:
            (few / name).symlink_to(folder.resolve() / name)
    return few


def quantised(made: Path, name: str) -> Path:
    """Returns the folder of a quantised model; the first call makes it."""
    folder = made / f"{name}_int8"
    if not folder.exists():
        model = made / name / "deploy.yaml"
        seconds([sys.executable, "-m", "bench.quantise", model, made / "streets", folder])
    return folder


def scratch() -> str:
    return os.path.join(tempfile.gettempdir(), "paddleseg-infer-bench")
