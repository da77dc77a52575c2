"""Serves the app: access control, address, and cleanup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from mimik.app.guard import Guard, Headers, call_headers, check_host
from mimik.app.live.hosting import Calls
from mimik.app.serving import Serving, add_call_routes, bound, page_address, served
from mimik.app.web import examples
from mimik.app.web.page import build_page, theme_options
from mimik.app.web.parts import gradio_needed
from mimik.app.web.sessions import Limits, Sessions
from mimik.config import AnimateConfig

_CALL = "/call/"  # path prefix of calls, which the page embeds in a frame
_UNFRAMED = (b"x-frame-options", b"DENY")  # no Content-Security-Policy: gradio's page has inline scripts


@contextmanager
def served_studio(where: Serving, *, model: str | None = None, limits: Limits | None = None) -> Iterator[str]:
    """Serve the app while the block runs; yields its URL. At the end, all data of visitors is deleted.

    Args: model: as in AnimateConfig; limits: of visitors.

    Raises:
        InputError: if the host requires a password, the port is taken, or gradio is missing.
    """
    check_host(where.host, where.password)
    AnimateConfig(model=model)
    limits = limits or Limits()
    with bound(where) as listening, closing(Sessions()) as sessions, closing(Calls(where.host)) as calls:
        gr = gradio_needed()
        import fastapi

        os.environ["GRADIO_TEMP_DIR"] = str(sessions.cache)
        gr.set_static_paths(examples.folders())
        _without_addresses(gr)
        blocks = build_page(sessions, calls, limits=limits, model=model)
        # Otherwise gradio does not check that a file named by a visitor was uploaded.
        blocks.has_launched = True
        # Blocks.launch is not used, because it requests its own URL by HTTP through proxies of the environment.
        app = fastapi.FastAPI(openapi_url=None)
        # A call's URL is a secret of its visitor.
        lost = "This call has ended; start it again."
        add_call_routes(app, calls, _CALL + "{key}/", lambda request: request.path_params["key"], lost)
        app = gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            server_name=where.host,
            server_port=listening.getsockname()[1],
            max_file_size=limits.upload_mb * 1024 * 1024,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            footer_links=[],
            allowed_paths=[],
            **theme_options(),
        )

        def headers(path: str) -> Headers:
            return call_headers("self") if path.startswith(_CALL) else (_UNFRAMED,)

        guard = Guard(app, host=where.host, password=where.password, realm="mimik web", headers=headers)
        with ExitStack() as ending:  # in reverse order
            ending.callback(blocks.close, verbose=False)
            ending.enter_context(served(guard, listening, "mimik web"))
            ending.callback(calls.close)  # while the loop of its connections runs
            ending.callback(sessions.stop_all)
            yield page_address(where, listening)


def _without_addresses(gr: Any) -> None:
    """Prevent gradio from downloading URLs that visitors give: this computer sends no requests."""

    async def fetch(url: str, cache_dir: str) -> str:
        raise gr.Error("URLs are not downloaded: upload the file.", print_exception=False)

    gr.processing_utils.async_ssrf_protected_download = fetch
