"""OpenVINO's failures are found in Paddle's log, whatever settings that log has."""

import os
import subprocess
import sys

import pytest
from conftest import BUILD, ROOT, masks, write_image

SMALL = (3, 9)  # OpenVINO can't run "half" at this size
has_openvino = pytest.mark.skipif(
    not BUILD.openvino_library, reason="this Paddle has no OpenVINO engine"
)


@has_openvino
def test_failures_are_detected_with_any_settings_of_paddles_log(infer, models, photos, tmp_path):
    write_image(photos / "small.png", SMALL)
    common = ("--config", models / "half" / "deploy.yaml", "--image_path", "photos")
    assert infer(*common, "--save_dir", "plain").code == 0
    run = infer(
        *(*common, "--save_dir", "fast", "--enable_openvino", "--print_detail"),
        GLOG_minloglevel="3",
        GLOG_log_prefix="0",
        GLOG_colorlogtostderr="1",
    )
    assert run.code == 0
    assert "OpenVINO can't run 9x3 (Kernel after dilation" in run.err
    for name in masks(tmp_path / "plain"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "fast" / name).read_bytes()


@has_openvino
def test_settings_of_paddles_log_are_refused_if_paddle_was_loaded_with_them(models):
    call = f"""
from paddleseg_infer import ConfigError, Segmenter
config = {str(models / "half" / "deploy.yaml")!r}
Segmenter(config, device="cpu").load()
for _ in range(2):
    try:
        Segmenter(config, device="cpu", enable_openvino=True).load()
    except ConfigError as error:
        print(error)
"""
    child = subprocess.run(
        [sys.executable, "-c", call],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "3"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.count("GLOG_minloglevel was set when Paddle was loaded") == 2
