"""Tests of the READMEs and of `docs/`.

Each page has the same content in both languages, the flags are right, and the commands run.
"""

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

DOCS = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README", *DOCS]


def english(page):
    path = "README.md" if page == "README" else f"docs/{page}.md"
    return (ROOT / path).read_text(encoding="utf-8")


def chinese(page):
    path = "README_cn.md" if page == "README" else f"docs/cn/{page}.md"
    return (ROOT / path).read_text(encoding="utf-8")


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


def linked(text, folder):
    """Returns the places that a page in `folder` links to, without the language in their names."""
    found = []
    for path, anchor in re.findall(r"\]\(([^)#]*)(#[^)]+)?\)", text):
        there = os.path.normpath(folder / path) if path else ""
        assert not path or ":" in path or os.path.exists(there), path
        found.append(there.replace("README_cn", "README").replace("docs/cn/", "docs/") + anchor)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_headings_and_links(page):
    ours, theirs = (re.findall(r"^(#+) ", text(page), re.M) for text in (english, chinese))
    assert ours == theirs
    of_docs = (ROOT / "docs", ROOT / "docs" / "cn") if page != "README" else (ROOT, ROOT)
    ours, theirs = linked(english(page), of_docs[0]), linked(chinese(page), of_docs[1])
    assert ours == theirs


@pytest.mark.parametrize("page", PAGES)
def test_a_link_to_a_part_of_a_page_has_a_target(page):
    for text, cn in ((english(page), ""), (chinese(page), "cn/")):
        for path, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", text):
            there = ROOT / "docs" / cn / os.path.basename(path) if path else None
            there = there.read_text(encoding="utf-8") if there else text
            headings = [
                line.lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", there, re.M)
            ]
            assert anchor in headings or f'<a id="{anchor}"></a>' in there, anchor


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_commands(page):
    assert BLOCK.findall(english(page)) == BLOCK.findall(chinese(page))


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_name_the_same_things_section_by_section(page):
    for ours, theirs in zip(sections(english(page)), sections(chinese(page)), strict=True):
        assert spans(ours) == spans(theirs)


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_have_the_same_tables(page):
    ours, theirs = table_rows(english(page)), table_rows(chinese(page))
    assert len(ours) == len(theirs)
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [spans(cell) for cell in our_row] == [spans(cell) for cell in their_row]
        for our_cell, their_cell in zip(our_row, their_row, strict=True):
            assert re.findall(r"\d[\d.]*", our_cell) == re.findall(r"\d[\d.]*", their_cell)


def test_the_readme_lists_the_programs_flags_with_their_defaults():
    documented = {}
    for cells in table_rows(english("README").split("## Flags")[1].split("\n## ")[0]):
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


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    for name in re.findall(r"`([\w/]+(?:\.py|\.txt|/))`", english(page)):
        assert (ROOT / name).exists(), name


def test_the_readme_is_short_and_names_every_page():
    assert len(english("README").splitlines()) < 200
    assert len(chinese("README").splitlines()) < 200
    for page in DOCS:
        assert f"(docs/{page}.md)" in english("README"), page


def is_ready_for_make_demo():
    """Returns whether `make demo` can use the tests' environment without an installation."""
    ready = Path(sys.prefix) / "ready-to-run"
    needed = (ROOT / "requirements.txt").stat().st_mtime
    return ready.exists() and ready.stat().st_mtime >= needed


@pytest.fixture
def project(tmp_path_factory):
    """A copy of the project, and environment variables that make pip install to another folder."""
    folder = tmp_path_factory.mktemp("readme") / "project"
    ignored = [".*", "__pycache__", "build", "*.egg-info"]  # files of earlier runs or of a reader
    ignored += ["output", "export", "masks", "pp_liteseg_infer_model*", "cityscapes_demo.png"]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    prefix = folder.parent / "installed"
    packages = sysconfig.get_path("purelib", vars={"base": str(prefix)})
    own = os.path.dirname(sys.executable)
    # The variables of `make test VENV=...` must not reach the `make demo` of a page.
    own_variables = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"}
    environment = {
        **{name: value for name, value in os.environ.items() if name not in own_variables},
        "PATH": os.pathsep.join([str(prefix / "bin"), own, os.environ["PATH"]]),
        "PYTHONPATH": packages,
        "PIP_PREFIX": str(prefix),
        "VENV": sys.prefix if is_ready_for_make_demo() else str(folder.parent / "venv"),
    }
    return folder, environment


def with_downloads(folder):
    """Makes the files that the downloads of a page would bring."""
    model = folder / "pp_liteseg_infer_model"
    shutil.copytree(folder / "export", model)
    subprocess.run(["tar", "-czf", f"{model}.tar.gz", model.name], cwd=folder, check=True)
    shutil.rmtree(model)
    shutil.copy(folder / "demo" / "images" / "corner.jpg", folder / "cityscapes_demo.png")


def run_commands(text, folder, environment):
    """Runs the commands of a page, and returns what they print."""
    printed = ""
    for match in BLOCK.finditer(text):
        if "wget" in match["code"]:
            with_downloads(folder)
        if match["why"] is not None:
            continue
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
        printed += result.stdout
    return printed


DEMO = ["avenue.png", "boulevard.png", "corner.png", "crossing.png"]


def test_every_command_of_the_readme_runs(project):
    folder, environment = project
    printed = run_commands(english("README"), folder, environment)
    assert printed.count("4 of 4 masks compared: mean IoU 0.87") == 2  # make demo, --label_path
    # A second run installs nothing.
    assert ("Installing requirements.txt" in printed) != is_ready_for_make_demo()
    for gallery in ("output/gallery", "output/demo/gallery"):
        assert f"open {gallery}/index.html in a browser" in printed
        assert (folder / gallery / "index.html").exists()
        shutil.rmtree(folder / gallery)
    assert masks(folder / "masks") == masks(folder / "output" / "demo") == DEMO
    overlays = [f"overlay/{name}" for name in DEMO]
    demo = ["demo.jsonl", *(f"demo/{name}" for name in DEMO)]
    assert masks(folder / "output") == sorted([*DEMO, *overlays, *demo])


MADE = {  # what the commands of a page make, and a part of what they print
    "models": ("output/cityscapes_demo.png", "images: 4\n"),
    "install": ("output/corner.png", "4 of 4 images done"),
    "pictures": ("output/overlay/avenue.png", "masks, labels, overlays in output"),
    "rasters": ("output/scene.tif", "1 of 1 images done"),
    "large": ("output/crossing.png", "4 of 4 images done"),
    "evaluation": ("part2.jsonl", "4 of 4 masks compared: mean IoU 0.87"),
    "speed": ("demo_int8/model.pdmodel", "4 of 4 images done"),
    "runs": ("report.jsonl", "4 of 4 images done"),
    "gallery": ("output/gallery/index.html", "4 images in"),
    "differences": ("output/avenue.png", "4 of 4 images done"),
    "python": ("demo", ""),
    "gpu": ("demo", ""),  # nothing on these two is run
    "errors": ("demo", ""),
}


@pytest.mark.parametrize("page", DOCS)
def test_every_command_of_a_page_runs(project, page):
    folder, environment = project
    file, text = MADE[page]
    assert text in run_commands(english(page), folder, environment)
    assert (folder / file).exists()
    if page != "install":
        return
    wrong = ["paddleseg-infer", "--nope"]  # one of the commands has installed it
    result = subprocess.run(wrong, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "paddleseg-infer --help" in result.stderr


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_run_or_gives_a_reason(page):
    blocks = list(BLOCK.finditer(english(page)))
    assert len(blocks) * 2 == english(page).count("```")  # no block is overlooked
    reasons = [match["why"] for match in blocks if match["why"]]
    assert all(re.search("needs|downloads|tests|runs", reason) for reason in reasons)
