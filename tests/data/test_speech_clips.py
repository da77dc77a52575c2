"""Speech clips: reading, omitted clips, and synchronization of augmented sound and lips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mimik.data import speech
from mimik.data.preparation.sources import Source, choose_people, find_sources
from mimik.data.speech import SpeechClip, augmented, lip_geometry, load_clip, load_clips, piece_of, resampled
from mimik.media import mel
from mimik.motion.generation.lips import CHANNELS, FIRST_S, GAP, LIPS_HZ


def clip(seconds: float = 3.0, fps: float = 25.0) -> SpeechClip:
    """A burst of sound from 1.0 to 1.4 s, with open lips."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * mel.RATE_HZ)) / mel.RATE_HZ
    heard = (time > 1.0) & (time < 1.4)
    frames = np.arange(int(seconds * fps)) / fps
    tracks = np.zeros((len(frames), len(CHANNELS)), np.float32)
    tracks[(frames > 1.0) & (frames < 1.4)] = 0.2
    sound = (rng.normal(0, 0.2, len(time)) * heard + rng.normal(0, 1e-4, len(time))).astype(np.float32)
    return SpeechClip("x", "a", sound, fps, tracks, np.ones(len(frames), bool))


def test_tracks_between_frames_and_beyond_the_end() -> None:
    c = clip()
    c.tracks[10, GAP], c.tracks[11, GAP] = 0.1, 0.3
    values, known = c.at(np.array([0.4, 0.42, 0.44, 5.0, -0.1]))
    np.testing.assert_allclose(values[:3, GAP], [0.1, 0.2, 0.3], atol=1e-6)
    assert known.tolist() == [True, True, True, False, False]


def test_lips_over_the_distance_of_the_eyes() -> None:
    points = np.zeros((1, 478, 3))
    points[0, [33, 133], 0] = 1.0
    points[0, [362, 263], 0] = 7.0
    points[0, 14, 1], points[0, 291, 0] = 1.5, 4.2
    np.testing.assert_allclose(lip_geometry(points), [[0.25, 0.7]], rtol=1e-6)


@pytest.mark.parametrize("speed", [1.0, 0.8, 1.25])
def test_sound_and_lips_stay_together_at_any_speed(speed: float) -> None:
    c = clip()
    piece = piece_of(c, sound=resampled(c.sound, speed), speed=speed)
    times = FIRST_S + np.arange(len(piece.known)) / LIPS_HZ
    opened = times[piece.tracks[:, GAP] > 0.1]
    # Output i is for a time 145 ms before the end of its features.
    energy = piece.features.mean(1)[::2]
    heard = (np.flatnonzero(energy > energy.max() - 0.7) / LIPS_HZ) + mel.WINDOW / mel.RATE_HZ / 2
    assert opened.min() == pytest.approx(1.0 / speed, abs=0.05) and opened.max() == pytest.approx(1.4 / speed, abs=0.05)
    assert heard.min() == pytest.approx(1.0 / speed, abs=0.05) and heard.max() == pytest.approx(1.4 / speed, abs=0.05)


def test_augmented_pieces_are_finite_and_differ() -> None:
    c, rng = clip(), np.random.default_rng(1)
    pieces = [augmented(c, rng, c.sound) for _ in range(12)]
    assert all(np.isfinite(p.features).all() and len(p.features) == 2 * len(p.known) for p in pieces)
    assert len({p.features.tobytes() for p in pieces}) == 12


def test_a_tone_resampled_has_another_pitch() -> None:
    time = np.arange(mel.RATE_HZ) / mel.RATE_HZ
    fast = resampled(np.sin(2 * np.pi * 400 * time).astype(np.float32), 1.25)
    peak = np.abs(np.fft.rfft(fast)).argmax() * mel.RATE_HZ / len(fast)
    assert peak == pytest.approx(500, abs=3)


def test_clips_that_are_of_no_use_are_left_out(tmp_path: Path) -> None:
    def save(name: str, **changed: object) -> None:
        c = clip()
        arrays = {
            "fps": 25.0,
            "blendshapes": np.zeros((75, 52), np.float32),
            "lips": c.tracks[:, -2:],
            "points": np.zeros((75, 478, 3), np.float16),
            "seen": c.seen,
            "sound": (c.sound * 32767).astype(np.int16),
            "person": "a",
        }
        arrays["points"][:, [362, 263], 0] = 6
        arrays["points"][:, 14, 1] = 6 * c.tracks[:, GAP]
        np.savez(tmp_path / f"{name}.npz", **(arrays | changed))

    save("good")
    save("silent", sound=np.zeros(48000, np.int16))
    save("unseen", seen=np.zeros(75, bool))
    save("short", sound=np.zeros(800, np.int16))
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    assert [c.name for c in load_clips(tmp_path)] == ["good"]
    assert load_clip(tmp_path / "good.npz").tracks[30, GAP] == pytest.approx(0.2, abs=1e-3)


def test_videos_of_the_same_name_in_two_folders_are_two_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in VoxCeleb: id1/001.mp4 and id2/001.mp4.
    for name in ("id1/001.mp4", "id2/001.mp4", "id2/002.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"video")
    monkeypatch.setattr(speech, "track_clip", lambda path, landmarker: {"size": np.array(len(path.parts))})
    sources, _, _ = choose_people(find_sources([tmp_path / "videos"]), "folder", None)
    out = tmp_path / "tracks"
    assert speech.track_folder(sources, out, lambda *progress: None) == {}
    people = {path.name: str(np.load(path)["person"]) for path in out.iterdir()}
    assert people == {"id1-001.npz": "id1", "id2-001.npz": "id2", "002.npz": "id2"}


def test_a_draft_of_a_killed_run_is_not_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(file: object, **arrays: object) -> None:
        assert not list(tmp_path.glob("*.npz")), "pathlib's * matches hidden files, too"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(speech, "track_clip", lambda path, landmarker: {})
    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        speech.track_folder([Source(tmp_path / "a.mp4", "a.mp4")], tmp_path, lambda *progress: None)
    assert not list(tmp_path.iterdir())
