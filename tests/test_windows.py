"""Results of windows are joined as in PaddleSeg, and as in a run without windows."""

import numpy as np
import pytest
from conftest import masks, scene, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from windows_oracle import mean_of_windows, monais_weight, paddlesegs_windows

from paddleseg_infer.batching import Item, Result
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.outcomes import nothing
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.sources.array import ArraySource
from paddleseg_infer.sources.reading import ImageData
from paddleseg_infer.tiling import Tiling, checked_tiling, grid_of
from paddleseg_infer.windows import NO_MEMORY, Cutter, put_together

SIDES = st.integers(1, 60)
SIZES = st.tuples(SIDES, SIDES)


@st.composite
def tilings(draw):
    crop = draw(SIZES)
    return Tiling(crop, (draw(st.integers(1, crop[0])), draw(st.integers(1, crop[1]))))


# ---- positions of the windows ------------------------------------------------------------------


def tensor_of(segmenter, image):
    return prepare(image, segmenter.deploy.transforms).tensor()


@settings(deadline=None)  # times depend on the machine
@given(image=SIZES, tiling=tilings())
def test_windows_start_where_those_of_paddleseg_start(image, tiling):
    grid = grid_of(image, tiling)
    assert [grid.tops, grid.lefts] == paddlesegs_windows(image, tiling.crop, tiling.stride)


@settings(deadline=None)  # times depend on the machine
@given(image=SIZES, tiling=tilings())
def test_each_pixel_belongs_to_the_window_of_the_nearest_centre(image, tiling):
    grid = grid_of(image, tiling)
    owner = np.full(image, -1)
    for number in range(len(grid)):
        rows, columns = grid.nearest(number)
        assert (owner[rows, columns] == -1).all()
        owner[rows, columns] = number
    y, x = np.mgrid[: image[0], : image[1]]
    centres = [
        (top + (grid.window[0] - 1) / 2, left + (grid.window[1] - 1) / 2)
        for top in grid.tops
        for left in grid.lefts
    ]
    distances = [(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centres]
    assert np.array_equal(owner, np.argmin(distances, axis=0))


@pytest.mark.parametrize(
    ("crop", "stride", "message"),
    [
        (None, (4, 4), "--stride has no effect without --crop_size"),
        (5, None, "--crop_size needs a width and a height above 0, not 5"),
        ((4, 0), None, r"--crop_size needs a width and a height above 0, not \(4, 0\)"),
        ((4,), None, "needs a width and a height"),
        ((4, 4), (4, 4.5), "--stride needs a width"),
        ((8, 4), (8, 5), "--stride is larger than --crop_size, so there would be gaps"),
    ],
)
def test_invalid_windows_are_refused(crop, stride, message):
    with pytest.raises(ConfigError, match=message):
        checked_tiling(crop, stride)


def test_the_width_is_given_before_the_height():
    assert checked_tiling((8, 4), (2, 1)) == Tiling((4, 8), (1, 2))
    assert checked_tiling((8, 4), None) == Tiling((4, 8), (4, 8))


# ---- joined results of the engine --------------------------------------------------------------


def segmenter(models, name, **options):
    return Segmenter(models / name / "deploy.yaml", device="cpu", cpu_threads=1, **options)


@pytest.mark.parametrize("name", ["logits", "foreground"])
@pytest.mark.parametrize(
    ("crop", "stride", "batch_size"),
    [((64, 48), None, 1), ((64, 48), (40, 32), 3), ((50, 50), (7, 31), 4), ((500, 40), None, 2)],
)
@pytest.mark.parametrize(("blend", "weight"), [("mean", lambda *_: 1), ("gaussian", monais_weight)])
def test_scores_are_joined_by_the_formula(models, name, crop, stride, batch_size, blend, weight):
    """The mean is PaddleSeg's, the gaussian weights are MONAI's."""
    image = scene(150, 200)
    windows = {"crop_size": crop, "stride": stride, "batch_size": batch_size, "blend": blend}
    labels = segmenter(models, name, **windows)(image)
    plain = segmenter(models, name, batch_size=batch_size)
    tiling = checked_tiling(crop, stride)
    grid = grid_of(image.shape[:2], tiling)
    frames = [tensor_of(plain, image[grid.slices(at)]) for at in range(len(grid))]
    batches = [frames[at : at + batch_size] for at in range(0, len(frames), batch_size)]
    scores = np.concatenate([plain.load()(np.stack(batch))[0] for batch in batches])
    mean = mean_of_windows(scores, image.shape[:2], grid.window, tiling.stride, weight)
    expected = mean.argmax(0) if name == "logits" else mean[0] > 0.5
    assert np.array_equal(labels, expected)


def test_the_memory_for_the_scores_is_announced_or_refused(models, monkeypatch, caplog):
    """Six numbers of eight bytes for each pixel of a row of windows: five classes and a weight."""
    caplog.set_level("INFO")
    windows = segmenter(models, "logits", crop_size=(64, 48))
    image = scene(100, 200)
    classes = windows.load()(tensor_of(windows, image)[None])[0].shape[1]
    needed = (classes + 1) * 48 * 200 * 8
    monkeypatch.setattr("paddleseg_infer.blending.available_memory", lambda: needed - 1)
    figures = f"{needed / 1e9:.1f} GB of memory"
    with pytest.raises(
        ImageError, match=f"classes in a row of windows, 200x48 pixels, need {figures}"
    ):
        windows(image)
    monkeypatch.setattr("paddleseg_infer.blending.available_memory", lambda: needed)
    monkeypatch.setattr("paddleseg_infer.blending.MUCH", needed - 1)
    assert windows(image).shape == (100, 200)
    assert f"a row of windows, 200x48 pixels, need {figures}" in caplog.text


@pytest.mark.parametrize("blend", ["foo", None, ["mean"]])
@pytest.mark.parametrize("crop", [None, (8, 8)])
def test_an_unknown_blend_is_refused(blend, crop):
    with pytest.raises(ConfigError, match="blend must be one of mean, gaussian, not"):
        checked_tiling(crop, None, blend)


def test_labels_cannot_be_blended(models):
    blended = segmenter(models, "argmax", crop_size=(64, 48), stride=(40, 32), blend="gaussian")
    with pytest.raises(ConfigError, match="--blend gaussian needs scores, but this model gives"):
        blended(scene(150, 200))


@pytest.mark.parametrize("name", ["argmax", "keepdim", "resize", "labels300"])
def test_each_label_comes_from_the_nearest_window(models, name):
    image = scene(150, 200)
    labels = segmenter(models, name, crop_size=(64, 48), stride=(50, 30), batch_size=4)(image)
    plain = segmenter(models, name)
    grid = grid_of((150, 200), Tiling((48, 64), (30, 50)))
    expected = np.zeros((150, 200), labels.dtype)
    for number in range(len(grid)):
        rows, columns = grid.slices(number)
        whole = np.zeros_like(expected)
        whole[rows, columns] = plain(image[rows, columns])
        own = grid.nearest(number)
        expected[own] = whole[own]
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize(
    "name", ["argmax", "logits", "softmax", "resize", "foreground", "classes300"]
)
@pytest.mark.parametrize("crop", [(90, 70), (1000, 1000)])
def test_a_crop_as_large_as_the_image_gives_the_result_without_windows(models, name, crop):
    image = scene(70, 90)
    plain = segmenter(models, name)(image)
    labels = segmenter(models, name, crop_size=crop)(image)
    assert labels.dtype == plain.dtype
    assert np.array_equal(labels, plain)


def test_a_failed_image_does_not_affect_the_others(models, tmp_path):
    good = write_image(tmp_path / "good.png", (60, 80))
    (tmp_path / "bad.png").write_bytes(b"no image")
    windowed = segmenter(models, "needs16", crop_size=(32, 32), batch_size=3)
    small = scene(9, 9)  # too small for the network
    found = {r.index: r for r in windowed.stream([tmp_path / "bad.png", good, small, good])}
    assert sorted(found) == [0, 1, 2, 3]
    assert "can't be decoded" in str(found[0].error)
    assert "the network can't run it at 9x9" in str(found[2].error)
    assert np.array_equal(found[1].labels, found[3].labels)
    assert found[1].labels.shape == (60, 80)
    assert all(seconds > 0 for seconds in found[1].times)


def test_an_image_too_large_for_the_memory_runs_in_windows(models, tmp_path, monkeypatch):
    monkeypatch.setattr("paddleseg_infer.preprocess.available_memory", lambda: 1e9)
    path = tmp_path / "large.png"
    Image.new("RGB", (6000, 5000)).save(path, compress_level=1)
    with pytest.raises(ImageError, match=r"6000x5000 pixels need at least 6\.1 GB.*--crop_size"):
        segmenter(models, "argmax")(path)
    assert segmenter(models, "argmax", crop_size=(2000, 2000))(path).shape == (5000, 6000)
    assert segmenter(models, "resize")(path).shape == (5000, 6000)  # Resize makes it small


def windows_of(items, tiling):
    return Cutter(tiling, None, False, lambda item, tiling: None, nothing).windows(items)


class WideSource:
    """A source with an image of one row, which needs no memory."""

    name = "wide"

    def __init__(self, width):
        self._width = width

    def read(self, transforms=None):
        return ImageData(np.broadcast_to(np.uint8(0), (1, self._width, 3)))


def test_an_image_that_does_not_fit_in_memory_fails_alone():
    """The labels would need a petabyte, and the sums of the scores nearly as much."""
    [too_wide, window] = windows_of(
        [Item(WideSource(10**15), "", 0), Item(WideSource(10**9), "", 1)],
        Tiling((1, 10**15), (1, 10**15)),
    )
    assert (too_wide.index, str(too_wide.error)) == (0, NO_MEMORY)
    many_classes = Result(window, scores=np.zeros((200_000, 1, 1), np.float32))
    [failed] = put_together([many_classes])
    assert failed.index == 1
    assert "scores of 200000 classes in a row of windows, 1000000000x1 pixels, need 16" in str(
        failed.error
    )


def test_labels_equal_those_of_paddlesegs_slide_inference(models):
    """PaddleSeg's slide_inference gets the outputs of this program's engine."""
    import paddle
    from paddleseg.core.infer import slide_inference

    image = scene(150, 200)
    plain = segmenter(models, "logits")
    tensor = paddle.to_tensor(tensor_of(plain, image)[None])

    def network(im):
        return [paddle.to_tensor(plain.load()(np.ascontiguousarray(im.numpy()))[0])]

    for crop, stride in (((64, 48), (40, 32)), ((64, 48), (64, 48)), ((300, 64), (100, 30))):
        scores = slide_inference(network, tensor, crop_size=crop, stride=stride)
        expected = scores.numpy()[0].argmax(0)
        labels = segmenter(models, "logits", crop_size=crop, stride=stride)(image)
        assert np.array_equal(labels, expected)


def test_after_a_failed_window_the_images_other_windows_are_not_run():
    images = [Item(ArraySource(scene(side, side)), "", side) for side in (64, 32)]
    windows = windows_of(images, Tiling((32, 32), (32, 32)))
    taken = []

    def results():
        for window in windows:
            taken.append(window)
            yield Result(window, ImageError("no"))

    failed = list(put_together(results()))
    assert [result.index for result in failed] == [64, 32]
    assert len(taken) == 2


# ---- the command line --------------------------------------------------------------------------


def test_windows_in_workers_give_the_same_files_as_in_one_process(infer, models, tmp_path):
    for number in range(5):
        write_image(tmp_path / "photos" / f"{number}.png", (100 + number, 150), number)
    model = models / "softmax" / "deploy.yaml"
    common = ("--config", model, "--image_path", "photos", "--cpu_threads", "1")
    windowed = ("--crop_size", "64", "48", "--stride", "40", "40", "--save", "score", "mask")
    assert infer(*common, *windowed, "--save_dir", "one").code == 0
    more = ("--num_workers", "2", "--batch_size", "3")
    assert infer(*common, *windowed, *more, "--save_dir", "two").code == 0
    found = masks(tmp_path / "one")
    assert len(found) == 10 and found == masks(tmp_path / "two")
    for name in found:
        one, two = (np.array(Image.open(tmp_path / run / name)) for run in ("one", "two"))
        assert one.shape == (100 + int(name[-5]), 150)
        assert np.array_equal(one, two)
