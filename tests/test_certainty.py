"""--unknown_below and --save probability agree with numpy for every form of output."""

import numpy as np
import pytest
from conftest import masks, read_mask, report_lines, scene, write_image
from oracle import Oracle
from PIL import Image

from paddleseg_infer.errors import ConfigError
from paddleseg_infer.pictures.files import whole_npz
from paddleseg_infer.pictures.overlay import legend_entries, legend_names
from paddleseg_infer.postprocess import OutputReader
from paddleseg_infer.segmenter import Segmenter

BELOW = 0.4
SIZE = (48, 64)


def probabilities(output, model):
    """Returns the probabilities [classes, H, W] of one image's output, in float64."""
    scores = output[0].astype(np.float64)
    if model == "foreground":
        foreground = 1 / (1 + np.exp(-scores[0]))
        return np.stack([1 - foreground, foreground])
    if model == "logits":
        scores = np.exp(scores - scores.max(axis=0))
        return scores / scores.sum(axis=0)
    return scores


def saved(folder, name="a"):
    with np.load(folder / "probability" / f"{name}.npz") as archive:
        return archive["probability"]


@pytest.fixture
def expected(models, tmp_path, request):
    """A model's name, its `deploy.yaml`, and the probabilities of the image `in/a.png`."""
    config = models / request.param / "deploy.yaml"
    write_image(tmp_path / "in" / "a.png", SIZE)
    output = Oracle(config).output(str(tmp_path / "in" / "a.png"))
    return request.param, config, probabilities(output, request.param)


@pytest.mark.parametrize("expected", ["softmax", "logits", "foreground"], indirect=True)
def test_all_outputs_agree_with_the_probabilities(infer, expected, tmp_path):
    model, config, exact = expected
    below = float(np.quantile(exact.max(axis=0), 0.4))  # 40 % of the pixels
    threshold = ("--threshold", "0") if model == "foreground" else ()
    run = infer(
        *("--config", config, "--image_path", "in", "--unknown_below", str(below), *threshold),
        *("--save", "mask", "label", "score", "overlay", "probability", "--report", "report"),
    )
    assert run.code == 0, run
    found = saved(tmp_path / "output")
    assert found.dtype == np.float16
    assert np.abs(found.astype(np.float64) - exact).max() < 1e-3
    labels = read_mask(tmp_path / "output" / "a.png")
    assert labels.shape == found.shape[1:] == SIZE
    assert np.array_equal(labels, np.array(Image.open(tmp_path / "output" / "label" / "a.png")))
    score = np.array(Image.open(tmp_path / "output" / "score" / "a.png"))
    best = found.max(axis=0).astype(np.float64)
    assert np.abs(best * 255 - score).max() <= 1
    sure = np.abs(best - below) > 2e-3  # float16 decides the others differently
    assert np.array_equal((labels == 255)[sure], (best < below)[sure])
    assert 0.3 < (labels == 255).mean() < 0.5
    is_known = labels != 255
    chosen = np.take_along_axis(found, np.where(is_known, labels, 0)[None].astype(int), axis=0)[0]
    assert np.array_equal(chosen[is_known], best[is_known])
    line = report_lines(tmp_path / "report")[0]
    assert line["files"]["probability"] == "probability/a.npz"
    assert line["classes"]["255"] == (labels == 255).sum()


@pytest.mark.parametrize("kind", ["scores", "foreground"])
@pytest.mark.parametrize("of_softmax", [False, True])
def test_pixels_below_the_probability_and_no_others_are_unknown(kind, of_softmax):
    random = np.random.default_rng(0)
    scores = random.standard_normal((5 if kind == "scores" else 1, 40, 50)).astype(np.float32)
    if kind == "scores":
        exact = np.exp(scores) / np.exp(scores).sum(axis=0)
    else:
        exact = 1 / (1 + np.exp(-scores))
    output = exact if of_softmax else scores
    threshold = 0.5 if of_softmax else 0
    labels = OutputReader(True, threshold)
    labels.learn(output[None], output.shape[1:])
    plain = labels(output).labels
    marks = OutputReader(True, threshold, unknown_below=0.7)
    marks.learn(output[None], output.shape[1:])
    maps = marks(output, ("score", "probability"))
    best = exact.max(axis=0) if kind == "scores" else np.maximum(exact[0], 1 - exact[0])
    sure = np.abs(best - 0.7) > 1e-5
    assert np.array_equal((maps.labels == 255)[sure], (best < 0.7)[sure])
    assert np.array_equal(maps.labels[maps.labels != 255], plain[maps.labels != 255])
    assert np.abs(maps.probability.astype(float).sum(axis=0) - 1).max() < 3e-3


def test_windows_give_the_probabilities_of_the_mean_scores(models, infer, tmp_path):
    write_image(tmp_path / "in" / "a.png", (60, 80))
    config = models / "logits" / "deploy.yaml"
    arguments = ("--config", config, "--image_path", "in", "--save", "mask", "probability")
    run = infer(*arguments, "--crop_size", "32", "32", "--stride", "20", "20")
    assert run.code == 0, run
    found = saved(tmp_path / "output")
    assert found.shape == (19, 60, 80)
    mask = read_mask(tmp_path / "output" / "a.png")
    best = np.take_along_axis(found, mask[None].astype(np.int64), axis=0)[0]
    assert np.array_equal(best, found.max(axis=0))  # the mask has the most probable classes
    whole = infer(*arguments, "--crop_size", "80", "60", "--save_dir", "one")  # one window
    plain = infer(*arguments, "--save_dir", "plain")
    assert whole.code == plain.code == 0
    assert np.array_equal(saved(tmp_path / "one"), saved(tmp_path / "plain"))


def test_resume_makes_probabilities_again_that_are_missing_or_cut_off(models, infer, tmp_path):
    for name in "abcde":
        write_image(tmp_path / "in" / f"{name}.png", SIZE)
    arguments = ("--config", models / "logits" / "deploy.yaml", "--image_path", "in")
    arguments += ("--save", "mask", "probability")
    assert infer(*arguments).code == 0
    folder = tmp_path / "output" / "probability"
    assert masks(folder) == [f"{name}.npz" for name in "abcde"]
    assert whole_npz(str(folder / "a.npz")) == SIZE[::-1]
    whole = (folder / "b.npz").read_bytes()
    (folder / "a.npz").unlink()
    (folder / "b.npz").write_bytes(whole[:-1])
    (folder / "c.npz").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray((folder / "d.npz").read_bytes())
    damaged[60:100] = bytes(40)
    (folder / "d.npz").write_bytes(damaged)
    again = infer(*arguments, "--resume")
    assert again.code == 0 and "4 of 5 images done" in again.out and "1 skipped" in again.out
    assert (folder / "b.npz").read_bytes() == whole


@pytest.mark.parametrize(
    ("model", "flags", "why"),
    [
        ("argmax", ("--unknown_below", "0.5"), "--unknown_below needs probabilities, but this"),
        ("argmax", ("--save", "probability"), "--save probability needs probabilities, but this"),
        ("classes300", ("--save", "label", "--unknown_below", "0.5"), "has a class of that id"),
        ("logits", ("--unknown_below", "0"), "must be above 0 and at most 1"),
        ("logits", ("--unknown_below", "1.01"), "must be above 0 and at most 1"),
    ],
)
def test_a_model_without_probabilities_or_with_a_class_255_is_refused(
    models, infer, tmp_path, model, flags, why
):
    write_image(tmp_path / "in" / "a.png", SIZE)
    run = infer("--config", models / model / "deploy.yaml", "--image_path", "in", *flags)
    assert run.code == 2 and why in run.err, run
    assert not masks(tmp_path / "output")


def test_from_python_unknown_pixels_are_255(models):
    image = scene(*SIZE)
    config = models / "logits" / "deploy.yaml"
    labels = Segmenter(config, device="cpu", unknown_below=1)(image)
    assert (labels == 255).all()
    with pytest.raises(ConfigError, match="unknown_below must be above 0 and at most 1, not 2"):
        Segmenter(config, device="cpu", unknown_below=2)


def test_the_legend_names_unknown_pixels():
    labels = np.array([[0, 255, 255, 1]], np.uint8)
    names = legend_names(("road",), "unknown")
    assert legend_entries(labels, names) == [
        (255, "unknown  50.0 %"),
        (0, "road  25.0 %"),
        (1, "1  25.0 %"),
    ]


def test_unknown_pixels_are_misses(models, infer, tmp_path):
    write_image(tmp_path / "in" / "a.png", SIZE)
    (tmp_path / "labels").mkdir()
    arguments = ("--config", models / "logits" / "deploy.yaml", "--image_path", "in")
    assert infer(*arguments, "--save", "label").code == 0
    (tmp_path / "output" / "label" / "a.png").rename(tmp_path / "labels" / "a.png")
    compare = ("--label_path", "labels", "--report", "report")
    assert infer(*arguments, *compare, "--unknown_below", "0.2").code == 0
    mask = read_mask(tmp_path / "output" / "a.png")
    assert 0 < (mask == 255).mean() < 1
    areas = report_lines(tmp_path / "report")[0]["areas"].values()
    both, predicted, of_labels = map(sum, zip(*areas, strict=True))
    summary = report_lines(tmp_path / "report")[-1]["summary"]["evaluation"]
    assert summary["accuracy"] == (mask != 255).mean()
    assert both == predicted == (mask != 255).sum()
    assert of_labels == mask.size
