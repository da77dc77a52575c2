"""HTML for which gradio has no component: progress bar, messages, comparison of photo and result."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import quote

from mimik.files import asset

CSS = asset("studio.css").read_text(encoding="utf-8")


def progress(share: float, doing: str, left: str = "") -> str:
    """A progress bar with percent and remaining time. Args: share: 0..1; left: "about 12 s left", or ""."""
    percent = f"{100 * min(max(share, 0.0), 1.0):.0f}"
    right = f"{percent} %" + (f" · {html.escape(left)}" if left else "")
    return (
        f'<div class="m-bar" role="progressbar" aria-valuenow="{percent}"><div style="width:{percent}%"></div></div>'
        f'<div class="m-line"><span>{html.escape(doing)}</span><span>{right}</span></div>'
    )


def waiting(sentence: str) -> str:
    """An indeterminate progress bar."""
    bar = '<div class="m-bar waiting" role="progressbar"><div></div></div>'
    return f'{bar}<div class="m-line"><span>{html.escape(sentence)}</span></div>'


def note(sentence: str, kind: str = "") -> str:
    """A message. Args: kind: "" for success, "bad" for an error, "plain" for other messages."""
    lines = "<br>".join(html.escape(line) for line in sentence.splitlines() if line)
    return f'<div class="m-note {kind}" role="status">{lines}</div>' if lines else ""


def _element(path: str | Path, is_video: bool, classes: str = "") -> str:
    source, css = f"gradio_api/file={quote(str(path))}", f' class="{classes}"' if classes else ""
    if is_video:
        return f'<video src="{source}"{css} autoplay loop muted playsinline></video>'
    return f'<img src="{source}"{css} alt="">'


def side_by_side(left: str | Path, left_is_video: bool, right: str | Path, right_is_video: bool) -> str:
    """Driver or photo beside the result."""
    return f'<div class="m-both">{_element(left, left_is_video)}{_element(right, right_is_video)}</div>'


def call(key: str) -> str:
    """The page of a call in a frame, and the URL of its video without controls."""
    address = f"call/{quote(key)}/"
    return (
        f'<iframe class="m-call" src="{address}" allow="camera; microphone; autoplay" title="The call"></iframe>'
        f'<div class="m-line"><span>For OBS: a browser source with <a href="{address}obs" target="_blank" '
        'rel="noopener">the picture alone</a> (copy its address).</span>'
        f'<a href="{address}" target="_blank" rel="noopener">Open the call in its own window</a></div>'
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
