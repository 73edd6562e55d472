"""Tests of the requirements files: each line has version bounds and a reason."""

import re

import pytest
from conftest import ROOT

LINE = re.compile(r"(?P<name>[\w-]+(\[\w+\])?)(?P<bounds>(?:[=<>]=?[\d.]+,?)+) +# (?P<reason>.+)")


def lines(name):
    text = (ROOT / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements/gpu.txt", "requirements/ray.txt"]
)
def test_each_line_has_version_bounds_and_a_reason(name):
    for line in lines(name):
        assert LINE.fullmatch(line), line


def test_the_gpu_file_differs_only_in_paddle_and_what_paddle_needs():
    cpu, gpu = lines("requirements.txt"), lines("requirements/gpu.txt")
    different = {LINE.fullmatch(line)["name"] for line in {*cpu} ^ {*gpu}}
    assert different == {"paddlepaddle", "paddlepaddle-gpu", "numpy", "setuptools"}


def test_paddleseg_has_one_version_everywhere():
    for name in ("Makefile", "docs/models.md", "docs/cn/models.md"):
        versions = re.findall(r"paddleseg==([\d.]+)", (ROOT / name).read_text(encoding="utf-8"))
        assert versions == ["2.8.0"], name
