"""The app's page, a gradio.Blocks: five tabs, and the endpoints of the HTTP interface."""

from __future__ import annotations

from typing import Any

from mimik.app.live.hosting import Calls
from mimik.app.web import animate_tab, api, markup, other_tabs
from mimik.app.web.parts import Shared, gradio_needed
from mimik.app.web.sessions import KEPT_S, LOOK_EVERY_S, Limits, Sessions

_WAITING = 16  # length of the queue; further requests are rejected


def build_page(sessions: Sessions, calls: Calls, *, limits: Limits, model: str | None = None) -> Any:
    """Build the app's page. Args: model: as in AnimateConfig."""
    gr = gradio_needed()
    shared = Shared(gr, sessions, calls, limits, model)
    with gr.Blocks(title="mimik", analytics_enabled=False, delete_cache=(LOOK_EVERY_S, KEPT_S)) as app:
        api.add_endpoints(shared)  # first, so that the endpoints get their names
        gr.Markdown(
            "# mimik\nOne photo of a person in, a talking head out. Animate yourself, people who consented, and the "
            "long dead with respect. Every file is signed and marked as synthetic.",
            elem_id="title",
        )
        with gr.Tab("Animate"):
            animate_tab.build_tab(shared)
        with gr.Tab("Call"):
            other_tabs.build_call(shared)
        with gr.Tab("Person"):
            other_tabs.build_person(shared)
        with gr.Tab("Edit"):
            other_tabs.build_edit(shared)
        with gr.Tab("Verify"):
            other_tabs.build_verify(shared)

        @shared.asks
        def leave(request: Any) -> None:
            calls.end(str(request.session_hash))
            sessions.leave(request.session_hash)

        app.unload(leave)
    return app.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)


def theme_options() -> dict[str, Any]:
    """Arguments of gradio.mount_gradio_app: system fonts, so that none are downloaded."""
    theme = gradio_needed().themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {"theme": theme, "css": markup.CSS}
