"""Take the screenshots of web app and call in docs/pictures with a headless Chromium; needs `.[web,live,browser]`.

python tools/make_web_pictures.py docs/pictures
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
from playwright.sync_api import sync_playwright

from mimik import Avatar
from mimik.app.live.call import Call
from mimik.app.page import served_page
from mimik.app.serving import Serving
from mimik.app.web import server
from mimik.config import AnimateConfig

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


def take_call(out: Path) -> None:
    """Take a screenshot of a call, in which one animated portrait is the camera and another the person."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        camera = Path(folder, "camera.y4m")
        _write_camera(camera)
        options = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", *options, f"--use-file-for-fake-video-capture={camera}"],
        )
        settings = {"permissions": ["camera"], "bypass_csp": True}
        context = browser.new_context(viewport={"width": 1000, "height": HEIGHT}, **settings)
        call = Call(Avatar.from_photos([_portrait("generated_woman_2.jpg")]), AnimateConfig(frame="crop"))
        with call, served_page(call, Serving(port=0)) as served:
            tab = context.new_page()
            tab.set_default_timeout(WAIT_MS)
            tab.goto(served.address)
            tab.wait_for_selector("#lines[data-face=seen]")
            tab.eval_on_selector("#camera option", "one => one.textContent = 'Webcam'")
            tab.click("#calibrate")
            tab.wait_for_timeout(9000)
            _shoot(tab, out)
        browser.close()


def _write_camera(path: Path) -> None:
    """A video with an animated portrait, 640x480, in the format that Chromium takes for a camera."""
    frames = Avatar.from_photos([_portrait("eileen_collins.png")]).frames("talk", frame="crop", size=480)
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F25:1 Ip A1:1 C420jpeg\n")
        for frame in frames:
            wide = cv2.copyMakeBorder(frame, 0, 0, 80, 80, cv2.BORDER_REPLICATE)
            file.write(b"FRAME\n" + cv2.cvtColor(wide, cv2.COLOR_RGB2YUV_I420).tobytes())


def _portrait(name: str) -> Path:
    return Path(str(resources.files("mimik").joinpath("assets/portraits", name)))


def _shoot(tab: Any, out: Path) -> None:
    tab.mouse.move(WIDTH - 1, HEIGHT - 1)  # away from the controls
    tab.wait_for_timeout(3000)
    tab.screenshot(path=str(out), type="jpeg", quality=82)


def main() -> None:
    with server.served_studio(Serving(port=0)) as address:
        take(address, Path(sys.argv[1]))
    take_call(Path(sys.argv[1], "live.jpg"))


if __name__ == "__main__":
    main()
