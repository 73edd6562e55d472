"""A Segmenter in the hands of real callers: threads, reused buffers, other kinds of images."""

import io
import threading

import cv2
import numpy as np
import pytest
from conftest import scene
from PIL import Image

from paddleseg_infer import Segmenter
from paddleseg_infer.errors import ImageError

SIZES = [(48, 64), (40, 56), (64, 80)]


@pytest.fixture
def segmenter(models):
    return Segmenter(models / "logits" / "deploy.yaml", device="cpu", batch_size=2)


def in_threads(count, work):
    """Runs `work(number)` in threads at the same time. Raises the first error of a thread."""
    errors = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_four_threads_get_the_labels_of_their_own_images(segmenter, models):
    images = [scene(*SIZES[number % 3], number) for number in range(12)]
    alone = Segmenter(models / "logits" / "deploy.yaml", device="cpu")
    expected = [alone(image) for image in images]

    def calls(number):  # the first calls also load the engine together
        for index in range(number, 200, 4):
            assert np.array_equal(segmenter(images[index % 12]), expected[index % 12])

    def streams(number):
        order = [(number + step) % 12 for step in range(24)]
        for result in segmenter.stream(images[index] for index in order):
            assert np.array_equal(result.labels, expected[order[result.index]])

    in_threads(4, lambda number: calls(number) if number % 2 else streams(number))


def test_two_open_streams_of_one_thread_do_not_wait_for_each_other(segmenter):
    images = [scene(*SIZES[0], number) for number in range(8)]
    first, second = segmenter.stream(images), segmenter.stream(images)
    pairs = list(zip(first, second, strict=True))
    assert len(pairs) == 8
    assert all(np.array_equal(one.labels, other.labels) for one, other in pairs)


def test_a_caller_may_use_the_same_buffer_for_each_frame(segmenter):
    frames = [scene(*SIZES[0], number) for number in range(16)]
    buffer = np.empty_like(frames[0])

    def camera():
        for frame in frames:
            buffer[:] = frame
            yield buffer

    results = {result.index: result.labels for result in segmenter.stream(camera())}
    for index, frame in enumerate(frames):
        assert np.array_equal(results[index], segmenter(frame)), index


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_picture_of_pillow_is_segmented_like_its_array(segmenter, mode):
    picture = Image.fromarray(cv2.cvtColor(scene(*SIZES[0]), cv2.COLOR_BGR2RGB)).convert(mode)
    image_bgr = np.asarray(picture.convert("RGB"))[..., ::-1]
    assert np.array_equal(segmenter(picture), segmenter(np.ascontiguousarray(image_bgr)))


def test_a_damaged_picture_of_pillow_fails_alone(segmenter):
    buffer = io.BytesIO()
    Image.fromarray(scene(300, 400)).save(buffer, "JPEG")
    damaged = Image.open(io.BytesIO(buffer.getvalue()[:3000]))
    results = {r.index: r for r in segmenter.stream([scene(*SIZES[0]), damaged, scene(*SIZES[0])])}
    assert "Pillow can't decode it: image file is truncated" in str(results[1].error)
    assert results[0].labels is not None and results[2].labels is not None


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (None, r"image 0 \(NoneType\): it is None, which cv2.imread returns for a file that it"),
        (Image.new("I;16", (8, 8)), r"image 0 \(Image\): it is Image of mode I;16: give a path"),
        (np.zeros((8, 8, 3)), r"an array must be \[H, W, 3\] BGR of .*, not float64 \[8, 8, 3\]"),
        (np.zeros((8, 8), np.uint8), r"must be \[H, W, 3\] BGR of .*, not uint8 \[8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), r"must be \[H, W, 3\] BGR of .*, not uint8 \[0, 8, 3\]"),
        (7, r"it is int: give a path, an array"),
        (b"a.png", r"it is bytes: give a path, an array"),
    ],
)
def test_what_is_no_image_raises_one_sentence(segmenter, image, why):
    with pytest.raises(ImageError, match=why):
        segmenter(image)
    with pytest.raises(ImageError, match=why):
        segmenter([image, scene(*SIZES[0])])
    first, second = sorted(segmenter.stream([image, scene(*SIZES[0])]), key=lambda r: r.index)
    assert first.error and second.labels is not None
