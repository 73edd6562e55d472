"""Tests of --label_path: the same metrics in every kind of run, and bad label maps."""

import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import PADDLE, ROOT, cached_models, masks, read_mask, report_lines, write_image
from PIL import Image

from paddleseg_infer.evaluation import areas_of
from paddleseg_infer.metrics import metrics_of, own_mean_iou

CLASSES, IGNORED = 8, 200  # of the demo's model; the ignored id
SIZES = [(48, 64), (40, 56), (33, 47)]


@pytest.fixture
def data(tmp_path):
    """Twelve images in `in`, and their label maps in `labels`, which have ignored pixels."""
    random = np.random.default_rng(0)
    for number in range(12):
        name, size = f"{number % 3}/{number}.png", SIZES[number % 3]
        write_image(tmp_path / "in" / name, size, number)
        truth = random.choice([0, 1, 2, 3, 5, 7, IGNORED], size).astype(np.uint8)
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(truth).save(tmp_path / "labels" / name)
    return ("--image_path", "in", "--label_path", "labels", "--ignore_index", str(IGNORED))


def evaluation(report):
    return report_lines(report)[-1]["summary"]["evaluation"]


def finished(process):
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def ids(path):
    return np.array(Image.open(path))


def test_the_report_has_the_areas_of_each_image_and_of_all(start, data, tmp_path):
    code, out, err = finished(start(*data, "--report", "report"))
    assert code == 0, err
    total = None
    *lines, last = report_lines(tmp_path / "report")
    for line in lines:
        mask = read_mask(tmp_path / "output" / line["files"]["mask"])
        assert line["label"] == line["image"].replace("in/", "labels/")
        assert line["classes"] == {str(each): int((mask == each).sum()) for each in np.unique(mask)}
        areas = areas_of(mask, ids(tmp_path / line["label"]), CLASSES, IGNORED)
        every_class = enumerate(areas.by_class)
        assert line["areas"] == {
            str(each): list(found) for each, found in every_class if any(found)
        }
        assert (line["mean_iou"], line["label_error"]) == (own_mean_iou(areas), "")
        total = areas if total is None else total.plus(areas)
    found, metrics = last["summary"]["evaluation"], metrics_of(total)
    assert (found["images"], found["mean_iou"]) == (12, metrics.mean_iou)
    assert [each["name"] for each in found["classes"]][:2] == ["sky", "building"]
    for name in ("intersection", "prediction", "label"):
        assert tuple(each[name] for each in found["classes"]) == getattr(total, name)
    assert out.splitlines()[-1].startswith(
        f"12 of 12 masks compared: mean IoU {metrics.mean_iou:.4f}, accuracy "
    )


def test_workers_batches_and_a_resumed_run_give_the_same_metrics(start, data, tmp_path):
    assert finished(start(*data, "--report", "whole"))[0] == 0
    more = ("--num_workers", "3", "--batch_size", "2", "--save", "mask", "label")
    assert finished(start(*data, "--report", "three", *more, "--save_dir", "o2"))[0] == 0
    for name in masks(tmp_path / "output")[::2]:
        (tmp_path / "output" / name).unlink()
    shutil.rmtree(tmp_path / "o2" / "label" / "1")
    code, out, _ = finished(start(*data, "--report", "again", "--resume"))
    assert code == 0 and "6 of 12 images done" in out and "6 skipped" in out
    more = ("--save", "label", "--save_dir", "o2", "--resume")
    code, out, _ = finished(start(*data, "--report", "of_labels", *more))
    assert code == 0 and "8 skipped" in out
    # Masks are compared after all runs: workers can't be forked from a process with threads.
    statuses = [line["status"] for line in report_lines(tmp_path / "again")[:-1]]
    assert statuses == ["done"] * 6 + ["skipped"] * 6
    whole = evaluation(tmp_path / "whole")
    for report in ("three", "again", "of_labels"):
        assert evaluation(tmp_path / report) == whole
        assert {line["image"]: line["areas"] for line in report_lines(tmp_path / report)[:-1]} == {
            line["image"]: line["areas"] for line in report_lines(tmp_path / "whole")[:-1]
        }


def test_the_reports_of_shards_add_up_to_that_of_the_whole(start, data, tmp_path):
    code, out, _ = finished(start(*data, "--report", "whole"))
    assert code == 0
    table = out[out.index("class ") :]
    reports = [f"report{part}" for part in range(4)]
    for part, report in enumerate(reports):
        assert finished(start(*data, "--shard", f"{part}/4", "--report", report))[0] == 0

    def added_up():
        command = [sys.executable, ROOT / "examples" / "add_up_reports.py", *reports]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    run = added_up()
    assert run.returncode == 0, run
    assert run.stdout.endswith(table)
    assert f"{'done':12}{12:10}\n" in run.stdout
    lines = (tmp_path / reports[1]).read_text().splitlines(keepends=True)
    (tmp_path / reports[1]).write_text("".join(lines[:-1]) + lines[-1][:9])
    run = added_up()
    assert run.returncode == 1
    assert f"{reports[1]}: it has no summary at its end: run this part again" in run.stderr
    reports.pop(1)
    run = added_up()
    assert run.returncode == 1 and "no report of part 1/4\n" in run.stderr
    shutil.copy(tmp_path / "report2", tmp_path / "copy")
    reports[:] = ["report0", "report2", "copy", "none"]
    run = added_up()
    assert run.returncode == 1 and "there are 2 reports of part 2/4\n" in run.stderr
    assert "none can't be read: No such file or directory\n" in run.stderr


BAD = {
    "0/0.png": ("labels/0/0.png: it can't be read: no such file or directory", None),
    "0/3.png": ("labels/0/3.png: it is neither a PNG nor a TIFF", b"\xff\xd8\xff\xe0"),
    "0/6.png": ("labels/0/6.png: it is 64x47, but its image is 64x48", (47, 64)),
    "0/9.png": (
        "labels/0/9.png: it contains ids that the model, with 8 classes, doesn't have (8, 11): "
        "the label map may be for another model",
        [[7, 8, IGNORED, 11]],
    ),
    "1/1.png": (
        "labels/1/1.png: it has several values per pixel (RGB), not one class id",
        (40, 56, 3),
    ),
}


def test_a_bad_label_map_is_named_and_all_masks_are_saved(start, data, tmp_path):
    for name, (_, content) in BAD.items():
        path = tmp_path / "labels" / name
        path.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, tuple):
            Image.fromarray(np.zeros(content, np.uint8)).save(path)
        elif content:
            truth = cv2.resize(np.array(content, np.uint8), (64, 48), interpolation=0)
            Image.fromarray(truth).save(path)
    for how in ((), ("--resume",)):
        code, out, err = finished(start(*data, "--report", "report", *how))
        assert code == 1 and "0 failed" in out
        for name, (why, _) in BAD.items():
            assert f"not compared: in/{name}: label map {why}" in err
        assert len(masks(tmp_path / "output")) == 12
        *lines, last = report_lines(tmp_path / "report")
        errors = {line["image"]: line["label_error"] for line in lines[-12:]}
        assert sum(map(bool, errors.values())) == len(BAD)
        assert errors["in/0/6.png"] == "it is 64x47, but its image is 64x48"
        assert (last["summary"]["not_compared"], last["summary"]["exit_code"]) == (5, 1)
        assert last["summary"]["evaluation"]["images"] == 7


def test_a_list_may_name_images_and_label_maps(start, data, tmp_path):
    assert finished(start(*data, "--report", "whole"))[0] == 0
    (tmp_path / "in/1").rename(tmp_path / "in/my images")
    names = [f"{number % 3}/{number}.png" for number in range(12)]
    lines = [f"in/{name} labels/{name}" for name in names]
    lines = [re.sub(r"in/1/(.*) ", r"in/my images/\1\t", line) for line in lines]
    (tmp_path / "val.txt").write_text("\r\n".join(lines))
    given = ("--image_path", "val.txt", "--label_path", "val.txt", "--ignore_index", str(IGNORED))
    code, _, err = finished(start(*given, "--report", "listed"))
    assert code == 0, err
    assert evaluation(tmp_path / "listed") == evaluation(tmp_path / "whole")
    (tmp_path / "val.txt").write_text("\n".join(lines[1:]))
    given = ("--image_path", "in", "--label_path", "val.txt", *given[4:])
    code, _, err = finished(start(*given))
    assert code == 1
    assert "not compared: in/0/0.png: the list of --label_path has no line for it" in err


def test_one_image_may_have_one_label_map(start, data, tmp_path):
    one = ("--image_path", "in/1/4.png", *data[4:])
    code, out, _ = finished(start(*one, "--label_path", "labels/1/4.png"))
    assert code == 0 and "1 of 1 masks compared: mean IoU " in out
    code, _, err = finished(start(*data[:2], "--label_path", "labels/1/4.png"))
    assert code == 2 and "is one label map, but there are 12 images" in err


def test_images_of_one_stem_share_a_label_map(start, data, tmp_path):
    shutil.copy(tmp_path / "in/1/4.png", tmp_path / "in/1/4.jpg")
    code, _, err = finished(start(*data, "--report", "report"))
    assert code == 0, err
    areas = {line["image"]: line.get("areas") for line in report_lines(tmp_path / "report")[:-1]}
    assert areas["in/1/4.png"] == areas["in/1/4.jpg"] is not None


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--network_size",), "--network_size gives masks of the network's size"),
        (("--resume", "--save", "overlay"), "add mask or label to --save"),
        (("--label_path", "none"), "--label_path none can't be read: no such file"),
        (("--label_path", "empty"), "names no label map: each of its lines"),
        (("--label_path", "twice"), "names two label maps for in/0/0.png: remove one"),
        (("--label_path", "in"), "in/0/0.png is both an image and a label map of this run"),
        (("--label_path", "links"), "would overwrite the label map output/0/0.png: choose"),
        (("--save_dir", "labels"), "would overwrite the label map labels/0/0.png: choose another"),
        (("--ignore_index", "-1"), "must be an id from 0 to 65535"),
    ],
)
def test_what_can_not_be_compared_ends_the_run_before_it_starts(start, data, tmp_path, flags, why):
    (tmp_path / "empty").write_text("in/0/0.png\nin/1/1.png\n")
    (tmp_path / "twice").write_text("in/0/0.png labels/0/0.png\nin/0/0.png labels/1/1.png\n")
    (tmp_path / "links" / "0").mkdir(parents=True)
    (tmp_path / "links/0/0.png").symlink_to("../../output/0/0.png")
    code, _, err = finished(start(*data, *flags))
    assert code == 2 and why in err, err
    assert not (tmp_path / "output").exists()


@pytest.mark.skipif(PADDLE[:2] == (3, 3), reason="Paddle 3.3 can't save an argmax in a pdmodel")
def test_a_graph_that_declares_no_classes_needs_their_names(start, data, pytestconfig, tmp_path):
    odd = cached_models(pytestconfig, "pdmodel", "make_odd_models.py")
    model = tmp_path / "model" / "deploy.yaml"
    shutil.copytree(odd / "nchw_undeclared", model.parent)
    code, _, err = finished(start(*data, model=model))
    assert code == 2 and "--label_path needs the number of classes, which " in err
    text = model.read_text()
    model.write_text(text + "  labels: [a, b, c, d, e, f, g, h]\n")
    code, _, err = finished(start(*data, model=model))
    assert code == 2 and "gives scores of 5 classes, but `labels` in its deploy.yaml names 8" in err
    model.write_text(text + "  labels: [a, b, c, d, e]\n")
    code, _, err = finished(start(*data, model=model))
    assert code == 1 and "the model, with 5 classes, doesn't have (5, 7): the label map" in err


def test_a_mask_of_another_model_is_not_compared(start, data, tmp_path):
    assert finished(start(*data))[0] == 0
    path = tmp_path / "output" / "0" / "0.png"
    other = Image.fromarray(np.full((48, 64), CLASSES, np.uint8))
    other.putpalette(bytes(768))
    other.save(path)
    code, out, err = finished(start(*data, "--resume"))
    assert code == 1 and "11 of 12 masks compared: mean IoU " in out
    assert "the mask contains the id 8, but the model has 8 classes: the mask is of another" in err


def test_one_unknown_id_may_be_the_ignored_one(start, data):
    code, out, err = finished(start(*data[:4]))
    assert code == 1 and out.endswith("\n0 of 12 masks compared\n")
    assert err.count("doesn't have (200): if it means no class, give it as") == 12


def test_quiet_prints_the_metrics_and_nothing_else(start, data):
    code, out, err = finished(start(*data, "--quiet"))
    assert code == 0 and not err and out.startswith("class ")


def test_dry_run_names_the_label_maps(start, data):
    code, out, _ = finished(start(*data, "--dry_run"))
    assert code == 0 and "label_map: labels/0/0.png" in out and "missing_label_maps: 0" in out
