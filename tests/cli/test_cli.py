"""Tests of infer.py as users call it: its files, its output and its exit code."""

import re
import subprocess
import sys

import cv2
import numpy as np
import oracle
import pytest
import yaml
from conftest import ROOT, masks, read_mask, write_image

from paddleseg_infer.flags import PARTS, make_parser
from paddleseg_infer.machine import limits as machine
from paddleseg_infer.option import EXAMPLES, GROUPS, options_of

# ---- the main task -----------------------------------------------------------------------------


def test_each_image_of_a_folder_gets_a_mask_of_its_size(infer, model, photos, tmp_path):
    run = infer("--config", model, "--image_path", "photos")
    assert run.code == 0
    assert run.err == ""
    assert re.fullmatch(r"5 of 5 images done in [\d.]+ s, 0 failed: masks in output\n", run.out)
    assert masks(tmp_path / "output") == [f"{number}.png" for number in range(5)]
    for path in photos.iterdir():
        mask = read_mask(tmp_path / "output" / f"{path.stem}.png")
        assert mask.shape == cv2.imread(str(path)).shape[:2]


@pytest.mark.parametrize("batch_size", ["1", "4"])
@pytest.mark.parametrize("mkldnn", ["True", "False"])
@pytest.mark.parametrize("name", ["argmax", "resize", "softmax", "logits"])
def test_masks_equal_the_labels_of_paddleseg(
    infer, models, photos, tmp_path, name, mkldnn, batch_size
):
    config = models / name / "deploy.yaml"
    run = infer(
        *("--config", config, "--image_path", photos, "--batch_size", batch_size),
        *("--enable_mkldnn", mkldnn, "--cpu_threads", "2", "--with_argmax", "--network_size"),
    )
    assert run.code == 0
    reference = oracle.Oracle(str(config), mkldnn == "True")
    for path in photos.iterdir():
        mask = read_mask(tmp_path / "output" / f"{path.stem}.png")
        assert np.array_equal(mask, reference.labels(str(path)))


def test_a_json_graph_gives_masks(infer, json_models, photos, tmp_path):
    run = infer("--config", json_models / "resize" / "deploy.yaml", "--image_path", photos)
    assert run.code == 0
    assert len(masks(tmp_path / "output")) == 5


def test_one_image_and_a_list_give_masks(infer, model, photos, tmp_path):
    run = infer("--config", model, "--image_path", "photos/1.png", "--save_dir", "one")
    assert (run.code, masks(tmp_path / "one")) == (0, ["1.png"])
    (tmp_path / "list.txt").write_text("photos/1.png 0\nphotos/2.jpg\nphotos/1.png\n")
    run = infer("--config", model, "--image_path", "list.txt", "--save_dir", "many")
    assert (run.code, masks(tmp_path / "many")) == (0, ["1.png", "2.png"])
    assert run.err == "note: 1 lines of the list repeat an image: each image is processed once\n"


def test_with_argmax_hides_the_note_about_scores(infer, models, photos):
    arguments = ("--config", models / "logits" / "deploy.yaml", "--image_path", "photos/0.jpg")
    assert infer(*arguments).err.startswith("note: this model gives scores")
    assert infer(*arguments, "--with_argmax").err == ""


def test_print_detail_shows_paddles_log(infer, model, photos):
    arguments = ("--config", model, "--image_path", "photos/0.jpg")
    assert infer(*arguments).err == ""
    assert "analysis" in infer(*arguments, "--print_detail").err


def test_the_batch_size_reaches_the_engine(infer, models, photos):
    config = models / "fixed" / "deploy.yaml"
    run = infer("--config", config, "--image_path", "photos/0.jpg", "--batch_size", "4")
    assert run.code == 0
    assert (
        run.err == "note: this model was exported for batches of 1: --batch_size is set to that\n"
    )


def test_a_second_run_does_not_take_masks_below_the_image_folder_for_images(infer, model, tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "sub" / "b.png")
    for _ in range(2):
        run = infer("--config", model, "--image_path", ".")
        assert (run.code, run.err) == (0, "")
        assert masks(tmp_path / "output") == ["a.png", "sub/b.png"]


def test_without_device_a_cpu_build_warns_in_one_line(infer, model, photos):
    run = infer("--config", model, "--image_path", photos, device=None)
    assert run.code == 0
    assert run.err.count("\n") == 1
    assert run.err.startswith("warning: Paddle is a CPU build, so the network runs on the CPU")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        ([], 2),
        (["--config", "x.yaml"], 2),
        (["--config", "x.yaml", "--image_path", "x", "--batch_size", "0"], 2),
    ],
)
def test_help_and_wrong_arguments_import_no_heavy_package(arguments, code):
    script = (
        "import sys; sys.argv = ['infer.py'] + sys.argv[1:]; from paddleseg_infer import cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'cv2', 'numpy', 'paddle', 'paddle.base.libpaddle', 'yaml', 'PIL'}\n"
        "print(code, heavy & set(sys.modules), file=sys.__stdout__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout.splitlines()[-1] == f"{code} set()"


def test_help_names_every_flag_in_a_group_with_its_default(infer):
    run = infer("--help", device=None)
    assert run.code == 0
    words = " ".join(run.out.split())
    names = [name for part in PARTS for name, _, _ in options_of(part)]
    assert len(names) > 30
    for name in names:
        assert f"--{name} " in run.out
    assert words.count("(required)") == 2
    assert words.count("(default: ") == len(names) - 2
    for title in (
        "images and masks:",
        "engine:",
        "TensorRT (needs a GPU):",
        "long runs:",
        "benchmark:",
    ):
        assert title in run.out


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], True),
        (["True"], True),
        (["true"], True),
        (["1"], True),
        (["False"], False),
        (["false"], False),
        (["0"], False),
    ],
)
def test_a_boolean_flag_works_with_and_without_a_value(words, value):
    flags = [
        *("--use_trt", "--enable_auto_tune", "--enable_mkldnn", "--benchmark", "--with_argmax"),
        *("--print_detail", "--network_size", "--dry_run"),
    ]
    for flag in flags:
        options = make_parser().parse_args(["--config", "a", flag, *words, "--image_path", "b"])
        assert getattr(options, flag[2:]) is value


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_of_the_help_ends_with_a_valid_example(group):
    example = f"--config export/deploy.yaml {EXAMPLES[group]}"
    given = vars(make_parser().parse_args(example.split()))
    titles = {name: known.group for part in PARTS for name, known, _ in options_of(part)}
    defaults = vars(make_parser().parse_args(["--config", "a", "--image_path", "b"]))
    assert any(given[name] != defaults[name] for name in given if titles[name] == group)
    text = " ".join(make_parser().format_help().split())
    assert f"Example: {make_parser().prog} {example}" in text


def test_the_parser_has_these_defaults():
    options = make_parser().parse_args(["--config", "a", "--image_path", "b"])
    assert vars(options) == {
        "config": "a",
        "image_path": "b",
        "batch_size": 1,
        "unknown_below": None,
        "label_path": None,
        "ignore_index": 255,
        "save_dir": "output",
        "device": None,
        "enable_openvino": False,
        "use_trt": False,
        "precision": "fp32",
        "min_subgraph_size": 3,
        "enable_auto_tune": False,
        "auto_tuned_shape_file": None,
        "cpu_threads": None,
        "num_workers": 1,
        "enable_mkldnn": None,
        "cache_dir": None,
        "benchmark": False,
        "model_name": "",
        "with_argmax": False,
        "print_detail": False,
        "network_size": False,
        "save": ("mask",),
        "custom_color": ("paddleseg",),
        "threshold": 0.5,
        "bands": None,
        "blend": "mean",
        "min_area": None,
        "wgs84": False,
        "overviews": False,
        "pixel_scale": None,
        "crop_size": None,
        "stride": None,
        "dry_run": False,
        "resume": False,
        "report": None,
        "timeout": None,
        "shard": None,
        "ray": None,
        "quiet": False,
    }


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--batch_size", "0", "must be a whole number from 1 to 1000000, not '0'"),
        ("--batch_size", "-3", "must be a whole number"),
        ("--batch_size", "many", "must be a whole number"),
        ("--cpu_threads", "0", "must be a whole number"),
        ("--cpu_threads", "1.5", "must be a whole number"),
        ("--cpu_threads", "1025", "must be a whole number from 1 to 1024, not '1025'"),
        ("--batch_size", "9" * 5000, "must be a whole number"),
        ("--min_subgraph_size", "0", "must be a whole number"),
        ("--use_trt", "maybe", "must be True or False, not 'maybe'"),
        ("--precision", "fp64", "invalid choice: 'fp64'"),
        ("--device", "tpu", "invalid choice: 'tpu'"),
        ("--batch", "1", "unrecognized arguments: --batch"),
        ("--colour", "1", "unrecognized arguments: --colour"),
    ],
)
def test_a_wrong_value_gives_a_one_line_error(infer, flag, value, message):
    run = infer("--config", "x", "--image_path", "x", flag, value, device=None)
    assert run.code == 2
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1
    assert message in run.err


def test_a_cpu_build_refuses_device_gpu(infer, model, photos, tmp_path):
    run = infer("--config", model, "--image_path", photos, device="gpu")
    assert run.code == 2
    assert run.err.startswith("error: --device gpu needs paddlepaddle-gpu")
    assert not (tmp_path / "output").exists()


def test_auto_tune_without_tensorrt_collects_no_shapes(infer, model, photos, tmp_path):
    run = infer(
        *("--config", model, "--image_path", photos, "--use_trt", "--enable_auto_tune"),
        *("--auto_tuned_shape_file", "no/where"),
    )
    assert run.code == 0
    assert "warning: --enable_auto_tune has no effect without --use_trt and a GPU" in run.err
    assert "note" not in run.err


def test_dry_run_prints_the_images_and_the_engine_and_saves_nothing(infer, model, photos, tmp_path):
    for number in range(5, 12):
        write_image(photos / f"{number}.png")
    run = infer(
        *("--config", model, "--image_path", "photos", "--dry_run", "--cpu_threads", "3"),
        *("--enable_mkldnn", "False", "--batch_size", "2", "--precision", "fp16"),
    )
    assert run.code == 0
    assert run.err == "warning: --precision fp16 has no effect without --use_trt and a GPU\n"
    plan = yaml.safe_load(run.out)
    assert plan["images"] == 12
    assert len(plan["first_ten"]) == 10
    assert plan["first_ten"][0] == {"image": "photos/0.jpg", "mask": "0.png"}
    assert plan["batch_size"] == 2
    engine = plan["engine"]
    assert (engine["device"], engine["cpu_threads"], engine["mkldnn"]) == ("cpu", 3, False)
    assert engine["graph"] == str(model.parent / "model.pdmodel")
    assert not (tmp_path / "output").exists()


def test_dry_run_prints_the_batch_size_and_the_threads_of_a_real_run(infer, models, photos):
    run = infer(
        *("--config", models / "fixed" / "deploy.yaml", "--image_path", photos / "0.jpg"),
        *("--batch_size", "3", "--num_workers", "64", "--dry_run"),
    )
    plan = yaml.safe_load(run.out)
    assert plan["batch_size"] == 1
    assert plan["engine"]["cpu_threads"] == min(10, machine.usable_processors())
