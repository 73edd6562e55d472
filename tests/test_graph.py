"""Damaged model files are refused before Paddle reads them.

Paddle would crash on some of these files, and it would accept others although data is missing.
"""

import json
from pathlib import Path

import pytest

from paddleseg_infer.errors import ConfigError
from paddleseg_infer.forms import class_count
from paddleseg_infer.graph import look_into

JUNK = {
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
    "web page": b"\n\n<!DOCTYPE html><html>Not found</html>",
    "zeros": bytes(5000),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "text": b"hello",
    "a byte": b"\x0a",
    "other json": b'{"a": 1}',
}


@pytest.fixture
def files(models):
    folder = models / "argmax"
    return str(folder / "model.pdmodel"), str(folder / "model.pdiparams")


def test_valid_models_are_accepted(models):
    for folder in models.iterdir():
        look_into(str(folder / "model.pdmodel"), str(folder / "model.pdiparams"))


def test_valid_json_models_are_accepted(json_models):
    for folder in json_models.iterdir():
        look_into(str(folder / "model.json"), str(folder / "model.pdiparams"))


@pytest.mark.parametrize("suffix", ["pdmodel", "json"])
@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK)
def test_a_file_that_is_not_a_graph_is_refused(files, tmp_path, content, suffix):
    graph = tmp_path / f"model.{suffix}"
    graph.write_bytes(content)
    with pytest.raises(ConfigError, match="model.* is (not a Paddle graph|a git-lfs pointer)"):
        look_into(str(graph), files[1])


def test_the_error_for_a_graph_with_the_wrong_suffix_names_the_right_one(files, tmp_path):
    graph = tmp_path / "model.json"
    graph.write_bytes(Path(files[0]).read_bytes())
    with pytest.raises(
        ConfigError, match="holds a .pdmodel graph, but its name doesn't end in .pdmodel"
    ):
        look_into(str(graph), files[1])
    graph = tmp_path / "model.pdmodel"
    graph.write_bytes(
        b'{"base_code":{"magic":"pir","trainable":true,"version":4},'
        b'"program":{"regions":[{"blocks":[{"ops":[]}]}]}}'
    )
    with pytest.raises(ConfigError, match="holds a .json graph, but its name doesn't end in .json"):
        look_into(str(graph), files[1])


def test_an_empty_or_missing_file_is_refused(files, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ConfigError, match="empty is empty"):
        look_into(str(tmp_path / "empty"), files[1])
    with pytest.raises(ConfigError, match="empty is empty"):
        look_into(files[0], str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="can't be read: no such file"):
        look_into(files[0], str(tmp_path / "gone"))


def test_truncated_parameters_are_refused_unless_they_end_between_tensors(files, tmp_path):
    whole = Path(files[1]).read_bytes()
    cut = tmp_path / "cut"
    accepted = 0
    for size in range(1, len(whole)):
        cut.write_bytes(whole[:size])
        try:
            look_into(files[0], str(cut))
            accepted += 1  # Paddle itself notices a missing tensor
        except ConfigError as error:
            assert "is cut off or damaged" in str(error)
    assert accepted == 3  # after the first, second and third of four tensors


@pytest.mark.parametrize("name", ["git-lfs pointer", "web page", "text", "picture"])
def test_a_file_that_holds_no_parameters_is_refused(files, tmp_path, name):
    params = tmp_path / "params"
    params.write_bytes(JUNK[name])
    with pytest.raises(
        ConfigError,
        match="params (doesn't contain Paddle parameters|is cut off|is a git-lfs pointer)",
    ):
        look_into(files[0], str(params))


@pytest.mark.parametrize("desc_size", [-5, 5000, 2_000_000])
def test_a_damaged_size_field_is_refused(files, tmp_path, desc_size):
    params = tmp_path / "params"
    header = bytes(16) + desc_size.to_bytes(4, "little", signed=True)
    params.write_bytes(header + b"\xff" * 2_000_000)
    with pytest.raises(ConfigError, match="is cut off or damaged"):
        look_into(files[0], str(params))


def test_bytes_after_the_last_tensor_are_refused(files, tmp_path):
    params = tmp_path / "params"
    params.write_bytes(Path(files[1]).read_bytes() + b"abc")
    with pytest.raises(ConfigError, match="is cut off or damaged"):
        look_into(files[0], str(params))


def test_a_deeply_nested_json_graph_is_refused(files, tmp_path):
    graph = tmp_path / "model.json"
    graph.write_bytes(b'{"a":' * 100_000)
    with pytest.raises(ConfigError, match="is not a Paddle graph, or is damaged"):
        look_into(str(graph), files[1])


def test_a_tensor_of_an_unknown_type_is_accepted(files, tmp_path):
    params = tmp_path / "params"
    desc = b"\x08\x63\x10\x02"  # data type 99, two elements
    params.write_bytes(bytes(16) + len(desc).to_bytes(4, "little") + desc + b"12345678")
    look_into(files[0], str(params))


CLASSES = {"argmax": 4, "softmax": 4, "keepdim": 4, "labels300": 300, "logits": 19, "foreground": 2}


@pytest.mark.parametrize("name", CLASSES)
def test_a_pdmodel_says_how_many_classes_it_has(models, name):
    facts = look_into(*(str(models / name / f"model.{end}") for end in ("pdmodel", "pdiparams")))
    assert class_count(facts) == CLASSES[name]


def test_a_json_graph_says_how_many_classes_it_has_if_it_declares_the_axis(json_models, tmp_path):
    graph, params = (json_models / "argmax" / f"model.{end}" for end in ("json", "pdiparams"))
    assert class_count(look_into(str(graph), str(params))) == 4
    program = json.loads(graph.read_text())
    [block] = program["program"]["regions"][0]["blocks"]
    [argmax] = [each for each in block["ops"] if each["#"].endswith(".argmax")]
    argmax["I"][1] = argmax["I"][0]  # the axis is no constant
    (tmp_path / "model.json").write_text(json.dumps(program))
    assert class_count(look_into(str(tmp_path / "model.json"), str(params))) is None
