#!/usr/bin/env python3
"""Segments images with a model that PaddleSeg exported, and saves colour masks.

python infer.py --config export/deploy.yaml --image_path photos --device cpu
"""

import os
import sys

if sys.version_info < (3, 10):  # noqa: UP036  # an older Python would show a traceback
    version = "%d.%d" % sys.version_info[:2]  # noqa: UP031  # it may be too old for f-strings
    sys.stderr.write("error: this program needs Python 3.10 to 3.13, and this is " + version + "\n")
    sys.exit(2)

if __name__ == "__main__":
    # With -I or -P, Python doesn't search this folder. A link to this file may be in another one.
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    from paddleseg_infer.cli import command

    command()
