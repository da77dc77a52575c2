"""The command line: one module per group of commands; a run imports only the module of its command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mimik.app.cli.console import main

if TYPE_CHECKING:
    from mimik.app.cli.console import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """Provide `app` with all commands loaded."""
    if name == "app":
        from mimik.app.cli import console

        console.load_commands()
        return console.app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
