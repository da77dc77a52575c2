"""mimik.app.learning: the one way from photos to an avatar."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mimik.app import learning
from mimik.config import InputError
from mimik.training.arguments import LearnArguments


def test_photos_are_read_before_torch_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mimik.training.fine_tuning", None)  # an import fails
    monkeypatch.delattr("mimik.training.fine_tuning", raising=False)
    monkeypatch.setattr(learning, "find_spec", lambda name: name)
    steps: list[Any] = []
    (tmp_path / "text.jpg").write_text("no picture")
    monkeypatch.setattr(learning, "read_photos", lambda *_, **options: steps.append(options) or [])
    with pytest.raises(InputError, match=r"learn needs mimik\.training\.fine_tuning"):
        learning.learn_files(
            [tmp_path / "text.jpg"],
            tmp_path / "a.avatar",
            LearnArguments(face=2, shots=3, max_seconds=60),
            progress=print,
            preparing=lambda *_: None,
            began_s=time.monotonic() - 50,
        )
    (options,) = steps
    assert (options["face"], options["shots"]) == (2, 3)
    assert 5 < options["deadline"].left_s <= 10


def test_a_missing_torch_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "find_spec", lambda name: None)
    monkeypatch.setattr(learning, "read_photos", lambda *_, **__: pytest.fail("the photos are read"))
    with pytest.raises(InputError, match="learn needs torch, which is not installed"):
        learning.learn_files(
            [tmp_path / "a.jpg"], tmp_path / "a.avatar", LearnArguments(), progress=print, preparing=lambda *_: None
        )
