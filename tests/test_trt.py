"""TensorRT's shapes come from the images and the transforms; collected ones from real runs."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT, scene, write_image
from PIL import Image

import tensorrt_engine
import trt
from config import EngineOptions
from deploy import load_deploy_config
from engines import collect_shapes
from errors import ConfigError, EngineError
from machine import find_paddle
from predictor import load_core

BUILD = find_paddle()
CORE = load_core(BUILD, use_gpu=False)


def deploy(models, name):
    return load_deploy_config(models / name / "deploy.yaml")


def shapes(models, name, sizes, batch_size=2):
    expected = trt.Expected([scene(*size) for size in sizes], batch_size)
    return trt.dynamic_shapes(expected, deploy(models, name))


# ---- the sizes that will come ------------------------------------------------------------------


def test_bounds_hold_all_sizes_and_are_rounded_outward(models):
    found = shapes(models, "argmax", [(100, 200), (130, 70), (100, 200)], batch_size=4)
    assert found == trt.Shapes([1, 3, 64, 64], [4, 3, 192, 256], [4, 3, 128, 192])
    same_engine = shapes(models, "argmax", [(110, 210), (129, 80), (110, 210)], batch_size=4)
    assert same_engine == found


def test_a_side_below_the_step_is_not_rounded_to_nothing(models):
    assert shapes(models, "argmax", [(40, 50), (80, 90)]).smallest == [1, 3, 40, 50]


def test_one_size_stays_as_it_is(models):
    assert shapes(models, "argmax", [(50, 70)] * 3) == ([1, 3, 50, 70], *[[2, 3, 50, 70]] * 2)


def test_a_resize_among_the_transforms_fixes_them(models):
    found = shapes(models, "resize", [(50, 70), (200, 10)])
    assert found == ([1, 3, 48, 64], [2, 3, 48, 64], [2, 3, 48, 64])


def test_so_does_an_input_shape(models):
    found = shapes(models, "fixed", [(48, 64), (50, 70)], batch_size=1)  # the second doesn't fit
    assert found == ([1, 3, 48, 64],) * 3


def test_sizes_are_read_from_headers_as_the_images_will_be(tmp_path, models, monkeypatch):
    write_image(tmp_path / "a.png", (30, 40))
    picture = Image.fromarray(scene(50, 90)[..., ::-1])
    turned = Image.Exif()
    turned[trt.EXIF_ORIENTATION] = 6
    picture.save(tmp_path / "b.jpg", exif=turned)
    (tmp_path / "c.jpg").write_bytes(b"no image")
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.jpg", "gone.jpg")]
    expected = {(30, 40): [paths[0]], cv2.imread(str(paths[1])).shape[:2]: [paths[1]]}
    monkeypatch.setattr("preprocess.read_image", None)  # none is decoded
    assert trt.images_by_size(trt.Expected(paths, 1), deploy(models, "argmax")) == expected
    with pytest.raises(ConfigError, match="no image's could be read"):
        trt.images_by_size(trt.Expected(paths[2:], 1), deploy(models, "argmax"))


def test_of_many_images_a_thousand_are_looked_at_evenly(models, monkeypatch):
    looked_at = []

    def size(image):
        looked_at.append(image)
        return (64, 64)

    monkeypatch.setattr(trt, "_size", size)
    trt.images_by_size(trt.Expected(range(2500), 1), deploy(models, "argmax"))
    assert looked_at == list(range(0, 2500, 3))
    assert len(looked_at) <= trt.MAX_HEADERS


# ---- collected shapes --------------------------------------------------------------------------


def collected(models, name, images, path, batch_size=2, crop=None):
    options = EngineOptions(device="cpu").resolved(BUILD)
    expected = trt.Expected(images, batch_size, crop)
    trt.make_shape_file(
        str(path),
        lambda new: collect_shapes(deploy(models, name), options, BUILD, expected, new),
    )
    return path.read_text()


def in_file(text):
    """Each tensor's min, max and opt in Paddle's shape file."""
    return {
        re.search(r'name: "(.*)"', entry)[1]: [
            [int(side) for side in re.findall(rf"{kind}_shape: (\d+)", entry)]
            for kind in ("min", "max", "opt")
        ]
        for entry in text.split("shape_range_info")[1:]
    }


SIZES = [(40, 50)] * 3 + [(20, 30), (80, 100), (60, 70), (24, 90)]


def test_collected_shapes_are_those_of_the_images(models, tmp_path):
    """On the CPU, for real; that TensorRT then reads the file needs a GPU to see."""
    images = [scene(*size, number) for number, size in enumerate(SIZES)]
    found = in_file(collected(models, "picture", images, tmp_path / "shapes"))
    assert found["picture"] == [[1, 3, 20, 30], [2, 3, 80, 100], [2, 3, 40, 50]]
    inner = [shapes for shapes in found.values() if len(shapes[0]) == 4]
    assert len(inner) > 5
    assert all(np.all(np.diff([low, usual, high], axis=0) >= 0) for low, high, usual in inner)
    of_input_size = [shapes for shapes in inner if shapes[0][2:] == [20, 30]]
    assert len(of_input_size) >= 2  # the input, and the scores brought back to its size
    for _, high, usual in of_input_size:
        assert (high[2:], usual[2:]) == ([80, 100], [40, 50])
        assert (high[0], usual[0]) == (2, 2)


def test_of_windows_their_size_is_collected(models, tmp_path):
    images = [scene(*size) for size in SIZES]
    found = in_file(collected(models, "argmax", images, tmp_path / "shapes", crop=(32, 48)))
    assert found["x"][:2] == [[1, 3, 20, 30], [2, 3, 32, 48]]


def test_what_paddle_has_written_is_read(models, tmp_path):
    images = [scene(*size, number) for number, size in enumerate(SIZES)]
    path = tmp_path / "shapes"
    text = collected(models, "picture", images, path)
    bounds = trt.tuned_shapes(str(path), "picture", 2)
    assert bounds == ([1, 3, 20, 30], [2, 3, 80, 100], [2, 3, 40, 50])
    with pytest.raises(ConfigError, match="holds no shapes of this model's input x: name another"):
        trt.tuned_shapes(str(path), "x", 2)
    with pytest.raises(ConfigError, match="is of batches of up to 2, not 3: name another"):
        trt.tuned_shapes(str(path), "picture", 3)
    path.write_text(text.replace("opt_shape", "opt"))
    with pytest.raises(ConfigError, match="holds no shapes"):
        trt.tuned_shapes(str(path), "picture", 2)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="can't be read: it is no text"):
        trt.tuned_shapes(str(path), "picture", 2)
    path.unlink()
    with pytest.raises(ConfigError, match="can't be read: no such file"):
        trt.tuned_shapes(str(path), "picture", 2)


def runs_of(models, sizes, fits=lambda size: True):
    """What is run for so many images of those sizes, in batches of four."""
    images = [scene(*size) for size, count in sizes.items() for _ in range(count)]
    runs = []

    def run(image, copies):
        size = image.shape[:2]
        if copies == 4 and not fits(size):
            raise EngineError("out of memory")
        runs.append((size, copies))

    count = trt.collect(run, trt.Expected(images, 4), deploy(models, "argmax"))
    assert count == len(runs) <= trt.MAX_TUNING_RUNS
    return runs


def test_the_sizes_that_matter_are_run(models):
    sizes = {(50, 60): 9, (10, 12): 1, (11, 90): 1, (95, 13): 1, (80, 85): 1, (30, 30): 1}
    runs = runs_of(models, sizes)
    assert runs[:2] == [((10, 12), 1), ((80, 85), 4)]
    assert runs[2:5] == [((10, 12), 4), ((95, 13), 4), ((11, 90), 4)]
    assert runs[5:] == [((50, 60), 4)] * 5


def test_where_memory_does_not_hold_the_largest_the_next_smaller_is_run(models):
    sizes = {(side, side): 1 for side in (10, 20, 30, 40)}
    runs = runs_of(models, sizes, fits=lambda size: size[0] <= 20)
    assert runs[:3] == [((10, 10), 1), ((20, 20), 4), ((10, 10), 4)]
    assert runs_of(models, sizes, fits=lambda size: False) == [((10, 10), 1)]


def test_an_image_that_can_not_be_read_gives_its_turn_to_another(models, tmp_path):
    write_image(tmp_path / "good.png", (20, 30))
    bad = tmp_path / "bad.png"
    bad.write_bytes((tmp_path / "good.png").read_bytes()[:60])  # a header and no more
    text = collected(models, "argmax", [bad, tmp_path / "good.png"], tmp_path / "shapes")
    assert in_file(text)["x"][1] == [2, 3, 20, 30]


def test_a_file_that_is_there_is_used_with_a_line(models, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "shapes").write_text("mine")
    assert collected(models, "argmax", [scene(20, 30)], tmp_path / "shapes") == "mine"
    assert f"the dynamic shapes are those of {tmp_path / 'shapes'}" in caplog.text


def test_of_several_processes_one_collects(models, tmp_path):
    call = f"""
import sys, time, trt
def collect(path):
    time.sleep(0.5)
    open(path, "w").write("shapes")
    print("collected")
    return 1
trt.make_shape_file({str(tmp_path / "shapes")!r}, collect)
"""
    command = [sys.executable, "-c", call]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert "".join(process.communicate()[0] for process in processes) == "collected\n"
    assert not any(process.returncode for process in processes)
    assert (tmp_path / "shapes").read_text() == "shapes"


def test_a_run_that_fails_leaves_no_file(models, tmp_path):
    with pytest.raises(ConfigError, match="no image could be run to collect"):
        trt.make_shape_file(str(tmp_path / "shapes"), lambda path: 0)
    assert list(tmp_path.iterdir()) == []
    nowhere = tmp_path / "no" / "shapes"
    with pytest.raises(ConfigError, match=r"--auto_tuned_shape_file .*no/shapes can't be written"):
        trt.make_shape_file(str(nowhere), lambda path: 1)


# ---- the graph ---------------------------------------------------------------------------------


def test_the_input_goes_by_its_own_name(models):
    assert tensorrt_engine.input_name(CORE, deploy(models, "argmax")) == "x"
    assert tensorrt_engine.input_name(CORE, deploy(models, "picture")) == "picture"


def test_int8_without_quantisation_is_refused(models):
    with pytest.raises(ConfigError, match="--precision int8 needs a quantised model.*PaddleSlim"):
        tensorrt_engine.check_quantised(CORE, deploy(models, "argmax"))
    tensorrt_engine.check_quantised(CORE, deploy(models, "quantised"))
