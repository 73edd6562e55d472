"""Areas and metrics equal PaddleSeg's, in all digits."""

import struct
import warnings
import zlib
from unittest import mock

import cv2
import numpy as np
import oracle  # noqa: F401  # it loads PaddleSeg
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddleseg_infer.errors import ImageError
from paddleseg_infer.evaluation import areas_of, histogram
from paddleseg_infer.label_maps import opened_label_map
from paddleseg_infer.metrics import metrics_of, own_mean_iou
from paddleseg_infer.outcomes import Areas

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from paddleseg.utils import metrics as paddlesegs


def paddlesegs_areas(labels, truth, classes, ignore_index):
    """Returns PaddleSeg's areas as its tensors.

    It joins sums with paddle.concat, which fails since sums have no dimension (Paddle 3).
    """
    given = (paddle.to_tensor(ids[None].astype(np.int64)) for ids in (labels, truth))
    with mock.patch.object(paddle, "concat", paddle.stack):
        return paddlesegs.calculate_area(*given, classes, ignore_index)


@st.composite
def comparisons(draw):
    """A mask, its label map, the number of classes and the ignored id."""
    classes = draw(st.sampled_from([2, 3, 11, 19, 300]))
    ignore_index = draw(st.sampled_from([255, 0, 1, classes, 65535]))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    some = random.integers(0, classes, draw(st.integers(1, min(classes, 9))))  # not every class
    labels, truth = random.choice(some, size), random.choice(some, size)
    labels = np.where(random.random(size) < draw(st.sampled_from([0, 0.5, 1])), truth, labels)
    labels = np.where(random.random(size) < 0.1, 255 if classes > 255 else 0, labels)
    truth = np.where(random.random(size) < 0.2, ignore_index, truth)
    kinds = [
        np.uint8 if ids.max() < 256 and draw(st.booleans()) else np.uint16
        for ids in (labels, truth)
    ]
    return labels.astype(kinds[0]), truth.astype(kinds[1]), classes, ignore_index


@settings(deadline=None, max_examples=40)  # times depend on the machine
@given(comparisons(), comparisons())
def test_areas_and_metrics_equal_paddlesegs(first, second):
    labels, truth, classes, ignore_index = first
    theirs = paddlesegs_areas(labels, truth, classes, ignore_index)
    areas = areas_of(labels, truth, classes, ignore_index)
    assert areas[:3] == tuple(tuple(each.numpy().tolist()) for each in theirs)
    assert areas.compared == (truth != ignore_index).sum()
    if second[2] == classes:
        areas = areas.plus(areas_of(*second))
        others = paddlesegs_areas(*second)
        theirs = [one + other for one, other in zip(theirs, others, strict=True)]
    metrics = metrics_of(areas)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou, mean_iou = paddlesegs.mean_iou(*theirs)
        accuracy, precision, recall = paddlesegs.class_measurement(*theirs)
        kappa, (_, mean_dice) = paddlesegs.kappa(*theirs), paddlesegs.dice(*theirs)
    for mine, other in (
        (metrics.iou, iou),
        (metrics.precision, precision),
        (metrics.recall, recall),
        (metrics.mean_iou, mean_iou),
        (metrics.accuracy, accuracy),
        (metrics.kappa, kappa),
        (metrics.mean_dice, mean_dice),
    ):
        assert np.array_equal(mine, other, equal_nan=True)


def test_an_images_own_mean_iou_is_over_the_classes_that_it_has():
    assert own_mean_iou(Areas((3, 0, 0), (4, 0, 2), (5, 0, 0), 6)) == (3 / 6 + 0) / 2
    assert own_mean_iou(Areas((0, 0), (0, 0), (0, 0), 0)) is None


def test_pixels_of_no_class_are_misses_in_every_metric():
    truth = np.array([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1]], np.uint8)
    unknown = truth.copy()
    unknown[0, 2:5] = 255
    metrics = metrics_of(areas_of(unknown, truth, 2, 255))
    assert metrics.accuracy == 7 / 10
    assert metrics.iou.tolist() == metrics.recall.tolist() == [2 / 3, 5 / 7]
    assert metrics.kappa < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_more_pixels_than_float32_can_count_are_counted(dtype):
    ids = np.zeros((4100, 4100), dtype)  # 16.8 million pixels
    ids[-1, -1] = 7
    counts = histogram(ids)
    assert (counts[0], counts[7], counts.sum()) == (ids.size - 1, 1, ids.size)


def grey_png(ids, bits):
    """Returns a grey PNG with so few bits per value. Pillow and OpenCV can't write one."""
    rows = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].ravel()) for row in ids]

    def chunk(name, data):
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def read_label_map(path):
    with opened_label_map(path) as labels:
        return labels.rows(slice(0, labels.size[0]))


def as_png(path, image, **how):
    image.save(path, "PNG", **how)
    return str(path)


def test_a_label_map_may_be_grey_or_have_a_palette(tmp_path):
    ids = np.random.default_rng(0).integers(0, 12, (9, 13)).astype(np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette(bytes(range(36)))
    assert np.array_equal(read_label_map(as_png(tmp_path / "grey", Image.fromarray(ids))), ids)
    assert np.array_equal(read_label_map(as_png(tmp_path / "palette", palette, bits=4)), ids)
    large = ids.astype(np.uint16) * 1000
    cv2.imwrite(str(tmp_path / "large.png"), large)
    assert np.array_equal(read_label_map(str(tmp_path / "large.png")), large)
    for bits in (2, 4):
        few = ids % (1 << bits)
        (tmp_path / "few.png").write_bytes(grey_png(few, bits))
        assert np.array_equal(read_label_map(str(tmp_path / "few.png")), few)
    bits = Image.fromarray(ids > 5)
    assert np.array_equal(read_label_map(as_png(tmp_path / "bits", bits)), ids > 5)


def test_a_file_without_one_id_per_pixel_is_refused(tmp_path):
    colours = np.zeros((4, 5, 3), np.uint8)
    for name, image, why in (
        ("colours", Image.fromarray(colours), r"it has several values per pixel \(RGB\)"),
        ("grey with alpha", Image.fromarray(colours[..., :2]), "it has several values per pixel"),
    ):
        with pytest.raises(ImageError, match=why):
            read_label_map(as_png(tmp_path / name, image))
    Image.fromarray(colours).save(tmp_path / "jpeg", "JPEG")
    with pytest.raises(ImageError, match="it is neither a PNG nor a TIFF"):
        read_label_map(str(tmp_path / "jpeg"))
    with pytest.raises(ImageError, match="it can't be read: no such file"):
        read_label_map(str(tmp_path / "none"))
    noise = np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8)
    as_png(tmp_path / "noise", Image.fromarray(noise))
    whole = (tmp_path / "noise").read_bytes()
    for length in (4, 8, 20, 33, 60, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ImageError, match="it is cut off or damaged"):
            read_label_map(str(tmp_path / "cut"))


def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(np.full((4, 5), number, np.uint8)) for number in (1, 2)]
    path = as_png(tmp_path / "moving.png", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="it is an animation"):
        read_label_map(path)
