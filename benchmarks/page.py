"""Speed of pages that play an exported person: frames per second and processor time per frame, compared in one run.

    python benchmarks/page.py NAME=FOLDER[?QUERY] .. [--seconds 10] [--rounds 2] [-o RESULT.json]

FOLDER is a copy of examples/browser after `npm ci`, with an export of this or another commit in `person`. QUERY is that
of the page: threads=1&drawing=webgl. The pages play in turn in a headless Chromium with software WebGL (SwiftShader).
Processor time is that of Chromium's processes, from /proc; on a busy machine only its ratios are meaningful. Needs
Linux and the extra `browser`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from browser_pages import SOFTWARE_WEBGL, served
from reporting import machine, markdown, write_json

_COUNT = """() => {
  const player = mimik.player, name = player.show ? "show" : "draw", draws = player[name].bind(player);
  window.shown = 0;
  player[name] = (...given) => { window.shown++; return draws(...given); };
}"""
_KINDS = ("renderer", "gpu-process")


def processor_time() -> dict[str, float]:
    """Processor seconds of the child processes, by kind of Chromium process."""
    below: dict[int, list[tuple[int, float]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        below.setdefault(int(fields[1]), []).append((int(path.parent.name), seconds))
    found: dict[str, float] = {}
    waiting = [os.getpid()]
    while waiting:
        for process, seconds in below.get(waiting.pop(), []):
            waiting.append(process)
            try:
                command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            kind = next((kind for kind in _KINDS if f"--type={kind}" in command), "others")
            found[kind] = found.get(kind, 0.0) + seconds
    return found


def measure(browser: Browser, address: str, seconds: float) -> dict[str, float]:
    """Frames per second, and milliseconds of processor time per frame, of a playing page."""
    page = browser.new_page(viewport={"width": 700, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_function("parseFloat(document.getElementById('rate').textContent) > 0")
    page.evaluate(_COUNT)
    page.wait_for_function("window.shown > 12")  # compiled by then
    before, start, shown = processor_time(), time.monotonic(), page.evaluate("window.shown")
    page.wait_for_timeout(1000 * seconds)
    after, wall, frames = processor_time(), time.monotonic() - start, page.evaluate("window.shown") - shown
    page.close()
    spent = {kind: 1000 * (after.get(kind, 0) - before.get(kind, 0)) / frames for kind in (*_KINDS, "others")}
    return {"frames_per_second": frames / wall, "frames": frames, "processor_ms": sum(spent.values())} | {
        f"{kind}_ms": value for kind, value in spent.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", metavar="NAME=FOLDER[?QUERY]")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("-o", dest="out", type=Path)
    arguments = parser.parse_args()
    chromium = next(path for path in map(shutil.which, ("chromium", "chromium-browser")) if path)
    rows: dict[str, list[dict[str, float]]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=[*SOFTWARE_WEBGL])
        version = browser.version
        for _ in range(arguments.rounds):
            for given in arguments.pages:
                name, where = given.split("=", 1)
                folder, _, query = where.partition("?")
                with served(Path(folder)) as address:
                    found = measure(browser, f"{address}/?{query}", arguments.seconds)
                rows.setdefault(name, []).append({key: round(value, 1) for key, value in found.items()})
        browser.close()
    result = {
        "what": "pages that play an exported person: frames per second, and ms of processor time a frame",
        "machine": machine(),
        "browser": f"Chromium {version}, headless, WebGL by SwiftShader on the processor",
        "pages": {given.split("=", 1)[0]: given.partition("?")[2] for given in arguments.pages},
        "rounds": rows,
    }
    keys = ["frames_per_second", "processor_ms", "renderer_ms", "gpu-process_ms"]
    medians = {name: [statistics.median(row[key] for row in found) for key in keys] for name, found in rows.items()}
    print(markdown(["page", *keys], [[name, *(f"{value:.1f}" for value in of)] for name, of in medians.items()]))
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
