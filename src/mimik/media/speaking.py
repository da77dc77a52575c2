"""Text to speech by a program of the system: espeak-ng, or piper with a voice file of the user.

The phonemes of a sound file NAME.wav are stored beside it, if known, in NAME.phonemes: a text file with a line
`seconds<TAB>phoneme` for the start of every phoneme, in the International Phonetic Alphabet; the phoneme of silence is
empty. The last line is the end of the sound.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

from mimik.config import InputError
from mimik.media.sound import probe_sound

MAX_LETTERS = 20_000
_TIMEOUT_S = 600
_DEFAULT_VOICE = "en-us"
_PIPER_SUFFIX = ".onnx"
PHONEMES_SUFFIX = ".phonemes"
_SAME_S = 0.05  # largest difference between the end of the phonemes and that of their sound


def speak(text: str, out: Path, *, voice: str | None = None) -> Path:
    """Synthesize a text as a WAV file, and write its phonemes beside it if espeak-ng's library provides them.

    Args:
        text: 1 to MAX_LETTERS letters.
        out: the file to write.
        voice: of espeak-ng, such as "en-us" or "de", or piper's .onnx file; None: espeak-ng's en-us.

    Raises:
        InputError: if the text is empty or too long, or no speech program is installed or succeeds.
    """
    words = text.strip()
    if not words or len(words) > MAX_LETTERS:
        raise InputError(f"--say with {len(words)} characters: use 1 to {MAX_LETTERS}.")
    is_piper = voice is not None and voice.lower().endswith(_PIPER_SUFFIX)
    if voice is not None and is_piper:
        command = _piper(Path(voice), out)
    else:
        program = shutil.which("espeak-ng")
        if program is None:
            raise InputError(
                "--say: no speech program is installed; install espeak-ng (apt install espeak-ng, brew install "
                "espeak-ng), use piper's voice with --voice FILE.onnx, or use a recording as DRIVER."
            )
        command = [program, "-v", voice or _DEFAULT_VOICE, "-w", str(out), "--stdin"]
    try:
        done = subprocess.run(command, input=words.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"--say: {Path(command[0]).name} did not finish in {_TIMEOUT_S} s; use a shorter text."
        ) from None
    if done.returncode or not out.exists() or not out.stat().st_size:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:200].rstrip(".") if lines else f"exit code {done.returncode}"
        shown = f"--voice {voice}" if voice else "--say"
        raise InputError(f"{shown}: {Path(command[0]).name} produced no sound ({reason}); try another voice or text.")
    phonemes = None if is_piper else _phonemes_of(words, voice or _DEFAULT_VOICE, out)
    beside = out.with_suffix(PHONEMES_SUFFIX)
    if phonemes is None:
        beside.unlink(missing_ok=True)
    else:
        beside.write_text(phonemes, "utf-8")
    return out


def _phonemes_of(text: str, voice: str, sound: Path) -> str | None:
    """Phoneme lines of a text; None if espeak-ng's library is missing or its timing differs from that of the sound."""
    # Run in a separate process: the library has global state, and only its first output equals the program's.
    command = [sys.executable, "-m", "mimik.media.espeak", voice]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=True)
        lines = done.stdout.decode()
        end_s, duration_s = _phonemes_in(lines)[-1][0], probe_sound(sound).duration_s
    except (subprocess.SubprocessError, OSError, ValueError, InputError):
        return None
    return lines if duration_s is not None and abs(end_s - duration_s) < _SAME_S else None


def _phonemes_in(lines: str) -> list[tuple[float, str]]:
    """Parse phoneme lines; raises ValueError if they are malformed or their times are not in order."""
    out = []
    for line in lines.splitlines():
        seconds, _, name = line.partition("\t")
        out.append((float(seconds), name.strip()))
    starts = [seconds for seconds, _ in out]
    if not out or starts != sorted(starts) or not all(math.isfinite(seconds) for seconds in starts):
        raise ValueError("the instants are not in order")
    return out


def phonemes_beside(sound: Path) -> list[tuple[float, str]] | None:
    """Phonemes of a sound file, from the file beside it; None if there is none.

    Raises InputError if that file is malformed.
    """
    path = sound.with_suffix(PHONEMES_SUFFIX)
    if not path.is_file():
        return None
    try:
        return _phonemes_in(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} does not list the phonemes of {sound.name} ({error}); use lines of seconds, a tab and a phoneme, "
            "in order of time, or remove the file."
        ) from None


def _piper(voice: Path, out: Path) -> list[str]:
    if not voice.is_file():
        raise InputError(f"--voice {voice}: no such file; use piper's .onnx file with its .onnx.json beside it.")
    program = shutil.which("piper")
    if program is None:
        raise InputError(
            f"--voice {voice}: piper is not installed; pip install piper-tts, or use a voice of espeak-ng such as "
            "en-us."
        )
    return [program, "--model", str(voice), "--output_file", str(out)]
