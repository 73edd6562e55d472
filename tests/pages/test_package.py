"""Tests of the ways to start the program, and of modules that import no heavy package."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest
from conftest import ROOT, masks, write_image

HEAVY = {"cv2", "numpy", "PIL", "yaml", "paddle", "paddle.base.libpaddle", "google.protobuf"}
LIGHT = """cli flags settings tiling errors outcomes pictures.palettes runs.jobs runs.supervisor
    runs.local""".split()


def python(code, **how):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **how)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("name", ["", *(f".{module}" for module in LIGHT)])
def test_a_light_module_imports_nothing_heavy(name):
    code = f"import sys, paddleseg_infer{name}; print(*sys.modules)"
    assert not HEAVY & set(python(code).split())


def test_the_package_imports_nothing_heavy_until_it_is_used():
    code = "import sys, paddleseg_infer; print(*(n for n in sys.modules if 'paddleseg' in n))"
    assert "paddleseg_infer.segmenter" not in python(code)
    code = "from paddleseg_infer import Segmenter; import sys; print('cv2' in sys.modules)"
    assert python(code) == "True\n"


def test_public_names_are_listed_and_others_raise_an_attribute_error():
    package = importlib.import_module("paddleseg_infer")
    assert {"Segmenter", "ConfigError", "ImageError"} <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith("paddleseg_infer.")
    with pytest.raises(AttributeError, match="has no attribute 'Segmentor'"):
        package.Segmentor  # noqa: B018


@pytest.mark.parametrize("name", ["config", "preprocess", "postprocess"])
def test_the_modules_in_the_project_folder_have_the_packages_objects(name):
    code = f"""
import inspect, {name}, paddleseg_infer.{name} as real
own = {{n for n, value in vars(real).items()
       if getattr(value, "__module__", "") == real.__name__ and n[0] != "_"}}
assert own <= set({name}.__all__), own - set({name}.__all__)
assert all(getattr({name}, n) is getattr(real, n) for n in {name}.__all__)
assert {name}.__doc__
"""
    python(code, cwd=ROOT)


@pytest.mark.parametrize(
    ("flags", "environment"),
    [([], {}), (["-I"], {}), (["-P"], {}), ([], {"PYTHONSAFEPATH": "1"}), (["-S", "-E"], None)],
)
@pytest.mark.parametrize("is_link", [False, True])
def test_infer_py_starts_from_any_folder_and_through_a_link(
    tmp_path, model, flags, environment, is_link
):
    """With -S Python finds no installed packages, and infer.py prints an error message."""
    if "-P" in flags and sys.version_info < (3, 11):
        pytest.skip("Python 3.11 brought -P")
    script = ROOT / "infer.py"
    if is_link:
        script = tmp_path / "link.py"
        script.symlink_to(ROOT / "infer.py")
    write_image(tmp_path / "a.png")
    run = subprocess.run(
        [
            sys.executable,
            *flags,
            script,
            "--config",
            model,
            "--image_path",
            "a.png",
            "--device",
            "cpu",
        ],
        cwd=tmp_path,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
    )
    if environment is None:
        assert run.returncode == 2
        assert "pip install -r requirements.txt" in run.stderr
    else:
        assert (run.returncode, run.stderr) == (0, "")
        assert masks(tmp_path / "output") == ["a.png"]


def test_the_installed_package_works_from_another_folder(tmp_path, model):
    """The user's folder has modules with the same names as modules of the program."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site = sysconfig.get_path("purelib", vars={"base": str(environment)})
    project, built = tmp_path / "project", tmp_path / "built"
    shutil.copytree(ROOT / "paddleseg_infer", project / "paddleseg_infer")
    for name in ("pyproject.toml", "README.md", "requirements.txt", "config.py", "infer.py"):
        shutil.copy(ROOT / name, project)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", built]
    subprocess.run([*command, project], check=True, capture_output=True)
    installed = {name for name in os.listdir(built) if name != "bin"}
    assert {name.partition("-")[0] for name in installed} == {"paddleseg_infer"}
    for name in installed:
        os.rename(built / name, os.path.join(site, name))
    with open(os.path.join(site, "packages.pth"), "w") as file:  # finds numpy, OpenCV, Paddle
        file.write(sysconfig.get_path("purelib") + "\n")
    write_image(tmp_path / "a.png")
    for name in ("config.py", "errors.py", "preprocess.py"):
        (tmp_path / name).write_text("raise SystemExit('not me')\n")
    code = f"""
from paddleseg_infer import Segmenter, segmenter
assert segmenter.__file__.startswith({site!r}), segmenter.__file__
print(Segmenter({str(model)!r}, device="cpu")("a.png").shape)
"""
    run = subprocess.run(
        [environment / "bin" / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "(48, 64)\n"), run.stderr
    start = environment / "start.py"
    start.write_bytes((built / "bin" / "paddleseg-infer").read_bytes())
    run = subprocess.run(
        [
            environment / "bin" / "python",
            start,
            "--config",
            model,
            "--image_path",
            "a.png",
            "--device",
            "cpu",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert masks(tmp_path / "output") == ["a.png"]
    start.write_bytes((built / "bin" / "paddleseg-gallery").read_bytes())
    line = {"image": "a.png", "status": "done", "files": {"mask": "a.png"}}
    (tmp_path / "report").write_text(json.dumps(line) + "\n")
    command = [environment / "bin" / "python", start, "report", "--save_dir", "output"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "output" / "gallery" / "index.html").exists()


def test_another_python_gets_a_sentence(tmp_path):
    """Runs infer.py with another version number, because no old Python may be installed."""
    source = (ROOT / "infer.py").read_text(encoding="utf-8")
    old = "import sys; sys.version_info = (3, 9, 18, 'final', 0)\n" + source
    (tmp_path / "infer.py").write_text(old)
    run = subprocess.run([sys.executable, "infer.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == "error: this program needs Python 3.10 to 3.13, and this is 3.9\n"
