"""Every form of deploy.yaml that exports write is read. The error for a wrong file names it."""

import logging
import os

import pytest

from paddleseg_infer.config import engine_config, resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines.native import load_core
from paddleseg_infer.errors import ConfigError
from paddleseg_infer.machine.paddle_build import PaddleBuild, find_paddle
from paddleseg_infer.transforms.paddleseg import Normalize, Resize

CPU = PaddleBuild((3, 2, 2), has_gpu=False, folder="")
GPU = PaddleBuild((2, 6, 2), has_gpu=True, folder="")
GOOD = "Deploy: {model: model.pdmodel, params: model.pdiparams, transforms: [{type: Normalize}]}"


@pytest.fixture
def export(tmp_path):
    """A function that writes a deploy.yaml and two fake model files. It returns the path."""

    def write(text, files=("model.pdmodel", "model.pdiparams"), name="deploy.yaml"):
        for file in files:
            (tmp_path / file).write_bytes(b"unread")
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_paths_are_relative_to_the_yaml(export, tmp_path):
    deploy = load_deploy_config(export(GOOD))
    assert deploy.graph == str(tmp_path / "model.pdmodel")
    assert deploy.params == str(tmp_path / "model.pdiparams")
    assert not deploy.is_pir


def test_a_tuple_that_paddlesegs_loader_takes_is_a_list(export):
    text = GOOD.replace("type: Normalize", "type: Resize, target_size: !!python/tuple [64, 48]")
    [resize] = load_deploy_config(export(text)).transforms
    assert resize.target_size == (64, 48)


def test_other_file_names_and_additional_maps_are_accepted(export):
    text = """
Global: {model_name: PP-LiteSeg-T}
Hpi: {backend_configs: {}}
Deploy:
  model: inference.pdmodel
  params: inference.pdiparams
  input_shape: [-1, 3, 512, 1024]
  transforms:
  - {type: Resize, target_size: [1024, 512]}
  - {type: Normalize, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
"""
    files = ("inference.pdmodel", "inference.pdiparams")
    deploy = load_deploy_config(export(text, files, "inference.yml"))
    assert deploy.input_shape == (-1, 3, 512, 1024)
    assert [type(transform) for transform in deploy.transforms] == [Resize, Normalize]
    assert deploy.transforms[0].target_size == (1024, 512)


@pytest.mark.parametrize(("named", "existing"), [("pdmodel", "json"), ("json", "pdmodel")])
def test_the_graph_in_the_other_format_is_used_if_the_named_one_is_missing(export, named, existing):
    text = GOOD.replace("model.pdmodel", f"model.{named}")
    deploy = load_deploy_config(export(text, (f"model.{existing}", "model.pdiparams")))
    assert deploy.graph.endswith(f"model.{existing}")
    assert deploy.is_pir == (existing == "json")


def test_the_named_graph_is_used_if_both_exist(export):
    files = ("model.json", "model.pdmodel", "model.pdiparams")
    assert load_deploy_config(export(GOOD, files)).graph.endswith("model.pdmodel")


@pytest.mark.parametrize("transforms", ["transforms: null", "transforms: []", "output_op: none"])
def test_missing_transforms_are_read_as_an_empty_tuple(export, transforms):
    text = f"Deploy: {{model: model.pdmodel, params: model.pdiparams, {transforms}}}"
    assert load_deploy_config(export(text)).transforms == ()


def test_null_in_the_input_shape_means_any_size(export):
    text = GOOD.replace("]}", "], input_shape: [null, -1, null, 512]}")
    assert load_deploy_config(export(text)).input_shape == (-1, -1, -1, 512)


def test_a_file_with_a_byte_order_mark_is_read(export):
    load_deploy_config(export(b"\xef\xbb\xbf" + GOOD.encode()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Deploy: [", r"is not YAML \(line 1"),
        (GOOD + "\nx: !!python/object/apply:os.getcwd []", "is not YAML"),
        (GOOD + "\nx: !!bool x", "is not YAML"),
        (GOOD + "\nx: !!int ''", "is not YAML"),
        (GOOD + "\nx: !!timestamp abc", "is not YAML"),
        (GOOD + "\nx: " + "1:" * 300 + "1.0", "is not YAML"),
        ("a: &a {b: 1}\n" + GOOD + "\nx: {<<: *a}", "is not YAML"),
        (b"\x89PNG\r\n\xff\xfe", "is not a text file: give the deploy.yaml"),
        ("[" * 5000, "is not YAML"),
        ("", "has no entry `Deploy`"),
        ("[1, 2]", "has no entry `Deploy`"),
        ("Train: {}", "has no entry `Deploy`"),
        ("Deploy: 7", "has no entry `Deploy`"),
        ("Deploy: {params: model.pdiparams}", "`model` of `Deploy` must name a file"),
        ("Deploy: {model: 3, params: model.pdiparams}", "`model` of `Deploy` must name a file"),
        (
            "Deploy: {model: x.pdmodel, params: model.pdiparams}",
            "graph file .*x.pdmodel .* does not exist",
        ),
        ("Deploy: {model: model.pdmodel}", "`params` of `Deploy` must name a file"),
        ("Deploy: {model: model.pdmodel, params: x}", "parameter file .* does not exist"),
        (GOOD.replace("[{type: Normalize}]", "7"), "`transforms` must be a list"),
        (GOOD.replace("{type: Normalize}", "Normalize"), "a map with a `type`, not 'Normalize'"),
        (GOOD.replace("type: Normalize", "type: [1]"), "a map with a `type`"),
        (
            GOOD.replace("Normalize", "Blur"),
            "transform 'Blur' is unknown: use one of Normalize, Resize",
        ),
        (GOOD.replace("Normalize", "RandomBlur"), "RandomBlur is for training"),
        (GOOD.replace("Normalize", "Padding"), "Padding needs the argument target_size"),
        (GOOD.replace("Normalize", "ScalePadding"), "after ScalePadding the image is uint8"),
        ("version https://git-lfs.github.com/spec/v1\noid 0\n", "is a git-lfs pointer, not the"),
        (GOOD.replace("]}", "], input_shape: [3, 9, 9]}"), "`input_shape` must be four"),
        (GOOD.replace("]}", "], input_shape: 512}"), "`input_shape` must be four"),
        (GOOD.replace("]}", "], input_shape: [1, 3, 0, 9]}"), "`input_shape` must be four"),
        (GOOD.replace("]}", f"], input_shape: [0x{'f' * 6000}, 3, 9, 9]}}"), "a huge number"),
        (GOOD.replace("type: Normalize", f"type: Normalize, mean: [0x{'f' * 6000}]"), "mean of"),
    ],
)
def test_the_error_for_a_wrong_file_begins_with_its_path(export, text, message):
    path = export(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_deploy_config(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_a_folder_a_pipe_and_a_huge_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"pipe: is not a regular file"):
        load_deploy_config(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"nowhere.yaml: can't be read: no such file"):
        load_deploy_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"is a folder: give the path of the deploy.yaml in it"):
        load_deploy_config(tmp_path)
    (tmp_path / "huge.yaml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="too large"):
        load_deploy_config(tmp_path / "huge.yaml")


def test_the_error_for_a_huge_yaml_value_is_short(export):
    """With aliases, a few lines of YAML can describe gigabytes."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    text = "\n".join(lines) + "\n" + GOOD.replace("type: Normalize", "type: Normalize, mean: *a59")
    with pytest.raises(ConfigError, match="mean of transform Normalize") as caught:
        load_deploy_config(export(text))
    assert len(str(caught.value)) < 1000


# ---- engine options ----------------------------------------------------------------------------


def test_without_device_a_cpu_build_runs_on_the_cpu_and_logs_it(caplog):
    options = resolved(EngineOptions(), CPU)
    assert options.device == "cpu"
    assert [record.message for record in caplog.records] == [
        "Paddle is a CPU build, so the network runs on the CPU (--device cpu hides this line)"
    ]


def test_without_device_a_gpu_build_runs_on_the_gpu(caplog):
    assert resolved(EngineOptions(), GPU).device == "gpu"
    assert not caplog.records


def test_device_gpu_with_a_cpu_build_is_an_error():
    with pytest.raises(ConfigError, match="--device gpu needs paddlepaddle-gpu.*--device cpu"):
        resolved(EngineOptions(device="gpu"), CPU)


@pytest.mark.parametrize(("processors", "threads"), [(1, 1), (2, 2), (10, 10), (64, 10)])
def test_the_engine_gets_one_thread_for_each_processor_up_to_ten(monkeypatch, processors, threads):
    monkeypatch.setattr("paddleseg_infer.config.usable_processors", lambda: processors)
    assert resolved(EngineOptions(device="cpu"), CPU).cpu_threads == threads


def test_the_given_number_of_threads_is_used():
    assert resolved(EngineOptions(device="cpu", cpu_threads=33), CPU).cpu_threads == 33


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cpu_threads", 0),
        ("cpu_threads", -1),
        ("cpu_threads", 100_000),
        ("cpu_threads", "2"),
        ("enable_mkldnn", "False"),
        ("precision", "fp64"),
        ("device", "tpu"),
    ],
)
def test_an_invalid_value_of_an_option_is_refused(option, value):
    with pytest.raises(ConfigError, match=f"{option} must be .*, not {value!r}"):
        resolved(EngineOptions(**{"device": "cpu", option: value}), CPU)


@pytest.mark.parametrize(
    ("build", "given", "line"),
    [
        (CPU, {"use_trt": True}, "--use_trt has no effect without --device gpu"),
        (CPU, {"precision": "fp16"}, "--precision fp16 has no effect without --use_trt and a GPU"),
        (CPU, {"min_subgraph_size": 5}, "--min_subgraph_size has no effect"),
        (CPU, {"enable_auto_tune": True}, "--enable_auto_tune has no effect"),
        (CPU, {"auto_tuned_shape_file": "x"}, "--auto_tuned_shape_file has no effect without"),
        (GPU, {"cpu_threads": 3}, "--cpu_threads has no effect without --device cpu"),
        (GPU, {"enable_mkldnn": False}, "--enable_mkldnn has no effect without --device cpu"),
        (GPU, {"precision": "int8"}, "--precision int8 has no effect without --use_trt"),
    ],
)
def test_a_flag_without_effect_logs_one_line(caplog, build, given, line):
    caplog.set_level(logging.WARNING)
    resolved(EngineOptions(device="gpu" if build.has_gpu else "cpu", **given), build)
    assert len(caplog.records) == 1
    assert line in caplog.records[0].message


def test_flags_with_effect_log_nothing(caplog):
    resolved(
        EngineOptions(
            device="gpu",
            use_trt=True,
            precision="fp16",
            min_subgraph_size=5,
            enable_auto_tune=True,
            auto_tuned_shape_file="shapes",
        ),
        GPU,
    )
    resolved(EngineOptions("cpu", cpu_threads=2, enable_mkldnn=True), CPU)
    assert not caplog.records


@pytest.mark.parametrize(("workers", "threads"), [(1, 6), (2, 3), (4, 1), (100, 1)])
def test_workers_share_the_processors(monkeypatch, workers, threads):
    monkeypatch.setattr("paddleseg_infer.config.usable_processors", lambda: 6)
    build = PaddleBuild((3, 2, 2), False, "")
    options = resolved(EngineOptions(device="cpu", num_workers=workers), build)
    assert options.cpu_threads == threads
    given = resolved(EngineOptions(device="cpu", num_workers=workers, cpu_threads=5), build)
    assert given.cpu_threads == 5


def test_a_build_without_openvino_is_refused(models, tmp_path):
    options = EngineOptions("cpu", enable_openvino=True)
    deploy = load_deploy_config(models / "argmax" / "deploy.yaml")
    without = PaddleBuild(find_paddle().version, has_gpu=False, folder=str(tmp_path))
    core = load_core(find_paddle(), use_gpu=False)
    with pytest.raises(ConfigError, match="has no OpenVINO engine: install paddlepaddle 3"):
        engine_config(core, deploy, resolved(options, without), without)
