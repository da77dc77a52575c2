"""Text to speech by espeak-ng's library, with the start time of every phoneme.

`python -m mimik.media.espeak VOICE < TEXT` prints the phonemes of a text in the format that mimik.media.speaking reads.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.config import InputError
from mimik.media import mel

# Constants of espeak-ng's speak_lib.h: options of espeak_Initialize and espeak_Synth, event types, parameters.
_RETRIEVAL, _PHONEME_EVENTS, _AS_IPA, _DO_NOT_EXIT = 2, 1 << 0, 1 << 1, 1 << 15
_UTF8, _END_PAUSE, _CHARACTERS = 1, 1 << 12, 1
_END_OF_EVENTS, _PHONEME = 0, 7
_SPEED, _PITCH, _PITCH_RANGE = 1, 3, 4


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("type", "identifier", "text_position", "length", "audio_ms", "sample")),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """espeak-ng's library; only one instance may be used per process."""

    def __init__(self, *, ipa: bool = False) -> None:
        """Args: ipa: whether phonemes are named in the International Phonetic Alphabet, else by espeak-ng's own names.

        Raises InputError if the library is not installed.
        """
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise InputError(
                "the library of espeak-ng is not installed; install it (apt install espeak-ng, brew install "
                "espeak-ng), or train without it: --spoken 0."
            )
        self._library = ctypes.CDLL(name)
        options = _PHONEME_EVENTS | _DO_NOT_EXIT | (_AS_IPA if ipa else 0)
        self._rate = self._library.espeak_Initialize(_RETRIEVAL, 0, None, options)
        self._sound: list[NDArray[np.int16]] = []
        self._phonemes: list[tuple[float, str]] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._sound.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while (event := events[index]).type != _END_OF_EVENTS:
            if event.type == _PHONEME:
                self._phonemes.append((event.audio_ms / 1000, event.id.string.decode("utf-8", "ignore")))
            index += 1
        return 0

    def say(
        self,
        text: str,
        voice: str = "en-us",
        *,
        words_a_minute: int = 165,
        pitch: int = 50,
        pitch_range: int = 50,
        end_pause: bool = False,
    ) -> tuple[Array, list[tuple[float, str]]]:
        """Speech samples [N] at mel.RATE_HZ, and (start in seconds, name) of each phoneme.

        Raises InputError if the voice does not exist.
        """
        self._sound.clear()
        self._phonemes.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise InputError(f"espeak-ng has no voice {voice}; `espeak-ng --voices` lists them.")
        for parameter, value in ((_SPEED, words_a_minute), (_PITCH, pitch), (_PITCH_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        flags = _UTF8 | (_END_PAUSE if end_pause else 0)
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, _CHARACTERS, 0, flags, None, None)
        self._library.espeak_Synchronize()
        sound = np.concatenate([np.zeros(0, np.int16), *self._sound]).astype(np.float32) / 32768
        where = np.arange(0, len(sound) - 1, self._rate / mel.RATE_HZ)
        return np.interp(where, np.arange(len(sound)), sound).astype(np.float32), list(self._phonemes)


PROGRAM_WORDS_A_MINUTE = 175  # default of the espeak-ng program


def main() -> None:
    """Print a line `seconds<TAB>phoneme` for each phoneme of the text on standard input, and a line for the end."""
    text = sys.stdin.buffer.read().decode()
    sound, phonemes = Espeak(ipa=True).say(text, sys.argv[1], words_a_minute=PROGRAM_WORDS_A_MINUTE, end_pause=True)
    end = (len(sound) / mel.RATE_HZ, "")
    lines = [f"{seconds:.3f}\t{name}\n" for seconds, name in (*phonemes, end)]
    sys.stdout.buffer.write("".join(lines).encode())


if __name__ == "__main__":
    main()
