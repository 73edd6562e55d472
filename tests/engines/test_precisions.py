"""bf16 and int8 on a CPU: what runs, what is reported, and what is refused."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import BUILD, PADDLE, masks, read_mask, report_lines, scene, write_image

from paddleseg_infer import cpu_config
from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines import openvino
from paddleseg_infer.engines.guarded import MAX_RESTARTS
from paddleseg_infer.engines.load import load
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ConfigError
from paddleseg_infer.machine.paddle_build import PaddleBuild
from paddleseg_infer.machine.processor import missing_for_bf16
from paddleseg_infer.outcomes import Job, Outcome, Ran
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.runs.report import Report, Summary
from paddleseg_infer.segmenter import Segmenter

GOOD, SMALL = (48, 64), (3, 9)  # OpenVINO can't run "pools" at SMALL
has_bf16 = pytest.mark.skipif(bool(missing_for_bf16()), reason=missing_for_bf16())
has_openvino = pytest.mark.skipif(not BUILD.openvino_library, reason="this Paddle has no OpenVINO")
runs_json_in_bf16 = pytest.mark.skipif(
    PADDLE[:2] == (3, 3), reason="Paddle 3.3 can't run json graphs in bf16"
)


def engine(folder, **options):
    options = resolved(EngineOptions("cpu", cpu_threads=1, **options), BUILD)
    return load(Setup(load_deploy_config(folder / "deploy.yaml"), options, BUILD))


def scores_of(folder, image, **options):
    """Returns the scores of an image, and what has run it."""
    run = engine(folder, **options)
    deploy = load_deploy_config(folder / "deploy.yaml")
    return run(prepare(image, deploy.transforms).tensor()[None])


def assert_near_but_not_equal(scores, others):
    """Probabilities in bf16 differ from those in fp32 in the third digit."""
    difference = np.abs(scores - others).max()
    assert scores.dtype == others.dtype == np.float32
    assert 1e-5 < difference < 0.02


# ---- bf16 --------------------------------------------------------------------------------------


@has_bf16
@has_openvino
def test_a_pdmodel_runs_in_openvino_in_bf16(models):
    scores, ran = scores_of(models / "softmax", scene(*GOOD), precision="bf16")
    assert ran == ("OpenVINO", "bf16")
    in_fp32, ran = scores_of(models / "softmax", scene(*GOOD))
    assert ran == ("oneDNN", "fp32")
    assert_near_but_not_equal(scores, in_fp32)
    asked, ran = scores_of(models / "softmax", scene(*GOOD), precision="bf16", enable_openvino=True)
    assert ran == ("OpenVINO", "bf16")
    assert np.array_equal(asked, scores)


@has_bf16
@runs_json_in_bf16
def test_a_json_graph_runs_in_onednn_in_bf16(json_models):
    scores, ran = scores_of(json_models / "softmax", scene(*GOOD), precision="bf16")
    assert ran == ("oneDNN", "bf16")
    in_fp32, ran = scores_of(json_models / "softmax", scene(*GOOD))
    assert ran == ("oneDNN", "fp32")
    assert_near_but_not_equal(scores, in_fp32)


@has_bf16
@has_openvino
@pytest.mark.parametrize("more", [[], ["--batch_size", "2"], ["--num_workers", "2"]])
def test_an_image_that_fails_in_bf16_runs_in_fp32(infer, models, photos, tmp_path, more):
    write_image(photos / "small.png", SMALL)
    model = models / "pools" / "deploy.yaml"
    common = ("--config", model, "--image_path", "photos", "--cpu_threads", "1", *more)
    assert infer(*common, "--save_dir", "plain").code == 0
    run = infer(*common, "--precision", "bf16", "--report", "report")
    assert run.code == 0
    assert run.err.count("warning") == 1
    assert "OpenVINO can't run 9x3 (Kernel after" in run.err
    assert "Paddle's own engine in fp32 runs this size and smaller ones" in run.err
    *lines, last = report_lines(tmp_path / "report")
    ran = {line["image"]: (line["engine"], line["precision"]) for line in lines}
    assert ran.pop("photos/small.png") == ("oneDNN", "fp32")
    assert set(ran.values()) == {("OpenVINO", "bf16")}
    assert last["summary"]["engines"] == {"OpenVINO bf16": len(ran), "oneDNN fp32": 1}
    assert f"engine               {len(ran)}  OpenVINO bf16" in run.out
    one, other = (read_mask(tmp_path / folder / "small.png") for folder in ("plain", "output"))
    assert np.array_equal(one, other)


@has_bf16
@has_openvino
def test_after_many_failures_all_other_images_run_in_fp32(models, caplog):
    sizes = [(3, 10 * (number + 1)) for number in range(MAX_RESTARTS + 3)]  # each image is wider
    images = [scene(*size) for size in [GOOD, *sizes, GOOD]]
    segmenter = Segmenter(models / "pools" / "deploy.yaml", device="cpu", precision="bf16")
    results = sorted(segmenter.stream(images), key=lambda result: result.index)
    assert [each.precision for result in results for each in result.item.ran] == [
        "bf16",
        *["fp32"] * (len(images) - 1),
    ]
    assert (
        f"OpenVINO has failed {MAX_RESTARTS + 1} times: Paddle's own engine in fp32" in caplog.text
    )


def test_an_image_whose_windows_ran_differently_has_both_in_its_report(tmp_path):
    ran = (Ran("OpenVINO", "bf16"), Ran("oneDNN", "fp32"))
    outcome = Outcome(Job("a.png", "a"), "done", size=(64, 48), ran=ran)
    report = Report(str(tmp_path / "report"), ("mask",), append=False, about={})
    summary = Summary(1)
    report.add(outcome)
    summary.add(outcome)
    report.close(summary.as_dict(1.0, 0))
    line, last = report_lines(tmp_path / "report")
    assert (line["engine"], line["precision"]) == ("OpenVINO+oneDNN", "bf16+fp32")
    assert last["summary"]["engines"] == {"OpenVINO bf16+oneDNN fp32": 1}


@has_bf16
@has_openvino
def test_without_space_for_temporary_files_bf16_is_an_error(models, monkeypatch):
    monkeypatch.setattr(openvino.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ConfigError, match="the temporary folder has too little space"):
        engine(models / "argmax", precision="bf16")


@has_bf16
def test_models_that_cannot_run_in_bf16_are_refused(models, infer, photos):
    def refused(model, *more):
        run = infer("--config", models / model / "deploy.yaml", "--image_path", photos, *more)
        assert run.code == 2
        assert run.err.count("error: ") == 1
        return run.err

    given = ("--precision", "bf16", "--device", "cpu")
    if not BUILD.openvino_library:
        assert "has no OpenVINO engine" in refused("argmax", *given)
        return
    error = refused("gamma", *given)
    assert "OpenVINO can't run " in error
    assert "Can't convert paddle model" in error
    assert "which --precision bf16 needs: use --precision fp32" in error


@has_bf16
def test_a_json_graph_needs_onednn_for_bf16(json_models):
    if PADDLE[:2] == (3, 3):
        with pytest.raises(ConfigError, match="use Paddle 3.2.2, or --precision fp32"):
            engine(json_models / "argmax", precision="bf16")
        return
    with pytest.raises(ConfigError, match="remove --enable_mkldnn False"):
        engine(json_models / "argmax", precision="bf16", enable_mkldnn=False)
    with pytest.raises(ConfigError, match="but oneDNN computes .*: use --precision fp32"):
        engine(json_models / "inverse", precision="bf16")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device": "gpu"}, "bf16 works only on the CPU: add --device cpu"),
        ({}, "bf16 works only on the CPU: add --device cpu"),
        ({"device": "cpu", "use_trt": True}, "bf16 can't be used with --use_trt: remove"),
    ],
)
def test_bf16_on_a_gpu_is_refused(options, error):
    with_gpu = PaddleBuild((3, 2, 2), has_gpu=True, folder="")
    with pytest.raises(ConfigError, match=error):
        resolved(EngineOptions(precision="bf16", **options), with_gpu)


# ---- int8 --------------------------------------------------------------------------------------


def test_a_quantised_pdmodel_runs_in_onednn_in_int8(models, infer, photos, tmp_path):
    image = scene(*GOOD)
    _, ran = scores_of(models / "quantised", image, precision="int8")
    assert ran == ("oneDNN", "int8")
    common = ("--config", models / "quantised" / "deploy.yaml", "--image_path", "photos")
    plain = infer(*common, "--save_dir", "plain", "--device", "cpu")
    assert plain.code == 0
    assert "model.pdmodel is quantised: --precision int8 may be faster" in plain.err
    run = infer(*common, "--precision", "int8", "--report", "report")
    assert (run.code, run.err) == (0, "")  # Paddle's lines about its passes are hidden
    last = json.loads((tmp_path / "report").read_text().splitlines()[-1])
    names = masks(tmp_path / "output")
    assert last["summary"]["engines"] == {"oneDNN int8": len(names)}
    for name in names:
        one, other = (read_mask(tmp_path / folder / name) for folder in ("plain", "output"))
        assert (one != other).mean() < 0.05


def test_print_detail_shows_the_operators_in_int8(models, infer, photos):
    run = infer(
        *("--config", models / "quantised" / "deploy.yaml", "--image_path", "photos/0.jpg"),
        *("--precision", "int8", "--print_detail"),
    )
    assert run.code == 0
    assert "quantized 2 fused_conv2d ops" in run.err


def test_models_that_cannot_run_in_int8_are_refused(models, request):
    with pytest.raises(ConfigError, match="int8 needs a quantised model, and .* isn't quantised"):
        engine(models / "argmax", precision="int8")
    with pytest.raises(ConfigError, match="remove --enable_mkldnn False"):
        engine(models / "quantised", precision="int8", enable_mkldnn=False)
    if BUILD.openvino_library:
        with pytest.raises(ConfigError, match="int8 runs in oneDNN.*remove --enable_openvino"):
            engine(models / "quantised", precision="int8", enable_openvino=True)
    if PADDLE >= (3, 0, 0):
        json_models = request.getfixturevalue("json_models")
        with pytest.raises(ConfigError, match="because it is a json graph"):
            engine(json_models / "argmax", precision="int8")


def test_a_model_without_operators_in_int8_is_refused(models, monkeypatch):
    monkeypatch.setattr(cpu_config, "INT8_OPERATORS", {"pool2d"})  # the model has none
    error = "oneDNN in int8 can't run .* finds no operator that it can run in int8.*use --precision"
    with pytest.raises(ConfigError, match=error):
        engine(models / "quantised", precision="int8")


def test_the_note_about_a_quantised_model_is_logged_only_if_int8_can_run(models, caplog):
    for options, notes in (({}, 1), ({"enable_mkldnn": False}, 0)):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            engine(models / "quantised", **options)
        assert caplog.text.count("--precision int8 may be faster") == notes


# ---- both --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "precision"),
    [pytest.param("argmax", "bf16", marks=[has_bf16, has_openvino]), ("quantised", "int8")],
)
def test_dry_run_and_benchmark_name_the_precision(infer, models, photos, model, precision):
    common = ("--config", models / model / "deploy.yaml", "--image_path", "photos")
    run = infer(*common, "--precision", precision, "--dry_run")
    assert (run.code, run.err) == (0, "")
    plan = yaml.safe_load(run.out)
    plan_images, plan = plan["images"], plan["engine"]
    assert plan["precision"] == precision
    assert plan.get("openvino", False) == (precision == "bf16")
    run = infer(*common, "--precision", precision, "--benchmark")
    assert run.code == 0
    assert f" precision: {precision}\n" in run.out
    name = {"bf16": "OpenVINO bf16", "int8": "oneDNN int8"}[precision]
    assert f" engine: {name}: {plan_images} of {plan_images} images\n" in run.out
