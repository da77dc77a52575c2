"""OpenVINO: one Core for the process, and networks of the package compiled once for all runs on a computer."""

from __future__ import annotations

import functools
import hashlib
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mimik.config import InputError, data_folder
from mimik.files import write_whole

log = logging.getLogger(__name__)


_CONVERTER = "openvino.tools.ovc"


@functools.cache
def openvino() -> Any:
    """The package openvino, imported when it is first needed.

    Importing it reports to an analytics service and keeps a client number in the user's home; without the package
    openvino_telemetry it does neither. Its converter of other frameworks' models, not used here, would take most of the
    time, and is left to who imports it.
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
    """OpenVINO's Core, one for the life of the process.

    On processors with AMX the CPU plugin of each Core gives the thread a signal stack of its own and puts the one
    before back when it goes. Two that go in the order in which they came leave a stack that is unmapped, and the next
    signal, such as that of Ctrl-C, ends the process in a segmentation fault.
    """
    with _core_lock:
        return _only_core()


@functools.cache
def _only_core() -> Any:
    return openvino().Core()


def compiled_once(name: str, content: bytes, read: Callable[[], Any], options: dict[str, Any]) -> Any:
    """A network compiled for the CPU, kept beside the user's keys: reading that again takes a quarter of the time.

    Args:
        name: of the network, for the file.
        content: of the network's own file; another content is another network.
        read: gives the model, where there is nothing to be read again.
        options: of compile_model.
    """
    core = inference_core()
    kept = _kept(name, content, options)
    if kept is not None and kept.is_file():
        try:
            return core.import_model(kept.read_bytes(), "CPU", options)
        except (RuntimeError, OSError, ValueError):
            log.debug("%s is of no use and is made again", kept, exc_info=True)
    compiled = core.compile_model(read(), "CPU", options)
    if kept is not None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            data = compiled.export_model()
            write_whole(kept, data if isinstance(data, bytes) else data.getvalue())
        except (RuntimeError, OSError, InputError):
            log.debug("%s could not be kept", kept, exc_info=True)
    return compiled


def _kept(name: str, content: bytes, options: dict[str, Any]) -> Path | None:
    """Where a compiled network is kept: for this version of OpenVINO, this processor and these options."""
    try:
        folder = data_folder() / "compiled"
    except InputError:
        return None
    about = (openvino().__version__, inference_core().get_property("CPU", "FULL_DEVICE_NAME"), sorted(options.items()))
    capabilities = sorted(inference_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    key = hashlib.sha256(repr((about, capabilities)).encode() + content).hexdigest()[:16]
    return folder / f"{name}-{key}.blob"
