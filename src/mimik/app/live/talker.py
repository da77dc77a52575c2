"""A call driven by a sound file or by sound of another program: `mimik live PHOTO --audio`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mimik.animation.avatar import Avatar
from mimik.app.live.call import Call
from mimik.app.live.controls import Controls
from mimik.app.live.sound import Feeder, file_blocks, pipe_blocks
from mimik.config import AnimateConfig, InputError, check_number
from mimik.media import mel
from mimik.media.sound import Samples

PIPE = "-"


def open_audio(audio: str, rate: int | None) -> Iterator[Samples]:
    """Open the source of --audio and --audio-rate as blocks for Feeder.

    Raises InputError if there is no sound in it, or the rate is invalid.
    """
    if audio != PIPE:
        if rate is not None:
            raise InputError(f"--audio-rate {rate}: applies to --audio - only; a file states its own rate.")
        return file_blocks(Path(audio))
    if rate is not None:
        check_number("--audio-rate", rate, 4000, 192_000, "16000 and 24000 are usual")
    if sys.stdin.isatty():
        raise InputError("--audio -: no data is piped in; pipe 16-bit mono PCM into it, or use a sound file.")
    return pipe_blocks(sys.stdin.buffer, rate or mel.RATE_HZ)


class Talker(Call):
    """A call driven by blocks of sound; idles during silence."""

    _drives = "sound"

    def __init__(
        self,
        avatar: Avatar,
        blocks: Iterator[Samples],
        config: AnimateConfig | None = None,
        controls: Controls | None = None,
    ) -> None:
        """Args: avatar, config, controls: as in Call; blocks: of open_audio."""
        super().__init__(avatar, config, replace(controls or Controls(), driver="microphone"))
        self._feeder = Feeder(self.add_sound, blocks)

    def set(self, **changes: Any) -> None:
        if changes.get("driver", "microphone") != "microphone":
            raise InputError(
                "this call speaks what --audio supplies; start `mimik live` without --audio to use a camera."
            )
        super().set(**changes)

    @property
    def has_ended(self) -> bool:
        """Whether the end of the sound is reached."""
        return self._feeder.has_ended

    def __enter__(self) -> Call:
        super().__enter__()
        self._feeder.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._feeder.close()
        super().__exit__(*error)
