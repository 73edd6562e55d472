"""Images are read as cv2.imread reads them. Damaged files are refused with a clear message."""

import io
import os
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from conftest import ROOT, scene
from PIL import Image

from paddleseg_infer.errors import ImageError
from paddleseg_infer.preprocess import image_size, prepare, read_image
from paddleseg_infer.transforms.paddleseg import make_transform

BGR = scene(40, 56)
RGB = Image.fromarray(BGR[..., ::-1])


def pil_bytes(image, form, append_images=(), **options):
    """Returns the bytes of the image's file.

    It saves copies, because Pillow stores settings of a format on the image.
    """
    buffer = io.BytesIO()
    more = [page.copy() for page in append_images]
    image.copy().save(buffer, form, **({"append_images": more} if more else {}), **options)
    return buffer.getvalue()


def cv2_bytes(image, suffix, *options):
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def rotated_jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pil_bytes(RGB, "JPEG", exif=exif)


SIXTEEN = (np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29).astype(np.uint16)
KINDS = {
    "colour.png": cv2_bytes(BGR, ".png"),
    "colour.jpg": cv2_bytes(BGR, ".jpg"),
    "progressive.jpg": pil_bytes(RGB, "JPEG", progressive=True),
    "grey.png": cv2_bytes(BGR[..., 0], ".png"),
    "grey.jpg": cv2_bytes(BGR[..., 0], ".jpg"),
    "rgba.png": cv2_bytes(np.dstack([BGR, BGR[..., 0]]), ".png"),
    "sixteen.png": cv2_bytes(SIXTEEN, ".png"),
    "sixteen colour.png": cv2_bytes(np.dstack([SIXTEEN] * 3), ".png"),
    "sixteen.tif": cv2_bytes(SIXTEEN, ".tif"),
    "cmyk.jpg": pil_bytes(RGB.convert("CMYK"), "JPEG"),
    "palette.png": pil_bytes(RGB.quantize(17), "PNG"),
    "one bit.png": pil_bytes(RGB.convert("1"), "PNG"),
    "grey and alpha.png": pil_bytes(RGB.convert("LA"), "PNG"),
    "colour.bmp": cv2_bytes(BGR, ".bmp"),
    "palette.bmp": pil_bytes(RGB.quantize(17), "BMP"),
    "colour.webp": cv2_bytes(BGR, ".webp"),
    "compressed.tif": pil_bytes(RGB, "TIFF", compression="tiff_lzw"),
    "bytes behind.jpg": cv2_bytes(BGR, ".jpg") + b"trailing bytes",
    "bytes behind.png": cv2_bytes(BGR, ".png") + b"trailing bytes",
    **{f"orientation {n}.jpg": rotated_jpeg(n) for n in range(1, 9)},
}


@pytest.mark.parametrize("name", KINDS)
def test_read_image_returns_the_same_as_cv2_imread(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(KINDS[name])
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)
    image = read_image(str(path))
    assert image.dtype == np.uint8
    assert image.shape in ((40, 56, 3), (56, 40, 3))
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("name", KINDS)
def test_the_size_in_the_header_is_that_of_the_image_that_is_read(tmp_path, name):
    """--resume and TensorRT's shapes go by it; EXIF may exchange width and height."""
    path = str(tmp_path / name)
    (tmp_path / name).write_bytes(KINDS[name])
    height, width = read_image(path).shape[:2]
    assert image_size(path) == (width, height)


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(path, "wb") as file:
        file.write(KINDS["colour.png"])
    assert np.array_equal(read_image(os.fsdecode(path)), BGR)


@pytest.mark.parametrize(
    "name", [name for name in KINDS if "behind" not in name and "orientation" not in name]
)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, name, kept):
    path = tmp_path / name
    path.write_bytes(KINDS[name][: int(len(KINDS[name]) * kept)])
    with pytest.raises(ImageError, match="decoded|cut off"):
        read_image(str(path))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("lost", [1, 2, 12, 40])
def test_a_file_without_its_last_bytes_is_refused_or_read_completely(tmp_path, name, lost):
    path = tmp_path / name
    path.write_bytes(KINDS[name])
    whole = read_image(str(path))
    path.write_bytes(KINDS[name][:-lost])
    try:
        image = read_image(str(path))
    except ImageError:
        return
    assert np.array_equal(image, whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"not an image at all", "it can't be decoded: it is not an image"),
        (b"\xff\xd8\xff\xe0 not a jpeg", "the JPEG is cut off or damaged"),
        (b"\xff\xd8", "the JPEG is cut off or damaged"),
    ],
)
def test_a_file_that_is_not_an_image_is_refused(tmp_path, content, message):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_image(str(path))


def test_a_path_that_is_not_a_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.jpg").symlink_to("nothing")
    for name, message in [
        ("pipe.jpg", "not a regular file"),
        ("folder.jpg", "not a regular file"),
        ("broken.jpg", "a broken link"),
        ("gone.jpg", "does not exist"),
        ("nul\0.jpg", "does not exist"),
        ("folder.jpg/x.jpg", "does not exist"),
    ]:
        with pytest.raises(ImageError, match=message):
            read_image(str(tmp_path / name))


def test_without_transforms_the_tensor_holds_the_image():
    sample = prepare(BGR, [])
    assert sample.tensor().dtype == np.float32
    assert sample.undo == []
    assert np.array_equal(sample.tensor(), BGR[..., ::-1].transpose(2, 0, 1))


# ---- what the header says ----------------------------------------------------------------------

PAGES = [RGB, Image.fromarray(scene(40, 56, 1)), Image.fromarray(scene(40, 56, 2))]


@pytest.mark.parametrize("form", ["TIFF", "WEBP", "PNG"])
def test_the_first_of_several_pictures_is_read_and_this_is_logged(tmp_path, form, caplog):
    caplog.set_level("INFO")
    path = tmp_path / f"film.{form.lower()}"
    more = {"lossless": True} if form == "WEBP" else {}
    path.write_bytes(pil_bytes(PAGES[0], form, save_all=True, append_images=PAGES[1:], **more))
    assert np.array_equal(read_image(str(path)), BGR)
    assert caplog.messages == [f"{path} contains several pictures: the first is used"]


def test_a_preview_in_a_jpeg_does_not_count_as_a_second_picture(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "phone.jpg"
    path.write_bytes(pil_bytes(PAGES[0], "MPO", save_all=True, append_images=PAGES[1:2]))
    assert read_image(str(path)).shape == BGR.shape
    assert caplog.messages == []


def write_fake_png(path, width, height):
    """Writes a small PNG whose header gives this false size. Returns its path."""
    data = bytearray(KINDS["colour.png"])
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def test_an_image_too_large_for_the_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = write_fake_png(tmp_path / "huge.png", 30_000, 20_000)
    monkeypatch.setattr("paddleseg_infer.preprocess.available_memory", lambda: 2e9)
    with pytest.raises(
        ImageError,
        match=r"its 30000x20000 pixels need at least 122\.4 GB of memory, but only 2\.0 GB "
        "are available: use windows, for example --crop_size 1024 1024",
    ):
        read_image(str(path), ())
    with pytest.raises(ImageError, match=r"at least 2\.4 GB of memory.*: the image is too large"):
        read_image(str(path))


def test_the_error_says_if_opencv_cannot_read_so_many_pixels(tmp_path, monkeypatch):
    path = write_fake_png(tmp_path / "huge.png", 60_000, 60_000)
    with pytest.raises(
        ImageError, match="60000x60000 pixels are more than OpenCV reads: set OPENCV_IO"
    ):
        read_image(str(path), ())
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 40))
    monkeypatch.setattr("paddleseg_infer.preprocess.available_memory", lambda: 2e9)
    with pytest.raises(ImageError, match="need at least"):
        read_image(str(path), ())


def test_the_memory_limit_of_the_process_is_respected(tmp_path):
    """The limit is 2 GB. 576 megapixels of 4 bytes don't fit, 400 megapixels may fit."""
    for side in (24_000, 20_000):
        write_fake_png(tmp_path / f"{side}.png", side, side)
    code = """
import resource, sys
from paddleseg_infer.preprocess import read_image
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, -1))
for path in sys.argv[1:]:
    try:
        read_image(path)
    except Exception as error:
        print(error)
"""
    paths = [str(tmp_path / "24000.png"), str(tmp_path / "20000.png")]
    run = subprocess.run(
        [sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True
    )
    one, other = run.stdout.splitlines()
    assert one == (
        "its 24000x24000 pixels need at least 2.3 GB of memory, but only 2.0 GB are available: "
        "the image is too large"
    )
    assert "need at least" not in other  # OpenCV tries to decode this one


@pytest.mark.parametrize(
    ("steps", "pixels"),
    [
        ([], 30_000 * 20_000),
        ([("Resize", {"target_size": [512, 512]})], 512 * 512),
        ([("LimitLong", {"max_long": 50_000})], 30_000 * 20_000),  # makes no image smaller
        ([("LimitLong", {"max_long": 3000})], 3000 * 2000),
        ([("PaddingByAspectRatio", {"aspect_ratio": 2})], 40_000 * 20_000),
    ],
)
def test_the_memory_check_uses_the_size_in_the_network(tmp_path, monkeypatch, steps, pixels):
    path = write_fake_png(tmp_path / "large.png", 30_000, 20_000)
    needed = 30_000 * 20_000 * 4 + pixels * 200
    transforms = [make_transform(*each) for each in steps]
    monkeypatch.setattr("paddleseg_infer.preprocess.available_memory", lambda: needed - 1)
    with pytest.raises(ImageError, match="30000x20000 pixels need at least"):
        read_image(str(path), transforms)
    monkeypatch.setattr("paddleseg_infer.preprocess.available_memory", lambda: needed)
    with pytest.raises(ImageError, match="can't be decoded|not enough memory"):
        read_image(str(path), transforms)
