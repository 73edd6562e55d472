"""Where oneDNN is wrong for a graph, it runs without: the masks are plain Paddle's."""

import json
import os

import numpy as np
import pytest
import yaml
from conftest import BUILD, PADDLE, read_mask, scene, write_image

from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engines import optimised
from paddleseg_infer.graph import look_into
from paddleseg_infer.segmenter import Segmenter

IMAGES = [scene(48, 64), scene(40, 56, 1)]
WRONG = ["inverse", "ratio"]
UNSURE = ["unsure", "own_size"]  # the graph doesn't declare all sides of the operands


@pytest.fixture(params=["pdmodel", "json"])
def both_forms(request):
    """The exported models, as pdmodel graphs, then as json graphs."""
    return request.getfixturevalue("models" if request.param == "pdmodel" else "json_models")


def segmenter(folder, **options):
    options = {"device": "cpu", "cpu_threads": 1, "cache_dir": "", **options}
    return Segmenter(folder / "deploy.yaml", **options)


@pytest.fixture(params=[*WRONG, "branch"])
def wrong(both_forms, request):
    """The folder of a model that oneDNN computes wrongly."""
    folder = both_forms / request.param
    if not folder.exists():
        pytest.skip("only a json graph")
    return folder


def assert_equal(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert np.array_equal(one, other)


def lines(caplog):
    return [record.message for record in caplog.records if "oneDNN" in record.message]


def test_the_labels_are_plain_paddles_and_a_line_says_why(wrong, caplog):
    expected = segmenter(wrong, enable_mkldnn=False)(IMAGES)
    assert lines(caplog) == []
    model = segmenter(wrong)
    assert_equal(model(IMAGES), expected)
    assert not model.load().config.mkldnn_enabled()
    [line] = lines(caplog)
    assert "computes its operator" in line and "the first operand is broadcast" in line
    assert "runs without oneDNN" in line
    assert ("divide" if model.deploy.is_pir else "elementwise_div") in line


@pytest.mark.parametrize("name", UNSURE)
def test_plain_paddle_runs_a_division_of_unknown_sides(both_forms, name, caplog):
    expected = segmenter(both_forms / name, enable_mkldnn=False)(IMAGES)
    assert lines(caplog) == []
    model = segmenter(both_forms / name)
    assert_equal(model(IMAGES), expected)
    [line] = lines(caplog)
    assert "may compute its operator" in line and "runs without oneDNN" in line
    if name == "unsure" and not model.deploy.is_pir:  # so this is still needed
        got = segmenter(both_forms / name, enable_mkldnn=True)(IMAGES)
        assert (got[0] != expected[0]).mean() > 0.1


def test_onednn_runs_all_the_same_where_it_is_asked_for(wrong, caplog):
    model = segmenter(wrong, enable_mkldnn=True)
    got = model(IMAGES)
    assert model.load().config.mkldnn_enabled()
    assert "leave out --enable_mkldnn True" in lines(caplog)[0]
    if not model.deploy.is_pir:  # so this is still needed
        expected = segmenter(wrong, enable_mkldnn=False)(IMAGES)
        assert (got[0] != expected[0]).mean() > 0.1


def test_a_second_operand_may_be_broadcast(both_forms):
    model = segmenter(both_forms / "gain")
    model(IMAGES)
    assert model.deploy.graph_facts.onednn_faults == ()
    assert model.load().config.mkldnn_enabled()


def test_an_operand_without_dimensions_runs_in_plain_paddle(both_forms, caplog):
    model = segmenter(both_forms / "level")
    assert_equal(model(IMAGES), segmenter(both_forms / "level", enable_mkldnn=False)(IMAGES))
    assert model.load().config.mkldnn_enabled() == model.deploy.is_pir
    if not model.deploy.is_pir:
        assert "can't run its operator elementwise_sub (an operand has no dim" in lines(caplog)[0]


def test_only_these_models_run_without(both_forms):
    faults = {
        folder.name
        for folder in both_forms.iterdir()
        if load_deploy_config(folder / "deploy.yaml").graph_facts.onednn_faults
    }
    is_json = (both_forms / "branch").exists()
    assert faults == {*WRONG, *UNSURE, *(["branch"] if is_json else ["level", "inverse_gamma"])}


@pytest.mark.skipif(PADDLE < (3, 0, 0), reason="Paddle 2 keeps no optimised graph")
def test_the_kept_graph_is_that_of_a_run_without(models, tmp_path, monkeypatch):
    monkeypatch.setattr(optimised, "MIN_GRAPH_BYTES", 0)
    monkeypatch.setattr(optimised, "SLOW_SECONDS", 0.0)
    expected = segmenter(models / "inverse", enable_mkldnn=False)(IMAGES)
    for mkldnn, entries in [(None, 1), (None, 1), (False, 1), (True, 2), (None, 2)]:
        model = segmenter(models / "inverse", cache_dir=str(tmp_path), enable_mkldnn=mkldnn)
        got = model(IMAGES)
        assert len(os.listdir(tmp_path)) == entries
        assert np.array_equal(got[0], expected[0]) == (mkldnn is not True)


@pytest.mark.skipif(not BUILD.openvino_library, reason="this Paddle has no OpenVINO engine")
@pytest.mark.parametrize(("name", "told"), [("inverse", 0), ("inverse_gamma", 1)])
def test_openvino_is_right_and_so_is_the_engine_that_stands_in(models, name, told, caplog):
    expected = segmenter(models / name, enable_mkldnn=False)(IMAGES)
    model = segmenter(models / name, enable_openvino=True)
    for one, other in zip(model(IMAGES), expected, strict=True):
        assert (one != other).mean() < 0.001
    assert model.load().is_used == (not told)
    assert len([line for line in lines(caplog) if "runs without oneDNN" in line]) == told


def test_the_command_line_says_so(infer, models, tmp_path):
    write_image(tmp_path / "a.png")
    run = ("--config", models / "inverse" / "deploy.yaml", "--image_path", "a.png")
    plan = infer(*run, "--dry_run")
    assert plan.err.count("runs without oneDNN") == 1
    assert yaml.safe_load(plan.out)["engine"]["mkldnn"] is False
    default = infer(*run, "--save_dir", "default")
    assert (default.code, default.err.count("runs without oneDNN")) == (0, 1)
    plain = infer(*run, "--save_dir", "plain", "--enable_mkldnn", "False")
    assert (plain.code, plain.err.count("oneDNN")) == (0, 0)
    ones, others = (read_mask(tmp_path / folder / "a.png") for folder in ("default", "plain"))
    assert np.array_equal(ones, others)


# ---- which shapes ------------------------------------------------------------------------------

SHAPES = [
    ([], [-1, 8, -1, -1], True),
    ([1], [-1, 8, -1, -1], True),
    ([8, 1, 1], [-1, 8, -1, -1], True),
    ([1, 8, -1, -1], [-1, 8, -1, -1], True),  # in a batch of several images
    ([-1, 1, -1, -1], [-1, 8, -1, -1], True),
    ([-1, 8, 1, 1], [-1, 8, -1, -1], True),
    ([-1, 8, 1, 1], [-1, 1, -1, -1], True),
    ([-1, 8, -1, -1], [-1, 8, 48, 64], True),  # unknown against known
    ([-1, 8, -1, -1], [-1, 8, -1, -1], True),
    ([-1, 8, -1, -1], [-1, 1, -1, -1], True),
    ([-1, 8, 48, 64], [-1, 8, -1, -1], True),  # one of the images may be divided by each
    ([2, 8, 48, 64], [-1, 8, -1, -1], False),
    ([-1, 8, -1, -1], [8, 1, 1], False),
    ([-1, 8, -1, -1], [1], False),
    ([8], [1, 8], False),
    ([1], [1], False),
    ([], [], False),
]


def tensor(number, sides, element):
    return {"%": number, "TT": {"#": "0.t_dtensor", "D": [{"#": element}, sides, "NCHW", [], 0]}}


@pytest.mark.parametrize("element", ["0.t_f32", "0.t_i64"])
@pytest.mark.parametrize(("first", "second", "is_wrong"), SHAPES)
def test_a_json_division_is_wrong_where_the_first_operand_may_be_broadcast(
    models, tmp_path, first, second, is_wrong, element
):
    operators = [
        {"#": "p", "A": [0, 1, 1, "a"], "O": tensor(1, first, element)},
        {"#": "p", "A": [0, 1, 1, "b"], "O": tensor(2, second, element)},
        {"#": "1.divide", "A": [], "I": [{"%": 1}, {"%": 2}], "O": [tensor(3, second, element)]},
    ]
    block = {"regions": [{"blocks": [{"ops": operators}]}]}
    graph = tmp_path / "model.json"
    graph.write_text(json.dumps({"base_code": {"magic": "pir"}, "program": block}))
    facts = look_into(str(graph), str(models / "argmax" / "model.pdiparams"))
    assert bool(facts.onednn_faults) == (is_wrong and element == "0.t_f32")


def pdmodel(kind, first, second, axis, data_type):
    from paddle.base.proto import framework_pb2

    program = framework_pb2.ProgramDesc()
    program.blocks.add(idx=0, parent_idx=-1)
    block = program.blocks.add(idx=1, parent_idx=0)  # of a condition or a loop
    operator = block.ops.add(type=kind)
    operator.inputs.add(parameter="Unused")
    operator.attrs.add(name="axis", type=framework_pb2.INT, i=axis)
    for parameter, sides in (("X", first), ("Y", second)):
        variable = block.vars.add(name=parameter)
        variable.type.type = framework_pb2.VarType.DENSE_TENSOR if PADDLE >= (3,) else 7
        held = variable.type.dense_tensor if PADDLE >= (3,) else variable.type.lod_tensor
        held.tensor.data_type = data_type
        held.tensor.dims.extend(sides)
        operator.inputs.add(parameter=parameter, arguments=[parameter])
    return program.SerializeToString()


FLOAT32, INT64 = 5, 3
ANY = [-1, 8, -1, -1]


@pytest.mark.parametrize(
    ("kind", "first", "second", "axis", "data_type", "is_wrong"),
    [
        *(("div", *row[:2], -1, FLOAT32, row[2]) for row in SHAPES),
        ("div", ANY, [8], 1, FLOAT32, False),  # its place is the channels'
        ("div", ANY, [8], -1, FLOAT32, True),
        ("div", [1], ANY, -1, INT64, False),
        ("mul", [1], ANY, -1, FLOAT32, False),
        ("pow", [1], ANY, -1, FLOAT32, False),
        *((kind, [], ANY, -1, FLOAT32, True) for kind in ("add", "sub", "mul")),
        *((kind, ANY, [], -1, FLOAT32, True) for kind in ("add", "sub", "mul", "div")),
        ("add", ANY, [], -1, INT64, False),
        ("pow", ANY, [], -1, FLOAT32, False),
    ],
)
def test_operators_of_a_pdmodel(models, tmp_path, kind, first, second, axis, data_type, is_wrong):
    graph = tmp_path / "model.pdmodel"
    graph.write_bytes(pdmodel(f"elementwise_{kind}", first, second, axis, data_type))
    facts = look_into(str(graph), str(models / "argmax" / "model.pdiparams"))
    assert bool(facts.onednn_faults) == is_wrong
