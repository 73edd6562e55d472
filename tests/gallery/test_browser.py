"""The gallery's page in a real Chromium: clicks, keys, filters, and a phone's width."""

import cv2
import numpy as np
import pytest
from chromium import (
    CHROMIUM,
    DRIVER,
    choose,
    click,
    mix,
    names,
    no_errors,
    press,
    script,
    started,
    texts,
    wait,
)
from conftest import scene
from made_pages import SUMMARY, image_line, make_page, write_report
from selenium.webdriver import ActionChains

from paddleseg_infer.pictures.kinds import encode_mask

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium-driver"),
    pytest.mark.xdist_group("chromium"),
]
NAMES = ["sky", "car", "road"]
COUNT = 150
HOSTILE = "<img src=x onerror=window.harmed=1>.png"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page of 150 images: with label maps, without, failed, with a hostile name.

    Image n has a mask of class 1 in its first n rows; every tenth also has class 2. The label maps
    of the first twenty have class 0 everywhere, so the IoU falls with n. Image 30's file is gone.
    """
    folder = tmp_path_factory.mktemp("page")
    for name in ("in", "labels", "output"):
        (folder / name).mkdir()
    photo = cv2.imencode(".png", scene(200, 160))[1].tobytes()
    lines = [{"run": {"folder": str(folder), "save_dir": "output", "names": NAMES, "classes": 3}}]
    truth = np.zeros((200, 160), np.uint8)
    for number in range(COUNT):
        name = f"in/{number}.png" if number != 40 else f"in/{HOSTILE}"
        (folder / name).write_bytes(photo)
        mask = np.zeros((200, 160), np.uint8)
        mask[:number] = 1
        mask[199] = 2 if number % 10 == 0 else mask[199]
        line = image_line(name, size=[160, 200])
        (folder / "output" / line["files"]["mask"]).write_bytes(encode_mask(mask))
        if number < 20:
            label = f"labels/{number}.png"
            (folder / label).write_bytes(cv2.imencode(".png", truth)[1].tobytes())
            line |= {"label": label, "mean_iou": round(1 - number / 200, 3), "areas": {}}
            for each in range(3):
                areas = [
                    int((mask == 0).sum()) * (each == 0),
                    int((mask == each).sum()),
                    32000 * (each == 0),
                ]
                line["areas"] |= {each: areas} if any(areas) else {}
        lines.append(line)
    for number, reason in enumerate(["the file is empty", "it has 5 bands", "it has 7 bands"]):
        (folder / "in" / f"bad{number}.png").write_bytes(photo)
        lines.append(image_line(f"in/bad{number}.png", "failed", reason=reason))
    write_report(folder / "report", *lines, SUMMARY)
    assert make_page(folder, "report").code == 0
    (folder / "in" / "30.png").unlink()
    return folder


@pytest.fixture
def page(browser, folder):
    """Opens the page in a window of a desktop."""
    return opened(browser, folder)


def opened(browser, folder, hash_="", size=(1300, 900)):
    browser.set_window_size(*size)
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get((folder / "output" / "gallery" / "index.html").as_uri() + hash_)
    return browser


def test_the_grid_has_pages_in_the_order_of_the_names(page):
    assert texts(page, "h1") == ["report"]
    assert names(page)[:4] == [HOSTILE, "0.png", "1.png", "2.png"]
    assert len(names(page)) == 60
    assert texts(page, "#found") == ["1 to 60 of 153 images"]
    press(page, "ARROW_RIGHT")
    wait(page, "document.getElementById('found').textContent.startsWith('61 to 120')")
    click(page, ".pages [data-step='1']")
    wait(page, "document.getElementById('found').textContent === '121 to 153 of 153 images'")
    assert script(page, "document.querySelector('[data-step=\"1\"]').disabled")
    page.back()
    wait(page, "document.getElementById('found').textContent.startsWith('61 to 120')")
    no_errors(page)


def test_small_pictures_load_and_the_keys_change_the_opacity_of_the_mask(page):
    wait(
        page, "[...document.querySelectorAll('#grid img')].slice(0, 8).every((i) => i.naturalWidth)"
    )
    assert mix(page) == "0.5"
    for key, opacity in (("1", "0"), ("3", "1"), ("2", "0.5")):
        press(page, key)
        assert mix(page) == opacity
    click(page, "#controls [data-mix='100']")
    assert mix(page) == "1"
    slider = page.find_element("css selector", "#controls .mix")
    ActionChains(page).click_and_hold(slider).move_by_offset(-30, 0).release().perform()
    assert 0 < float(mix(page)) < 0.5
    no_errors(page)


def test_the_worst_image_is_first_when_sorted_by_iou(page):
    choose(page, "sort", "iou")
    assert names(page)[:2] == ["19.png", "18.png"]
    assert texts(page, "#grid .numbers")[0] == "IoU 0.905"
    choose(page, "sort", "best")
    assert names(page)[0] == "0.png"
    assert "certainty" not in script(page, "document.getElementById('sort').textContent")


def test_all_images_with_a_class_the_largest_share_first(page):
    choose(page, "class", "2")
    assert texts(page, "#found") == ["1 to 15 of 15 images"]
    choose(page, "sort", "share")
    choose(page, "class", "1")
    assert names(page)[0] == "149.png"
    assert texts(page, "#grid .numbers")[0] == "car 74.5 %"


def test_why_images_failed_and_a_click_on_a_reason(page):
    click(page, "#reasons summary")
    reasons = ["it has 5 bands 2 images", "the file is empty 1 image"]
    assert texts(page, "#reasons li") == reasons
    click(page, "#reasons button")
    wait(page, "document.getElementById('found').textContent === '1 to 2 of 2 images'")
    assert texts(page, "#grid .bad") == ["failed: it has 5 bands", "failed: it has 7 bands"]
    choose(page, "show", "failed")
    assert len(names(page)) == 3


def test_a_part_of_the_path_finds_an_image(page):
    press(page, "/")
    press(page, "bad1")
    wait(page, "document.getElementById('found').textContent === '1 to 1 of 1 images'")
    assert names(page) == ["bad1.png"]
    choose(page, "text", "no such image")
    assert texts(page, "#found") == ["No image fits these filters."]


def test_an_image_its_label_map_and_its_wrong_pixels(page, folder):
    choose(page, "sort", "iou")
    click(page, ".card")
    wait(page, "document.getElementById('view').open")
    assert texts(page, "#view-name") == ["19.png"]
    assert texts(page, "#view figcaption") == ["Mask", "Label map"]
    wait(page, "[...document.querySelectorAll('#panes img')].every((image) => image.naturalWidth)")
    size = "(image) => [image.naturalWidth, image.naturalHeight]"
    sizes = script(page, f"[...document.querySelectorAll('#panes img')].map({size})")
    assert sizes == [[160, 200]] * 6
    box = "(i) => JSON.stringify(i.getBoundingClientRect())"
    boxes = script(page, f"[...document.querySelectorAll('.pane:first-child img')].map({box})")
    assert len(boxes) == 3 and len(set(boxes)) == 1  # they lie on each other
    press(page, "m")
    assert script(page, "getComputedStyle(document.querySelector('.wrong')).visibility") == "hidden"
    rows = texts(page, "#facts tbody tr")
    assert rows[0] == "sky0.90590.5 %" and rows[1] == "car0.0009.5 %"
    assert texts(page, "#place") == ["1 of 153"]
    press(page, "ARROW_RIGHT")
    wait(page, "document.getElementById('view-name').textContent === '18.png'")
    width = "document.querySelector('.pane .stack').clientWidth"
    before = script(page, width)
    press(page, "z")
    assert script(page, width) > 1.5 * before
    press(page, "z")
    press(page, "ESCAPE")
    wait(page, "!document.getElementById('view').open")
    assert script(page, "document.activeElement.dataset.number") == "18"
    assert "image=" not in page.current_url
    no_errors(page)


def test_the_metrics_and_the_matrix(page):
    click(page, "#evaluation summary")
    assert texts(page, "#evaluation .bars tbody tr:first-child td")[0] == "0.9520"
    assert texts(page, ".matrix tbody tr:first-child td")[:2] == ["95.2", "4.8"]
    click(page, "#evaluation [data-class='2']")
    wait(page, "document.getElementById('found').textContent === '1 to 15 of 15 images'")


def test_closing_an_image_keeps_the_place_in_the_list(page):
    cards = page.find_elements("css selector", ".card")
    cards[50].click()
    wait(page, "document.getElementById('view').open")
    before = script(page, "window.scrollY")
    press(page, "ESCAPE")
    wait(page, "!document.getElementById('view').open")
    assert script(page, "document.activeElement.dataset.number") == "50"
    assert script(page, "window.scrollY") == before > 300


def test_keys_work_after_the_slider_was_used_and_panes_scroll_together(browser, folder):
    page = opened(browser, folder, "#image=19")
    script(page, "document.querySelector('#view .mix').focus()")
    press(page, "3")
    assert mix(page) == "1"
    press(page, "ARROW_LEFT")  # it belongs to the slider
    assert texts(page, "#view-name") == ["19.png"] and mix(page) == "0.99"
    press(page, "z")
    script(page, "document.querySelector('.pane').scrollTo(90, 70)")
    wait(page, "document.querySelectorAll('.pane')[1].scrollLeft === 90")
    script(page, "document.querySelector('.pane').focus()")
    press(page, "ARROW_RIGHT")
    wait(page, "document.querySelector('.pane').scrollLeft > 90")
    assert texts(page, "#view-name") == ["19.png"]


def test_a_link_opens_the_same_image_and_back_leaves_it(browser, folder):
    page = opened(browser, folder, "#class=2&image=20")
    assert texts(page, "#view-name") == ["20.png"]
    assert texts(page, "#place") == ["4 of 15"]
    page = opened(browser, folder)
    click(page, ".card")
    wait(page, "document.getElementById('view').open")
    page.back()
    wait(page, "!document.getElementById('view').open")
    for wrong in (
        "#image=-1",
        "#image=1e9&sort=x&class=99&page=-5&show=%22&__proto__=1",
        "#image=length",
    ):
        page = opened(browser, folder, wrong)
        assert len(names(page)) == 60 and not script(page, "document.getElementById('view').open")
        no_errors(page)


def test_an_image_that_was_moved_is_shown_as_a_small_copy(browser, folder):
    page = opened(browser, folder, "#image=30")
    wait(page, "document.querySelector('.photo').naturalWidth > 0")
    assert "thumb.jpg" in script(page, "document.querySelector('.photo').src")
    assert "the image is not in its place" in texts(page, "figcaption")[0]


def test_a_hostile_name_is_only_text(browser, folder):
    page = opened(browser, folder, "#text=onerror")
    assert names(page) == [HOSTILE]
    click(page, ".card")
    wait(page, "document.querySelector('.photo').naturalWidth > 0")
    assert texts(page, "#view-name") == [HOSTILE]
    assert script(page, "window.harmed") is None
    no_errors(page)


def test_the_page_may_not_use_the_network(browser, folder):
    page = opened(browser, folder)
    code = """
        document.addEventListener("securitypolicyviolation", (event) =>
            arguments[0](event.effectiveDirective));
        fetch("http://127.0.0.1:9/").catch(() => 0);"""
    assert page.execute_async_script(code) == "connect-src"


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, folder):
    device = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        for hash_ in ("", "#image=19", "#image=40"):
            page = opened(browser, folder, hash_, (500, 800))
            assert script(page, "document.documentElement.scrollWidth") == 360
            assert script(page, "document.getElementById('view').scrollWidth") <= 360
        page = opened(browser, folder)
        for details in page.find_elements("css selector", "summary"):
            details.click()
        assert script(page, "document.documentElement.scrollWidth") == 360
        columns = "getComputedStyle(document.getElementById('grid')).gridTemplateColumns"
        assert len(script(page, columns).split()) == 2
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
