"""Runs the gallery's command line, and reads the page that it makes."""

import json
import os
import re
import subprocess
import sys
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np
from conftest import Run

from paddleseg_infer.pictures.kinds import encode_mask

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


def shown_at(page, url):
    """Returns the picture behind a URL of the page, as OpenCV reads it."""
    path = os.path.join(os.fsencode(page.parent), unquote_to_bytes(url))
    with open(path, "rb") as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)


def encoded(suffix, array, *options):
    return cv2.imencode(suffix, array, options)[1].tobytes()


def page_of(tmp_path, images, size=(48, 64), first=None, **more):
    """Makes a report of images in `in`, and masks of zeros; then the page.

    `first` is the first line of the report, `more` goes into the line of each image.

    It takes the images' names and bytes, and returns the entries of the page by name.
    """
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "output").mkdir(exist_ok=True)
    lines = []
    for name, data in images.items():
        (tmp_path / "in" / name).write_bytes(data)
        lines.append(image_line(f"in/{name}", **more))
        mask = tmp_path / "output" / lines[-1]["files"]["mask"]
        mask.write_bytes(encode_mask(np.zeros(size, np.uint8)))
    write_report(tmp_path / "report", *([first] if first else []), *lines, SUMMARY)
    run = make_page(tmp_path, "report", "--save_dir", "output")
    assert run.code == 0, run
    return entries(tmp_path / "output" / "gallery" / "index.html")
