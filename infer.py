#!/usr/bin/env python3
"""Segments images with a model that PaddleSeg exported, and saves colour masks.

python infer.py --config export/deploy.yaml --image_path photos --device cpu
"""

import os
import sys

if __name__ == "__main__":
    # Python leaves this folder out with -I and -P, and a link to this file may lie in another.
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    from paddleseg_infer.cli import command

    command()
