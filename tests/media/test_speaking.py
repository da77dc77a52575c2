"""Text to speech by installed programs: the command lines, and the message if there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mimik.config import InputError
from mimik.media.sound import probe_sound
from mimik.media.speaking import MAX_LETTERS, phonemes_beside, speak


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that contains only programs made by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, lines: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
    (folder / name).chmod(0o755)


def test_nothing_is_installed(empty_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no speech program is installed; install espeak-ng .* or use a recording"):
        speak("hello", tmp_path / "x.wav")


@pytest.mark.parametrize("text", ["", "  \n", "a" * (MAX_LETTERS + 1)])
def test_nothing_or_too_much_to_say(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--say with \d+ characters: use 1 to 20000"):
        speak(text, tmp_path / "x.wav")


def test_what_espeak_is_given(empty_path: Path, tmp_path: Path) -> None:
    program(empty_path, "espeak-ng", f'echo "$@" > {tmp_path}/called; read line; echo "$line" > "$4"')
    out = speak(" -q; rm $HOME\n", tmp_path / "x.wav", voice="de")
    assert (tmp_path / "called").read_text().split() == ["-v", "de", "-w", str(out), "--stdin"]
    assert out.read_text() == "-q; rm $HOME\n"  # the text is never part of the command


def test_what_piper_is_given(empty_path: Path, tmp_path: Path) -> None:
    voice = tmp_path / "joe.onnx"
    with pytest.raises(InputError, match=r"joe\.onnx: no such file; use piper's \.onnx"):
        speak("hello", tmp_path / "x.wav", voice=str(voice))
    voice.write_bytes(b"x")
    with pytest.raises(InputError, match="piper is not installed; pip install piper-tts"):
        speak("hello", tmp_path / "x.wav", voice=str(voice))
    program(empty_path, "piper", f'echo "$@" > {tmp_path}/called; read line; echo "$line" > "$4"')
    out = speak("hello", tmp_path / "x.wav", voice=str(voice))
    assert (tmp_path / "called").read_text().split() == ["--model", str(voice), "--output_file", str(out)]


def test_a_program_that_fails(empty_path: Path, tmp_path: Path) -> None:
    program(empty_path, "espeak-ng", "echo 'no voice xx.' >&2; exit 3")
    with pytest.raises(InputError, match=r"--voice xx: espeak-ng produced no sound \(no voice xx\); try another voice"):
        speak("hello", tmp_path / "x.wav", voice="xx")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_speaks(tmp_path: Path) -> None:
    path = speak("One two three.", tmp_path / "x.wav")
    info = probe_sound(path)
    assert info.duration_s is not None and 0.5 < info.duration_s < 5
    phonemes = phonemes_beside(path)
    assert phonemes is not None and phonemes[-1][0] == pytest.approx(info.duration_s, abs=0.005)
    assert "".join(name for _, name in phonemes).startswith("wʌn")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_phonemes_of_another_sound_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = speak("One two three.", tmp_path / "x.wav")
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    assert phonemes_beside(speak("Four.", path)) is None  # phonemes of the earlier speech are deleted
    program(tmp_path, "python", 'printf "0.0\\tf\\n9.0\\t\\n"')
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert phonemes_beside(speak("Four.", path)) is None  # 9 s differ from the length of the sound


@pytest.mark.parametrize("lines", ["", "x\ta\n", "1.0\ta\n0.5\tb\n", "nan\ta\n"])
def test_files_that_are_not_phonemes(lines: str, tmp_path: Path) -> None:
    assert phonemes_beside(tmp_path / "y.wav") is None
    (tmp_path / "y.phonemes").write_text(lines)
    with pytest.raises(InputError, match=r"y\.phonemes does not list the phonemes of y\.wav .* or remove the file"):
        phonemes_beside(tmp_path / "y.wav")
