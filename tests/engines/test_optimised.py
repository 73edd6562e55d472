"""Optimised graphs are cached and checked before use. A problem with the cache stops no run."""

import json
import logging
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import PADDLE, ROOT, scene

from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines import optimised
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.machine import store
from paddleseg_infer.machine.paddle_build import find_paddle
from paddleseg_infer.segmenter import Segmenter

pytestmark = pytest.mark.skipif(PADDLE < (3, 0, 0), reason="Paddle 2 keeps no optimised graph")

IMAGE = scene(48, 64)
EVERY_GRAPH = "from paddleseg_infer.engines import optimised; "
EVERY_GRAPH += "optimised.MIN_GRAPH_BYTES, optimised.SLOW_SECONDS = 0, 0.0; "


@pytest.fixture
def every_graph(monkeypatch):
    """Makes the program cache small graphs and quickly optimised graphs too."""
    monkeypatch.setattr(optimised, "MIN_GRAPH_BYTES", 0)
    monkeypatch.setattr(optimised, "SLOW_SECONDS", 0.0)


def labels(model, folder, name="argmax", **options):
    options = {"cpu_threads": 1, "device": "cpu", "cache_dir": str(folder), **options}
    return Segmenter(model.parent.parent / name / "deploy.yaml", **options)(IMAGE)


def entries(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("name", ["argmax", "logits", "softmax", "resize"])
@pytest.mark.parametrize("mkldnn", [None, False])
def test_labels_are_the_same_with_and_without_the_cache(
    every_graph, model, tmp_path, name, mkldnn, caplog
):
    expected = labels(model, "", name, enable_mkldnn=mkldnn)
    for _ in range(3):
        cached = labels(model, tmp_path / "kept", name, enable_mkldnn=mkldnn, with_argmax=True)
        assert np.array_equal(cached, expected)
    assert len(entries(tmp_path / "kept")) == 1
    assert "cache" not in caplog.text


def test_the_second_start_uses_the_cached_graph(every_graph, model, tmp_path):
    """If one model's entry has the content of another, the labels are those of the other."""
    labels(model, tmp_path, "argmax")
    [entry] = entries(tmp_path)
    other = labels(model, tmp_path / "other", "keepdim")
    [of_other] = entries(tmp_path / "other")
    for file in os.listdir(tmp_path / entry):
        (tmp_path / entry / file).write_bytes((tmp_path / "other" / of_other / file).read_bytes())
    assert not np.array_equal(other, labels(model, ""))
    assert np.array_equal(other, labels(model, tmp_path))


def test_the_key_of_an_entry_depends_on_model_paddle_settings_and_processor(model):
    from paddleseg_infer.deploy import load_deploy_config

    build, options = find_paddle(), EngineOptions(device="cpu")
    one = load_deploy_config(model)
    other = load_deploy_config(model.parent.parent / "logits" / "deploy.yaml")
    keys = [
        optimised.graph_key(Setup(one, options, build), "a processor"),
        optimised.graph_key(Setup(replace(one, graph=other.graph), options, build), "a processor"),
        optimised.graph_key(
            Setup(replace(one, params=other.params), options, build), "a processor"
        ),
        optimised.graph_key(Setup(one, options, replace(build, version=(3, 9, 9))), "a processor"),
        optimised.graph_key(Setup(one, options, replace(build, commit="another")), "a processor"),
        optimised.graph_key(
            Setup(one, replace(options, enable_mkldnn=False), build), "a processor"
        ),
        optimised.graph_key(Setup(one, options, build), "another"),
    ]
    assert len(set(keys)) == 7


@pytest.mark.parametrize("damage", ["zeroed", "cut", "gone", "no digests", "foreign digests"])
def test_a_damaged_entry_is_reported_and_made_again(every_graph, model, tmp_path, caplog, damage):
    expected = labels(model, tmp_path)
    entry = tmp_path / entries(tmp_path)[0]
    params, digests = entry / "_optimized.pdiparams", entry / store.DIGESTS
    content = params.read_bytes()
    if damage == "zeroed":
        params.write_bytes(content[:-400] + bytes(400))
    elif damage == "cut":
        params.write_bytes(content[:-4])
    elif damage == "gone":
        params.unlink()
    elif damage == "no digests":
        digests.unlink()
    else:
        digests.write_text("[1]")
    assert np.array_equal(labels(model, tmp_path), expected)
    assert "is damaged, and is made again" in caplog.text
    assert params.read_bytes() == content
    caplog.clear()
    assert np.array_equal(labels(model, tmp_path), expected)
    assert not caplog.records


def test_an_entry_that_paddle_cannot_load_is_reported_and_made_again(
    every_graph, model, tmp_path, caplog
):
    expected = labels(model, tmp_path)
    entry = tmp_path / entries(tmp_path)[0]
    params = entry / "_optimized.pdiparams"
    whole = params.read_bytes()
    params.write_bytes(whole[: len(whole) // 2])
    digests = {n: store.sha256(str(entry / n)) for n in os.listdir(entry) if n != store.DIGESTS}
    (entry / store.DIGESTS).write_text(json.dumps(digests))
    assert np.array_equal(labels(model, tmp_path), expected)
    assert re.search(r"can't be loaded \(.*\), and is made again", caplog.text)
    assert params.read_bytes() == whole


@pytest.mark.parametrize("mode", [0o755, 0o720, 0o701])
def test_a_folder_that_others_can_enter_is_not_used(every_graph, model, tmp_path, caplog, mode):
    folder = tmp_path / "kept"
    folder.mkdir()
    folder.chmod(mode)
    labels(model, folder)
    assert "other users can open it" in caplog.text
    assert entries(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_not_used(every_graph, model, tmp_path, caplog):
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    labels(model, folder)
    assert "it belongs to another user" in caplog.text
    assert entries(folder) == []


def test_an_unusable_cache_folder_is_reported_and_changes_no_labels(
    every_graph, model, tmp_path, caplog, monkeypatch
):
    expected = labels(model, "")
    (tmp_path / "file").write_bytes(b"")
    for folder, message in [("file", "it is not a folder"), ("file/below", "file exists")]:
        assert np.array_equal(labels(model, tmp_path / folder), expected)
        assert message in caplog.text
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert np.array_equal(labels(model, tmp_path / "full"), expected)
    assert "too little space" in caplog.text
    assert entries(tmp_path / "full") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_no_entry_is_kept_if_the_disk_becomes_full_while_paddle_writes(
    every_graph, model, tmp_path, caplog, monkeypatch
):
    """Another program may fill the disk after the check for free space."""
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    expected = labels(model, "")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", disk])
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        (disk / "kept").mkdir(mode=0o700)
        assert np.array_equal(labels(model, disk / "kept"), expected)
        assert "the result can't be kept" in caplog.text
        assert entries(disk / "kept") == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_ten_processes_at_once_leave_one_complete_entry(model, tmp_path):
    run = EVERY_GRAPH + "import sys; from paddleseg_infer import cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", run, "--config", model, "--image_path", "image.png"]
    command += ["--device", "cpu", "--cpu_threads", "1", "--cache_dir", "kept"]
    import cv2

    cv2.imwrite(str(tmp_path / "image.png"), IMAGE)
    processes = [
        subprocess.Popen(
            [*command, "--save_dir", f"out{number}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(10)
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, b"")
    assert len(entries(tmp_path / "kept")) == 1
    made = {(tmp_path / f"out{number}" / "image.png").read_bytes() for number in range(10)}
    assert len(made) == 1


def test_entries_unused_for_a_month_are_deleted_at_the_next_write(every_graph, model, tmp_path):
    tmp_path.chmod(0o700)
    names = {"a" * 64: 31, "b" * 64: 29, store.NEW_PREFIX + "old": 2, store.NEW_PREFIX + "now": 0}
    names |= {"not from here": 100}
    for name, days in names.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86400 - 60,) * 2)
    labels(model, tmp_path)
    remaining = set(names) - {"a" * 64, store.NEW_PREFIX + "old"}
    assert set(entries(tmp_path)) > remaining
    assert len(entries(tmp_path)) == len(remaining) + 1
    new_entry = tmp_path / (set(entries(tmp_path)) - remaining).pop()
    os.utime(new_entry, (time.time() - 29 * 86400,) * 2)
    labels(model, tmp_path)
    assert time.time() - new_entry.stat().st_mtime < 3600  # a used entry counts as new


def test_a_small_graph_leaves_no_entry_and_a_fast_one_an_empty_entry(
    model, tmp_path, monkeypatch, caplog
):
    expected = labels(model, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(optimised, "MIN_GRAPH_BYTES", 0)
    monkeypatch.setattr(optimised, "SLOW_SECONDS", 60)  # this machine may be busy
    labels(model, tmp_path / "kept")
    [entry] = entries(tmp_path / "kept")
    assert os.listdir(tmp_path / "kept" / entry) == [store.DIGESTS]
    assert np.array_equal(labels(model, tmp_path / "kept"), expected)
    assert not caplog.records


def test_a_warning_says_if_the_cache_has_no_effect(json_models, tmp_path, caplog):
    labels(json_models / "argmax" / "deploy.yaml", tmp_path / "kept")
    assert "--cache_dir has no effect" in caplog.text
    assert not (tmp_path / "kept").exists()


def test_the_default_folder_is_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert EngineOptions().cache_folder == "/somewhere/paddleseg-infer"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, so to be ignored")
    monkeypatch.setenv("HOME", "/home/me")
    assert EngineOptions().cache_folder == "/home/me/.cache/paddleseg-infer"


def test_a_working_cache_logs_nothing(every_graph, model, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    labels(model, tmp_path / "kept")
    labels(model, tmp_path / "kept")
    assert not caplog.records


def test_a_run_does_not_wait_while_another_makes_an_entry(every_graph, model, tmp_path, caplog):
    """The other run may be stopped, or may need minutes for the graph of another model."""
    tmp_path.chmod(0o700)
    with store.locked(str(tmp_path)):
        assert np.array_equal(labels(model, tmp_path), labels(model, ""))
    assert len(entries(tmp_path)) == 1
