"""The folder of the gallery: what it replaces, links to odd names, interruptions, full disks."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import masks, scene, wait_until
from made_pages import (
    SUMMARY,
    encoded,
    entries,
    image_line,
    make_page,
    page_of,
    shown_at,
    write_report,
)


def test_a_new_page_replaces_an_older_one_and_nothing_else(tmp_path):
    page_of(
        tmp_path, {"a.png": encoded(".png", scene(48, 64)), "b.png": encoded(".png", scene(48, 64))}
    )
    before = masks(tmp_path / "output")
    page_of(tmp_path, {"b.png": encoded(".png", scene(48, 64))})
    gallery = tmp_path / "output" / "gallery"
    assert masks(gallery) == [
        "index.html",
        "pictures/0/000000.mask_thumb.png",
        "pictures/0/000000.thumb.jpg",
    ]
    assert {name for name in before if "gallery" not in name} == {"a.png", "b.png"}
    assert sorted(os.listdir(tmp_path / "output")) == ["a.png", "b.png", "gallery"]


@pytest.mark.parametrize("content", ["a file", "<html>another page</html>", None])
def test_another_folder_is_not_replaced(tmp_path, content):
    page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))})
    folder = tmp_path / "mine"
    if content == "a file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / ("other.txt" if content is None else "index.html")).write_text(content or "")
    run = make_page(tmp_path, "report", "--save_dir", "output", "--gallery_dir", "mine")
    assert run.code == 2
    assert "--gallery_dir mine" in run.err
    assert os.listdir(tmp_path).count("mine") == 1


@pytest.mark.parametrize(
    "name", ["notes.txt", "pictures2/a.png", "a.png", "pictures/a.png", "pictures/0/a.png"]
)
def test_files_beside_a_page_are_not_removed(tmp_path, name):
    page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))})
    other = tmp_path / "output" / "gallery" / name
    other.parent.mkdir(exist_ok=True)
    other.write_text("mine")
    run = make_page(tmp_path, "report", "--save_dir", "output")
    assert run.code == 2
    assert "has other files than those of a page" in run.err
    assert other.read_text() == "mine"


def test_a_link_to_a_folder_stays_a_link_and_its_pages_links_work(tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))})
    for _ in range(2):
        place = ("--gallery_dir", "link/page")
        assert make_page(tmp_path, "report", "--save_dir", "output", *place).code == 0
    (entry,) = entries(tmp_path / "link" / "page" / "index.html").values()
    assert entry["image"] == "../../in/a.png"  # a browser goes up from the link's name
    (tmp_path / "far" / "page").mkdir()
    (tmp_path / "page").symlink_to(tmp_path / "far" / "page")
    assert make_page(tmp_path, "report", "--save_dir", "output", "--gallery_dir", "page").code == 0
    assert (tmp_path / "page").is_symlink()
    assert (tmp_path / "far" / "page" / "index.html").exists()


def test_what_a_killed_gallery_left_is_removed_after_a_day(tmp_path):
    page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))})
    for name, age in (("old", 90_000), ("new", 60)):
        left = tmp_path / "output" / f".paddleseg-infer.gallery-{name}"
        (left / "pictures").mkdir(parents=True)
        os.utime(left, (time.time() - age,) * 2)
    assert make_page(tmp_path, "report", "--save_dir", "output").code == 0
    assert not (tmp_path / "output" / ".paddleseg-infer.gallery-old").exists()
    assert (tmp_path / "output" / ".paddleseg-infer.gallery-new").exists()


def test_a_page_can_be_made_in_the_working_folder(tmp_path):
    page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))})
    (tmp_path / "here").mkdir()
    for _ in range(2):
        options = ("../report", "--save_dir", "../output", "--gallery_dir", ".")
        run = make_page(tmp_path / "here", *options)
        assert run.code == 0, run


def test_pictures_in_two_folders_need_a_folder_for_the_page(tmp_path):
    names = []
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        run = {"run": {"folder": str(tmp_path), "save_dir": part}}
        names.append(write_report(tmp_path / f"{part}.jsonl", run, image_line(f"{part}.png")).name)
    run = make_page(tmp_path, *names)
    assert run.code == 2 and "the pictures are in several folders" in run.err
    assert make_page(tmp_path, *names, "--gallery_dir", "page").code == 0
    assert len(entries(tmp_path / "page" / "index.html")) == 2
    assert make_page(tmp_path, names[0], "--gallery_dir", "").code == 2


def test_a_missing_folder_of_pictures_is_an_error(tmp_path):
    page_of(tmp_path, {"a.png": encoded(".png", scene(48, 64))})
    run = make_page(tmp_path, "report", "--save_dir", "gone")
    assert (run.code, run.out) == (2, "")
    assert "gone does not exist" in run.err
    run = make_page(tmp_path, "report")
    assert run.code == 2
    assert "report doesn't name the folder of the pictures: give it as --save_dir" in run.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_gallery_leaves_the_older_page_and_no_process(tmp_path, number):
    photo = encoded(".jpg", scene(900, 1200))
    page_of(tmp_path, {"0.jpg": photo})
    page = tmp_path / "output" / "gallery" / "index.html"
    before = page.read_text()
    lines = []
    for count in range(1, 2000):
        os.link(tmp_path / "in" / "0.jpg", tmp_path / "in" / f"{count}.jpg")
        lines.append(image_line(f"in/{count}.jpg"))
    write_report(tmp_path / "report", *lines, SUMMARY)
    command = [sys.executable, "-m", "paddleseg_infer.gallery", "report", "--save_dir", "output"]
    process = subprocess.Popen(
        [*command, "--num_workers", "2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(lambda: any(tmp_path.glob("output/.paddleseg-infer.gallery-*/pictures/0/*")))
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert page.read_text() == before
    assert not any(tmp_path.glob("output/.paddleseg-infer.gallery-*"))
    wait_until(lambda: not has_processes(process.pid), 20)


def has_processes(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_full_disk_is_an_error_and_the_older_page_stays(small_disk, tmp_path):
    folder, size = small_disk
    assert size("4m")
    photo = encoded(".jpg", scene(300, 400))
    page_of(tmp_path, {f"{number}.jpg": photo for number in range(40)})
    run = make_page(tmp_path, "report", "--save_dir", "output", "--gallery_dir", folder / "page")
    assert run.code == 0
    before = (folder / "page" / "index.html").read_text()
    with open(folder / "filling", "wb") as file:
        room = os.statvfs(folder)
        file.write(bytes(room.f_bavail * room.f_frsize - 200_000))
    run = make_page(tmp_path, "report", "--save_dir", "output", "--gallery_dir", folder / "page")
    assert run.code == 1
    assert "no space left on device" in run.err
    assert (folder / "page" / "index.html").read_text() == before
    assert sorted(os.listdir(folder)) == ["filling", "page"]


def test_many_images_in_two_processes_and_in_one_give_the_same_page(tmp_path):
    images = {f"{n}.png": encoded(".png", scene(48, 64, n)) for n in range(50)}
    page_of(tmp_path, images)
    pages = []
    for workers in ("1", "2"):
        options = ("--gallery_dir", "page", "--num_workers", workers)
        assert make_page(tmp_path, "report", "--save_dir", "output", *options).code == 0
        pages.append({n: (tmp_path / "page" / n).read_bytes() for n in masks(tmp_path / "page")})
    assert pages[0] == pages[1]
    assert len(pages[0]) == 101


def test_names_that_are_not_utf8_and_hostile_ones_become_safe_links(tmp_path):
    names = ["<script>alert(1)<", "a#b?c%20d", "ü 图", "x\udcffy", "tab\tnewline\n", "javascript:1"]
    images = {f"{name}.png": encoded(".png", scene(48, 64)) for name in names}
    found = page_of(
        tmp_path, {os.fsdecode(os.fsencode(name)): data for name, data in images.items()}
    )
    page = tmp_path / "output" / "gallery" / "index.html"
    assert len(found) == len(names)
    assert "x\\xffy.png" in found and "tab\\tnewline\\n.png" in found
    for entry in found.values():
        assert shown_at(page, entry["image"]).shape == (48, 64, 3)
        assert shown_at(page, entry["mask"]).shape[:2] == (48, 64)
        assert "notes" not in entry
    assert "<script>alert" not in page.read_text()


def test_reasons_names_of_classes_and_of_reports_are_escaped(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    run = {"run": {"folder": str(tmp_path), "save_dir": ".", "names": [evil], "classes": 1}}
    line = image_line("a.png", "failed", reason=evil, label_error=evil)
    areas = {"label": "l", "areas": {"0": [1, 1, 1]}, "mean_iou": 1.0}
    report = write_report(tmp_path / "<b>", run, line, image_line("b.png", **areas), SUMMARY)
    assert make_page(tmp_path, report.name).code == 0
    text = (tmp_path / "gallery" / "index.html").read_text()
    assert evil not in text
    assert "<img" not in text and "<b>" not in text
    assert text.count("</script>") == 2


def test_very_many_classes_have_bars_but_no_matrix(tmp_path):
    run = {"run": {"folder": str(tmp_path), "save_dir": ".", "classes": 65536}}
    areas = {"label": "l", "areas": {"65535": [1, 2, 2]}, "mean_iou": 0.3}
    write_report(tmp_path / "report", run, image_line("a.png", **areas), SUMMARY)
    assert make_page(tmp_path, "report").code == 0
    text = (tmp_path / "gallery" / "index.html").read_text()
    assert "There is no confusion matrix" in text and "<td>0.3333</td>" in text


@pytest.mark.parametrize("name", ["nul\0.png", "lone\ud800.png", "x" * 5000, ""])
def test_impossible_names_in_a_report_are_noted(tmp_path, name):
    files = {"files": {"mask": name, "score": name}, "label": name, "areas": {}}
    write_report(
        tmp_path / "report", {**image_line("a.png"), "image": name or "a.png", **files}, SUMMARY
    )
    run = make_page(tmp_path, "report", "--save_dir", ".")
    assert run.code == 0, run
    (entry,) = entries(tmp_path / "gallery" / "index.html").values()
    assert entry["notes"] and "mask" not in entry


@pytest.mark.parametrize("folder", ["nul\0", "lone\ud800"])
def test_impossible_folders_in_a_report_are_errors(tmp_path, folder):
    run = {"run": {"folder": folder, "save_dir": "output"}}
    write_report(tmp_path / "report", run, image_line("a.png"), SUMMARY)
    run = make_page(tmp_path, "report")
    assert run.code == 2 and "does not exist" in run.err


def test_the_help_and_wrong_arguments(tmp_path):
    assert "--gallery_dir DIR" in make_page(tmp_path, "--help").out
    run = make_page(tmp_path)
    assert run.code == 2 and "the following arguments are required: REPORT" in run.err
    assert make_page(tmp_path, "gone").code == 2


def test_it_imports_neither_paddle_nor_the_engines(tmp_path):
    code = (
        "import sys; import paddleseg_infer.gallery.making;"
        "print(json.dumps([n for n in sys.modules if n == 'paddle' or 'infer.engines' in n]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True
    )
    assert json.loads(run.stdout) == []
