"""The command line: one module for each group of commands, of which a program's run imports one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mimik.app.cli.console import main

if TYPE_CHECKING:
    from mimik.app.cli.console import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """`app`, with all commands: who asks for it here runs any of them."""
    if name == "app":
        from mimik.app.cli import console

        console.load_commands()
        return console.app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
