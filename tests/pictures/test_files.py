"""A file is written completely or not at all, and never outside the output folder."""

import os
import shutil
import time

import pytest

from paddleseg_infer.errors import ConfigError, ImageError, RunError
from paddleseg_infer.pictures import files
from paddleseg_infer.pictures.files import (
    PART_SUFFIX,
    check_save_dir,
    prepare_save_dir,
    sweep_parts,
    write_whole,
)


def test_a_file_is_written_with_its_folders_and_the_mode_of_the_umask(tmp_path):
    umask = os.umask(0o006)
    try:
        write_whole(b"mask", str(tmp_path), "a/b/c.png")
    finally:
        os.umask(umask)
    path = tmp_path / "a" / "b" / "c.png"
    assert path.read_bytes() == b"mask"
    assert path.stat().st_mode & 0o777 == 0o660
    assert os.listdir(path.parent) == ["c.png"]


def test_a_file_replaces_another_file_or_a_link_but_not_the_target_of_the_link(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"old")
    (out / "b.png").symlink_to(other)
    for name in ("a.png", "b.png"):
        write_whole(b"new", str(out), name)
        assert (out / name).read_bytes() == b"new"
    assert other.read_bytes() == b"untouched"


def test_a_link_out_of_the_output_folder_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    stale = tmp_path / "elsewhere" / f"old{PART_SUFFIX}"
    stale.write_bytes(b"")
    os.utime(stale, (0, 0))
    targets = ["sub/a.png", "sub/deep/a.png"]
    sweep_parts(str(tmp_path / "out"), targets)
    for target in targets:
        with pytest.raises(ImageError, match="outside the output folder"):
            write_whole(b"mask", str(tmp_path / "out"), target)
    assert os.listdir(tmp_path / "elsewhere") == [stale.name]


def test_the_output_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    write_whole(b"mask", str(tmp_path / "out"), "sub/a.png")
    assert (tmp_path / "disk" / "sub" / "a.png").read_bytes() == b"mask"


def test_a_deleted_output_folder_is_not_created_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WAITS", ())
    for target in ("a.png", "sub/a.png"):
        with pytest.raises(RunError, match="gone: no such file"):
            write_whole(b"mask", str(tmp_path / "gone"), target)
    assert not (tmp_path / "gone").exists()


def test_an_output_folder_that_came_back_is_waited_for_again(tmp_path, monkeypatch, caplog):
    """While it stays away only the first picture waits for it."""
    monkeypatch.setattr(files, "WAITS", (0,))
    out = tmp_path / "out"
    for _ in range(2):
        for waits in (1, 0):
            caplog.clear()
            with pytest.raises(RunError, match="out: no such file"):
                write_whole(b"mask", str(out), "a.png")
            assert (
                caplog.text.count("can't be written to: the program waits and tries again") == waits
            )
        out.mkdir()
        write_whole(b"mask", str(out), "a.png")
        shutil.rmtree(out)


@pytest.mark.parametrize("target", ["taken.png", "file/a.png", "x" * 260 + ".png"])
def test_a_name_that_cannot_be_used_fails_and_leaves_no_file(tmp_path, target):
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="it can't be saved"):
        write_whole(b"mask", str(tmp_path), target)
    assert sorted(os.listdir(tmp_path)) == ["file", "taken.png"]


def test_names_may_be_as_long_as_the_system_allows(tmp_path):
    write_whole(b"mask", str(tmp_path), "x" * 251 + ".png")
    assert os.listdir(tmp_path) == ["x" * 251 + ".png"]


def test_only_partial_files_older_than_a_day_are_deleted(tmp_path):
    (tmp_path / "sub").mkdir()
    day_ago = time.time() - 25 * 3600
    for folder in (tmp_path, tmp_path / "sub"):
        for name in ("old" + PART_SUFFIX, "new" + PART_SUFFIX, "old.part"):
            (folder / name).write_bytes(b"")
            if name.startswith("old"):
                os.utime(folder / name, (day_ago, day_ago))
    sweep_parts(str(tmp_path), ["a.png", "sub/b.png"])
    remaining = ["new" + PART_SUFFIX, "old.part"]
    assert sorted(os.listdir(tmp_path)) == sorted([*remaining, "sub"])
    assert sorted(os.listdir(tmp_path / "sub")) == sorted(remaining)


def test_an_output_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for save_dir, message in [
        ("file", "can't be written to: not a directory"),
        ("file/out", "can't be written to: not a directory"),
        ("x" * 300, "can't be written to: file name too long"),
    ]:
        for check in (check_save_dir, prepare_save_dir):
            with pytest.raises(ConfigError, match=message):
                check(str(tmp_path / save_dir))
    with pytest.raises(ConfigError, match="--save_dir is empty"):
        prepare_save_dir("")
    assert os.listdir(tmp_path) == ["file"]
