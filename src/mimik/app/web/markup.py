"""HTML of the page that gradio has no component for: the progress bar, messages, the comparison of photo and result."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import quote

CSS = """
.gradio-container {width: 100%; max-width: 1360px !important; margin: 0 auto; padding: 8px 16px !important}
#title p {margin: 0} #title h1 {margin: 0; display: inline; font-size: 1.4em} #title {line-height: 1.3}
.m-bar {height: 10px; border-radius: 5px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); overflow: hidden; margin: 4px 0}
.m-bar div {height: 100%; background: var(--primary-500); transition: width .2s}
.m-bar.waiting div {width: 100%; opacity: .35; animation: m-wait 1.2s ease-in-out infinite alternate}
@keyframes m-wait {to {opacity: .1}}
.m-line {display: flex; justify-content: space-between; gap: 12px; font-size: 14px}
.m-note {padding: 6px 10px; border-left: 4px solid var(--primary-500); font-size: 14px; margin: 2px 0}
.m-note.bad {border-color: #d33; background: rgba(221, 51, 51, .08)}
.m-note.plain {border-color: var(--border-color-primary)}
.m-both {display: flex; gap: 6px} .m-both > * {flex: 1; min-width: 0; max-height: 400px; object-fit: contain}
.m-compare {position: relative; display: block; width: fit-content; max-width: 100%; margin: auto; line-height: 0}
.m-compare .m-under, .m-compare .m-over {max-height: 380px; max-width: 100%; display: block}
.m-compare .m-over {position: absolute; inset: 0; width: 100%; height: 100%;
  clip-path: inset(0 0 0 var(--at, 50%))}
.m-compare::after {content: ""; position: absolute; top: 0; bottom: 0; left: var(--at, 50%); width: 2px;
  background: #fff; box-shadow: 0 0 3px #000}
.m-slide {width: 100%; margin-top: 8px; accent-color: var(--primary-500)}
.m-call {width: 100%; height: max(600px, calc(100vh - 190px)); border: 1px solid var(--border-color-primary);
  border-radius: 6px; background: var(--background-fill-primary)}
#motions .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)) !important; gap: 6px}
#examples .grid-container, #call-examples .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)) !important;
  gap: 6px}
#edit-examples .grid-container {grid-template-columns: repeat(2, minmax(0, 1fr)) !important; gap: 6px}
#motions .grid-wrap, #examples .grid-wrap, #edit-examples .grid-wrap, #call-examples .grid-wrap {padding: 6px}
#examples .caption-label, #call-examples .caption-label {display: none}
#motions .caption-label {right: 0; left: 0; text-align: center; max-width: none; opacity: .9; font-size: 11px;
  padding: 1px 2px}
#who label, #how label {padding: 4px 8px}
#summary, [id$="-said"] {padding: 0 !important; min-height: 0}
input[type=radio]:checked, input[type=checkbox]:checked {
  background-color: var(--checkbox-background-color-selected) !important}
footer {display: none !important}
"""


def progress(share: float, doing: str, left: str = "") -> str:
    """One bar with percent and the time left. Args: share: 0..1; left: "about 12 s left", or ""."""
    percent = f"{100 * min(max(share, 0.0), 1.0):.0f}"
    right = f"{percent} %" + (f" · {html.escape(left)}" if left else "")
    return (
        f'<div class="m-bar" role="progressbar" aria-valuenow="{percent}"><div style="width:{percent}%"></div></div>'
        f'<div class="m-line"><span>{html.escape(doing)}</span><span>{right}</span></div>'
    )


def waiting(sentence: str) -> str:
    """A bar of which nobody knows how far it is."""
    bar = '<div class="m-bar waiting" role="progressbar"><div></div></div>'
    return f'{bar}<div class="m-line"><span>{html.escape(sentence)}</span></div>'


def note(sentence: str, kind: str = "") -> str:
    """A message. Args: kind: "" for what went well, "bad" for what has to be repaired, "plain" for the rest."""
    lines = "<br>".join(html.escape(line) for line in sentence.splitlines() if line)
    return f'<div class="m-note {kind}" role="status">{lines}</div>' if lines else ""


def _file_address(path: str | Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def _element(path: str | Path, is_video: bool, classes: str = "") -> str:
    source, css = _file_address(path), f' class="{classes}"' if classes else ""
    if is_video:
        return f'<video src="{source}"{css} autoplay loop muted playsinline></video>'
    return f'<img src="{source}"{css} alt="">'


def side_by_side(left: str | Path, left_is_video: bool, right: str | Path, right_is_video: bool) -> str:
    """Driver or photo beside the result."""
    return f'<div class="m-both">{_element(left, left_is_video)}{_element(right, right_is_video)}</div>'


def call(key: str) -> str:
    """The page of a call in a frame, and the address of its picture alone."""
    address = f"call/{quote(key)}/"
    return (
        f'<iframe class="m-call" src="{address}" allow="camera; microphone; autoplay" title="The call"></iframe>'
        f'<div class="m-line"><span>For OBS: a browser source with <a href="{address}obs" target="_blank" '
        'rel="noopener">the picture alone</a> (copy its address).</span>'
        f'<a href="{address}" target="_blank" rel="noopener">The call in a window of its own</a></div>'
    )


def before_after(before: str | Path, before_is_video: bool, after: str | Path, after_is_video: bool) -> str:
    """The result over the photo, with a slider between them."""
    move = "this.previousElementSibling.style.setProperty('--at', this.value + '%')"
    return (
        f'<div><div class="m-compare">{_element(before, before_is_video, "m-under")}'
        f"{_element(after, after_is_video, 'm-over')}</div>"
        f'<input class="m-slide" type="range" min="0" max="100" value="50" aria-label="Before and after" '
        f'oninput="{move}"></div>'
    )
