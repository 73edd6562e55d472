"""Tests of the READMEs: both have the same content, the flags are right, the commands run."""

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
    """Returns the parts of a README between its headings."""
    return re.split(r"^#+ .*$", text, flags=re.M)


def table_rows(text):
    """Returns the cells of all table rows, also of the header and the line below it."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]


def spans(text):
    """Counts the texts between backquotes outside of code blocks. Their order doesn't matter."""
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


def test_the_readme_lists_the_programs_flags_with_their_defaults():
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
    # The default of these options is None. The program chooses their value later.
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


def test_files_that_the_readme_names_exist():
    for name in re.findall(r"`([\w/]+(?:\.py|\.txt|/))`|\]\(([^):#]+)\)", ENGLISH):
        assert (ROOT / (name[0] or name[1])).exists(), name


def is_ready_for_make_demo():
    """Returns whether `make demo` can use the tests' environment without an installation."""
    ready = Path(sys.prefix) / "ready-to-run"
    needed = (ROOT / "requirements.txt").stat().st_mtime
    return ready.exists() and ready.stat().st_mtime >= needed


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, and environment variables that make pip install to another folder."""
    folder = tmp_path_factory.mktemp("readme") / "project"
    ignored = [".*", "__pycache__", "build", "*.egg-info"]  # files of earlier runs or of a reader
    ignored += ["output", "export", "masks", "pp_liteseg_infer_model*", "cityscapes_demo.png"]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    prefix = folder.parent / "installed"
    packages = sysconfig.get_path("purelib", vars={"base": str(prefix)})
    own = os.path.dirname(sys.executable)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(prefix / "bin"), own, os.environ["PATH"]]),
        "PYTHONPATH": packages,
        "PIP_PREFIX": str(prefix),
        "VENV": sys.prefix if is_ready_for_make_demo() else str(folder.parent / "venv"),
    }
    return folder, environment


def test_every_command_runs(project):
    folder, environment = project
    ran, printed = [], ""
    for match in BLOCK.finditer(ENGLISH):
        if "wget" in match["code"]:  # make the files that the downloads would bring
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
            # Without these, pip would remove the installed program that the tests run.
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
            printed += result.stdout
    assert ran
    assert (
        printed.count("4 of 4 masks compared: mean IoU 0.87") == 3
    )  # make demo, --label_path, both parts
    assert "road" in printed
    # A second run installs nothing.
    assert ("Installing requirements.txt" in printed) != is_ready_for_make_demo()
    demo = ["avenue.png", "boulevard.png", "corner.png", "crossing.png"]
    assert sorted(masks(folder / "masks")) == sorted(masks(folder / "output" / "demo")) == demo
    expected = {"avenue.png", "cityscapes_demo.png", *(f"demo/{name}" for name in demo), *demo}
    expected |= {"label/avenue.png", "overlay/avenue.png"}
    assert set(masks(folder / "output")) == expected
    wrong = ["paddleseg-infer", "--nope"]  # one of the commands has installed it
    result = subprocess.run(wrong, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "paddleseg-infer --help" in result.stderr


def test_each_block_is_run_or_gives_a_reason():
    blocks = list(BLOCK.finditer(ENGLISH))
    assert len(blocks) * 2 == ENGLISH.count("```")  # no block is overlooked
    reasons = [match["why"] for match in blocks if match["why"]]
    assert all(re.search("needs|downloads|tests|runs", reason) for reason in reasons)
