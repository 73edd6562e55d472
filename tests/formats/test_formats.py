"""Formats that are read have the right pixels, and files that are cut off are refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import scene
from PIL import Image

from paddleseg_infer.errors import ImageError
from paddleseg_infer.formats.known import SUFFIXES
from paddleseg_infer.preprocess import read_image

HEIGHT, WIDTH = 24, 32
BGR = scene(HEIGHT, WIDTH)
RGB = Image.fromarray(BGR[..., ::-1])
GREY = RGB.convert("L")
PALETTE = RGB.quantize(17)
BITS = RGB.convert("1")
SIXTEEN = (np.arange(HEIGHT * WIDTH, dtype=np.uint16) * 83).reshape(HEIGHT, WIDTH)


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.copy().save(buffer, form, **options)
    return buffer.getvalue()


def pixels(image):
    """Returns the pixels that Pillow decodes, as BGR."""
    return np.array(image.convert("RGB"))[..., ::-1]


def numbers(values):
    return b"\n".join(b" ".join(b"%d" % value for value in row) for row in values) + b"\n"


def tiff(array, compressed=False, planes=1, values=1, photometric=None, colours=()):
    """Returns a TIFF with its tags before its pixels. With `planes` 2 each band is separate."""
    height, width, bands = array.shape
    array = array.astype(array.dtype.newbyteorder("<"))
    parts = [array] if planes == 1 else [array[..., band] for band in range(bands)]
    parts = [zlib.compress(part.tobytes()) if compressed else part.tobytes() for part in parts]
    tags = {
        256: [width],
        257: [height],
        258: [array.itemsize * 8] * bands,
        259: [8 if compressed else 1],
        262: [(2 if bands > 2 else 1) if photometric is None else photometric],
        273: [0] * len(parts),
        277: [bands],
        278: [height],
        279: [len(part) for part in parts],
        284: [planes],
        320: list(colours),
        338: [0] * max(0, bands - 3),
        339: [values] * bands,
    }
    tags = {tag: numbers for tag, numbers in tags.items() if numbers}

    def head():
        entries, behind, start = b"", b"", 8 + 2 + 12 * len(tags) + 4
        for tag, numbers in tags.items():
            kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
            value = struct.pack(f"<{len(numbers)}{letter}", *numbers)
            if len(value) > 4:
                place = struct.pack("<I", start + len(behind))
                behind, value = behind + value.ljust(len(value) + len(value) % 2, b"\0"), place
            entries += struct.pack("<HHI", tag, kind, len(numbers)) + value.ljust(4, b"\0")
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + behind

    at = len(head())
    tags[273] = [at + sum(map(len, parts[:number])) for number in range(len(parts))]
    return head() + b"".join(parts)


INDICES = np.array(PALETTE)[..., None]
COLOURS = np.array(PALETTE.getpalette()[:768]).reshape(-1, 3)
COLOURS = np.vstack([COLOURS, np.zeros((256 - len(COLOURS), 3), int)])
FIELDS = b"%d %d\n255\n" % (WIDTH, HEIGHT)
READ = {
    "a.jpg": (saved(RGB, "JPEG"), None),
    "a.jpe": (saved(GREY, "JPEG", progressive=True), None),
    "a.jfif": (saved(RGB, "JPEG"), None),
    "a.mpo": (saved(RGB, "MPO", save_all=True, append_images=[GREY.convert("RGB")]), None),
    "a.png": (saved(RGB, "PNG"), BGR),
    "a.bmp": (saved(RGB, "BMP"), BGR),
    "a.dib": (saved(PALETTE, "BMP"), pixels(PALETTE)),
    "a.webp": (saved(RGB, "WEBP", lossless=True), BGR),
    "a.tif": (tiff(BGR[..., ::-1]), BGR),
    "compressed.tif": (tiff(BGR[..., ::-1], compressed=True), BGR),
    "planes.tif": (tiff(BGR[..., ::-1], planes=2), BGR),
    "compressed planes.tif": (tiff(BGR[..., ::-1], compressed=True, planes=2), BGR),
    "palette.tif": (
        tiff(INDICES, compressed=True, photometric=3, colours=(COLOURS * 257).T.ravel()),
        pixels(PALETTE),
    ),
    "palette of Pillow.tiff": (saved(PALETTE, "TIFF", compression="tiff_lzw"), pixels(PALETTE)),
    "sixteen.tif": (tiff(SIXTEEN[..., None]), np.dstack([SIXTEEN >> 8] * 3)),
    "sixteen in planes.tif": (tiff(np.dstack([SIXTEEN] * 3), planes=2), None),
    "big.tiff": (saved(RGB, "TIFF", big_tiff=True), BGR),
    "a.ppm": (saved(RGB, "PPM"), BGR),
    "a.pgm": (saved(GREY, "PPM"), pixels(GREY)),
    "a.pbm": (saved(BITS, "PPM"), pixels(BITS)),
    "a.pnm": (b"P3\n# made by hand\n" + FIELDS + numbers(np.array(RGB).reshape(-1, 3)), BGR),
    "text.pgm": (b"P2\n" + FIELDS + numbers(np.array(GREY)), pixels(GREY)),
    "text.pbm": (
        b"P1\n%d %d\n" % (WIDTH, HEIGHT) + numbers(1 - np.array(BITS).astype(int)),
        pixels(BITS),
    ),
    "sixteen.pgm": (
        b"P5\n%d %d\n65535\n" % (WIDTH, HEIGHT) + SIXTEEN.astype(">u2").tobytes(),
        np.dstack([SIXTEEN >> 8] * 3),
    ),
}


def written(path, data):
    path.write_bytes(data)
    return str(path)


def test_every_suffix_is_tried():
    assert {f".{name.rpartition('.')[2]}" for name in READ} == SUFFIXES - {".jpeg", ".npy"}


@pytest.mark.parametrize("name", READ)
def test_the_pixels_are_right(tmp_path, name):
    data, expected = READ[name]
    image = read_image(written(tmp_path / name, data))
    assert image.shape == BGR.shape
    assert np.array_equal(image, cv2.imread(str(tmp_path / name), cv2.IMREAD_COLOR))
    assert expected is None or np.array_equal(image, expected)


@pytest.mark.parametrize("name", READ)
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, name):
    """A cut is accepted only if no pixel is lost, for example if a preview is missing."""
    data = READ[name][0]
    whole = read_image(written(tmp_path / name, data))
    refused = 0
    for length in range(1, len(data)):
        try:
            image = read_image(written(tmp_path / name, data[:length]))
        except ImageError:
            refused += 1
        else:
            assert np.array_equal(image, whole), length
    assert refused > len(data) / 3


# ---- files that are not read -------------------------------------------------------------------

FRAMES = {"save_all": True, "append_images": [RGB.rotate(90)]}
BANDS = np.dstack([BGR, BGR, BGR])
NO_FORMAT = "file, which can't be read: convert it to PNG or TIFF"
NO_VALUES = "and is no picture: name its bands with --bands"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", f"it is a HEIC {NO_FORMAT}"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", f"it is a HEIC {NO_FORMAT}"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", f"it is an AVIF {NO_FORMAT}"),
        (saved(RGB, "GIF"), f"it is a GIF {NO_FORMAT}"),
        (saved(RGB, "GIF", **FRAMES), f"it is a GIF {NO_FORMAT}"),
        (b"\xff\x0a\xfa\x1f", f"it is a JPEG XL {NO_FORMAT}"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'></svg>", f"it is an SVG {NO_FORMAT}"),
        (cv2.imencode(".hdr", BGR / np.float32(255))[1].tobytes(), f"it is a Radiance {NO_FORMAT}"),
        (cv2.imencode(".pfm", BGR / np.float32(255))[1].tobytes(), f"it is a PFM {NO_FORMAT}"),
        (cv2.imencode(".ras", BGR)[1].tobytes(), f"it is a Sun raster {NO_FORMAT}"),
        (
            tiff(BANDS[..., :5]),
            "the TIFF has 5 bands, but a picture has at most 4: name three with",
        ),
        (tiff(BANDS[..., :8], planes=2), "the TIFF has 8 bands, but a picture has"),
        (
            tiff(BGR.astype(np.float32), values=3),
            f"TIFF contains floating-point values {NO_VALUES}",
        ),
        (
            tiff(BGR.astype(np.float16), values=3),
            f"TIFF contains floating-point values {NO_VALUES}",
        ),
        (tiff(BGR[..., :1].astype(np.uint32)), f"TIFF contains values of 32 bits {NO_VALUES}"),
        (saved(GREY.convert("I"), "TIFF"), f"TIFF contains values of 32 bits {NO_VALUES}"),
        (
            b"P5 %d %d 100\n" % (WIDTH, HEIGHT) + bytes(HEIGHT * WIDTH),
            "the PNM's highest value is 100, and OpenCV reads only 255 and 65535 right",
        ),
        (tiff(BGR, planes=2)[:-1], "the TIFF is cut off: it has 2"),
        (saved(RGB, "JPEG2000"), f"it is a JPEG 2000 {NO_FORMAT}"),
        (saved(RGB, "JPEG2000", no_jp2=True), f"it is a JPEG 2000 {NO_FORMAT}"),
    ],
)
def test_the_error_names_a_format_that_is_not_read(tmp_path, data, message):
    with pytest.raises(ImageError) as refusal:
        read_image(written(tmp_path / "photo.jpg", data))
    assert message in str(refusal.value)


@pytest.mark.parametrize("name", READ)
def test_damaged_bytes_raise_no_other_error_than_image_error(tmp_path, name):
    random = np.random.default_rng(0)
    whole = READ[name][0]
    for _ in range(100):
        data = bytearray(whole)
        for at in random.integers(0, min(len(data), 300), 6):
            data[at] = random.integers(256)
        try:
            read_image(written(tmp_path / name, data))
        except ImageError as error:
            assert "\n" not in str(error)
