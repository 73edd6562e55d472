"""Bad input to infer.py gives a clear message and exit code, and all good images are still done."""

import os
import re
import shutil
import subprocess
import sys

import cv2
import pytest
import yaml
from conftest import PADDLE, ROOT, masks, scene, write_image

# ---- bad input that ends the run before it starts ----------------------------------------------


def error_at_start(infer, tmp_path, *arguments):
    """Runs infer.py, which must fail before it starts. Returns the error message."""
    run = infer(*arguments)
    assert run.code == 2, run
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1
    assert not (tmp_path / "output").exists()
    return run.err


def test_an_image_path_without_images_is_refused(infer, model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    (tmp_path / "list.txt").write_text("\n")
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        ("nowhere", "--image_path nowhere: no such file or directory"),
        ("empty", "--image_path empty contains no image"),
        ("texts", "--image_path texts contains no image"),
        ("list.txt", "--image_path list.txt is a list without image names"),
        ("pipe", "--image_path pipe is a pipe or a device"),
    ]:
        assert message in error_at_start(infer, tmp_path, "--config", model, "--image_path", path)


def test_a_damaged_model_is_refused(infer, models, model_copy, photos, tmp_path):
    folder = model_copy("argmax")
    config = folder / "deploy.yaml"
    graph, params = folder / "model.pdmodel", folder / "model.pdiparams"
    whole_graph, whole_params = graph.read_bytes(), params.read_bytes()
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for path, content, message in [
        (graph, whole_graph[:-100], "is not a Paddle graph, or is damaged"),
        (graph, b"", "model.pdmodel is empty"),
        (graph, lfs, "is a git-lfs pointer"),
        (graph, b"<html></html>", "is not a Paddle graph"),
        (
            graph,
            (models / "logits" / "model.pdmodel").read_bytes(),
            "can't load .* of different models",
        ),
        (params, whole_params[:-1], "model.pdiparams is cut off"),
        (params, b"", "model.pdiparams is empty"),
        (params, lfs, "model.pdiparams is a git-lfs pointer"),
        (params, b"<html></html>", "model.pdiparams doesn't contain Paddle parameters|cut off"),
    ]:
        path.write_bytes(content)
        assert re.search(
            message, error_at_start(infer, tmp_path, "--config", config, "--image_path", photos)
        )
        graph.write_bytes(whole_graph)
        params.write_bytes(whole_params)


def test_paddle_2_refuses_a_json_graph(infer, model_copy, photos, tmp_path):
    if PADDLE >= (3, 0, 0):
        pytest.skip("Paddle 3 runs it")
    folder = model_copy("argmax")
    (folder / "model.pdmodel").unlink()
    (folder / "model.json").write_bytes(b'{"base_code":{"magic":"pir","version":1}}')
    error = error_at_start(
        infer, tmp_path, "--config", folder / "deploy.yaml", "--image_path", photos
    )
    assert "is a json graph of Paddle 3" in error


def test_an_unusable_output_folder_is_refused(infer, model, photos, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "file").write_text("")
    for save_dir, message in [
        ("closed", "--save_dir closed can't be written to: permission denied"),
        ("closed/out", "--save_dir closed/out can't be written to: permission denied"),
        ("file", "--save_dir file can't be written to: not a directory"),
        ("photos", "--save_dir photos is the folder of the images: choose"),
    ]:
        arguments = ("--config", model, "--image_path", "photos", "--save_dir", save_dir)
        assert message in error_at_start(infer, tmp_path, *arguments)
    error = error_at_start(
        infer, tmp_path, "--config", model, "--image_path", "photos/1.png", "--save_dir", "photos"
    )
    assert "the mask of photos/1.png would overwrite the image" in error


def test_two_masks_with_the_same_name_are_refused(infer, model, tmp_path):
    for name in ("a.png", "a.bmp", "a.png.jpg"):
        write_image(tmp_path / "in" / name)
    error = error_at_start(infer, tmp_path, "--config", model, "--image_path", "in")
    assert "in/a.png and in/a.png.jpg would have the same path a.png.png" in error


def test_dry_run_refuses_what_a_run_refuses(infer, model_copy, model, photos, tmp_path):
    folder = model_copy("argmax")
    graph = folder / "model.pdmodel"
    graph.write_bytes(graph.read_bytes()[:-100])
    for arguments in (
        ("--config", folder / "deploy.yaml", "--image_path", "photos"),
        ("--config", model, "--image_path", "nowhere"),
        ("--config", model, "--image_path", "photos", "--save_dir", "photos"),
        ("--config", model, "--image_path", "photos", "--save_dir", "photos/1.png/out"),
        ("--config", model, "--image_path", "photos", "--save_dir", ""),
        ("--config", model, "--image_path", "photos", "--save_dir", "x" * 300),
    ):
        run = infer(*arguments, "--dry_run")
        assert (run.code, run.out) == (2, "")
        assert run.err.startswith("error: ")


def test_a_missing_package_gives_a_one_line_error(tmp_path, model):
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\")")
    (tmp_path / "a.png").write_bytes(b"")
    command = [sys.executable, ROOT / "infer.py", "--config", model, "--image_path", "a.png"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith(
        "error: No module named 'cv2': run pip install -r requirements.txt, or"
    )
    assert run.stderr.count("\n") == 1


# ---- bad images, which fail alone --------------------------------------------------------------


def bad_files(folder):
    """Writes bad image files to `folder`. Returns the expected reason for each name."""
    folder.mkdir(exist_ok=True)
    jpeg = cv2.imencode(".jpg", scene(48, 64))[1].tobytes()
    png = cv2.imencode(".png", scene(48, 64))[1].tobytes()
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    (folder / "closed.png").write_bytes(png)
    (folder / "closed.png").chmod(0)
    (folder / "broken.png").symlink_to("nothing")
    os.mkfifo(folder / "pipe.png")
    return {
        "zero.jpg": "the file is empty",
        "text.jpg": "it can't be decoded: it is not an image",
        "cut.jpg": "the JPEG is cut off",
        "cut.png": "it can't be decoded: it is not an image, it is cut off",
        "closed.png": "it can't be read: permission denied",
        "broken.png": "it is a broken link",
        "pipe.png": "it is not a regular file",
    }


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_bad_images_fail_alone_and_are_named_at_the_end(infer, model, photos, tmp_path, batch_size):
    reasons = bad_files(photos)
    run = infer("--config", model, "--image_path", "photos", "--batch_size", batch_size)
    assert run.code == 1
    assert run.out.startswith(f"5 of {5 + len(reasons)} images done in ")
    assert run.out.endswith(f" s, {len(reasons)} failed: masks in output\n")
    failures = [line for line in run.err.splitlines() if line.startswith("failed: ")]
    assert "[ERROR" not in run.err  # OpenCV's own messages
    assert "[ WARN" not in run.err
    assert failures == sorted(failures)
    assert len(failures) == len(reasons)
    for name, reason in reasons.items():
        assert any(line.startswith(f"failed: photos/{name}: {reason}") for line in failures), name
    assert masks(tmp_path / "output") == [f"{number}.png" for number in range(5)]


def test_the_good_lines_of_a_list_are_done_despite_bad_lines(infer, model, photos, tmp_path):
    (tmp_path / "lists").mkdir()
    write_image(tmp_path / "my photo.png")
    (tmp_path / "lists" / "list.txt").write_text(
        f"../photos/1.png\n../gone.png 3\n../my photo.png\n{photos}/3.png\n../photos\n"
    )
    run = infer("--config", model, "--image_path", "lists/list.txt")
    assert run.code == 1
    assert masks(tmp_path / "output") == ["my photo.png", "photos/1.png", "photos/3.png"]
    assert "failed: lists/../gone.png: the file does not exist" in run.err
    assert "failed: lists/../photos: it is not a regular file" in run.err


def test_a_single_bad_image_gives_exit_code_1(infer, model, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    run = infer("--config", model, "--image_path", "a.jpg")
    assert run.code == 1
    assert "failed: a.jpg: it can't be decoded" in run.err


def test_the_error_names_a_folder_without_read_permission(infer, model, photos):
    write_image(photos / "closed" / "a.png")
    (photos / "closed").chmod(0)
    run = infer("--config", model, "--image_path", "photos")
    (photos / "closed").chmod(0o700)
    assert run.code == 1
    assert "failed: photos/closed: the folder can't be read: permission denied" in run.err
    assert "1 failed: masks in output" in run.out
    (photos / "closed").chmod(0)
    plan = yaml.safe_load(infer("--config", model, "--image_path", "photos", "--dry_run").out)
    (photos / "closed").chmod(0o700)
    assert plan["unreadable_folders"] == ["photos/closed"]
    photos.chmod(0)
    run = infer("--config", model, "--image_path", "photos")
    photos.chmod(0o700)
    assert run.code == 2
    assert "photos: the folder can't be read: permission denied" in run.err


def test_images_with_unusual_names_are_done_and_the_names_are_escaped(infer, model, tmp_path):
    folder = tmp_path / "in"
    names = ["a b.png", "街景.png", "new\nline.png", "x" * 246 + ".png", "\x1b[31mred.png"]
    names.append(os.fsdecode(b"caf\xe9.png"))
    for name in names:
        write_image(folder / name)
    (folder / "bad\n\x1b[31m.png").write_bytes(b"")
    run = infer("--config", model, "--image_path", "in", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert run.code == 1
    assert run.err == r"failed: in/bad\n\x1b[31m.png: the file is empty" + "\n"
    assert masks(tmp_path / "output") == sorted(names)


def test_a_name_that_the_terminal_cannot_show_does_not_crash_the_run(infer, model, tmp_path):
    write_image(tmp_path / "街景" / "行人.png")
    arguments = ("--config", model, "--image_path", "街景", "--save_dir", "输出")
    for more in ([], ["--dry_run"]):
        run = infer(*arguments, *more, PYTHONIOENCODING="ascii")
        assert run.code == 0
        assert r"\u8f93\u51fa" in run.out
    assert masks(tmp_path / "输出") == ["行人.png"]


def test_links_are_followed_to_files_only(infer, model, photos, tmp_path):
    write_image(tmp_path / "elsewhere" / "far.png")
    (photos / "out of it.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    (photos / "folder").symlink_to(tmp_path / "elsewhere")
    run = infer("--config", model, "--image_path", "photos")
    assert run.code == 0
    assert "out of it.png" in masks(tmp_path / "output")
    assert len(masks(tmp_path / "output")) == 6


def test_nothing_is_written_through_a_link_in_the_output_folder(infer, model, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "sub" / "b.png")
    (tmp_path / "output").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "output" / "sub").symlink_to(tmp_path / "elsewhere")
    run = infer("--config", model, "--image_path", "in")
    assert run.code == 1
    assert "failed: in/sub/b.png: its folder is a link to a place outside the output" in run.err
    assert (tmp_path / "output" / "a.png").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_images_whose_size_does_not_fit_the_model_fail_alone(infer, models, model_copy, tmp_path):
    write_image(tmp_path / "in" / "good.png")
    write_image(tmp_path / "in" / "dot.png", (1, 1))
    write_image(tmp_path / "in" / "thin.png", (1, 1000))
    cases = {
        "argmax": {},
        "needs16": {
            "dot.png": "the network can't run it at 1x1: it is too small for this network: ",
            "thin.png": "the network can't run it at 1000x1: it is too small for this network: ",
        },
        "fixed": {
            "dot.png": "the model takes only 64x48",
            "thin.png": "the model takes only 64x48",
        },
    }
    for name, reasons in cases.items():
        shutil.rmtree(tmp_path / "output", ignore_errors=True)
        run = infer("--config", models / name / "deploy.yaml", "--image_path", "in")
        assert run.code == (1 if reasons else 0)
        assert "good.png" in masks(tmp_path / "output")
        assert len(masks(tmp_path / "output")) == 3 - len(reasons)
        for image, reason in reasons.items():
            assert f"failed: in/{image}: {reason}" in run.err
    transforms = [{"type": "ResizeByLong", "long_size": 100}, {"type": "Normalize"}]
    folder = model_copy("argmax", transforms=transforms)
    run = infer("--config", folder / "deploy.yaml", "--image_path", "in")
    assert run.code == 1
    message = "ResizeByLong would resize this 1000x1 image to 100x0: no side can be 0"
    assert f"failed: in/thin.png: {message}" in run.err
