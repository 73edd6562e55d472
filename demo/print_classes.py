#!/usr/bin/env python3
"""Prints the classes of each mask: python demo/print_classes.py DEPLOY_YAML FOLDER_OF_MASKS"""

import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image


def shares(mask: Path, names: list[str]) -> list[tuple[str, float]]:
    """Returns the classes of a mask and their shares of its pixels (0 to 1), largest first."""
    counts = np.bincount(np.array(Image.open(mask)).ravel(), minlength=len(names))
    filled = [(names[label], counts[label] / counts.sum()) for label in np.flatnonzero(counts)]
    return sorted(filled, key=lambda item: -item[1])


def main() -> None:
    config, folder = map(Path, sys.argv[1:])
    names = yaml.safe_load(config.read_text())["Deploy"]["labels"]
    for mask in sorted(folder.glob("*.png")):
        parts = ", ".join(f"{name} {share:.1%}" for name, share in shares(mask, names))
        print(f"{mask}: {parts}")


if __name__ == "__main__":
    main()
