"""The voice network without torch: equal to the one that was trained, in pieces of any size, from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mimik.config import ModelError
from mimik.media import mel
from mimik.motion.generation.lips import (
    CHANNELS,
    FIRST_S,
    LIPS_HZ,
    LOOKAHEAD_S,
    NUM_OUTPUTS,
    LipPredictor,
    LipStream,
    VoiceModel,
    bundled_voice,
)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(0, 0.05, round(seconds * mel.RATE_HZ))
    return (samples * (1 + np.sin(np.arange(len(samples)) / 900))).astype(np.float32)


def test_it_is_the_network_that_was_trained() -> None:
    torch = pytest.importorskip("torch")
    from mimik.networks.voice import DILATIONS, VoiceNet

    torch.manual_seed(0)
    net = VoiceNet(mel.NUM_BANDS, NUM_OUTPUTS, channels=24, recurrent=10).eval()
    tensors = {name: value.numpy() for name, value in net.state_dict().items()}
    features = np.random.default_rng(0).normal(size=(120, mel.NUM_BANDS)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(features)[None])[0].numpy()
    out = LipPredictor(VoiceModel(tensors, {"network": {"dilations": list(DILATIONS)}}))(features)
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("size", [37, 160, 4001])
def test_pieces_of_any_size_give_the_same_lips(size: int) -> None:
    samples = noise(1.3)
    whole, parts = LipStream(bundled_voice()), LipStream(bundled_voice())
    once = [whole.push(samples), whole.finish()]
    many = [parts.push(samples[at : at + size]) for at in range(0, len(samples), size)] + [parts.finish()]
    for name in ("tracks", "touch", "loudness_db", "ahead_db", "level_db"):
        a, b = (np.concatenate([getattr(lips, name) for lips in each]) for each in (once, many))
        np.testing.assert_allclose(a[: len(b)], b[: len(a)], atol=1e-5)
    assert a.shape[0] >= 1.3 * LIPS_HZ


def test_an_output_needs_no_more_sound_than_it_says() -> None:
    samples, changed = noise(1.0), noise(1.0)
    changed[8000:] = 0
    before = round((0.5 - LOOKAHEAD_S - FIRST_S) * LIPS_HZ)  # outputs whose sound is over at 0.5 s
    a, b = (LipStream(bundled_voice()).push(x).tracks for x in (samples, changed))
    np.testing.assert_array_equal(a[:before], b[:before])
    assert LOOKAHEAD_S <= 0.15


def test_loudness_is_that_of_the_instant() -> None:
    samples = np.zeros(mel.RATE_HZ, np.float32)
    samples[8000:9600] = 0.5  # 0.5 to 0.6 s
    lips = LipStream(bundled_voice()).push(samples)
    times = FIRST_S + np.arange(len(lips.loudness_db)) / LIPS_HZ
    loud = times[lips.loudness_db > -20]
    assert loud.min() == pytest.approx(0.49, abs=0.02) and loud.max() == pytest.approx(0.59, abs=0.02)
    ahead = times[lips.ahead_db > -20]
    assert ahead.min() == pytest.approx(loud.min() + FIRST_S, abs=0.021)


def test_the_file_that_ships(tmp_path: Path) -> None:
    model = bundled_voice()
    network = {name: value for name, value in model.tensors.items() if not name.startswith("scale.")}
    assert sum(value.size for value in network.values()) < 1_000_000
    assert {"network", "training", "data", "step"} <= model.record.keys()
    path = tmp_path / "again.safetensors"
    model.save(path)
    assert path.stat().st_size < 2_000_000
    again = VoiceModel.load(path)
    assert again.record == model.record
    np.testing.assert_array_equal(again.members[0]["stem.weight"], model.members[0]["stem.weight"])
    assert len(model.tensors["scale.rise"]) == len(CHANNELS)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    texture = Path(__file__).parents[3] / "src" / "mimik" / "assets" / "texture.safetensors"
    for path in (text, texture, tmp_path / "none.safetensors"):
        with pytest.raises(ModelError, match=r"is not a voice network .* `mimik voice train` wrote"):
            VoiceModel.load(path)
