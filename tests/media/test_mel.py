"""Log-mel features: against a slow reference, and independent of level and blocks."""

from __future__ import annotations

import numpy as np
import pytest

from mimik.media import mel


def test_log_mel_follows_its_definition() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, mel.WINDOW + 3 * mel.HOP).astype(np.float32)
    bands, loudness = mel.log_mel(samples)
    assert bands.shape == (4, mel.NUM_BANDS) and loudness.shape == (4,)
    frame = samples[2 * mel.HOP : 2 * mel.HOP + mel.WINDOW].astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.WINDOW) / mel.WINDOW)
    turns = np.outer(np.arange(257), np.arange(mel.WINDOW)) / 512
    power = np.abs((np.exp(-2j * np.pi * turns) * (frame * window)).sum(1)) ** 2 / (window**2).sum() / 512
    expected = 10 * np.log10(power @ mel.mel_filters() + 1e-8 / 512)
    np.testing.assert_allclose(bands[2], expected, atol=0.01)
    assert loudness[2] == pytest.approx(10 * np.log10((frame**2).mean()), abs=0.01)


def test_a_tone_is_in_its_band() -> None:
    time = np.arange(mel.RATE_HZ) / mel.RATE_HZ
    bands, loudness = mel.log_mel((0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))
    peak = mel.mel_filters()[:, bands[10].argmax()].argmax() / 256 * 8000
    assert abs(peak - 1000) < 60
    assert loudness[10] == pytest.approx(10 * np.log10(0.125), abs=0.05)


def test_every_filter_has_area_one() -> None:
    np.testing.assert_allclose(mel.mel_filters().sum(0), 1, rtol=1e-5)


def test_features_do_not_depend_on_the_recordings_level() -> None:
    rng = np.random.default_rng(1)
    loud = (rng.normal(0, 0.2, 8000) * (1.2 + np.sin(np.arange(8000) / 500))).astype(np.float32)
    both = []
    for samples in (loud, loud * np.float32(0.25)):
        bands, loudness = mel.log_mel(samples)
        both.append(mel.features(bands, mel.Level(mel.speech_level(loudness))(loudness)))
    np.testing.assert_allclose(both[0], both[1], atol=0.05)


def test_the_level_follows_what_is_louder_and_forgets_slowly() -> None:
    level = mel.Level(-40)
    up = level(np.full(100, -20, np.float32))
    assert up[-1] == pytest.approx(-20, abs=0.1) and up[0] == pytest.approx(-40 + 0.08 * 20)
    down = level(np.full(100, -70, np.float32))
    assert down[-1] == pytest.approx(-21.5, abs=0.1)


def test_the_level_continues_across_pieces() -> None:
    loudness = np.random.default_rng(2).uniform(-60, -10, 200).astype(np.float32)
    whole, parts = mel.Level(), mel.Level()
    np.testing.assert_array_equal(whole(loudness), np.concatenate([parts(loudness[:70]), parts(loudness[70:])]))


def test_initial_silence_has_the_default_level() -> None:
    assert mel.speech_level(np.full(50, -80, np.float32)) == mel.START_DB
    assert np.isfinite(mel.features(*(np.full((3, 64), -107.0), np.full(3, -28.0)))).all()
