"""Images of any number of channels and of any depth: the tensor equals PaddleSeg's formulas.

PaddleSeg's own transforms are the oracle. Some stop at limits of OpenCV: `copyMakeBorder` and AREA
take four channels, and a single channel is dropped. The oracle gets functions without these limits,
and for two to four channels also OpenCV's own.
"""

import cv2
import numpy as np
import oracle
import paddleseg.transforms.functional
import paddleseg.transforms.transforms
import pytest
from chains import entries
from hypothesis import given, settings
from hypothesis import strategies as st

from paddleseg_infer.errors import ImageError
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.transforms.paddleseg import TRANSFORMS, make_transform

CHANNELS = (1, 2, 4, 5, 13)
TYPES = ("uint8", "uint16", "int16", "float32")


class Unlimited:
    """The module cv2 with a `resize` and a `copyMakeBorder` for any number of channels."""

    def __getattr__(self, name):
        return getattr(cv2, name)

    @staticmethod
    def resize(image, size, interpolation=cv2.INTER_LINEAR):
        if interpolation == cv2.INTER_AREA:
            planes = [
                cv2.resize(image[..., c], size, interpolation=interpolation)
                for c in range(image.shape[2])
            ]
            return np.stack(planes, axis=2)
        return cv2.resize(image, size, interpolation=interpolation).reshape(*size[::-1], -1)

    @staticmethod
    def copyMakeBorder(image, top, bottom, left, right, kind, value):
        assert (top, left, kind) == (0, 0, cv2.BORDER_CONSTANT)
        if image.dtype == np.uint8:  # OpenCV rounds a border of 8 bits
            value = np.clip(np.rint(value), 0, 255)
        padding = ((0, bottom), (0, right), (0, 0))
        return np.pad(image, padding, constant_values=np.asarray(value[0], image.dtype))


def theirs(image, chain, with_limits=False):
    """Returns the tensor of PaddleSeg's transforms."""
    with pytest.MonkeyPatch.context() as patch:
        if not with_limits:
            for module in ("functional", "transforms"):
                patch.setattr(getattr(paddleseg.transforms, module), "cv2", Unlimited())
        made = oracle.compose(chain)
        made.img_channels = image.shape[2]
        return made({"img": image.astype("float32"), "gt_fields": []})["img"]


def ours(image, chain):
    made = [make_transform(e["type"], {k: v for k, v in e.items() if k != "type"}) for e in chain]
    return prepare(image, made).tensor()


def image_of(channels, dtype, seed, low=None, high=None):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 70, 2)
    if dtype == "float32":
        return random.normal(300, 500, (height, width, channels)).astype(np.float32)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, (height, width, channels), dtype, endpoint=True)


def assert_equal(image, chain, with_limits=False):
    try:
        expected = theirs(image, chain, with_limits)
    except (cv2.error, ValueError, ZeroDivisionError):
        with pytest.raises(ImageError):
            ours(image, chain)
        return
    tensor = ours(image, chain)
    assert tensor.dtype == expected.dtype
    assert np.array_equal(tensor, expected), chain


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_a_transform_equals_paddlesegs_formula(kind, channels):
    # ScalePadding makes 8 bits of any value, and is tested alone.
    types = TYPES if kind != "ScalePadding" else TYPES[:1]

    @settings(max_examples=30, deadline=None)
    @given(st.sampled_from(types), st.integers(0, 99), entries(channels)[kind])
    def check(dtype, seed, entry):
        assert_equal(image_of(channels, dtype, seed), [entry])

    check()


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_chain_equals_paddlesegs_formula(channels):
    kinds = {name: each for name, each in entries(channels).items() if name != "ScalePadding"}
    chains = st.lists(st.one_of(*kinds.values()), max_size=5)

    @settings(max_examples=80, deadline=None)
    @given(st.sampled_from(TYPES), st.integers(0, 99), chains)
    def check(dtype, seed, chain):
        assert_equal(image_of(channels, dtype, seed), chain)

    check()


@pytest.mark.parametrize("channels", [2, 4])
def test_where_paddleseg_runs_with_opencvs_limits_the_result_is_the_same(channels):
    chains = st.lists(st.one_of(*entries(channels).values()), max_size=4)

    @settings(max_examples=80, deadline=None)
    @given(st.integers(0, 99), chains)
    def check(seed, chain):
        assert_equal(image_of(channels, "uint8", seed), chain, with_limits=True)

    check()


@pytest.mark.parametrize("values", [[-1.0, 5], [0, 256]])
def test_scale_padding_refuses_values_that_8_bits_cannot_hold(values):
    image = np.array(values, np.float32).reshape(1, 2, 1)
    with pytest.raises(
        ImageError, match=r"its values are .*, but ScalePadding keeps only 0 to 255"
    ):
        ours(image, [{"type": "ScalePadding", "target_size": [8, 8]}])


def test_the_image_of_the_caller_is_not_changed():
    for dtype in TYPES:
        image = image_of(5, dtype, 1)
        before = image.copy()
        ours(image, [{"type": "Normalize"}, {"type": "Resize", "target_size": [9, 9]}])
        assert np.array_equal(image, before)
