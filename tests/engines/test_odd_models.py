"""Models of other kinds than PaddleSeg's are refused by name, or their labels are right."""

import re

import numpy as np
import pytest
from conftest import PADDLE, cached_models, scene, write_image

from paddleseg_infer import Segmenter
from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.load import load
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.preprocess import prepare

SIZE = (48, 64)


@pytest.fixture(params=["pdmodel", "json"])
def odd(request, pytestconfig):
    """The folder of the models that make_odd_models.py exports, in both forms of graphs."""
    if request.param == "json" and PADDLE < (3, 0, 0):
        pytest.skip("Paddle 2 makes no json graphs")
    if request.param == "pdmodel" and PADDLE[:2] == (3, 3):
        pytest.skip("Paddle 3.3 can't save an argmax in a pdmodel")
    return cached_models(pytestconfig, request.param, "make_odd_models.py")


def raw_output(folder, image_bgr):
    """Returns what the network itself gives for one image."""
    deploy = load_deploy_config(folder / "deploy.yaml")
    build = find_paddle()
    engine = load(Setup(deploy, resolved(EngineOptions("cpu"), build), build))
    return engine(prepare(image_bgr, deploy.transforms).tensor()[None])[0][0]


def labels_of(folder, *images, **options):
    return Segmenter(folder / "deploy.yaml", device="cpu", **options)(list(images))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("two_inputs", "has the inputs 'x' and 'y': only models with one input"),
        ("nhwc_input", r"needs images in the layout NHWC, \[-1, -1, -1, 3\], but this"),
        ("nhwc_fixed", r"needs images in the layout NHWC, \[-1, 512, 512, 3\], but this"),
        ("float64", "needs float64 values, but this program gives float32"),
        ("no_batch", r"gives int64 values of shape \[-1, -1\]: neither labels"),
        ("no_batch_scores", r"gives values of shape \[5, -1, -1\], without a batch axis"),
        ("bf16", "gives bf16 values, which Paddle can't copy: export it with a float32 output"),
        ("no_batch_whole", r"gives values of shape \[5, -1, -1\], without a batch axis"),
        ("classes_only", r"gives float32 values of shape \[-1, 5\]: neither labels"),
    ],
)
def test_a_model_of_another_kind_is_refused_when_it_is_loaded(odd, name, why):
    with pytest.raises(ConfigError, match=f"{name}/model.* {why}"):
        Segmenter(odd / name / "deploy.yaml", device="cpu").load()


def test_a_refused_model_ends_the_run_and_the_dry_run_with_2(odd, infer, tmp_path):
    image = write_image(tmp_path / "a.png", SIZE)
    arguments = ("--config", odd / "two_inputs" / "deploy.yaml", "--image_path", image)
    for more in ([], ["--dry_run"], ["--enable_mkldnn", "False"]):
        run = infer(*arguments, *more)
        assert run.code == 2
        assert re.search("error: .* has the inputs 'x' and 'y'", run.err)
        assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", ["turned", "flat"])
def test_labels_in_other_places_are_refused(odd, name):
    with pytest.raises(ConfigError, match="its last axes must be height and width"):
        labels_of(odd / name, scene(*SIZE))


def test_a_batch_size_that_only_the_graph_declares_is_refused(model_copy):
    folder = model_copy("pairs", input_shape=[-1, 3, -1, -1])
    with pytest.raises(ConfigError, match="takes only batches of 2: add `input_shape: ") as error:
        Segmenter(folder / "deploy.yaml", device="cpu", cache_dir="").load()
    advice = re.search(r"`input_shape: \[(.*?)\]`", str(error.value))[1]
    text = (folder / "deploy.yaml").read_text()
    old = "  input_shape:\n  - -1\n  - 3\n  - -1\n  - -1\n"
    assert old in text
    (folder / "deploy.yaml").write_text(text.replace(old, f"  input_shape: [{advice}]\n"))
    assert Segmenter(folder / "deploy.yaml", device="cpu", cache_dir="")(scene(48, 64)).any()


def test_ids_below_0_fail_and_are_not_taken_for_scores(odd):
    with pytest.raises(ImageError, match="the model gives labels from -1"):
        labels_of(odd / "ids_from_minus_1", scene(*SIZE))


def test_a_last_batch_of_one_that_lacks_its_axis_fails_alone(odd):
    images = [scene(*SIZE, number) for number in range(5)]
    segmenter = Segmenter(odd / "squeezed" / "deploy.yaml", device="cpu", batch_size=4)
    results = {result.index: result for result in segmenter.stream(images)}
    expected = labels_of(odd / "plain", *images)
    assert all(np.array_equal(results[index].labels, expected[index]) for index in range(4))
    assert "its first axis must be the batch" in str(results[4].error)


@pytest.mark.parametrize("size", [SIZE, (5, 5), (37, 50)])
@pytest.mark.parametrize("name", ["nhwc", "nhwc_ids", "float_ids", "nchw_undeclared"])
def test_labels_are_those_of_the_same_network_in_paddlesegs_form(odd, name, size):
    if name == "nchw_undeclared" and size == (5, 5):
        pytest.skip("five classes and five rows: both layouts fit")
    image = scene(*size)
    [expected] = labels_of(odd / "plain", image)
    assert set(np.unique(expected)) - {0, 1}
    [labels] = labels_of(odd / name, image)
    assert np.array_equal(labels, expected)


def test_the_first_output_decides_a_layout_that_the_graph_does_not_declare(odd):
    images = [scene(*SIZE), scene(5, 5)]  # of the second alone it would be unknown
    expected = labels_of(odd / "plain", *images)
    for name in ("nhwc_undeclared", "nchw_undeclared"):
        for labels, right in zip(labels_of(odd / name, *images), expected, strict=True):
            assert np.array_equal(labels, right)
        declared = load_deploy_config(odd / name / "deploy.yaml").graph_facts.outputs[0].shape
        if set(declared) == {-1}:  # Paddle 3's json graphs declare it all the same
            with pytest.raises(ConfigError, match=r"\[1, 5, 5, 5\] for an image of 5x5: both .* "):
                labels_of(odd / name, images[1])


def test_one_channel_may_be_the_last_axis_too(odd):
    image = scene(*SIZE)
    output = raw_output(odd / "nhwc_one_channel", image)
    assert output.shape == (*SIZE, 1)
    [labels] = labels_of(odd / "nhwc_one_channel", image, threshold=0.1)
    assert np.array_equal(labels, output[..., 0] > 0.1)


def test_float_class_ids_are_labels(odd, caplog):
    caplog.set_level("INFO")
    image = scene(*SIZE)
    output = raw_output(odd / "rounded", image)[0]
    assert {0, 1, 2} <= set(np.unique(output))
    [labels] = labels_of(odd / "rounded", image)
    assert np.array_equal(labels, output)
    assert "this model gives class ids as float values: they are used as labels" in caplog.text


def test_float_class_ids_are_labels_also_if_the_first_image_has_only_0_and_1(odd):
    dark, bright = np.full((*SIZE, 3), 128, np.uint8), scene(*SIZE)
    outputs = [raw_output(odd / "rounded", image)[0] for image in (dark, bright)]
    assert outputs[0].max() <= 1 < outputs[1].max()
    for labels, output in zip(labels_of(odd / "rounded", dark, bright), outputs, strict=True):
        assert np.array_equal(labels, output)


def test_windows_of_float_class_ids_are_joined_as_labels(odd):
    image = scene(*SIZE)
    [expected] = labels_of(odd / "rounded", image, crop_size=(32, 48))
    assert expected.max() > 1
    assert set(np.unique(expected)) <= set(range(20))


@pytest.mark.parametrize(("name", "pixels"), [("nan", 3 * 48), ("infinite", None)])
def test_an_image_with_scores_that_are_no_numbers_fails(odd, name, pixels):
    count = pixels or r"\d+"
    why = f"the network gives NaN or infinite scores in {count} of {48 * 64} pixels: run it with"
    with pytest.raises(ImageError, match=why):
        labels_of(odd / name, scene(*SIZE))
    with pytest.raises(ImageError, match="the network gives NaN or infinite scores in"):
        labels_of(odd / name, scene(*SIZE), crop_size=(32, 32))


def test_other_outputs_are_named_in_a_line(odd, caplog):
    caplog.set_level("INFO")
    [labels] = labels_of(odd / "three_outputs", scene(*SIZE))
    [expected] = labels_of(odd / "plain", scene(*SIZE))
    assert np.array_equal(labels, expected)
    [line] = [line for line in caplog.messages if "outputs" in line]
    others = "is used, and the others are ignored: '.*', '.*'"
    assert re.search(f"model.* has 3 outputs: the first, '.*', {others}", line)


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("halved_twice", (50, 37), "its sides must be multiples of 4: use --crop_size with such m"),
        ("halved_twice", (401, 400), "its sides must be multiples of 4: "),
        ("halved_five_times", (48, 64), "its sides must be multiples of 32: "),
        ("halved_five_times", (639, 640), "its sides must be multiples of 32: "),
        ("halved_five_times", (375, 1242), "its sides must be multiples of 32: "),
        ("large_kernel", (50, 37), "it is too small for this network: "),
    ],
)
def test_a_refused_size_is_explained(odd, name, size, why):
    height, width = size
    with pytest.raises(ImageError, match=f"can't run it at {width}x{height}: {re.escape(why)}"):
        labels_of(odd / name, scene(*size))


@pytest.mark.parametrize("size", [(48, 64), (50, 37), (16, 16)])
def test_no_wrong_advice_for_a_multiple_that_is_not_known(odd, size):
    with pytest.raises(ImageError, match="can't run it at") as refusal:
        labels_of(odd / "thirds", scene(*size))
    assert "multiples" not in str(refusal.value) and "too small" not in str(refusal.value)


def test_the_advice_about_multiples_is_right(odd, tmp_path):
    """With the Resize that the message names, the image is segmented."""
    source = odd / "halved_five_times"
    text = (source / "deploy.yaml").read_text()
    for name in ("model.pdmodel", "model.json", "model.pdiparams"):
        if (source / name).exists():
            (tmp_path / name).symlink_to(source / name)
    resize = "transforms:\n  - {type: Resize, target_size: [64, 48], size_divisor: 32}"
    (tmp_path / "deploy.yaml").write_text(text.replace("transforms:", resize))
    [labels] = labels_of(tmp_path, scene(50, 37))
    assert labels.shape == (50, 37)
