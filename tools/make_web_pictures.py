"""Take the screenshots of the web app in docs/pictures with a headless Chromium; needs `.[web,live,browser]`.

python tools/make_web_pictures.py docs/pictures
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from mimik.app.serving import Serving
from mimik.app.web import server

WIDTH, HEIGHT = 1366, 900
WAIT_MS = 240_000


def take(address: str, folder: Path) -> None:
    """Take a screenshot of each tab that docs/web.md shows."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        tab.set_default_timeout(WAIT_MS)
        tab.goto(address)
        _animate(tab, folder / "web_animate.jpg")
        _edit(tab, folder / "web_edit.jpg")
        browser.close()


def _animate(tab: Any, out: Path) -> None:
    tab.locator("#examples .thumbnail-item").nth(1).click()
    tab.wait_for_selector("#photo img")
    tab.locator("#motions button").filter(has_text="smile").click()
    tab.click("#animate")
    tab.wait_for_function("document.querySelector('#animate-said').innerText.includes('frames of')")
    tab.evaluate("const v = document.querySelector('video'); if (v) v.currentTime = 1.2")
    _shoot(tab, out)


def _edit(tab: Any, out: Path) -> None:
    tab.get_by_role("tab", name="Edit", exact=True).click()
    tab.locator("#edit-examples .thumbnail-item").nth(2).click()
    tab.wait_for_selector("#edited img")
    for name, value in (("smile", "0.8"), ("yaw", "12")):
        slider = tab.locator(f"#edit-{name} input[type=range]")
        before = tab.locator("#edited img").get_attribute("src")
        slider.fill(value)
        slider.dispatch_event("input")
        tab.wait_for_function("src => document.querySelector('#edited img').src !== src", arg=before)
    _shoot(tab, out)


def _shoot(tab: Any, out: Path) -> None:
    tab.mouse.move(WIDTH - 1, HEIGHT - 1)  # away from the controls
    tab.wait_for_timeout(3000)
    tab.screenshot(path=str(out), type="jpeg", quality=82)


def main() -> None:
    with server.served_studio(Serving(port=0)) as address:
        take(address, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
