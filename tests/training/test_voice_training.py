"""Training of the voice network: the loss computed by hand, a few steps through the real entry, and their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mimik.config import InputError
from mimik.data import voice_heads
from mimik.data.articulation import TAUGHT, Mouth, Utterance, mouths_of
from mimik.data.speech import SpeechClip, features_of, held_out, instants, piece_of, rest_of, scale_of
from mimik.data.voice_heads import with_real_jaw
from mimik.face.landmarks import BLENDSHAPES
from mimik.media import mel
from mimik.motion.generation.lips import (
    CHANNELS,
    GAP,
    JAW,
    LABIODENTAL,
    NUM_OUTPUTS,
    PAUSE,
    TOUCH,
    LipPredictor,
    LipStream,
    Member,
    VoiceModel,
    bundled_voice,
)
from mimik.motion.generation.speech import SpeechMotion
from mimik.training.voice import loop as voice
from mimik.training.voice.loop import VoiceConfig, train_voice
from mimik.training.voice.losses import WEIGHTS, spoken_loss, teacher_loss, voice_loss
from mimik.training.voice.pool import Pool

TINY = VoiceConfig(
    channels=8, recurrent=4, members=2, batch_size=4, piece_steps=50, num_steps=4, refreshed=1, spoken=0, align_at=(2,)
)


def clip(person: str, seconds: float = 3.0, seed: int = 0) -> SpeechClip:
    """A tone whose loudness determines the mouth opening."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * mel.RATE_HZ)) / mel.RATE_HZ
    open_ = np.sin(2 * np.pi * 1.3 * time + seed) ** 2
    sound = (0.3 * open_ * np.sin(2 * np.pi * 300 * time) + rng.normal(0, 1e-3, len(time))).astype(np.float32)
    frames = np.arange(int(seconds * 25)) / 25
    gap = 0.2 * np.sin(2 * np.pi * 1.3 * frames + seed) ** 2
    tracks = np.repeat(gap[:, None], len(CHANNELS), 1).astype(np.float32)
    return SpeechClip(f"{person}{seed}", person, sound, 25.0, tracks, np.ones(len(frames), bool))


def test_the_loss_of_the_right_answer_and_of_twice_as_much() -> None:
    y = torch.sin(torch.arange(60) / 5.0)[None, :, None].repeat(1, 1, len(CHANNELS))
    known, touch = torch.ones(1, 60), torch.zeros(1, 60)
    right = torch.cat([y, torch.full((1, 60, 1), -20.0)], 2)
    _, terms = voice_loss(right, y, y, touch, known, TINY)
    assert terms["position"] == terms["velocity"] == terms["absolute"] == pytest.approx(0, abs=1e-6)
    assert terms["touch"] == pytest.approx(0, abs=1e-6) and terms["correlation"] < 0.05
    _, twice = voice_loss(torch.cat([2 * y, right[..., -1:]], 2), y, y, touch, known, TINY)
    assert twice["velocity"] == pytest.approx(float((y[:, 1:] - y[:, :-1]).abs().sum() / 60 / len(CHANNELS)), rel=1e-4)
    assert twice["position"] > 0.1 and twice["correlation"] < 0.05  # the same shape
    _, upside_down = voice_loss(-right, y, y, touch, known, TINY)
    assert upside_down["correlation"] > 1.9


def test_unknown_frames_have_no_part_in_the_loss() -> None:
    y = torch.randn(2, 60, len(CHANNELS))
    out, touch, known = torch.randn(2, 60, NUM_OUTPUTS), torch.zeros(2, 60), torch.ones(2, 60)
    known[:, 40:] = 0
    changed = out.clone()
    changed[:, 40:] += 5
    a, b = (float(voice_loss(o, y, y, touch, known, TINY)[0]) for o in (out, changed))
    assert a == pytest.approx(b, rel=1e-6)


def test_rest_is_where_the_lips_are_closest() -> None:
    tracks = np.tile(np.linspace(0.3, 0.01, 40)[:, None], (1, len(CHANNELS)))
    assert rest_of(tracks)[GAP] == pytest.approx(np.median(tracks[-3:, GAP]))


def test_a_batch_is_what_the_network_takes_about_the_clips_mean() -> None:
    clips = [clip("a", seed=i) for i in range(3)]
    values, about, above, touch, known = Pool(clips, set(), TINY).batch()[:5]
    assert values.shape == (4, 100, mel.NUM_BANDS) and about.shape == above.shape == (4, 50, len(CHANNELS))
    assert touch.shape == known.shape == (4, 50) and set(known.unique().tolist()) <= {0.0, 1.0}
    assert abs(float((about * known[..., None]).sum() / known.sum() / len(CHANNELS))) < 0.7


def test_every_eighth_speaker_is_held_out() -> None:
    clips = [clip(f"p{i:02d}", seed=i) for i in range(12)]
    training, held = held_out(clips)
    assert {c.person for c in held} == {"p03", "p11"} and len(training) == 10
    with pytest.raises(InputError, match="the clips show 1 speaker; use clips of several people"):
        held_out([clip("a"), clip("a", seed=1)])


def write(folder: Path, people: int) -> Path:
    folder.mkdir()
    for i in range(people):
        c = clip(f"p{i}", seed=i)
        shapes = np.zeros((len(c.tracks), 52), np.float32)
        points = np.zeros((len(c.tracks), 478, 3), np.float16)
        points[:, [362, 263], 0] = 6
        points[:, 14, 1] = 6 * c.tracks[:, GAP]
        points[:, 291, 0] = 5
        sound = (c.sound * 32767).astype(np.int16)
        np.savez(
            folder / f"{c.name}.npz",
            fps=25.0, blendshapes=shapes, points=points, seen=c.seen, sound=sound, person=c.person,
        )  # fmt: skip
    return folder


def test_a_run_leaves_a_network_that_moves_lips_and_resumes(tmp_path: Path) -> None:
    tracks = write(tmp_path / "tracks", 4)
    path = train_voice(tracks, tmp_path / "run", TINY)
    model = VoiceModel.load(path)
    assert model.record["step"] == 4 and model.record["data"]["speakers"] == 3
    assert model.record["network"]["channels"] == 8 and len(model.members) == 2
    lips = LipStream(model).push(clip("a").sound)
    assert lips.tracks.shape[1] == len(CHANNELS) and np.isfinite(lips.tracks).all()
    train_voice(tracks, tmp_path / "run", replace(TINY, num_steps=6))
    lines = [json.loads(line) for line in (tmp_path / "run" / voice.STATS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 4, 6, 6]  # of two networks
    more = VoiceModel.load(train_voice(tracks, tmp_path / "more", replace(TINY, channels=10), init=path))
    assert more.record["network"]["channels"] == 8 and len(more.members) == 2  # those of the file
    with pytest.raises(InputError, match=r"contains a run with .*channels.*; use another folder"):
        train_voice(tracks, tmp_path / "run", replace(TINY, channels=10))
    with pytest.raises(InputError, match=r"contains a run on other clips; use another folder"):
        train_voice(write(tmp_path / "five", 5), tmp_path / "run", replace(TINY, num_steps=8))
    state = tmp_path / "run" / "member0" / voice.STATE
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"voice_state.pt is damaged"):
        train_voice(tracks, tmp_path / "run", replace(TINY, num_steps=8))


def test_what_is_released_is_the_mean_of_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []

    def save(state: dict, path: Path) -> None:
        saved.append({name: value.clone() for name, value in state["ema"].items()})
        original(state, path)

    original = torch.save
    monkeypatch.setattr(torch, "save", save)
    clips = [clip("a"), clip("b", seed=1)]
    config = replace(TINY, num_steps=6)
    voice.train_member(clips, tmp_path, config, one_speaker=set(), watched={}, save_every=2)
    assert len(saved) == 3  # after 2, 4 and 6 steps
    model = voice.released([voice.averaged(tmp_path)], config, clips, scale_of(clips), {})
    mean = sum(state["head.weight"] for state in saved[1:]) / 2  # of the second half
    np.testing.assert_allclose(model.tensors["0.head.weight"], mean.numpy(), atol=1e-6)


def test_outputs_that_the_weights_lack_begin_at_nothing() -> None:
    net = voice.VoiceNet(mel.NUM_BANDS, NUM_OUTPUTS, channels=8, recurrent=4)
    older = {name: value.numpy() for name, value in net.state_dict().items()}
    older["head.weight"], older["head.bias"] = older["head.weight"][:-1] + 1, older["head.bias"][:-1]
    started = voice._started(net.state_dict(), older)
    net.load_state_dict(started)
    np.testing.assert_array_equal(started["head.weight"][:-1].numpy(), older["head.weight"])
    assert not started["head.weight"][-1].any() and started["head.bias"][-1] == 0


def test_a_folder_without_clips(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no clip of a talking face; use a folder that `mimik voice tracks"):
        train_voice(tmp_path, tmp_path / "run", TINY)


def test_calibration_gives_the_amplitude_that_is_real() -> None:
    clips = [clip("a", seed=i) for i in range(2)]

    class Half(torch.nn.Module):
        """Half of the correct tracks; certain contact below 0.05, and no labiodental there."""

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            y = self.piece.tracks / scale.spread * 0.5
            touch = np.where(self.piece.touch, 5.0, -5.0)[:, None]
            return torch.from_numpy(np.concatenate([y, touch, -touch], 1).astype(np.float32))[None]

    scale, half = scale_of(clips), Half()

    def outputs(net: Half, piece) -> np.ndarray:
        net.piece = piece
        return net(torch.zeros(1))[0].numpy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice, "outputs", outputs)
        result = voice.calibrated(half, scale, clips)
    np.testing.assert_allclose(result["scale.spread"] * 0.5 / scale.spread, 1, rtol=0.05)  # interpolation is flatter
    assert result["scale.rise"][GAP] == pytest.approx(-rest_of(clips[0].tracks)[GAP], abs=0.01)


def test_the_threshold_of_contact_finds_the_real_closures() -> None:
    one = clip("a")
    piece = piece_of(one)
    score = piece.tracks[piece.known, GAP]
    assert (piece.touch[piece.known] > 0).any()
    nowhere, everywhere = np.zeros(len(score), bool), np.ones(len(score), bool)
    assert voice._contact_threshold([(piece, score - 0.05, nowhere)]) == pytest.approx(-0.04, abs=0.011)
    assert voice._contact_threshold([(piece, score + 0.05, nowhere)]) == pytest.approx(0.06, abs=0.011)
    assert voice._contact_threshold([(piece, score, everywhere)]) == pytest.approx(0.3)


def test_the_jaw_moves_as_much_as_the_speakers_and_nothing_else_changes() -> None:
    bundled, one = bundled_voice(), clip("a")
    tensors = {name: value.copy() for name, value in bundled.tensors.items()}
    tensors["scale.spread"][JAW] *= 0.6
    model = VoiceModel(tensors, bundled.record)
    made = with_real_jaw(model, [one])
    frames = SpeechMotion(25.0, start_db=mel.speech_level(mel.log_mel(one.sound)[1]), model=made)
    jaw = np.array([f.blendshapes[BLENDSHAPES.index("jawOpen")] for f in (*frames.push(one.sound), *frames.finish())])
    assert jaw.std() == pytest.approx(one.tracks[:, JAW].std(), rel=0.1)  # exact only if nothing is clamped at rest
    piece = piece_of(one)
    out = LipPredictor(model)(piece.features)[piece.known, JAW]
    before, after = (m.tensors["scale.rise"][JAW] + m.tensors["scale.spread"][JAW] * out for m in (model, made))
    assert after.mean() == pytest.approx(before.mean(), abs=1e-4)
    for name, value in model.tensors.items():
        same = np.ones(len(value), bool)
        if name in ("scale.spread", "scale.rise"):
            same[JAW] = False
        assert np.array_equal(made.tensors[name][same], value[same])


def test_a_pause_is_silence_in_a_quiet_place() -> None:
    sound = np.full(3 * mel.RATE_HZ, 0.3, np.float32)
    quiet = slice(round(1.3 * mel.RATE_HZ), round(1.5 * mel.RATE_HZ))
    sound[quiet] = 0.01
    one = replace(clip("a"), sound=sound)
    for seed in range(20):
        longer, begin, end = voice_heads._with_pause(one, np.random.default_rng(seed))
        first, last = round(begin * mel.RATE_HZ), round(end * mel.RATE_HZ)
        assert 0.5 <= end - begin <= 1.8 and not longer[first:last].any()
        np.testing.assert_array_equal(np.concatenate([longer[:first], longer[last:]]), sound)
        assert not 0.35 < begin < 1.25, "the quiet place is less than a second later"


def test_a_pause_is_told_from_speech_in_noise() -> None:
    model = bundled_voice()
    weights = {name: value.copy() for name, value in model.members[0].items()}
    row = voice_heads._pause_row(weights, model.dilations, [clip("a", 6.0, seed=1), clip("b", 6.0, seed=2)])
    weights["head.weight"][PAUSE], weights["head.bias"][PAUSE] = row[:-1], row[-1]
    other, rng = clip("c", 6.0, seed=3), np.random.default_rng(9)
    sound, begin, end = voice_heads._with_pause(other, rng)
    sound = sound + rng.normal(0, 0.02, len(sound)).astype(np.float32)  # 16 dB below the tone
    out = Member(weights, model.dilations)(features_of(sound))[:, PAUSE]
    times = instants(len(out))
    inside = (times > begin + 0.3) & (times < end - 0.16)
    outside = ((times < begin - 0.1) | (times > end + 0.1)) & (times < 6.0)
    assert (out[inside] > 0).mean() > 0.9 and (out[outside] < 0).mean() > 0.8


def test_logistic_regression_is_the_minimum_of_its_loss() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    inputs = np.c_[rng.normal(size=(300, 2)), np.ones(300)].astype(np.float32)
    target = (inputs @ [1.0, -2.0, 0.5] + rng.normal(size=300) > 0).astype(float)

    def loss(row: np.ndarray) -> float:
        margin = inputs @ row
        fit = np.logaddexp(0, -margin) @ target + np.logaddexp(0, margin) @ (1 - target)
        return float(fit + 0.5 * voice_heads._CONTACT_PULL * row[:2] @ row[:2] + 0.5 * 1e-3 * row[2] ** 2)

    expected = optimize.minimize(loss, np.zeros(3), tol=1e-9).x
    np.testing.assert_allclose(voice_heads._logistic([(inputs, target, 1.0)]), expected, atol=1e-3)


def test_the_output_of_contact_is_solved_on_brief_closures() -> None:
    rng = np.random.default_rng(0)
    hidden = np.c_[rng.normal(size=(400, 3)), np.ones(400)].astype(np.float32)
    touch = np.zeros(400, np.float32)
    for start in range(20, 380, 20):
        touch[start : start + 5] = 1
    hidden[:, 1] += 2 * touch
    hidden[:, 2] += 9 * (np.arange(400) < 19)
    paused = touch.copy()
    paused[:19] = 1  # a pause, which is no sound, would teach the third value
    rows = [voice_heads._contact_row([(hidden, hidden, each, 1.0)], []) for each in (touch, paused)]
    for row in rows:
        assert row[1] > 1.0 > 3 * abs(row[0])
        chance = 1 / (1 + np.exp(-hidden[20:] @ row))
        assert chance.mean() == pytest.approx(touch[20:].mean(), abs=0.02)  # a free bias gives the real share
    assert rows[1][2] < 0.2


def test_a_lag_needs_evidence_in_proportion_to_its_size() -> None:
    piece, rng = piece_of(clip("a")), np.random.default_rng(3)
    tracks = rng.normal(size=piece.tracks.shape).astype(np.float32)
    noisy = tracks + 2.0 * rng.normal(size=tracks.shape).astype(np.float32)  # a correlation of 0.45
    heard = np.zeros((len(tracks), NUM_OUTPUTS), np.float32)
    for steps, lag in ((2, 2), (14, 0)):
        heard[:-steps, : len(CHANNELS)] = noisy[steps:]
        late = replace(piece, tracks=tracks, known=np.ones(len(tracks), bool))
        assert voice.lag_of(heard, late) == lag


def test_a_picture_that_is_late_is_found_and_the_batch_takes_it() -> None:
    late = clip("a")
    piece = piece_of(late)
    heard = np.zeros((len(piece.known), NUM_OUTPUTS), np.float32)
    heard[:-5, : len(CHANNELS)] = piece.tracks[5:]  # the tracks lag the sound by 5 steps
    assert voice.lag_of(heard, piece) == 5
    assert voice.lag_of(np.random.default_rng(0).normal(size=heard.shape), piece) == 0  # no clear lag
    config = replace(TINY, piece_steps=100, warm_up_steps=0, batch_size=1)
    pools = [Pool([late], set(), config) for _ in range(2)]
    pools[1].lags = [5]
    (_, plain, _, _, known), (_, moved, _, _, still) = (pool.batch()[:5] for pool in pools)
    assert torch.equal(moved[0, :-5], plain[0, 5:]) and torch.equal(still[0, :-5], known[0, 5:])


def test_synthetic_speech_teaches_contact_and_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    mouths = mouths_of([(0.0, "_"), (0.2, "b"), (0.4, "u:"), (0.8, "f"), (1.0, "aI")], 4.0)
    said = Utterance(clip("a", 4.0).sound, mouths)
    monkeypatch.setattr(voice, "utterances", lambda count, rng: [said] * count)
    config = replace(TINY, spoken=3, spoken_batch=2)
    pool = Pool([clip("a")], set(), config)
    values, target, known = pool.spoken_batch()
    assert values.shape == (2, 100, mel.NUM_BANDS) and target.shape == (2, 50, len(Mouth._fields))
    right = torch.zeros(2, 50, NUM_OUTPUTS)
    right[..., list(TAUGHT)] = target[..., :3]
    right[..., [TOUCH, LABIODENTAL]] = (target[..., 3:] - 0.5) * 40
    best = float(spoken_loss(right, target, known, config))
    wrong = right.clone()
    wrong[..., LABIODENTAL] *= -1
    assert best < float(spoken_loss(wrong, target, known, config)) - 1


def test_training_with_synthetic_speech_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Utterance(clip("a", 4.0).sound, mouths_of([(0.0, "b"), (0.5, "u:")], 4.0))
    monkeypatch.setattr(voice, "utterances", lambda count, rng: [said] * count)
    config = replace(TINY, spoken=2, spoken_batch=1)
    voice.train_member([clip("a"), clip("b", seed=1)], tmp_path, config, one_speaker=set(), watched={})
    (line,) = (json.loads(line) for line in (tmp_path / voice.STATS).read_text().splitlines())
    assert line["spoken"] > 0


def test_the_loss_against_teachers_by_hand() -> None:
    taught, heard = torch.zeros(1, 4, TOUCH + 1), torch.tensor([[0.0, 1, 1, 1]])
    out = torch.zeros(1, 4, NUM_OUTPUTS)
    log2 = float(np.log(2))  # entropy of a contact that is as likely as not
    assert float(teacher_loss(out, taught, heard)) == pytest.approx(0.3 * log2)
    out[0, 0] = 100  # not heard
    out[0, 1, GAP] = 0.5  # beyond the quadratic part: 0.5 - 0.3 / 2
    share = WEIGHTS[GAP] / WEIGHTS.sum()
    assert float(teacher_loss(out, taught, heard)) == pytest.approx(3 * 0.35 * share / 3 + 0.3 * log2, rel=1e-5)


def test_pieces_have_the_mean_output_of_the_teachers() -> None:
    clips = [clip("a"), clip("b", seed=1)]
    bundled = bundled_voice()
    raised = {name: value + 1.0 if name.endswith("head.bias") else value for name, value in bundled.tensors.items()}
    pool = Pool(clips, set(), TINY, [bundled, VoiceModel(raised, bundled.record)])
    batch = pool.batch()
    (piece, taught), *_ = next(each for each in pool._variants.values() if each)
    alone = LipPredictor(bundled)(piece.features)[:, : TOUCH + 1]
    inside = np.abs(alone) < 7  # not clipped
    np.testing.assert_allclose(taught[inside], alone[inside] + 0.5, atol=1e-4)
    assert batch.taught.shape == (TINY.batch_size, TINY.piece_steps, TOUCH + 1)
    assert Pool(clips, set(), TINY).batch().taught.shape[-1] == 0


def test_a_run_resumes_only_with_its_teachers(tmp_path: Path) -> None:
    clips = [clip("a"), clip("b", seed=1)]
    config = replace(TINY, num_steps=2)
    voice.train_member(clips, tmp_path, config, one_speaker=set(), watched={}, teachers=[bundled_voice()])
    with pytest.raises(InputError, match="other teachers; use another folder, or the same ones"):
        voice.train_member(clips, tmp_path, replace(config, num_steps=3), one_speaker=set(), watched={})
    stats = json.loads((tmp_path / voice.STATS).read_text().splitlines()[-1])
    assert stats["teachers"] > 0
