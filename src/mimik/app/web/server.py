"""Serves the app."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing

from mimik.app.page import check_host
from mimik.app.web.page import build, needed
from mimik.app.web.sessions import Desks, Limits
from mimik.config import AnimateConfig, InputError

HOST, PORT = "127.0.0.1", 8765


def serve(
    *,
    host: str = HOST,
    port: int = PORT,
    password: str | None = None,
    model: str | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serves the app until stop is set or the program is interrupted; then everything of its visitors is removed.

    Args:
        host, port: where; port 0 takes any that is free.
        password: of everybody, whose name is mimik; needed where host is not loopback.
        model: as AnimateConfig has it.
        limits: what visitors may ask for.
        ready: called with the address when the app can be opened.
        stop: may be set by another thread.

    Raises:
        InputError: if the host is not possible without a password, the port is taken, or gradio is missing.
    """
    check_host(host, password)
    AnimateConfig(model=model)
    limits = limits or Limits()
    gr = needed()
    desks = Desks()
    os.environ["GRADIO_TEMP_DIR"] = str(desks.cache)
    try:
        app = build(desks, limits=limits, model=model)
        try:
            _, address, _ = app.launch(
                server_name=host,
                server_port=port or None,
                auth=("mimik", password) if password else None,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=limits.upload_mb * 1024 * 1024,
                ssr_mode=False,
                enable_monitoring=False,
                footer_links=[],
                # The system's own letters: none are fetched from elsewhere.
                theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            )
        except OSError as error:
            raise InputError(
                f"--port {port}: cannot be used on {host} ({str(error).splitlines()[0].rstrip('.')}); give another "
                "one, or 0 for any that is free."
            ) from None
        if ready is not None:
            ready(address)
        (stop or threading.Event()).wait()
    finally:
        with closing(desks):
            if "app" in locals():
                app.close(verbose=False)
