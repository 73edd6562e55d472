"""Compares this program's label maps with PaddleSeg's, pixel by pixel, on given models and images.

python -m tests.compare --models exports --images photos

It runs each folder of --models that has a `deploy.yaml` on every image of --images, with batch
sizes 1 and 4, and with oneDNN on and off. The exit code is 1 if any pixel differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

from paddleseg_infer.runs.jobs import find_jobs
from tests.oracle import Oracle

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", required=True)
    parser.add_argument("--images", required=True)
    options = parser.parse_args()
    total = differing_total = 0
    for name in sorted(os.listdir(options.models)):
        config = os.path.join(options.models, name, "deploy.yaml")
        if not os.path.isfile(config):
            continue
        for mkldnn in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                jobs = find_jobs(options.images, folder).jobs
                oracle = Oracle(config, mkldnn)
                expected = {job.stem + ".png": oracle.labels(job.image) for job in jobs}
                for batch_size in (1, 4):
                    save_dir = os.path.join(folder, str(batch_size))
                    command = [sys.executable, os.path.join(ROOT, "infer.py")]
                    command += ["--config", config, "--image_path", options.images]
                    command += ["--network_size", "--device", "cpu", "--cpu_threads", "2"]
                    command += ["--enable_mkldnn", str(mkldnn), "--save_dir", save_dir]
                    command += ["--batch_size", str(batch_size)]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                    pixels = differing = 0
                    for target, labels in expected.items():
                        mask = np.array(Image.open(os.path.join(save_dir, target)))
                        assert mask.shape == labels.shape, (target, mask.shape, labels.shape)
                        pixels += mask.size
                        differing += int((mask != labels).sum())
                    print(
                        f"{name}, oneDNN {'on' if mkldnn else 'off'}, batch size {batch_size}: "
                        f"{len(jobs)} images, {pixels} pixels, {differing} differ",
                        flush=True,
                    )
                    total += pixels
                    differing_total += differing
    print(f"all: {total} pixels compared, {differing_total} differ")
    return 1 if differing_total or not total else 0


if __name__ == "__main__":
    sys.exit(main())
