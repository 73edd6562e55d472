#!/usr/bin/env python3
"""Segments images with a model that PaddleSeg exported, and saves colour masks.

python infer.py --config export/deploy.yaml --image_path photos --device cpu
"""

import os
import sys

if __name__ == "__main__":
    # With -I or -P, Python doesn't search this folder. A link to this file may be in another one.
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    from paddleseg_infer.cli import command

    command()
