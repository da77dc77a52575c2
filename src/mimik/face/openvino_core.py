"""OpenVINO: one Core per process, and an on-disk cache of compiled networks."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mimik.config import InputError, data_folder
from mimik.files import write_atomically

log = logging.getLogger(__name__)


_CONVERTER = "openvino.tools.ovc"
# Limit of the instruction sets that oneDNN, the kernels of OpenVINO, uses; and its values that exclude bfloat16.
_LIMIT = "ONEDNN_MAX_CPU_ISA"
_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}


@functools.cache
def openvino() -> Any:
    """The package openvino, imported on first use.

    The import blocks openvino_telemetry, which would report to an analytics service and store a client ID in the user's
    home. It also skips openvino's converter for models of other frameworks, which is not used and takes most of the
    import time; code that needs it can still import it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if is_left_out := _CONVERTER not in sys.modules:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if is_left_out:
            sys.modules.pop(_CONVERTER, None)
    return openvino


_core_lock = threading.Lock()


def inference_core() -> Any:
    """OpenVINO's Core, one per process.

    On processors with AMX, the CPU plugin of each Core installs an alternate signal stack and restores the previous one
    when it is destroyed. If two Cores are destroyed in the order of their creation, the restored stack is unmapped, and
    the next signal (such as Ctrl-C) ends the process with a segmentation fault.
    """
    with _core_lock:
        return _only_core()


@functools.cache
def _only_core() -> Any:
    core = openvino().Core()
    # By default, a thread is pinned to the first core while it runs a network on one thread. All networks of this and
    # of every other process would wait for that core.
    core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
    return core


@functools.cache
def capabilities() -> frozenset[str]:
    """What OpenVINO supports on this processor, such as "BF16" and "INT8", within the limit of ONEDNN_MAX_CPU_ISA.

    OpenVINO itself lists bfloat16 despite a limit, and then has no kernel for it.
    """
    found = frozenset(inference_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return found - {"BF16"} if os.environ.get(_LIMIT, "").upper() in _WITHOUT_BF16 else found


def compiled_once(name: str, content: bytes, read: Callable[[], Any], options: dict[str, Any]) -> Any:
    """A network compiled for the CPU, cached in the user's data folder: loading takes a quarter of the time.

    Args:
        name: of the network, for the cache file.
        content: of the model file; part of the cache key.
        read: reads the model if there is no valid cache file.
        options: of compile_model.
    """
    core = inference_core()
    kept = _kept(name, content, options)
    if kept is not None and kept.is_file():
        try:
            return core.import_model(kept.read_bytes(), "CPU", options)
        except (RuntimeError, OSError, ValueError):
            log.debug("%s is unusable and is compiled again", kept, exc_info=True)
    compiled = core.compile_model(read(), "CPU", options)
    if kept is not None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            data = compiled.export_model()
            write_atomically(kept, data if isinstance(data, bytes) else data.getvalue())
        except (RuntimeError, OSError, InputError):
            log.debug("%s could not be stored", kept, exc_info=True)
    return compiled


def _kept(name: str, content: bytes, options: dict[str, Any]) -> Path | None:
    """Cache file of a compiled network; its name depends on OpenVINO's version, the processor and the options."""
    try:
        folder = data_folder() / "compiled"
    except InputError:
        return None
    about = (openvino().__version__, inference_core().get_property("CPU", "FULL_DEVICE_NAME"), sorted(options.items()))
    supported = sorted(capabilities()), os.environ.get(_LIMIT, "").upper()
    key = hashlib.sha256(repr((about, supported)).encode() + content).hexdigest()[:16]
    return folder / f"{name}-{key}.blob"
