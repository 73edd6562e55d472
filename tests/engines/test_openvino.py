"""OpenVINO gives the same labels as oneDNN, also after failures. Errors are clear messages."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, masks, read_mask, scene, write_image

from paddleseg_infer.config import resolved
from paddleseg_infer.deploy import load_deploy_config
from paddleseg_infer.engine_options import EngineOptions
from paddleseg_infer.engines import openvino as openvino_engine
from paddleseg_infer.engines.guarded import MAX_RESTARTS
from paddleseg_infer.engines.load import load
from paddleseg_infer.engines.setup import Setup
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.machine.paddle_build import PaddleBuild, find_paddle
from paddleseg_infer.preprocess import prepare
from paddleseg_infer.segmenter import Segmenter

BUILD = find_paddle()
has_openvino = pytest.mark.skipif(
    not BUILD.openvino_library, reason="this Paddle has no OpenVINO engine"
)
GOOD, SMALL, SMALLER, OTHER = (48, 64), (3, 9), (2, 5), (24, 40)  # "pools" fails for SMALL


def labels_of(folder, images, **options):
    return Segmenter(folder / "deploy.yaml", device="cpu", cpu_threads=1, **options)(images)


def engine(folder, **options):
    options = resolved(EngineOptions("cpu", cpu_threads=1, **options), BUILD)
    return load(Setup(load_deploy_config(folder / "deploy.yaml"), options, BUILD))


def assert_equal(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert np.array_equal(one, other)


@has_openvino
@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_image_too_small_for_openvino_changes_no_labels(models, caplog, batch_size):
    sizes = [GOOD, SMALL, GOOD, GOOD, SMALL, GOOD, OTHER, SMALLER, GOOD, GOOD, SMALL, SMALL, OTHER]
    images = [scene(*size, number) for number, size in enumerate(sizes)]
    expected = labels_of(models / "pools", images, batch_size=batch_size)
    got = labels_of(models / "pools", images, batch_size=batch_size, enable_openvino=True)
    assert_equal(got, expected)
    messages = [record.message for record in caplog.records if "can't run" in record.message]
    assert messages == [
        "OpenVINO can't run 9x3 (Kernel after dilation has size (dim: 2) larger than the data "
        "shape after padding (dim: 1) at axis 0): Paddle's own engine runs this size and smaller "
        "ones"
    ]


@has_openvino
def test_a_failure_is_detected_if_the_output_has_the_right_shape(models):
    """Outputs have half the image's size, so an earlier output may have the right shape."""
    images = [scene(*size, n) for n, size in enumerate([(4, 9), SMALL, GOOD, SMALL, GOOD, (4, 9)])]
    options = {"device": "cpu", "cpu_threads": 1, "network_size": True}
    config = models / "half" / "deploy.yaml"
    expected = Segmenter(config, **options)(images)
    assert expected[0].shape == expected[1].shape
    assert_equal(Segmenter(config, enable_openvino=True, **options)(images), expected)


@has_openvino
def test_a_failure_that_is_not_logged_is_detected_by_the_output_shape(models, monkeypatch, caplog):
    monkeypatch.setattr(openvino_engine, "RUN_FAILED", re.compile(rb"never"))
    images = [scene(*size, number) for number, size in enumerate([GOOD, SMALL, GOOD, OTHER])]
    got = labels_of(models / "pools", images, enable_openvino=True)
    assert_equal(got, labels_of(models / "pools", images))
    assert "OpenVINO can't run 9x3 (its output has the shape [1, 48, 64])" in caplog.text


TWO_THREADS = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from paddleseg_infer import Segmenter
images = [array for _, array in sorted(np.load(sys.argv[2]).items())]
options = {"device": "cpu", "cpu_threads": 1, "enable_openvino": True}
segmenters = [Segmenter(sys.argv[1], **options) for _ in range(2)]
with ThreadPoolExecutor(2) as pool:
    for number, got in enumerate(pool.map(lambda segmenter: segmenter(images), segmenters)):
        np.savez(f"{sys.argv[3]}{number}", *got)
os.write(2, b"here")
"""


@has_openvino
def test_failures_are_detected_in_two_threads_and_standard_error_still_works(models, tmp_path):
    """In a process of its own, where no other test has used an engine."""
    images = [scene(*size, n) for n, size in enumerate([GOOD, SMALL, OTHER, SMALL] * 10)]
    expected = labels_of(models / "pools", images)
    np.savez(tmp_path / "in.npz", **{f"{number:03}": image for number, image in enumerate(images)})
    command = [sys.executable, "-c", TWO_THREADS, models / "pools" / "deploy.yaml"]
    command += [tmp_path / "in.npz", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stderr.endswith(b"here")
    for thread in (0, 1):
        with np.load(tmp_path / f"out{thread}.npz") as found:
            assert_equal([found[f"arr_{number}"] for number in range(len(images))], expected)


@has_openvino
def test_model_files_that_change_during_a_run_are_an_error(model_copy):
    folder = model_copy("pools")
    segmenter = Segmenter(folder / "deploy.yaml", device="cpu", enable_openvino=True)
    segmenter(scene(*GOOD))
    os.utime(folder / "model.pdiparams", (1, 1))
    with pytest.raises(ImageError, match="files have changed since the start of this run"):
        segmenter(scene(*SMALL))


@has_openvino
def test_an_image_that_neither_engine_can_run_fails_alone(models):
    images = [scene(48, 64), scene(9, 9), scene(48, 64, 1), scene(9, 9), scene(40, 40)]
    segmenter = Segmenter(
        models / "needs16" / "deploy.yaml", device="cpu", cpu_threads=1, enable_openvino=True
    )
    results = {result.index: result for result in segmenter.stream(images)}
    assert [bool(results[index].error) for index in range(5)] == [False, True, False, True, False]
    assert "can't run it at 9x9" in str(results[1].error)
    good = [images[0], images[2], images[4]]
    assert_equal([results[n].labels for n in (0, 2, 4)], labels_of(models / "needs16", good))


@has_openvino
def test_after_many_failures_onednn_runs_the_rest(models, caplog):
    sizes = [(3, 10 * (number + 1)) for number in range(MAX_RESTARTS + 3)]  # each image is wider
    images = [scene(*size) for size in [GOOD, *sizes, GOOD]]
    got = labels_of(models / "pools", images, enable_openvino=True)
    assert_equal(got, labels_of(models / "pools", images))
    assert caplog.text.count("OpenVINO can't run") == MAX_RESTARTS + 1
    assert caplog.text.count("runs all other images") == 1


@has_openvino
@pytest.mark.parametrize("name", ["argmax", "logits", "keepdim", "softmax", "fixed", "foreground"])
def test_models_of_each_kind_run_in_openvino(models, name, caplog):
    images = [scene(48, 64, number) for number in range(3)]
    with_argmax = name in ("logits", "softmax")
    got = labels_of(models / name, images, enable_openvino=True, with_argmax=with_argmax)
    assert_equal(got, labels_of(models / name, images, with_argmax=with_argmax))
    assert "OpenVINO can't" not in caplog.text


@has_openvino
def test_enable_openvino_makes_the_engine_use_openvino(models, capfd):
    state = engine(models / "argmax", enable_openvino=True, print_detail=True).config
    assert state.openvino_engine_enabled()
    assert "openvino_subgraph_pass" in capfd.readouterr().err
    assert not engine(models / "argmax").config.openvino_engine_enabled()


@has_openvino
def test_a_graph_that_openvino_cannot_convert_is_reported_and_runs_on_onednn(models, caplog):
    images = [scene(48, 64)]
    got = labels_of(models / "gamma", images, enable_openvino=True)
    assert "OpenVINO can't run this model (Can't convert paddle model" in caplog.text
    assert_equal(got, labels_of(models / "gamma", images))


@has_openvino
def test_a_graph_that_paddle_does_not_give_to_openvino_is_reported(models, caplog):
    """Paddle does this without graph optimisation, which the program never turns off."""

    class WithoutPasses(Setup):
        def make_config(self):
            made = super().make_config()
            made.switch_ir_optim(False)
            return made

    deploy = load_deploy_config(models / "argmax" / "deploy.yaml")
    options = resolved(EngineOptions("cpu", cpu_threads=1, enable_openvino=True), BUILD)
    engine = load(WithoutPasses(deploy, options, BUILD))
    assert "OpenVINO can't run this model (Paddle doesn't use OpenVINO for it)" in caplog.text
    tensor = prepare(scene(48, 64), deploy.transforms).tensor()[None]
    own = load(Setup(deploy, replace(options, enable_openvino=False), BUILD))
    assert np.array_equal(engine(tensor)[0], own(tensor)[0])


@has_openvino
def test_a_json_graph_and_a_gpu_are_refused(json_models):
    with pytest.raises(ConfigError, match=r"json graph.*OpenVINO.*FLAGS_enable_pir_api=0"):
        labels_of(json_models / "argmax", [scene(48, 64)], enable_openvino=True)
    with_gpu = PaddleBuild((3, 2, 2), has_gpu=True, folder="")
    for device in ("gpu", None):
        with pytest.raises(ConfigError, match="--enable_openvino works only on the CPU: add"):
            resolved(EngineOptions(device, enable_openvino=True), with_gpu)


# ---- the command line --------------------------------------------------------------------------


@has_openvino
@pytest.mark.parametrize("more", [[], ["--batch_size", "2"], ["--num_workers", "2"]])
def test_masks_equal_those_of_onednn(infer, models, photos, tmp_path, more):
    write_image(photos / "small.png", SMALL)
    model = models / "pools" / "deploy.yaml"
    common = ("--config", model, "--image_path", "photos", "--cpu_threads", "1", *more)
    plain = infer(*common, "--save_dir", "plain")
    run = infer(*common, "--save_dir", "fast", "--enable_openvino", XDG_CACHE_HOME=str(tmp_path))
    assert (plain.code, run.code) == (0, 0)
    assert run.err.count("warning") == 1  # for the small image; OpenVINO's own log is hidden
    assert "OpenVINO can't run 9x3" in run.err
    assert masks(tmp_path / "fast") == masks(tmp_path / "plain")
    for name in masks(tmp_path / "plain"):
        assert np.array_equal(
            read_mask(tmp_path / "fast" / name), read_mask(tmp_path / "plain" / name)
        )


@has_openvino
def test_memory_stays_level_over_many_sizes_and_threads_are_not_pinned(models, tmp_path):
    """A child process runs images of 400 sizes and prints how many MB its memory grows by."""
    call = f"""
import os, threading
from conftest import scene
from paddleseg_infer.segmenter import Segmenter
usable, pinned, ended = os.sched_getaffinity(0), set(), threading.Event()
def watch():  # a thread is pinned while it runs the network
    while not ended.wait(0.01):
        for thread in os.listdir("/proc/self/task"):
            if os.sched_getaffinity(int(thread)) != usable:
                pinned.add(thread)
watcher = threading.Thread(target=watch)
watcher.start()
run = Segmenter({str(models / "pools" / "deploy.yaml")!r}, device="cpu", cpu_threads=1,
                enable_openvino=True, cache_dir={str(tmp_path / "kept")!r})
levels = []
for start in (100, 200, 300, 400):
    for number in range(start, start + 100):
        run(scene(number, 700 - number))
    pages = int(open("/proc/self/statm").read().split()[1])
    levels.append(pages // 256)
print(levels[-1] - levels[0])
print("kept" in open("/proc/self/maps").read())
ended.set()
watcher.join()
print(len(pinned))
"""
    child = subprocess.run(
        [sys.executable, "-c", call],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert "default settings" not in child.stderr
    growth, is_copy, pinned = child.stdout.split()
    assert is_copy == "True"
    assert pinned == "0"
    assert int(growth) < 150, growth  # with 5,000 cached kernels it is over 400


@has_openvino
def test_without_space_for_temporary_files_paddles_own_engine_runs(models, monkeypatch, caplog):
    monkeypatch.setattr(openvino_engine.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    images = [scene(48, 64)]
    got = labels_of(models / "argmax", images, enable_openvino=True)
    assert_equal(got, labels_of(models / "argmax", images))
    assert "OpenVINO can't run this model (the temporary folder has too little" in caplog.text


@has_openvino
def test_a_warning_says_if_openvino_uses_its_own_settings(infer, models, photos):
    model = models / "argmax" / "deploy.yaml"
    run = infer(
        *("--config", model, "--image_path", "photos/0.jpg", "--enable_openvino"),
        *("--cache_dir", ""),
    )
    assert run.code == 0
    assert "OpenVINO runs with its default settings (--cache_dir is empty)" in run.err
