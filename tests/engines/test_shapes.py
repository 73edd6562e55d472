"""TensorRT's shapes come from the images and the transforms."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import expected, scene, write_image
from PIL import ExifTags, Image

from paddleseg_infer.config import input_name
from paddleseg_infer.deploy import DeployConfig, load_deploy_config
from paddleseg_infer.engines import shapes as trt
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.transforms.paddleseg import make_transform

BUILD = find_paddle()


def deploy(models, name):
    return load_deploy_config(models / name / "deploy.yaml")


def shapes(models, name, sizes, batch_size=2):
    images = expected([scene(*size) for size in sizes], batch_size)
    return trt.dynamic_shapes(images, deploy(models, name))


# ---- the expected sizes ------------------------------------------------------------------------


def test_bounds_include_all_sizes_and_are_rounded_outward(models):
    found = shapes(models, "argmax", [(100, 200), (130, 70), (100, 200)], batch_size=4)
    assert found == trt.Shapes([1, 3, 64, 64], [4, 3, 192, 256], [4, 3, 128, 192])
    same_engine = shapes(models, "argmax", [(110, 210), (129, 80), (110, 210)], batch_size=4)
    assert same_engine == found


def test_a_side_below_the_rounding_step_is_not_rounded_to_zero(models):
    assert shapes(models, "argmax", [(40, 50), (80, 90)]).smallest == [1, 3, 40, 50]


def test_a_single_size_is_not_rounded(models):
    assert shapes(models, "argmax", [(50, 70)] * 3) == ([1, 3, 50, 70], *[[2, 3, 50, 70]] * 2)


def test_a_side_that_does_not_vary_is_not_rounded(models):
    found = shapes(models, "argmax", [(50, 70), (50, 200)])
    assert found == ([1, 3, 50, 64], [2, 3, 50, 256], [2, 3, 50, 64])


def test_shapes_of_a_graph_of_fixed_size_need_no_image(models):
    fixed = ([1, 3, 48, 64],) * 3
    assert trt.dynamic_shapes(expected([], 1), deploy(models, "fixed")) == fixed


def test_sizes_are_computed_without_pixels(models):
    """The pixels would need a terabyte. The transforms compute the new size from the size alone."""
    huge = np.broadcast_to(np.uint8(0), (600_000, 900_000, 3))
    found = trt.images_by_size(expected([huge], 1), deploy(models, "resize"))
    assert list(found) == [(48, 64)]


@pytest.mark.parametrize("size", [(50, 70), (333, 77), (64, 64), (1, 200)])
def test_the_computed_size_is_the_size_of_the_tensor(size):
    chains = [
        [{"type": "ResizeByLong", "long_size": 90}, {"type": "Padding", "target_size": [128, 96]}],
        [{"type": "ResizeByShort", "short_size": 20, "max_size": 90}],
        [{"type": "Resize", "target_size": [60, 40], "keep_ratio": True, "size_divisor": 16}],
        [{"type": "ScalePadding", "target_size": [40, 40]}, {"type": "Normalize"}],
        [
            {"type": "PaddingByAspectRatio", "aspect_ratio": 1.5},
            {"type": "LimitLong", "max_long": 64},
        ],
    ]
    for chain in chains:
        transforms = tuple(
            make_transform(entry["type"], {k: v for k, v in entry.items() if k != "type"})
            for entry in chain
        )
        found = trt.network_size(size, DeployConfig("", "", "", transforms))
        try:
            expected = prepare(scene(*size), transforms).size
        except ImageError as error:
            expected, found = str(error), str(found)
        assert found == expected


def test_a_resize_transform_fixes_the_shapes(models):
    found = shapes(models, "resize", [(50, 70), (200, 10)])
    assert found == ([1, 3, 48, 64], [2, 3, 48, 64], [2, 3, 48, 64])


def test_an_input_shape_fixes_the_shapes(models):
    found = shapes(models, "fixed", [(48, 64), (50, 70)], batch_size=1)
    assert found == ([1, 3, 48, 64],) * 3


def test_sizes_are_read_from_headers_and_respect_the_orientation(tmp_path, models):
    write_image(tmp_path / "a.png", (30, 40))
    picture = Image.fromarray(scene(50, 90)[..., ::-1])
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    picture.save(tmp_path / "b.jpg", exif=turned)
    (tmp_path / "c.jpg").write_bytes(b"no image")
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.jpg", "gone.jpg")]
    sizes = {(30, 40): [paths[0]], cv2.imread(str(paths[1])).shape[:2]: [paths[1]]}
    found = trt.images_by_size(expected(paths, 1), deploy(models, "argmax"))
    assert {size: [Path(each.path) for each in of_it] for size, of_it in found.items()} == sizes
    with pytest.raises(ConfigError, match="needs the images' sizes, and no image's size could"):
        trt.images_by_size(expected(paths[2:], 1), deploy(models, "argmax"))


def test_of_many_images_at_most_a_thousand_evenly_spaced_ones_are_measured(models):
    measured = []

    class Numbered:
        def __init__(self, number):
            self.number = number

        def size(self):
            measured.append(self.number)
            return (64, 64)

    many = trt.Expected([Numbered(number) for number in range(2500)], 1)
    trt.images_by_size(many, deploy(models, "argmax"))
    assert measured == list(range(0, 2500, 3))
    assert len(measured) <= trt.MAX_HEADERS


def test_the_error_says_why_no_size_fits(models):
    wide = replace(deploy(models, "argmax"), input_shape=(-1, 3, 48, -1))
    with pytest.raises(
        ConfigError, match="and no image fits the model: the model takes only -1x48"
    ):
        trt.images_by_size(expected([scene(50, 70)], 1), wide)
    with pytest.raises(ConfigError, match="and no images were given"):
        trt.images_by_size(expected([], 1), wide)


# ---- the graph ---------------------------------------------------------------------------------


def test_the_name_of_the_input_is_read_from_the_graph(models):
    assert input_name(deploy(models, "argmax")) == "x"
    assert input_name(deploy(models, "picture")) == "picture"


def test_a_quantised_graph_is_recognised(models):
    assert not deploy(models, "argmax").graph_facts.is_quantised
    assert deploy(models, "quantised").graph_facts.is_quantised
