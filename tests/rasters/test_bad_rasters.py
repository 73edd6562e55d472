"""Rasters that can't be read: each gets a sentence."""

import re

import cv2
import numpy as np
import pytest
from conftest import scene
from made import UTM, raster, read, values

from paddleseg_infer.errors import ImageError


@pytest.mark.parametrize(
    ("image", "channels", "how", "message"),
    [
        ("five.tif", 13, {}, "the TIFF has 5 bands, but the model takes 13 channels"),
        ("five.tif", 3, {"bands": (1, 2, 6)}, "the TIFF has 5 bands, but --bands names band 6"),
        ("complex.tif", 2, {}, r"the TIFF has complex numbers \(complex64\)"),
        ("nan.tif", 5, {}, "7 of its 15360 values are NaN, infinite or above 1e.30: repl"),
        ("nan.npy", 5, {}, "7 of its 15360 values are NaN, infinite or above 1e.30: repl"),
        ("cut.tif", 5, {}, r"the TIFF is cut off: it has 2000 of at least \d+ bytes"),
        ("lies.tif", 5, {}, "the TIFF can't be read: "),
        ("unknown.tif", 5, {}, "the TIFF can't be read: .*missing codec"),
        ("five.tif", 3, {}, "the TIFF has 5 bands, but a picture has at most 4: name three with"),
        ("float.tif", 3, {}, "contains floating-point values and is no picture: name its bands"),
        ("rgb.png", 4, {}, r"the picture has 3 channels, but the model takes 4 \(RGBA\)"),
        ("rgb.png", 5, {}, "the model takes 5 channels, which only a TIFF of so many bands or a"),
        ("rgb.png", 3, {"bands": (1, 2, 3)}, "--bands selects bands of a TIFF, and this file is"),
        ("five.npy", 5, {"bands": (1, 2, 3, 4, 5)}, "--bands selects bands of a TIFF, and this is"),
        ("five.npy", 4, {}, r"an array must be \[H, W, 4\] of uint8, .*, not uint16 \[48, 64, 5\]"),
        ("five.npy", 3, {}, r"an array must be \[H, W, 3\] BGR of"),
        ("double.npy", 5, {}, "values of type float64: save it as one of uint8, uint16, int16, fl"),
        ("cut.npy", 5, {}, r"the .npy file is cut off: it has 900 of \d+ bytes"),
        ("damaged.npy", 5, {}, "the .npy file is damaged"),
        ("negative.npy", 5, {}, r"the .npy file is damaged \(its shape is \(-1, 48, 5\)\)"),
        ("flat.npy", 5, {}, r"the .npy file is damaged \(its shape is \[7\], not \[H, W, C\]"),
        ("chw.npy", 5, {}, r"not uint16 \[5, 48, 64\]: turn it with np.moveaxis"),
        ("mask.tif", 5, {}, "the TIFF is cut off"),
        ("objects.npy", 5, {}, "the .npy file has values of type object"),
        ("gone.tif", 5, {}, "the file does not exist"),
        ("/vsimem/a.tif", 5, {}, "the file does not exist"),
        ("empty.tif", 5, {}, "the file is empty"),
    ],
)
def test_a_file_that_cannot_be_read_gets_a_sentence(tmp_path, image, channels, how, message):
    make_bad_files(tmp_path)
    with pytest.raises(ImageError) as refusal:
        read(str(tmp_path / image), channels, **how)
    assert re.search(message, str(refusal.value))
    assert "\n" not in str(refusal.value)


def make_bad_files(folder):
    five = values(5)
    raster(folder / "five.tif", five)
    raster(folder / "float.tif", five[:3].astype(np.float32))
    raster(folder / "complex.tif", five[:2].astype(np.complex64))
    nan = five.astype(np.float32)
    nan[2, 3, :6], nan[4, 4, 4] = np.nan, np.inf
    raster(folder / "nan.tif", nan)
    np.save(folder / "nan.npy", np.moveaxis(nan, 0, 2))
    data = (folder / "five.tif").read_bytes()
    (folder / "cut.tif").write_bytes(data[:2000])
    raster(folder / "lies.tif", five, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    lies = bytearray((folder / "lies.tif").read_bytes())
    lies[1000:3000] = bytes(2000)  # zeros are no deflated data
    (folder / "lies.tif").write_bytes(lies)
    unknown = bytearray(data)
    at = unknown.find(b"\x03\x01\x03\x00\x01\x00\x00\x00")  # the tag of the compression
    unknown[at + 8 : at + 10] = (61234).to_bytes(2, "little")
    (folder / "unknown.tif").write_bytes(unknown)
    cv2.imwrite(str(folder / "rgb.png"), scene(48, 64))
    array = np.moveaxis(five, 0, 2)
    np.save(folder / "five.npy", array)
    np.save(folder / "double.npy", array.astype(float))
    np.save(folder / "objects.npy", np.array([[[{}, 1]]], dtype=object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "five.npy").read_bytes()[:900])
    (folder / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00\x09\x00{'descr':")
    header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 48, 5)}\n"
    negative = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(999)
    (folder / "negative.npy").write_bytes(negative)
    np.save(folder / "flat.npy", np.zeros(7, np.uint8))
    np.save(folder / "chw.npy", five)
    raster(folder / "mask.tif", five, mask=five[0] > 2000)
    with_mask = (folder / "mask.tif").read_bytes()
    (folder / "mask.tif").write_bytes(with_mask[:-200])  # the end has the tags of the mask
    (folder / "empty.tif").write_bytes(b"")


def test_damaged_rasters_raise_no_other_error_than_image_error(tmp_path):
    random = np.random.default_rng(0)
    raster(tmp_path / "a.tif", values(5), compress="deflate", **UTM)
    whole = (tmp_path / "a.tif").read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        for at in random.integers(0, min(len(data), 600), 4):
            data[at] = random.integers(256)
        (tmp_path / "b.tif").write_bytes(data)
        try:
            read(str(tmp_path / "b.tif"), 5)
        except ImageError as error:
            assert "\n" not in str(error)
