"""The READMEs: both languages say the same, their flags are the program's, their commands run."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import MISSING
from pathlib import Path

import pytest
from conftest import ROOT, masks

from paddleseg_infer.flags import PARTS
from paddleseg_infer.option import GROUPS, options_of

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_cn.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<kind>\w+)\n(?P<code>.*?)```", re.S
)


def sections(text):
    """A README cut at its headings."""
    return re.split(r"^#+ .*$", text, flags=re.M)


def table_rows(text):
    """The cells of every table row, heads and rules included."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]


def spans(text):
    """What stands between backquotes, outside of blocks; the languages may order it differently."""
    return Counter(re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)))


def test_both_readmes_have_the_same_headings_and_links():
    for pattern in (r"^(#+) ", r"\]\(([^)]+)\)"):
        ours, theirs = (re.findall(pattern, text, re.M) for text in (ENGLISH, CHINESE))
        assert [found.replace("README_cn", "README") for found in ours] == theirs


def test_both_readmes_have_the_same_commands():
    assert BLOCK.findall(ENGLISH) == BLOCK.findall(CHINESE)


def test_both_readmes_name_the_same_things_section_by_section():
    for ours, theirs in zip(sections(ENGLISH), sections(CHINESE), strict=True):
        assert spans(ours) == spans(theirs)


def test_both_readmes_have_the_same_tables():
    ours, theirs = table_rows(ENGLISH), table_rows(CHINESE)
    assert len(ours) == len(theirs)
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [spans(cell) for cell in our_row] == [spans(cell) for cell in their_row]
        for our_cell, their_cell in zip(our_row, their_row, strict=True):
            assert re.findall(r"\d[\d.]*", our_cell) == re.findall(r"\d[\d.]*", their_cell)


def test_the_flags_are_the_programs_with_its_defaults():
    documented = {}
    for cells in table_rows(ENGLISH.split("## Flags")[1].split("\n## ")[0]):
        if match := re.match(r" `(--\w+)[^`]*` $", cells[0]):
            documented[match[1]] = cells[1].strip().strip("`")
    options = [
        (f"--{name}", default)
        for group in GROUPS
        for part in PARTS
        for name, option, default in options_of(part)
        if option.group == group
    ]
    assert list(documented) == [flag for flag, _ in options]
    # What isn't given is worked out later, or is nothing: the options keep None for these.
    later = {
        "--device": "gpu",
        "--cpu_threads": "10",
        "--enable_mkldnn": "Paddle's own",
        "--cache_dir": "~/.cache/paddleseg-infer",
    }
    for flag, default in options:
        default = "required" if default is MISSING else default
        default = " ".join(default) if isinstance(default, tuple) else default
        shown = later.get(flag, "none") if default in (None, "") else str(default)
        assert documented[flag] == shown, flag


def test_files_that_the_readme_names_are_there():
    for name in re.findall(r"`([\w/]+(?:\.py|\.txt|/))`|\]\(([^):#]+)\)", ENGLISH):
        assert (ROOT / (name[0] or name[1])).exists(), name


def made_by_make():
    """Whether the tests run in an environment that `make demo` finds ready."""
    ready = Path(sys.prefix) / "ready-to-run"
    needed = (ROOT / "requirements.txt").stat().st_mtime
    return ready.exists() and ready.stat().st_mtime >= needed


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project to run in, and an environment that pip installs beside, not into."""
    folder = tmp_path_factory.mktemp("readme") / "project"
    left = [".*", "__pycache__", "build", "*.egg-info"]  # by earlier runs, or by a reader
    left += ["output", "export", "masks", "pp_liteseg_infer_model*", "cityscapes_demo.png"]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left))
    prefix = folder.parent / "installed"
    packages = sysconfig.get_path("purelib", vars={"base": str(prefix)})
    own = os.path.dirname(sys.executable)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(prefix / "bin"), own, os.environ["PATH"]]),
        "PYTHONPATH": packages,
        "PIP_PREFIX": str(prefix),
        "VENV": sys.prefix if made_by_make() else str(folder.parent / "venv"),
    }
    return folder, environment


def test_every_command_runs(project):
    folder, environment = project
    ran, said = [], ""
    for match in BLOCK.finditer(ENGLISH):
        if "wget" in match["code"]:  # what the downloads would bring, by their names
            model = folder / "pp_liteseg_infer_model"
            shutil.copytree(folder / "export", model)
            subprocess.run(["tar", "-czf", f"{model}.tar.gz", model.name], cwd=folder, check=True)
            shutil.rmtree(model)
            subprocess.run(
                [sys.executable, "-c", "import cv2; cv2.imwrite('cityscapes_demo.png', "
                 "cv2.imread('demo/images/corner.jpg'))"], cwd=folder, check=True
            )  # fmt: skip
        if match["why"] is None:
            command = {"sh": ["bash", "-ec"], "python": [sys.executable, "-c"]}[match["kind"]]
            # Else pip would remove the program that is installed beside these tests.
            beside = {"PIP_IGNORE_INSTALLED": "1", "PIP_NO_DEPS": "1"}
            installs_it = "pip install ." in match["code"]
            result = subprocess.run(
                [*command, match["code"]],
                cwd=folder,
                env={**environment, **(beside if installs_it else {})},
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, (match["code"], result.stdout, result.stderr)
            ran.append(match["code"])
            said += result.stdout
    assert len(ran) == 13
    assert "output/demo/avenue.png: " in said
    assert "road" in said
    # A second run installs nothing.
    assert ("Installing requirements.txt" in said) != made_by_make()
    demo = ["avenue.png", "boulevard.png", "corner.png", "crossing.png"]
    assert sorted(masks(folder / "masks")) == sorted(masks(folder / "output" / "demo")) == demo
    expected = {"avenue.png", "cityscapes_demo.png", *(f"demo/{name}" for name in demo), *demo}
    expected |= {"label/avenue.png", "overlay/avenue.png"}
    assert set(masks(folder / "output")) == expected
    wrong = ["paddleseg-infer", "--nope"]  # installed by one of the commands: it names itself
    result = subprocess.run(wrong, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "paddleseg-infer --help" in result.stderr


def test_what_is_not_run_is_little_and_says_why():
    reasons = [match["why"] for match in BLOCK.finditer(ENGLISH) if match["why"]]
    assert len(reasons) == 11
    assert all(
        re.search("needs|downloads|tests|runs|may not be there", reason) for reason in reasons
    )
