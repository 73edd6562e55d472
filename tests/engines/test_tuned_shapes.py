"""Tuned shapes are collected once, in real runs on the CPU, and read from a file afterwards."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, expected, scene, wait_until, write_image

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines import shapes as trt
from paddleseg_infer.engines.load import collect_shapes
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ConfigError, EngineError, ImageError
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.machine.store import locked

BUILD = find_paddle()


def deploy(models, name):
    return load_deploy_config(models / name / "deploy.yaml")


def collected(models, name, images, path, batch_size=2, crop=None):
    options = resolved(EngineOptions(device="cpu"), BUILD)
    expected_images = expected(images, batch_size, crop)
    trt.make_shape_file(
        str(path),
        lambda new: collect_shapes(
            Setup(deploy(models, name), options, BUILD), expected_images, new
        ),
    )
    return path.read_text()


def shapes_in(text):
    """Returns the min, max and opt shape of each tensor in Paddle's shape file."""
    return {
        re.search(r'name: "(.*)"', entry)[1]: [
            [int(side) for side in re.findall(rf"{kind}_shape: (\d+)", entry)]
            for kind in ("min", "max", "opt")
        ]
        for entry in text.split("shape_range_info")[1:]
    }


SIZES = [(40, 50)] * 3 + [(20, 30), (80, 100), (60, 70), (24, 90)]


def test_collected_shapes_are_those_of_the_images(models, tmp_path):
    """Paddle collects them on the CPU. Only a GPU could show that TensorRT reads the file."""
    images = [scene(*size, number) for number, size in enumerate(SIZES)]
    found = shapes_in(collected(models, "picture", images, tmp_path / "shapes"))
    assert found["picture"] == [[1, 3, 20, 30], [2, 3, 80, 100], [2, 3, 40, 50]]
    inner = [shapes for shapes in found.values() if len(shapes[0]) == 4]
    assert len(inner) > 5
    assert all(np.all(np.diff([low, usual, high], axis=0) >= 0) for low, high, usual in inner)
    of_input_size = [shapes for shapes in inner if shapes[0][2:] == [20, 30]]
    assert len(of_input_size) >= 2  # the input, and the scores resized to its size
    for _, high, usual in of_input_size:
        assert (high[2:], usual[2:]) == ([80, 100], [40, 50])
        assert (high[0], usual[0]) == (2, 2)


def test_with_windows_the_size_of_a_window_is_collected(models, tmp_path):
    images = [scene(*size) for size in SIZES]
    found = shapes_in(collected(models, "argmax", images, tmp_path / "shapes", crop=(32, 48)))
    assert found["x"][:2] == [[1, 3, 20, 30], [2, 3, 32, 48]]


def test_paddles_shape_file_is_read_and_checked(models, tmp_path):
    images = [scene(*size, number) for number, size in enumerate(SIZES)]
    path = tmp_path / "shapes"
    text = collected(models, "picture", images, path)
    bounds = trt.tuned_shapes(str(path), "picture", 2)
    assert bounds == ([1, 3, 20, 30], [2, 3, 80, 100], [2, 3, 40, 50])
    with pytest.raises(ConfigError, match="has no shapes of this model's input x: give another"):
        trt.tuned_shapes(str(path), "x", 2)
    with pytest.raises(ConfigError, match="has shapes of batches of up to 2, not 3: give another"):
        trt.tuned_shapes(str(path), "picture", 3)
    path.write_text(text.replace("opt_shape", "opt"))
    with pytest.raises(ConfigError, match="has no shapes"):
        trt.tuned_shapes(str(path), "picture", 2)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="can't be read: it is not a text file"):
        trt.tuned_shapes(str(path), "picture", 2)
    path.unlink()
    with pytest.raises(ConfigError, match="can't be read: no such file"):
        trt.tuned_shapes(str(path), "picture", 2)


def runs_of(models, sizes, fits=lambda size: True, is_good=lambda size: True):
    """Returns the runs for these sizes and numbers of images, in batches of four."""
    images = [scene(*size) for size, count in sizes.items() for _ in range(count)]
    runs = []

    def run(image, copies):
        size = image.size()
        if not is_good(size):
            raise ImageError("it can't be decoded")
        if copies == 4 and not fits(size):
            raise EngineError("out of memory")
        runs.append((size, copies))

    count = trt.collect(run, expected(images, 4), deploy(models, "argmax"))
    assert count == len(runs) <= trt.MAX_TUNING_RUNS
    return runs


def test_the_extreme_sizes_and_the_most_frequent_size_are_run(models):
    sizes = {(50, 60): 9, (10, 12): 1, (11, 90): 1, (95, 13): 1, (80, 85): 1, (30, 30): 1}
    runs = runs_of(models, sizes)
    assert runs[:2] == [((10, 12), 1), ((80, 85), 4)]
    assert runs[2:5] == [((10, 12), 4), ((95, 13), 4), ((11, 90), 4)]
    assert runs[5:] == [((50, 60), 4)] * 5


def test_if_the_largest_size_does_not_fit_in_memory_the_next_smaller_is_run(models):
    sizes = {(side, side): 1 for side in (10, 20, 30, 40)}
    runs = runs_of(models, sizes, fits=lambda size: size[0] <= 20)
    assert runs[:3] == [((10, 10), 1), ((20, 20), 4), ((10, 10), 4)]
    assert runs_of(models, sizes, fits=lambda size: False) == [((10, 10), 1)]


def test_of_many_sizes_that_do_not_fit_only_a_few_are_tried(models):
    tried = []
    sizes = {(30 + number, 40): 1 for number in range(300)}
    runs = runs_of(models, sizes, fits=lambda size: tried.append(size) or size[0] < 50)
    assert len(tried) <= 2 * trt.MAX_TUNING_RUNS
    assert runs[0] == ((30, 40), 1)


def test_if_the_smallest_image_cannot_be_read_the_next_is_run_alone(models):
    sizes = {(side, side): 1 for side in (10, 20, 30)}
    runs = runs_of(models, sizes, is_good=lambda size: size[0] > 10)
    assert runs[:2] == [((20, 20), 1), ((30, 30), 4)]


def test_a_model_with_a_fixed_batch_size_collects_only_full_batches(models, tmp_path):
    text = collected(models, "pairs", [scene(48, 64)], tmp_path / "shapes")
    assert shapes_in(text)["x"] == [[2, 3, 48, 64]] * 3


def test_another_image_replaces_one_that_cannot_be_read(models, tmp_path):
    write_image(tmp_path / "good.png", (20, 30))
    bad = tmp_path / "bad.png"
    bad.write_bytes((tmp_path / "good.png").read_bytes()[:60])  # only the header is left
    text = collected(models, "argmax", [bad, tmp_path / "good.png"], tmp_path / "shapes")
    assert shapes_in(text)["x"][1] == [2, 3, 20, 30]


def test_an_existing_shape_file_is_used_and_this_is_logged(models, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "shapes").write_text("mine")
    assert collected(models, "argmax", [scene(20, 30)], tmp_path / "shapes") == "mine"
    assert f"the dynamic shapes come from {tmp_path / 'shapes'}" in caplog.text


def waits_for(process, folder):
    """Returns whether a process has opened the folder, which it does to wait for its lock."""
    numbers = Path(f"/proc/{process.pid}/fd").iterdir()
    return str(folder) in [os.readlink(number) for number in numbers if number.is_symlink()]


def test_only_one_of_several_processes_collects_shapes(models, tmp_path):
    """All four processes wait for the lock before one of them may write the file."""
    call = f"""
from paddleseg_infer.engines import shapes as trt
def collect(path):
    open(path, "w").write("shapes")
    print("collected")
    return 1
trt.make_shape_file({str(tmp_path / "shapes")!r}, collect)
"""
    command = [sys.executable, "-c", call]
    with locked(str(tmp_path)):
        processes = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        wait_until(lambda: all(waits_for(process, tmp_path) for process in processes))
    assert "".join(process.communicate()[0] for process in processes) == "collected\n"
    assert not any(process.returncode for process in processes)
    assert (tmp_path / "shapes").read_text() == "shapes"


def test_a_run_that_fails_leaves_no_file(models, tmp_path):
    with pytest.raises(ConfigError, match="no image could be run, so the dynamic shapes"):
        trt.make_shape_file(str(tmp_path / "shapes"), lambda path: 0)
    assert list(tmp_path.iterdir()) == []
    nowhere = tmp_path / "no" / "shapes"
    with pytest.raises(ConfigError, match=r"--auto_tuned_shape_file .*no/shapes can't be written"):
        trt.make_shape_file(str(nowhere), lambda path: 1)
