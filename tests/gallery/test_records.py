"""Reports: complete, cut off, resumed, in parts, damaged and hostile."""

import json

import pytest
from made_pages import SUMMARY, image_line, write_report

from paddleseg_infer.errors import ConfigError
from paddleseg_infer.gallery.records import read_reports

RUN = {"run": {"folder": "/data", "save_dir": "out", "names": ["sky", "car"]}}


def read(tmp_path, *lines):
    return read_reports([str(write_report(tmp_path / "report.jsonl", *lines))])


def test_a_complete_report_has_no_notes(tmp_path):
    reports = read(tmp_path, RUN, image_line("a.png", classes={"1": 5}), SUMMARY)
    (record,) = reports.records.values()
    assert (record.path, record.classes) == ("/data/a.png", {1: 5})
    assert record.run.names == ("sky", "car")
    assert not reports.notes


def test_a_report_without_the_line_about_the_run_is_read_too(tmp_path):
    report = str(write_report(tmp_path / "report.jsonl", image_line("a.png"), SUMMARY))
    reports = read_reports([report], save_dir="out")
    assert [record.path for record in reports.records.values()] == ["a.png"]
    assert not reports.notes
    with pytest.raises(ConfigError, match="doesn't name the folder of the pictures"):
        read_reports([report])


@pytest.mark.parametrize(
    ("lines", "notes"),
    [
        ([image_line("a.png")], ["no summary at its end"]),
        ([image_line("a.png"), SUMMARY, RUN, image_line("b.png")], ["2 runs", "no summary"]),
        ([image_line("a.png"), '{"image": "b.p'], ["cut off in its last line", "no summary"]),
        ([image_line("a.png"), '{"summary": {"exit_co'], ["cut off", "no summary"]),
        ([image_line("a.png"), "\0\0\0\n", SUMMARY], ["damaged lines, which were left out: 1"]),
        (
            [image_line("a.png"), {"summary": {"exit_code": 130, "not_tried": 7}}],
            ["ended by Ctrl-C", "7 images were not tried"],
        ),
    ],
)
def test_what_is_unusual_about_a_report_is_noted(tmp_path, lines, notes):
    reports = read(tmp_path, RUN, *lines)
    assert len(reports.notes) == len(notes)
    for found, expected in zip(reports.notes, notes, strict=True):
        assert expected in found
        assert "report.jsonl" in found


def test_the_last_line_about_an_image_counts(tmp_path):
    failed = image_line("a.png", "failed", reason="the file is empty")
    reports = read(tmp_path, RUN, failed, SUMMARY, RUN, image_line("a.png"), SUMMARY)
    assert [record.status for record in reports.records.values()] == ["done"]


def test_a_skipped_image_keeps_the_numbers_of_the_run_that_made_its_mask(tmp_path):
    areas = {"0": [3, 4, 5]}
    label = {"label": "l/a.png", "label_error": "", "mean_iou": 0.5, "areas": areas}
    done = image_line("a.png", classes={"0": 4}, **label)
    compared = {"run": {**RUN["run"], "classes": 2, "ignore_index": 9}}
    skipped = image_line("a.png", "skipped", classes=None)
    reports = read(tmp_path, compared, done, SUMMARY, RUN, skipped, SUMMARY)
    (record,) = reports.records.values()
    assert (record.status, record.classes, record.mean_iou) == ("skipped", {0: 4}, 0.5)
    assert record.areas == {0: (3, 4, 5)}
    assert (record.run.classes, record.run.ignore_index) == (2, 9)


def test_a_resumed_run_in_another_folder_is_about_the_same_images(tmp_path):
    first = image_line("in/a.png", size=[4, 3], label="labels/a.png", areas={"0": [1, 1, 1]})
    other = {"run": {**RUN["run"], "folder": "/data/in"}}
    skipped = image_line("../in/a.png", "skipped", size=None)
    (record,) = read(tmp_path, RUN, first, SUMMARY, other, skipped, SUMMARY).records.values()
    assert (record.status, record.size) == ("skipped", (4, 3))
    assert record.label == "/data/labels/a.png"
    assert record.picture("mask") == "/data/in/out/a.png"


def test_each_image_has_the_pictures_of_its_own_run(tmp_path):
    paths = []
    for part in ("one", "two"):
        run = {"run": {"folder": f"/{part}", "save_dir": "out"}}
        paths.append(str(write_report(tmp_path / part, run, image_line("a.png"), SUMMARY)))
    records = read_reports(paths).records.values()
    assert [each.picture("mask") for each in records] == ["/one/out/a.png", "/two/out/a.png"]
    with pytest.raises(ConfigError, match="saved their pictures in different folders"):
        read_reports(paths, save_dir="here")


def test_a_last_line_without_its_line_break_and_empty_lines_are_no_damage(tmp_path):
    reports = read(tmp_path, RUN, "\n", image_line("a.png"), json.dumps(SUMMARY))
    assert not reports.notes


def test_parts_are_read_together(tmp_path):
    paths = []
    for part in range(3):
        line = image_line(f"{part}.png")
        left = {"summary": {"exit_code": 1, "not_tried": part}}
        paths.append(str(write_report(tmp_path / f"part{part}", RUN, line, left)))
    reports = read_reports(paths)
    assert [record.image for record in reports.records.values()] == ["0.png", "1.png", "2.png"]
    assert ["1 images" in reports.notes[0], "2 images" in reports.notes[1]] == [True, True]


def test_runs_of_models_with_other_classes_are_refused(tmp_path):
    other = {"run": {**RUN["run"], "names": ["sky", "bus"]}}
    with pytest.raises(ConfigError, match="a model with other classes than the run before"):
        read(tmp_path, RUN, image_line("a.png"), other, image_line("b.png"), SUMMARY)


@pytest.mark.parametrize(
    "content", ["", "no report\n", "[1, 2]\n", '{"a": 1}\n', "5\n", "[" * 100_000, "\x89PNG\r\n"]
)
def test_another_file_is_refused(tmp_path, content):
    with pytest.raises(ConfigError, match="is not a report|there is no image in it"):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="can't be read: no such file or directory"):
        read_reports([str(tmp_path / "gone")])
    with pytest.raises(ConfigError, match="is not a file: give the file of --report"):
        read_reports([str(tmp_path)])


@pytest.mark.parametrize(
    "change",
    [
        {"image": 5},
        {"image": None},
        {"status": "<b>"},
        {"status": ["done"]},
        {"files": ["a.png"]},
        {"reason": 7},
        {"size": [1]},
        {"size": [-1, 5]},
        {"size": "9x9"},
        {"classes": {"road": 1}},
        {"classes": {"-1": 1}},
        {"classes": {"99999999": 1}},
        {"classes": {"65536": 1}},
        {"classes": {"1": 1.5}},
        {"classes": {"1": 1 << 70}},
        {"classes": [1]},
        {"label": {}},
        {"mean_iou": float("nan")},
        {"mean_iou": "high"},
        {"mean_iou": 2},
        {"areas": {"1": [1, 2]}},
        {"areas": {"1": "abc"}},
        {"areas": {"1": [3, 2, 9]}},
        {"areas": {"1": [0, 1 << 52, 1]}},
    ],
)
def test_a_line_with_a_wrong_value_is_left_out(tmp_path, change):
    reports = read(
        tmp_path, RUN, image_line("good.png"), {**image_line("bad.png"), **change}, SUMMARY
    )
    assert [record.image for record in reports.records.values()] == ["good.png"]
    assert "damaged lines, which were left out: 1" in reports.notes[0]


@pytest.mark.parametrize(
    "value", ["text", [], {"names": 5}, {"classes": "many"}, {"folder": 1}, {"custom_color": ["1"]}]
)
def test_a_wrong_line_about_the_run_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="is not a report of this program"):
        read(tmp_path, {"run": value}, image_line("a.png"), SUMMARY)


def test_control_characters_in_texts_are_escaped(tmp_path):
    run = {"run": {**RUN["run"], "names": ["a\u202eb"]}}
    failed = image_line("a.png", "failed", reason="x\x1b[31m")
    (record,) = read(tmp_path, run, json.dumps(failed) + "\n", SUMMARY).records.values()
    assert record.reason == "x\\x1b[31m"
    assert record.run.names == ("a\\u202eb",)
