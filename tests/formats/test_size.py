"""The size that a header promises is the size that OpenCV's decoder gives."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import masks, scene
from PIL import ExifTags, Image

from paddleseg_infer.formats.size import image_size
from paddleseg_infer.preprocess import read_image

RGB = Image.fromarray(scene(48, 64)[..., ::-1])
FORMATS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp", "BMP": "bmp"}
TURNING = {"JPEG", "PNG", "TIFF"}  # OpenCV leaves a WebP as it is, and a BMP has no EXIF
ORIENTATIONS = range(1, 9)


def saved(form, **options):
    buffer = io.BytesIO()
    RGB.copy().save(buffer, form, **options)
    return buffer.getvalue()


def oriented(form, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return saved(form, exif=exif)


def decoded_size(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1::-1]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_it_is_the_size_of_the_decoded_image(tmp_path, form, orientation):
    path = tmp_path / f"image.{FORMATS[form]}"
    path.write_bytes(oriented(form, orientation))
    size = (48, 64) if form in TURNING and orientation > 4 else (64, 48)
    assert image_size(str(path)) == size
    assert decoded_size(path.read_bytes()) == size
    assert read_image(str(path)).shape[1::-1] == size


def test_resume_skips_every_format_in_every_orientation(infer, model, tmp_path):
    (tmp_path / "in").mkdir()
    for form, suffix in FORMATS.items():
        for orientation in ORIENTATIONS:
            path = tmp_path / "in" / f"{suffix} {orientation}.{suffix}"
            path.write_bytes(oriented(form, orientation))
    arguments = ("--config", model, "--image_path", "in", "--batch_size", "8", "--resume")
    assert infer(*arguments).out.startswith("40 of 40 images done")
    assert len(masks(tmp_path / "output")) == 40
    again = infer(*arguments)
    assert again.out.startswith("0 of 40 images done") and "40 skipped" in again.out


# ---- EXIF as OpenCV reads it -------------------------------------------------------------------


def exif(orientation, order="<", kind=3):
    """EXIF that holds an orientation only, as a number of two bytes (kind 3) or of four (4)."""
    value = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", orientation, *[0] * (kind == 3))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}HHHI", 1, 274, kind, 1) + value + bytes(4)


def segment(data):
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


JPEG, PNG = saved("JPEG"), saved("PNG")
BEFORE_PIXELS, BEHIND_PIXELS = PNG.index(b"IDAT") - 4, PNG.index(b"IEND") - 4
MARK, SIX, ONE = b"Exif\0\0", exif(6), exif(1)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
OF_XMP = segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP)


def jpeg(*segments):
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def png(data, at=BEFORE_PIXELS, name=b"eXIf"):
    return PNG[:at] + chunk(name, data) + PNG[at:]


ODD = {
    "big-endian.jpg": jpeg(segment(MARK + exif(6, ">"))),
    "four bytes.jpg": jpeg(segment(MARK + exif(6, "<", 4))),
    "four bytes, big-endian.jpg": jpeg(segment(MARK + exif(6, ">", 4))),
    "nine.jpg": jpeg(segment(MARK + exif(9))),
    "nought.jpg": jpeg(segment(MARK + exif(0))),
    "cut.jpg": jpeg(segment(MARK + SIX[:9])),
    "six, one.jpg": jpeg(segment(MARK + SIX), segment(MARK + ONE)),
    "one, six.jpg": jpeg(segment(MARK + ONE), segment(MARK + SIX)),
    "xmp only.jpg": jpeg(OF_XMP),
    "xmp, six.jpg": jpeg(OF_XMP, segment(MARK + SIX)),
    "six, xmp.jpg": jpeg(segment(MARK + SIX), OF_XMP),
    "preview.jpg": saved("MPO", save_all=True, append_images=[RGB.copy()], exif=MARK + SIX),
    "before the pixels.png": png(SIX),
    "behind the pixels.png": png(SIX, BEHIND_PIXELS),
    "big-endian.png": png(exif(6, ">"), BEHIND_PIXELS),
    "with a mark.png": png(MARK + SIX),
    "xmp only.png": png(b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, name=b"iTXt"),
    "as text.png": png(
        b"Raw profile type exif\0\nexif\n      32\n" + (MARK + SIX).hex().encode(), name=b"tEXt"
    ),
    "lossless.webp": saved("WEBP", lossless=True, exif=MARK + SIX),
    "xmp only.tif": saved("TIFF", tiffinfo={700: XMP}),
    "nine.tif": saved("TIFF", tiffinfo={274: 9}),
    "jpeg inside.tif": saved("TIFF", tiffinfo={274: 6}, compression="jpeg"),
    "big.tif": saved("TIFF", tiffinfo={274: 6}, big_tiff=True),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_exif_means_what_it_means_to_opencv(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ODD[name])
    assert image_size(str(path)) == decoded_size(ODD[name])


def test_there_are_odd_ones_that_turn_the_image_and_others_that_do_not():
    assert {decoded_size(data) for data in ODD.values()} == {(64, 48), (48, 64)}


# ---- the header is enough ----------------------------------------------------------------------


def test_the_pixels_of_a_png_are_not_decoded(tmp_path):
    """Pillow would, to find EXIF behind them."""
    path = tmp_path / "a.png"
    pixels = PNG.index(b"IDAT") + 4
    path.write_bytes(PNG[:pixels] + bytes(BEHIND_PIXELS - pixels) + chunk(b"eXIf", SIX))
    assert image_size(str(path)) == (48, 64)


def test_what_is_no_image_has_no_size(tmp_path):
    for name, content in [
        ("text.png", b"no picture"),
        ("empty.jpg", b""),
        ("short.tif", b"II*\0\x08"),
        ("no tags.tif", b"II*\0\x08\0\0\0\0\0\0\0\0\0"),
    ]:
        (tmp_path / name).write_bytes(content)
    for name in ("text.png", "empty.jpg", "short.tif", "no tags.tif", "gone.png", "."):
        assert image_size(str(tmp_path / name)) is None
