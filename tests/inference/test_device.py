"""Selection of the device; no GPU is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mimik.config import InputError
from mimik.inference import device as devices


def torch_that(finds: bool) -> SimpleNamespace:
    return SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: finds), __spec__=SimpleNamespace(origin=None))


@pytest.mark.parametrize(
    ("device", "has_driver", "finds", "expected"),
    [
        ("cpu", True, True, "cpu"),
        ("auto", False, True, "cpu"),  # torch is not even loaded
        ("auto", True, True, "cuda"),
        ("auto", True, False, "cpu"),
        ("cuda", False, True, "cuda"),
    ],
)
def test_which_device(
    monkeypatch: pytest.MonkeyPatch, device: str, has_driver: bool, finds: bool, expected: str
) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda name: name if has_driver else None)
    monkeypatch.setattr(devices.Path, "exists", lambda path: False)
    monkeypatch.setitem(sys.modules, "torch", torch_that(finds))
    assert devices.resolved_device(device) == expected


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_that(False))
    with pytest.raises(InputError, match="--device cuda: torch finds no GPU; use cpu"):
        devices.resolved_device("cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"--device cuda: torch is not installed; pip install '.\[train\]'"):
        devices.resolved_device("cuda")


@pytest.mark.parametrize(("build", "loads"), [("cuda = None\nhip = None", False), ("cuda = '13.0'\nhip = None", True)])
def test_a_build_without_cuda_is_named_without_loading_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, build: str, loads: bool
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise RuntimeError('loaded')")
    (tmp_path / "torch/version.py").write_text(build)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError if loads else InputError, match="loaded" if loads else "torch finds no GPU"):
        devices.resolved_device("cuda")
