"""Selection of the device on which the networks run."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
from pathlib import Path

from mimik.config import InputError, install_command


def resolved_device(device: str) -> str:
    """ "cpu" or "cuda" for one of config.DEVICES; "auto" is a GPU if torch finds one.

    Raises InputError if cuda is asked for and torch is not installed or finds no GPU.
    """
    # torch takes seconds to import, so "auto" imports it only if there is an NVIDIA driver.
    if device == "cpu" or (device == "auto" and not (Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"))):
        return "cpu"
    found = importlib.util.find_spec("torch")
    if found is None:
        if device == "auto":
            return "cpu"
        raise InputError(f"--device cuda: torch is not installed; {install_command('train')}, or use cpu.")
    # A build without CUDA is named before torch is loaded.
    build = runpy.run_path(str(Path(found.origin).with_name("version.py"))) if found.origin else {}
    if build.get("cuda", True) or build.get("hip"):
        import torch

        if torch.cuda.is_available():
            return "cuda"
    if device == "auto":
        return "cpu"
    raise InputError("--device cuda: torch finds no GPU; use cpu, or install a torch with CUDA.")
