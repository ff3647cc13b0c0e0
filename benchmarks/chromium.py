"""A headless Chromium that keeps what the page logs and asks for; for the page's tests and its benchmark."""

import shutil
import time
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def installed() -> tuple[str, str] | None:
    """The programs of the browser and its driver, where both are here."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def chromium(width: int = 1280, height: int = 900, dark: bool = False, scripts: bool = True, mobile: bool = False):
    """A browser with a window of this size, ended with the block."""
    options = webdriver.ChromeOptions()
    options.binary_location, driver = installed()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield browser
    finally:
        browser.quit()


def settled(browser, seconds: float = 60) -> None:
    """Wait until the explorer has drawn what was chosen."""
    end = time.monotonic() + seconds
    while browser.find_element(By.ID, "explore").get_attribute("aria-busy") != "false":
        if time.monotonic() > end:
            raise TimeoutError(f"the explorer is still busy; the browser's log: {browser.get_log('browser')}")
        time.sleep(0.02)
