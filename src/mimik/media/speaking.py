"""Text to speech by a program of the system: espeak-ng, or piper with a voice of the user's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from mimik.config import InputError

MAX_LETTERS = 20_000
_TIMEOUT_S = 600
_DEFAULT_VOICE = "en-us"
_PIPER_SUFFIX = ".onnx"


def speak(text: str, out: Path, *, voice: str | None = None) -> Path:
    """Writes what a text sounds like, as a WAV file.

    Args:
        text: 1 to MAX_LETTERS letters.
        out: the file to write.
        voice: of espeak-ng, such as "en-us" or "de"; or piper's .onnx file. None is espeak-ng's en-us.

    Raises:
        InputError: if there is nothing to say, or no program that says it.
    """
    words = text.strip()
    if not words or len(words) > MAX_LETTERS:
        raise InputError(f"--say with {len(words)} letters: give 1 to {MAX_LETTERS}.")
    if voice is not None and voice.lower().endswith(_PIPER_SUFFIX):
        command = _piper(Path(voice), out)
    else:
        program = shutil.which("espeak-ng")
        if program is None:
            raise InputError(
                "--say: no speech program is installed; install espeak-ng (apt install espeak-ng, brew install "
                "espeak-ng), give piper's voice with --voice FILE.onnx, or give a recording as DRIVER."
            )
        command = [program, "-v", voice or _DEFAULT_VOICE, "-w", str(out), "--stdin"]
    try:
        done = subprocess.run(command, input=words.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"--say: {Path(command[0]).name} did not finish in {_TIMEOUT_S} s; give less text.") from None
    if done.returncode or not out.exists() or not out.stat().st_size:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:200].rstrip(".") if lines else f"exit code {done.returncode}"
        shown = f"--voice {voice}" if voice else "--say"
        raise InputError(f"{shown}: {Path(command[0]).name} made no sound ({reason}); try another voice or text.")
    return out


def _piper(voice: Path, out: Path) -> list[str]:
    if not voice.is_file():
        raise InputError(f"--voice {voice}: there is no such file; give piper's .onnx file with its .onnx.json beside.")
    program = shutil.which("piper")
    if program is None:
        raise InputError(
            f"--voice {voice}: piper is not installed; pip install piper-tts, or give a voice of espeak-ng such as "
            "en-us."
        )
    return [program, "--model", str(voice), "--output_file", str(out)]
