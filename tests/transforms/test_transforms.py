"""The transforms equal PaddleSeg's bit for bit, and undo returns each pixel to its place."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import oracle
import pytest
from chains import entries, sides
from conftest import scene
from hypothesis import given, settings
from hypothesis import strategies as st

from paddleseg_infer.batching import BatchReader, Item
from paddleseg_infer.deploy import DeployConfig
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.postprocess import restore
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.sources.array import ArraySource
from paddleseg_infer.transforms.paddleseg import (
    TRAINING_ONLY,
    TRANSFORMS,
    Padding,
    PaddingByAspectRatio,
    make_transform,
)


def ours(image, chain):
    made = [make_transform(e["type"], {k: v for k, v in e.items() if k != "type"}) for e in chain]
    return prepare(image, made)


def assert_equal(image, chain):
    """Asserts that the tensor equals PaddleSeg's in every bit, or that both raise an error."""
    try:
        expected = oracle.transformed(image, chain)
    except (cv2.error, ValueError, ZeroDivisionError):
        with pytest.raises(ImageError):
            ours(image, chain)
        return
    tensor = ours(image, chain).tensor()
    assert tensor.dtype == expected.dtype
    assert tensor.shape == expected.shape
    assert np.array_equal(tensor, expected), chain


ENTRIES = entries(3)
images = st.builds(scene, sides, sides, st.integers(0, 3))


def test_every_transform_is_compared():
    assert set(ENTRIES) == set(TRANSFORMS)


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_single_transform_equals_paddleseg(kind):
    @settings(max_examples=60, deadline=None)
    @given(images, ENTRIES[kind])
    def check(image, chain_entry):
        assert_equal(image, [chain_entry])

    check()


@settings(max_examples=400, deadline=None)
@given(images, st.lists(st.one_of(*ENTRIES.values()), max_size=5))
def test_a_chain_equals_paddleseg(image, chain):
    assert_equal(image, chain)


@pytest.mark.parametrize(
    "chain",
    [
        [],
        [{"type": "Normalize"}],
        [{"type": "Resize", "target_size": [512, 256]}, {"type": "Normalize"}],
        [
            {"type": "ResizeByLong", "long_size": 256},
            {"type": "Padding", "target_size": [256, 256]},
            {"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        ],
        [
            {"type": "Padding", "target_size": [401, 403]},
            {"type": "Normalize", "mean": [0.1, 0.2, 0.3], "std": [0.7]},
            {"type": "Padding", "target_size": [500, 405], "im_padding_value": 3},
            {"type": "Normalize"},
            {"type": "Resize", "target_size": [100, 90], "interp": "NEAREST"},
        ],
        [
            {"type": "ScalePadding", "target_size": [120, 130]},
            {"type": "Padding", "target_size": [140, 150]},
            {"type": "Normalize"},
        ],
    ],
)
@pytest.mark.parametrize("size", [(400, 300), (301, 399), (1, 1), (1, 57), (333, 1)])
def test_a_usual_chain_equals_paddleseg_on_larger_images(chain, size):
    assert_equal(scene(*size), chain)


@pytest.mark.parametrize("seed", range(60))
def test_a_large_image_that_is_shrunk_equals_paddleseg(seed):
    """If LINEAR reads only a few rows, only these are converted to float32, in reused memory."""
    random = np.random.default_rng(seed)
    height, width = random.integers(200, 900, 2)
    rows = int(random.integers(1, height // 3))
    if seed % 3 == 0:  # with whole factors, centres lie on rows or halfway
        rows = height // int(random.integers(3, 9))
        height = rows * (height // rows)
    image = scene(height, width, seed)
    assert_equal(image, [{"type": "Resize", "target_size": [int(random.integers(1, 900)), rows]}])


def test_resize_by_short_does_not_depend_on_the_previous_image():
    chain = [make_transform("ResizeByShort", {"short_size": 60, "max_size": 70})]
    assert prepare(scene(40, 200), chain).tensor().shape == (3, 14, 70)
    assert prepare(scene(60, 60), chain).tensor().shape == (3, 60, 60)


@settings(max_examples=200, deadline=None)
@given(images, st.lists(st.one_of(*ENTRIES.values()), max_size=4))
def test_undo_gives_the_size_of_the_image(image, chain):
    try:
        sample = ours(image, chain)
    except ImageError:
        return
    labels = np.zeros(sample.tensor().shape[1:], np.uint8)
    assert restore(labels, sample.undo).shape == image.shape[:2]


@pytest.mark.parametrize(
    "chain",
    [
        [{"type": "Resize", "target_size": [60, 40]}, {"type": "Padding", "target_size": [64, 64]}],
        [{"type": "ScalePadding", "target_size": [60, 60]}],
        [{"type": "PaddingByAspectRatio"}, {"type": "ResizeByLong", "long_size": 90}],
        [{"type": "ResizeStepScaling", "min_scale_factor": 3, "max_scale_factor": 3}],
        [{"type": "ResizeRangeScaling", "min_value": 90, "max_value": 90}],
    ],
)
def test_undo_returns_labels_to_their_original_places(chain):
    """The image has two halves. Labels of the transformed colours must give the same halves."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200
    tensor, undo = (sample := ours(image, chain)).tensor(), sample.undo
    labels = restore((tensor[0] > 100).astype(np.uint8), undo)
    assert np.array_equal(labels, (image[..., 0] > 100).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Blur", {}, "transform 'Blur' is unknown: use one of Normalize, Resize,"),
        ("Resize", {"size": [3, 4]}, "no argument 'size'; it takes target_size"),
        ("Resize", {"target_size": 512}, "target_size of transform Resize must be a list of two"),
        ("Resize", {"target_size": [0, 4]}, "a whole number above 0, up to 1000000, not"),
        ("Resize", {"interp": "RANDOM"}, "RANDOM is for training"),
        ("Resize", {"interp": "BEST"}, "one of NEAREST, LINEAR"),
        ("Resize", {"keep_ratio": "yes"}, "must be True or False"),
        ("ResizeByLong", {}, "needs the argument long_size"),
        ("ResizeByLong", {"long_size": "wide"}, "must be a number, not 'wide'"),
        ("ResizeByLong", {"long_size": -1}, "must be a number above 0"),
        ("ResizeByLong", {"long_size": True}, "must be a number, not True"),
        ("ResizeByShort", {"short_size": [1, 2]}, "for training"),
        ("ResizeByShort", {"short_size": 9, "max_size": ".inf"}, "must be a number"),
        ("ResizeByShort", {"short_size": 9, "max_size": float("inf")}, "a number up to 1e+12"),
        ("ResizeByShort", {"short_size": 9, "max_size": float("nan")}, "a number up to 1e+12"),
        ("Normalize", {"mean": [1e300]}, "a number up to 1e+12"),
        ("Padding", {"target_size": [1e10, 1e10]}, "a whole number above 0, up to 1000000"),
        ("PaddingByAspectRatio", {"aspect_ratio": 1e-320}, "a number above 0"),
        ("LimitLong", {"max_long": 10, "min_long": 20}, "min_long must not be above max_long"),
        ("LimitLong", {"max_long": 10.5}, "must be a whole number"),
        ("Normalize", {"std": [0.5, 0, 0.5]}, "none of them 0"),
        ("Normalize", {"mean": 0.5}, "a list of one number, or of one for each channel, not"),
        ("Normalize", {"mean": []}, "a list of one number, or of one for each channel, not"),
        ("ResizeRangeScaling", {}, "for training"),
        ("ResizeStepScaling", {}, "for training"),
        ("ResizeStepScaling", {"min_scale_factor": 2}, "must not be above"),
        ("Padding", {}, "needs the argument target_size"),
        ("ScalePadding", {"im_padding_value": 300}, "a number from 0 to 255"),
    ],
)
def test_the_error_names_a_wrong_argument(name, arguments, message):
    with pytest.raises(ConfigError) as caught:
        make_transform(name, arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", sorted(TRAINING_ONLY))
def test_a_training_transform_is_refused(name):
    with pytest.raises(ConfigError, match="is for training"):
        make_transform(name, {})


def test_the_training_transforms_are_all_the_others_of_paddleseg():
    from paddleseg.cvlibs import manager

    registered = set(manager.TRANSFORMS.components_dict) - {"Compose"}
    assert registered == TRAINING_ONLY | set(TRANSFORMS)


def test_strings_that_hold_numbers_are_read_as_numbers():
    transform = make_transform("ResizeByShort", {"short_size": "32", "max_size": "1e10"})
    assert (transform.short_size, transform.max_size) == (32, 1e10)


def test_arguments_about_training_labels_are_accepted():
    make_transform("Padding", {"target_size": [9, 9], "label_padding_value": 255})


@pytest.mark.parametrize(
    ("size", "chain", "message"),
    [
        ((1, 1000), [{"type": "ResizeByLong", "long_size": 100}], "1000x1 image to 100x0"),
        ((9, 20), [{"type": "Padding", "target_size": [10, 10]}], "pads to 10x10: it is too large"),
        ((9, 9), [{"type": "Resize", "target_size": [10**6, 10**6]}], "size of 9x9: .*allocate"),
        ((9, 9), [{"type": "ResizeByLong", "long_size": 1e12}], "size of 9x9: "),
    ],
)
def test_an_image_that_does_not_fit_gives_a_one_line_error(size, chain, message):
    with pytest.raises(ImageError, match=message) as caught:
        ours(scene(*size), chain)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "transform", "made"),
    [
        ((9, 9), Padding((10**6, 10**6)), "1000000x1000000"),
        ((9, 900), PaddingByAspectRatio(1e-6), "900x900000000"),
        ((9, 900), PaddingByAspectRatio(1e-12), "900x900000000000000"),
    ],
)
def test_a_tensor_that_does_not_fit_in_memory_gives_an_error_for_its_image(size, transform, made):
    """Padding is applied only when the tensor is made."""
    reader = BatchReader(DeployConfig("", "", "", (transform,)), 1, ahead=1, keeps_images=False)
    with ThreadPoolExecutor(1) as pool:
        [result] = reader.batches([Item(ArraySource(scene(*size)), "array")], pool)
    assert str(result.error) == f"there is not enough memory for its tensor of {made}"
