"""The progress of a run: a bar on a terminal, log lines elsewhere."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import cv2
import numpy as np
import pytest
from conftest import ROOT, SLOW, write_image

from paddleseg_infer.outcomes import Job, Outcome, Windows
from paddleseg_infer.runs import progress


def on_a_terminal(command, folder):
    """Runs a command whose standard error is a terminal, and returns what it writes there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    shown = bytearray()

    def read():
        try:
            while data := os.read(ours, 4096):
                shown.extend(data)
        except OSError:  # the terminal has been closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    subprocess.run(command, cwd=folder, stderr=theirs, stdout=subprocess.DEVNULL, check=True)
    os.close(theirs)
    reader.join()
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("images", [1, 2])  # in this process, and in a worker process
def test_the_bar_counts_the_windows_of_a_large_image(tmp_path, images):
    large = cv2.resize(np.zeros((2, 2, 3), np.uint8), (SLOW, SLOW))
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "large.png"), large)
    if images == 2:
        write_image(tmp_path / "in" / "small.png")
    command = [sys.executable, ROOT / "infer.py", "--config", ROOT / "demo/model/deploy.yaml"]
    command += ["--image_path", "in", "--device", "cpu", "--crop_size", "128", "128"]
    shown = on_a_terminal(command, tmp_path)
    windows = (-(-SLOW // 128)) ** 2
    counts = [int(each) for each in re.findall(rf"large.png: (\d+) of {windows} windows", shown)]
    assert counts
    assert counts == sorted(counts)
    assert 0 < counts[0] < windows
    last = shown.rstrip().rpartition("\r")[2]
    assert f"{images}/{images}" in last
    assert "windows" not in last


def test_without_a_terminal_a_line_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    caplog.set_level("INFO")
    shown = progress.Progress(2, quiet=False)
    shown.windows(Windows("in/large.png", 3, 9))
    assert "in/large.png: 3 of 9 windows" in caplog.text
    shown.add(Outcome(Job("in/large.png", "large"), "done"))
    assert "1 of 2 images, " in caplog.text
    shown.windows(Windows("in/other.png", 4, 9))
    assert "0 failed; in/other.png: 4 of 9 windows" in caplog.text
    shown.close()
    silent = progress.Progress(1, quiet=True)
    silent.windows(Windows("in/large.png", 5, 9))
    assert "5 of 9" not in caplog.text
