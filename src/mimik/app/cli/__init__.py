"""The command line: one module for each group of commands; importing this package makes all of them known."""

from __future__ import annotations

from mimik.app.cli import animating, checking, motions, photos, serving, training, voices
from mimik.app.cli.console import app, main

__all__ = ["animating", "app", "checking", "main", "motions", "photos", "serving", "training", "voices"]
