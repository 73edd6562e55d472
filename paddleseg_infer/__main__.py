"""`python -m paddleseg_infer` is the same program as `python infer.py`."""

import sys

from paddleseg_infer.cli import command

if __name__ == "__main__":
    sys.argv[0] = "python -m paddleseg_infer"  # the name in messages
    command()
