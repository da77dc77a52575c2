"""Learning a person from files, for the command line and the web page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mimik.config import extra
from mimik.face.landmarks import Landmarker
from mimik.pipeline import Progress
from mimik.training.arguments import LearnArguments
from mimik.training.photos import Deadline, read_photos


def learn_files(
    photos: Sequence[Path],
    out: Path,
    arguments: LearnArguments,
    *,
    progress: Callable[[Any, int, int], None],
    preparing: Progress,
    began_s: float | None = None,
) -> Any:
    """Reads the photos, then loads torch, which takes seconds, and fine-tunes; a missing torch is reported at once.

    Args:
        photos: pictures, folders and videos of the person.
        out, arguments, progress, preparing, began_s: as for fine_tuning.learn.

    Returns a fine_tuning.LearnOutcome.

    Raises InputError, and writes nothing, if an input cannot be used, torch is missing or the file cannot be written.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for `mimik train`
    with extra("learn", "train"):
        if find_spec("torch") is None:
            raise ModuleNotFoundError(name="torch")
    began_s = time.monotonic() if began_s is None else began_s
    read = read_photos(
        photos,
        Landmarker(),
        face=arguments.face,
        shots=arguments.shots,
        deadline=Deadline.after(arguments.max_seconds, began_s),
        progress=preparing,
    )
    preparing("loading", 0, None)
    with extra("learn", "train"):
        from mimik.training import fine_tuning
    return fine_tuning.learn(read, out, arguments, progress=progress, preparing=preparing, began_s=began_s)
