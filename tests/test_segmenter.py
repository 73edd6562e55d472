"""`Segmenter` returns PaddleSeg's labels in the order of the images, at every batch size."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracle
import pytest
from conftest import scene, write_image
from PIL import Image

from paddleseg_infer.batching import BatchReader, Item
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.errors import ConfigError, ImageError, RunError
from paddleseg_infer.outcomes import Job
from paddleseg_infer.preprocess import read_image
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import SavingOptions
from paddleseg_infer.sources.array import ArraySource

SIZES = [(48, 64), (40, 56), (48, 64), (33, 47), (48, 64), (40, 56), (1, 1), (48, 64)]
IMAGES = [scene(*size, number) for number, size in enumerate(SIZES)]


def segmenter(folder, **options):
    return Segmenter(folder / "deploy.yaml", device="cpu", cpu_threads=2, **options)


@pytest.mark.parametrize("name", ["argmax", "keepdim", "logits", "softmax", "resize", "fixed"])
def test_labels_equal_those_of_paddleseg(models, name):
    reference = oracle.Oracle(str(models / name / "deploy.yaml"))
    ours = segmenter(models / name, network_size=True)
    compared = 0
    for image in IMAGES:
        if name == "fixed" and image.shape[:2] != (48, 64):
            continue
        labels = ours(image)
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, reference.labels(image))
        compared += len(np.unique(labels)) > 1
    assert compared >= 3  # labels of a single class would prove little


@pytest.mark.parametrize("batch_size", [2, 3, 4, 100])
@pytest.mark.parametrize("name", ["argmax", "logits", "softmax"])
def test_labels_and_order_do_not_depend_on_the_batch_size(models, name, batch_size):
    alone = segmenter(models / name)(IMAGES)
    batched = segmenter(models / name, batch_size=batch_size)(IMAGES)
    assert len(batched) == len(IMAGES)
    for image, one, many in zip(IMAGES, alone, batched, strict=True):
        assert one.shape == image.shape[:2]
        assert np.array_equal(one, many)


def test_a_batch_has_one_shape_and_no_image_waits_long(models):
    """The order of the results shows which images were in one batch."""
    small, large = scene(8, 8), scene(48, 64)
    images = [small, *[large] * 11, small, large]
    ours = segmenter(models / "argmax", batch_size=2)
    order = [result.index for result in ours.stream(images)]
    assert sorted(order) == list(range(len(images)))
    # The large images form pairs. Image 0 waits for another small image, but only for 8 images.
    assert order == [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 10, 11, 13, 12]


def test_only_a_few_images_are_read_ahead(models):
    """The limit is what the threads read at once, one full batch, and one incomplete batch."""
    read = []

    def images():
        for number in range(100):
            read.append(number)
            yield scene(48, 64)

    stream = segmenter(models / "argmax", batch_size=2).stream(images())
    for result in stream:
        assert len(read) <= min(100, result.index + 2 * 2 + 2 * 2 + 2)
        if result.index == 50:
            break
    stream.close()
    assert len(read) < 70


def test_an_error_of_the_images_generator_reaches_the_caller(models):
    def images():
        yield scene(48, 64)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(segmenter(models / "argmax").stream(images()))


@pytest.mark.parametrize("name", ["argmax", "resize"])
def test_the_given_array_is_not_changed(models, name):
    image = scene(48, 65)
    image.flags.writeable = False
    segmenter(models / name)(image)
    assert np.array_equal(image, scene(48, 65))


def test_paths_and_arrays_give_the_same_labels(models, photos):
    ours = segmenter(models / "argmax")
    paths = sorted(photos.iterdir())
    from_paths = ours(paths)
    from_arrays = ours([read_image(str(path)) for path in paths])
    for one, other in zip(from_paths, from_arrays, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(ours(str(paths[3])), from_paths[3])


def test_labels_are_resized_to_the_image_by_nearest_neighbour(models):
    import cv2

    image = scene(100, 130)
    small = segmenter(models / "resize", network_size=True)(image)
    assert small.shape == (48, 64)
    expected = cv2.resize(small, (130, 100), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(segmenter(models / "resize")(image), expected)


@pytest.mark.parametrize(
    ("name", "with_argmax", "line"),
    [
        ("argmax", False, None),
        ("argmax", True, "--with_argmax has no effect: this model gives labels"),
        ("logits", True, None),
        ("logits", False, "this model gives scores: the class with the highest score is chosen"),
        ("foreground", False, "one output channel: a pixel is class 1 if its value is above 0.5"),
        ("foreground", True, "--with_argmax has no effect with one output channel"),
    ],
)
def test_the_treatment_of_an_output_is_logged_once(models, caplog, name, with_argmax, line):
    caplog.set_level(logging.INFO)
    segmenter(models / name, with_argmax=with_argmax)(IMAGES)
    messages = [record.message for record in caplog.records]
    assert len(messages) == (1 if line else 0)
    assert not line or line in messages[0]


def test_with_argmax_does_not_change_the_labels(models):
    plain = segmenter(models / "logits")(IMAGES[0])
    assert np.array_equal(segmenter(models / "logits", with_argmax=True)(IMAGES[0]), plain)


def test_an_output_of_one_channel_is_compared_with_one_half(models):
    output = oracle.Oracle(str(models / "foreground" / "deploy.yaml")).output(IMAGES[0])
    labels = segmenter(models / "foreground")(IMAGES[0])
    assert np.array_equal(labels, output[0, 0] > 0.5)


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_image_that_the_network_refuses_fails_alone(models, batch_size):
    images = [scene(48, 64), scene(3, 5), scene(3, 5), scene(48, 64, 1), scene(3, 5)]
    results = {
        r.index: r for r in segmenter(models / "needs16", batch_size=batch_size).stream(images)
    }
    assert sorted(results) == [0, 1, 2, 3, 4]
    good = segmenter(models / "needs16")([images[0], images[3]])
    assert np.array_equal(results[0].labels, good[0])
    assert np.array_equal(results[3].labels, good[1])
    for index in (1, 2, 4):
        why = "the network can't run it at 5x3: it is too small for this network: "
        assert why in str(results[index].error)


def test_a_fixed_shape_is_checked_before_the_engine_runs(models):
    with pytest.raises(ImageError, match=r"image 0 \(array\): the model takes only 64x48 .* 56x40"):
        segmenter(models / "fixed")(scene(40, 56))


@pytest.mark.parametrize(("name", "batch"), [("fixed", 1), ("pairs", 2)])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_model_with_a_fixed_batch_size_gets_full_batches(models, caplog, name, batch, batch_size):
    """The model `pairs` accepts only batches of two."""
    caplog.set_level(logging.INFO)
    images = [scene(48, 64, number) for number in range(3)]
    results = segmenter(models / name, batch_size=batch_size)(images)
    is_logged = f"exported for batches of {batch}: --batch_size is" in caplog.text
    assert is_logged == (batch_size != batch)
    first, second, third = images
    assert np.array_equal(results[1], segmenter(models / name)([second, first])[0])
    assert np.array_equal(results[2], segmenter(models / name)([third, second])[0])


def test_halves_of_a_fixed_batch_are_filled_too(models):
    """Seen where they are made: no small network refuses a batch that it takes by halves."""
    reader = BatchReader(load_deploy_config(models / "pairs" / "deploy.yaml"), 2, 1, False)
    items = [Item(ArraySource(scene(48, 64, number)), "array", number) for number in range(2)]
    with ThreadPoolExecutor(1) as pool:
        [batch] = reader.batches(items, pool)
    for number, half in enumerate(reader.halves(batch)):
        assert [item.index for item in half.items] == [number]
        assert np.array_equal(half.tensor_nchw, batch.tensor_nchw[[number, number]])


@pytest.mark.parametrize("model", ["classes300", "labels300"])
def test_labels_of_more_than_256_classes_have_16_bits(models, model, tmp_path):
    segment = segmenter(models / model)
    labels = segment(IMAGES[0])
    assert labels.dtype == np.uint16
    assert labels.max() > 255
    image = write_image(tmp_path / "a.png")
    saving = SavingOptions(str(tmp_path / "out"), ("label",))
    [result] = segment.save([Job(str(image), "a")], saving)
    assert not result.error
    with Image.open(tmp_path / "out" / "label" / "a.png") as saved:
        assert saved.mode == "I;16"
        assert np.array_equal(np.array(saved), segment(image))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_an_array_of_a_wrong_shape_or_type_is_refused(models, array):
    with pytest.raises(
        ImageError, match=r"an array must be \[H, W, 3\] BGR of uint8, uint16, int16, float32, not"
    ):
        segmenter(models / "argmax")(array)


def test_a_bad_image_is_named_in_the_error(models, tmp_path):
    with pytest.raises(ImageError, match=r"image 1 \(.*gone.jpg\): the file does not exist"):
        segmenter(models / "argmax")(path for path in [IMAGES[0], tmp_path / "gone.jpg"])


def test_a_model_without_transforms_is_logged(model_copy, caplog):
    caplog.set_level(logging.INFO)
    segmenter(model_copy("argmax", transforms=None))
    assert "deploy.yaml has no transforms: images are used unchanged" in caplog.text


@pytest.mark.parametrize("batch_size", [0, -1, "2"])
def test_a_batch_size_below_1_is_refused(models, batch_size):
    with pytest.raises(ConfigError, match="batch_size must be a whole number above 0"):
        segmenter(models / "argmax", batch_size=batch_size)


def test_a_wrong_option_is_refused(models):
    with pytest.raises(TypeError, match="colour"):
        segmenter(models / "argmax", colour=True)
    with pytest.raises(
        ConfigError, match="precision must be one of fp32, bf16, int8, fp16, not 'fp64'"
    ):
        segmenter(models / "argmax", precision="fp64")


def test_all_images_get_labels_if_the_graph_drops_images_of_a_batch(models):
    """The graph returns labels of the first image of a batch only."""
    results = list(segmenter(models / "first_only", batch_size=3).stream(IMAGES[:1] * 4))
    assert [result.index for result in results] == [0, 1, 2, 3]
    alone = segmenter(models / "first_only")(IMAGES[0])
    for result in results:
        assert np.array_equal(result.labels, alone)


def test_results_hold_no_reference_to_their_image(models):
    images = [scene(48, 64, number) for number in range(3)] + [np.zeros((2, 2), np.uint8)]
    results = list(Segmenter(models / "argmax" / "deploy.yaml", device="cpu").stream(images))
    assert [bool(result.error) for result in results].count(True) == 1
    for result in results:
        item = result.item
        assert (item.source, item.frame, item.image_bgr) == (None, None, None)


def test_a_deleted_output_folder_is_not_created_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr("paddleseg_infer.pictures.files.WAITS", ())
    saving = SavingOptions(str(tmp_path / "out"))
    segment = Segmenter(model, device="cpu")
    jobs = [Job(str(write_image(tmp_path / "a.png")), "a")]
    assert [result.error for result in segment.save(jobs, saving)] == [None]
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(RunError, match="no such file"):
        list(segment.save(jobs, saving))
    assert not (tmp_path / "out").exists()
