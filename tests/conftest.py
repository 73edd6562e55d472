"""Fixtures: small models that Paddle exports for the tests, images, and runs of infer.py."""

import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from paddleseg_infer.engines.shapes import Expected
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.store import locked
from paddleseg_infer.sources import large
from paddleseg_infer.sources.source import source_of

ROOT = Path(__file__).parent.parent

BUILD = find_paddle()
PADDLE = BUILD.version


def cached_models(config, form, script_name="make_models.py"):
    """Returns the folder of the models that a script exports.

    The folder stays in pytest's cache. Later runs and other processes of this run use it again.
    """
    script = ROOT / "tests" / script_name
    key = f"{script.read_text()} {BUILD} {BUILD.commit} {form}"
    cache = config.cache.mkdir("models")
    folder = cache / hashlib.sha256(key.encode()).hexdigest()
    with locked(str(cache)), tempfile.TemporaryDirectory(dir=cache) as new:
        if not folder.exists():
            command = [sys.executable, "-W", "ignore", script, f"{new}/models", form]
            subprocess.run(command, check=True, capture_output=True)
            os.rename(f"{new}/models", folder)
    return folder


@pytest.fixture(scope="session")
def models(pytestconfig):
    """The folder of the exported models with pdmodel graphs. Tests must not change it."""
    return cached_models(pytestconfig, "pdmodel")


@pytest.fixture(scope="session")
def json_models(pytestconfig):
    """The folder of the exported models with json graphs, which only Paddle 3 writes."""
    if PADDLE < (3, 0, 0):
        pytest.skip("Paddle 2 makes no json graphs")
    return cached_models(pytestconfig, "json")


@pytest.fixture(scope="session")
def odd(pytestconfig):
    """The folder of models that are not as PaddleSeg's: see make_odd_models.py."""
    form = "json" if PADDLE[:2] == (3, 3) else "pdmodel"  # 3.3 can't save an argmax in a pdmodel
    return cached_models(pytestconfig, form, "make_odd_models.py")


@pytest.fixture(scope="session")
def run_of(odd, models, tmp_path_factory):
    """A function that segments rasters, and returns the folders of the inputs and the masks."""

    import made  # it needs rasterio, which not all environments have

    def run(named, model="channels_5", *more):
        folder = tmp_path_factory.mktemp("rasters")
        (folder / "in").mkdir()
        for name, (bands, options) in named.items():
            made.raster(folder / "in" / f"{name}.tif", bands, **options)
        of = (models if model == "argmax" else odd) / model / "deploy.yaml"
        arguments = ["--config", of, "--image_path", folder / "in", "--save_dir", folder / "out"]
        arguments += ["--device", "cpu", "--save", "mask", "label", *more]
        subprocess.run([sys.executable, ROOT / "infer.py", *arguments], check=True)
        return folder / "in", folder / "out"

    return run


@pytest.fixture
def every_raster_is_large(monkeypatch):
    """Rasters of any size are read, run and written row by row."""
    monkeypatch.setattr(large, "LARGE", 0)


@pytest.fixture
def model_copy(models, tmp_path):
    """A function that copies a model, so that a test can damage it. It returns the new folder."""

    def copy(name, **changes):
        folder = tmp_path / f"copy of {name}"
        shutil.copytree(models / name, folder)
        if changes:
            content = yaml.safe_load((folder / "deploy.yaml").read_text())
            content["Deploy"].update(changes)
            (folder / "deploy.yaml").write_text(yaml.safe_dump(content))
        return folder

    return copy


def scene(height, width, seed=0):
    """Returns a uint8 BGR image [height, width, 3] that has edges, gradients and noise."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    image[..., 0] = (x * 255 // max(width - 1, 1)).astype(np.uint8)
    image[y > height // 2] //= 2
    return image


@pytest.fixture
def photos(tmp_path):
    """A folder of five images of three sizes and two formats."""
    folder = tmp_path / "photos"
    folder.mkdir()
    sizes = [(48, 64), (40, 56), (48, 64), (33, 47), (40, 56)]
    for number, (height, width) in enumerate(sizes):
        suffix = "png" if number % 2 else "jpg"
        cv2.imwrite(str(folder / f"{number}.{suffix}"), scene(height, width, number))
    return folder


def expected(images, batch_size, crop=None):
    """Returns the images that TensorRT has to expect. Each image is a path or an array."""
    return Expected([source_of(image) for image in images], batch_size, crop)


class Run:
    """A finished run of infer.py."""

    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout.decode()
        self.err = process.stderr.decode()

    def __repr__(self):
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def drop_root_privileges():
    """Makes file modes apply to root too, as to other users. A child process calls it."""
    if os.geteuid() == 0:
        drop, dac_override, dac_read_search = 24, 1, 2  # prctl's PR_CAPBSET_DROP, capabilities
        libc = ctypes.CDLL(None)
        libc.prctl(drop, dac_override, 0, 0, 0)
        libc.prctl(drop, dac_read_search, 0, 0, 0)


def restore_sigint():
    """Makes SIGINT end the process, also if the tests run in the background. A child calls it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def infer(tmp_path):
    """A function that runs infer.py on the CPU, in its own process and in the folder `tmp_path`."""

    def run(*arguments, device="cpu", **environment):
        command = [sys.executable, ROOT / "infer.py", *arguments]
        if device:
            command += ["--device", device]
        process = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=300,
            preexec_fn=drop_root_privileges,
        )
        run_ = Run(process)
        assert "Traceback" not in run_.err, run_
        return run_

    return run


@pytest.fixture
def model(models):
    """The `deploy.yaml` of a model whose output is labels."""
    return models / "argmax" / "deploy.yaml"


def read_mask(path):
    with Image.open(path) as mask:
        assert mask.mode == "P"
        return np.array(mask)


def write_image(path, size=(48, 64), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", scene(*size, seed))[1].tobytes())
    return path


def masks(folder):
    """Returns the paths of all files below `folder`, relative to it and sorted."""
    found = [os.path.join(parent, n) for parent, _, names in os.walk(folder) for n in names]
    return sorted(os.path.relpath(path, folder) for path in found)


def wait_until(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(process):
    """Returns the process ids of a process's children."""
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return [int(number) for number in file.read().split()]
    except FileNotFoundError:
        return []


def loads_paddle(pid):
    """Returns whether a process has started to load Paddle's library."""
    try:
        return "libpaddle" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # the process has ended
        return False


@pytest.fixture
def start(tmp_path):
    """A function that starts infer.py with the demo's model on the CPU."""
    processes = []

    def started(*arguments, model=ROOT / "demo" / "model" / "deploy.yaml"):
        command = [sys.executable, ROOT / "infer.py", "--config", model, "--device", "cpu"]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=restore_sigint,
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def report_lines(path):
    """Returns the lines of a report, without those that describe a run."""
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if "run" not in line]


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs: its folder and a function that changes its size. Skips the test if mount fails."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def size(size, remount="remount,"):
        option = f"{remount}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", option, "none", folder]
        return subprocess.run(command, capture_output=True).returncode == 0

    if not shutil.which("mount") or not size("64k", remount=""):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder, size
    subprocess.run(["umount", folder], check=True)


SLOW = 2600  # the demo's network takes seconds for an image with sides of this length


@pytest.fixture
def one_slow_image(tmp_path):
    """A folder of two small images and a large one, which is the second by name."""
    for name in ("a.png", "c.png"):
        write_image(tmp_path / "in" / name)
    large = cv2.resize(scene(64, 64), (SLOW, SLOW), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(tmp_path / "in" / "b.png"), large)
    return tmp_path / "in"
