"""Starts Debian's Chromium, and looks into a page and uses it as a person would."""

import contextlib
import json
import shutil

from conftest import wait_until
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run
    --disable-background-networking --disable-component-update --disable-extensions
    --force-prefers-reduced-motion --hide-scrollbars""".split()


@contextlib.contextmanager
def started(profile):
    """Starts a headless Chromium, which logs its requests, for the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


def script(page, code, *arguments):
    return page.execute_script(f"return {code}", *arguments)


def wait(page, code):
    """Waits until an expression of JavaScript is true."""
    wait_until(lambda: script(page, code), 20)


def texts(page, selector):
    code = "[...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
    return script(page, code, selector)


def names(page):
    return texts(page, "#grid .name")


def choose(page, control, value):
    script(
        page,
        "((control, value) => { control.value = value;"
        " control.dispatchEvent(new Event('input')); })"
        "(document.getElementById(arguments[0]), arguments[1])",
        control,
        value,
    )


def press(page, key):
    webdriver.ActionChains(page).send_keys(getattr(Keys, key, key)).perform()


def click(page, selector):
    page.find_element("css selector", selector).click()


def mix(page):
    return script(page, "getComputedStyle(document.querySelector('.mask')).opacity")


def no_errors(page):
    """Checks that the page has logged no error and opened nothing but files."""
    assert [each for each in page.get_log("browser") if "30.png" not in each["message"]] == []
    for each in page.get_log("performance"):
        message = json.loads(each["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            assert url.startswith(("file:", "data:")), url
