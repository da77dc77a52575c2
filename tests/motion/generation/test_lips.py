"""The voice network without torch: equal to the trained one, for blocks of any size, from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mimik.config import ModelError
from mimik.media import mel
from mimik.media.sound import read_sound
from mimik.motion.generation.lips import (
    CHANNELS,
    CONTACT_AFTER,
    CONTACT_BEFORE,
    FIRST_S,
    GAP,
    LIPS_HZ,
    LOOKAHEAD_S,
    NUM_OUTPUTS,
    PAUSE,
    QUIET_OPENING,
    TOUCH_GAP,
    ContactRule,
    LipPredictor,
    LipStream,
    VoiceModel,
    bundled_voice,
    contact_score,
    contacts,
    joined,
    parted,
)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(0, 0.05, round(seconds * mel.RATE_HZ))
    return (samples * (1 + np.sin(np.arange(len(samples)) / 900))).astype(np.float32)


def espeak_speech() -> np.ndarray:
    return np.concatenate(list(read_sound(Path(__file__).parents[2] / "fixtures" / "espeak_speech.ogg")))


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


def test_the_lookahead_is_as_declared() -> None:
    samples, changed = noise(1.0), noise(1.0)
    changed[8000:] = 0
    before = round((0.5 - LOOKAHEAD_S - FIRST_S) * LIPS_HZ)  # outputs that depend only on sound before 0.5 s
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


def test_lips_touch_where_the_score_is_lowest_not_wherever_it_is_low() -> None:
    score = np.array([0.3, 0.2, 0.1, 0.05, 0.02, 0.04, 0.09, 0.2, 0.3, 0.3, 0.25, 0.2, 0.25, 0.3], np.float32)
    padded = np.concatenate([np.full(CONTACT_BEFORE, np.inf), score, np.full(CONTACT_AFTER, np.inf)])
    assert np.flatnonzero(contacts(padded, 0.15)).tolist() == [3, 4]
    assert np.flatnonzero(contacts(padded, 0.21)).tolist() == [3, 4, 10, 11]
    assert not contacts(padded, 0.01).any()
    twice = np.array([0.3, 0.3, 0.3, 0.3, 0.1, 0.2, 0.05, 0.2, 0.3, 0.3, 0.3], np.float32)  # 40 ms apart
    edge = [np.full(count, np.inf) for count in (CONTACT_BEFORE, CONTACT_AFTER)]
    assert np.flatnonzero(contacts(np.concatenate([edge[0], twice, edge[1]]), 0.15)).tolist() == [5, 6]
    assert np.flatnonzero(contacts(np.concatenate([edge[0], twice, edge[1][2:]]), 0.15, 1)).tolist() == [3, 4, 5, 6]
    logits = np.array([2.0, -9.0], np.float32)
    assert contact_score(np.zeros(2, np.float32), logits, 0.06) == pytest.approx([-0.24, 0.12])


def test_brief_small_openings_between_contacts_are_left_out() -> None:
    """By hand: "#" is contact, the digits are openings in tenths of an eye distance, 0 is less than one of them."""

    def made(row: str, before: bool = False, is_open: str = "") -> str:
        touch, gap = np.array([c == "#" for c in row]), np.array([0.1 * (c != "#" and int(c)) for c in row])
        out = joined(touch, gap.astype(np.float32), np.array([c in is_open for c in row]), before)
        return "".join("#" if value else "." for value in out)

    assert made("00#0000##000000#0000000#01") == "..##############.......#.."
    assert made("#0010##2#") == "#....##.#"
    assert made("00#00#", before=True) == "######" and made("00#") == "..#"
    assert made("#00#0#", is_open="0") == "#..#.#"


def test_live_lips_come_nine_steps_earlier_and_touch_a_step_later() -> None:
    speech = espeak_speech()
    whole, live = (LipStream(bundled_voice(), is_live=is_live).push(speech) for is_live in (False, True))
    assert len(live.touch) == len(whole.touch) + 9
    loud = whole.loudness_db > whole.level_db - 20
    both = loud[1:] & loud[:-1]
    later, touch = live.touch[1:-9][both], whole.touch[:-1][both]
    assert later[touch].mean() > 0.8 and later.sum() < 2 * touch.sum()  # live, openings between near closures remain
    np.testing.assert_array_equal(live.tracks[:-9], whole.tracks)


def with_pause_logit(value: float) -> VoiceModel:
    """The bundled network with a constant logit of a pause."""
    model = bundled_voice()
    head, bias = (model.tensors[f"0.head.{name}"].copy() for name in ("weight", "bias"))
    head[PAUSE], bias[PAUSE] = 0, value
    return VoiceModel({**model.tensors, "0.head.weight": head, "0.head.bias": bias}, model.record)


def test_a_probable_pause_shuts_small_openings_and_a_sure_one_all() -> None:
    made = [LipStream(with_pause_logit(value), is_live=True).push(espeak_speech()) for value in (-9.0, 1.0, 3.0)]
    never, probable, sure = (lips.touch for lips in made)
    gap = made[0].tracks[:, GAP]
    is_small = gap < QUIET_OPENING
    is_free = made[0].labiodental < 0.5  # f and v are no pause
    assert sure[is_free].all() and not never.all()
    np.testing.assert_array_equal(probable[is_free], never[is_free] | is_small[is_free])
    assert (gap[is_free & ~is_small] > QUIET_OPENING).any()


def test_lips_that_do_not_touch_are_parted_and_wide_openings_stay() -> None:
    gap = np.linspace(-0.1, 0.5, 61).astype(np.float32)
    out = parted(gap)
    assert (np.diff(out) > 0).all() and out.min() > 2 * TOUCH_GAP
    np.testing.assert_allclose(out[gap > 0.15], gap[gap > 0.15], atol=1e-3)


def test_while_somebody_speaks_lips_are_seldom_shut() -> None:
    lips = LipStream(bundled_voice(), start_db=-20).push(espeak_speech())
    speaking = lips.loudness_db > lips.level_db - 15
    assert 0.02 < lips.touch[speaking].mean() < 0.25
    assert lips.tracks[~lips.touch, GAP].min() > 2 * TOUCH_GAP


def test_the_rule_of_contact_in_files_of_each_age() -> None:
    older = VoiceModel({"scale.touch": np.array([-0.5, 0.075], np.float32)}, {})
    assert ContactRule.of(older) == pytest.approx((0.12, 0.06, 0.075))
    for stored, rule in (((0.2,), (0.2, 0.06, 0.155)), ((0.2, 0.3, 0.1), (0.2, 0.3, 0.1))):
        assert ContactRule.of(VoiceModel({"scale.contact": np.array(stored)}, {})) == pytest.approx(rule)


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


def test_the_shared_network_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        bundled_voice().tensors["scale.spread"][0] = 1


def test_files_that_are_something_else(tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    texture = Path(__file__).parents[3] / "src" / "mimik" / "assets" / "texture.safetensors"
    none = tmp_path / "none.safetensors"
    for path, said in ((text, "is not a voice network"), (texture, "is not a voice network"), (none, "no such file")):
        with pytest.raises(ModelError, match=f"{said}.* `mimik voice train` wrote"):
            VoiceModel.load(path)
