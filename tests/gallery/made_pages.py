"""Runs the gallery's command line, and reads the page that it makes."""

import json
import re
import subprocess
import sys

from conftest import Run

DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.S)


def make_page(folder, *arguments):
    """Runs `python -m paddleseg_infer.gallery` in a folder. Returns the finished Run."""
    command = [sys.executable, "-m", "paddleseg_infer.gallery", *map(str, arguments)]
    run = Run(subprocess.run(command, cwd=folder, capture_output=True, timeout=100))
    assert "Traceback" not in run.err, run
    return run


def entries(page):
    """Returns the images on a page by name."""
    images = json.loads(DATA.search(page.read_text())[1])["images"]
    return {image["name"]: image for image in images}


def write_report(path, *lines):
    """Writes a report of these lines: dictionaries, or texts that are written as they are."""
    texts = (line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    path.write_text("".join(texts))
    return path


def image_line(name, status="done", **more):
    """Returns a line of a report about an image whose mask has the same stem."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    files = {} if status == "failed" else {"mask": f"{stem}.png"}
    return {"image": name, "status": status, "reason": "", "files": files, "size": None, **more}


SUMMARY = {"summary": {"exit_code": 0, "not_tried": 0}}
