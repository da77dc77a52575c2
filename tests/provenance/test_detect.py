"""The detector: measurements, quality metrics, and results for videos of known origin."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from train_detector import auc, bootstrapped

from conftest import write_clip
from mimik.animation.avatar import Avatar
from mimik.config import InputError, NoFaceError
from mimik.face.landmarks import Face, Landmarker
from mimik.media import video
from mimik.provenance import detect
from mimik.provenance.detect import Classifier, DetectorTest, Result, measure


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return detect._classifier()


# Measurements.


def test_a_similarity_is_found_exactly() -> None:
    turn, scale, shift = 0.3, 1.7, np.array([5.0, -3.0])
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.random.default_rng(0).normal(size=(4, 2))
    found = detect._similarity(points, points @ matrix.T + shift)
    np.testing.assert_allclose(found, np.concatenate([matrix, shift[:, None]], axis=1), atol=1e-12)


def scene(num_frames: int, grain: float, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A still picture with noise in each frame, and still points."""
    rng = np.random.default_rng(seed)
    base = cv2.GaussianBlur(rng.normal(128, 60, (200, 200)), (0, 0), 2)
    base = (base - base.mean()) / base.std() * 40 + 128
    frames = [
        np.repeat(np.clip(base + grain * rng.normal(size=base.shape), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        for _ in range(num_frames)
    ]
    points = np.tile(np.array([100.0, 100.0]), (478, 1))
    points[list(detect._ANCHORS)] = detect._PLACES + 20
    return frames, [points.copy() for _ in frames]


def test_grain_changes_what_should_tell_of_it() -> None:
    still, noisy = measure(*scene(16, 0.0)), measure(*scene(16, 6.0))
    assert still.keys() == noisy.keys()
    assert all(np.isfinite(list(one.values())).all() for one in (still, noisy))
    assert still["still same left"] == 1.0 and noisy["still same left"] < 0.3
    assert noisy["moved fine cheeks"] > still["moved fine cheeks"] + 3
    assert still["texture mouth 1"] == pytest.approx(1, abs=1e-4) and noisy["texture mouth 1"] < 0.9
    assert noisy["spectrum 9"] > still["spectrum 9"]


def test_noise_has_the_spectrum_and_the_peaks_of_noise() -> None:
    numbers = measure(*scene(16, 60.0))
    assert abs(numbers["spectrum 8"] - numbers["spectrum 6"]) < 0.5  # white
    assert np.exp(numbers["peaks mouth"]) - 1 == pytest.approx(3, abs=0.6)  # the fourth moment of a normal variable


def test_the_place_and_the_size_of_the_face_do_not_matter() -> None:
    frames, points = scene(14, 3.0)
    padded = [cv2.copyMakeBorder(frame, 30, 10, 50, 20, cv2.BORDER_REFLECT_101) for frame in frames]
    moved = measure(padded, [np.add(one, [50, 30]) for one in points])
    plain = measure(frames, points)
    for name in ("spectrum 5", "moved fine mouth", "texture cheeks 1", "sharpness mouth", "jerk head"):
        assert moved[name] == pytest.approx(plain[name], abs=0.02), name


def test_the_longest_lag_fits_into_the_shortest_clip() -> None:
    numbers = measure(*scene(detect.MIN_FRAMES, 2.0))
    assert np.isfinite(list(numbers.values())).all()


def test_only_frames_with_a_face_are_kept_and_not_too_many(small_face: Face) -> None:
    class Every:
        """Detects the face in every second frame."""

        calls = 0

        def detect(self, image: np.ndarray, thorough: bool = False) -> list[Face]:
            Every.calls += 1
            return [small_face] if Every.calls % 2 else []

        def follow(self, image: np.ndarray, last: Face, **asked: bool) -> Face | None:
            return None

    blank = np.zeros((32, 32, 3), np.uint8)
    frames, points = detect.track(iter([blank] * 1000), Every())  # type: ignore[arg-type]
    assert len(frames) == len(points) == detect.NUM_FRAMES
    assert Every.calls < 3 * detect.NUM_FRAMES


# Quality metrics.


def test_auc_by_hand() -> None:
    assert auc([0.1, 0.2], [0.3, 0.4]) == 1
    assert auc([0.3, 0.4], [0.1, 0.2]) == 0
    assert auc([1, 2, 3], [2]) == 0.5  # above one, equal to one, below one
    assert auc([0.1, 0.4, 0.35], [0.8, 0.2]) == pytest.approx(4 / 6)


def test_the_interval_counts_people_and_not_clips() -> None:
    rng = np.random.default_rng(0)
    people = [(f"p{i}", float(rng.normal())) for i in range(20)]
    made = [(f"p{i}", float(rng.normal(1))) for i in range(20)]
    once = bootstrapped(people, made, rounds=200)
    often = bootstrapped(people * 25, made * 25, rounds=200)
    assert once.low < once.auc < once.high
    assert often.auc == pytest.approx(once.auc)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.2)
    assert (often.num_real, often.num_made) == (500, 500)


# Results.

GOOD, POOR = DetectorTest(0.95, 0.9, 0.98, 44, 44), DetectorTest(0.55, 0.4, 0.7, 44, 100)


def result(probability: float, *, is_sure: bool = True, unusual: float = 0.5, foreign: DetectorTest = POOR) -> Result:
    return Result(probability, is_sure, unusual, 40, GOOD, foreign)


def test_the_sentence_states_the_reliability() -> None:
    assert result(0.93).sentence.startswith("The face looks animated (93 %)")
    assert result(0.07, is_sure=False).sentence.startswith("Undecided: 7 % for an animated face; it may be filmed, or")
    assert result(0.6, is_sure=False).sentence.startswith("Undecided: 60 %")
    assert result(0.99, unusual=1.2).sentence.startswith("Undecided: this video is unlike")
    for one in (result(0.93), result(0.07, is_sure=False)):
        assert "an estimate, not proof" in one.sentence
        assert "AUC 0.95 (0.90 to 0.98; 44 made, 44 real files)" in one.sentence
        assert "does not generalize" in one.sentence and "AUC 0.55" in one.sentence
    better = result(0.9, foreign=DetectorTest(0.8, 0.7, 0.88, 44, 100)).sentence
    assert "does not generalize" not in better and "much weaker" in better
    data = json.loads(result(0.93).to_json())
    assert data["probability"] == 0.93 and data["foreign"]["auc"] == 0.55


def test_a_classifier_is_what_it_was_after_saving(tmp_path: Path) -> None:
    names = ("a", "b")
    one = Classifier(names, np.zeros(2), np.ones(2), np.array([2.0, -1.0]), 0.5, 3.0, 0.2, GOOD, POOR)
    one.save(tmp_path / "detector.npz")
    again = Classifier.load(tmp_path / "detector.npz")
    numbers = {"a": 1.0, "b": 0.5, "c": 9.0}
    assert again.judge(numbers, 40) == one.judge(numbers, 40)
    judged = one.judge(numbers, 40)
    assert judged.probability == pytest.approx(1 / (1 + np.exp(-2.0)))  # 2 * 1 - 1 * 0.5 + 0.5
    assert judged.unusual == pytest.approx((1 + 0.25) / 2 / 3)
    assert judged.is_sure
    assert not one.judge({"a": 0.0, "b": 0.5}, 40).is_sure  # a probability of one half
    assert not one.judge({"a": 4.0, "b": -4.0}, 40).is_sure  # far outside
    low = one.judge({"a": -2.0, "b": 0.5}, 40)
    assert low.probability < 0.02 and not low.is_sure  # missing detection is not an answer


def test_what_ships_was_tested_on_others(classifier: Classifier) -> None:
    assert set(classifier.names) == set(measure(*scene(14, 3.0)))
    for trial in (classifier.known, classifier.foreign):
        assert 0 <= trial.low <= trial.auc <= trial.high <= 1
        assert min(trial.num_real, trial.num_made) > 20
    assert classifier.known.auc > 0.85 > classifier.foreign.auc
    assert 0 < classifier.margin < 0.5


# Files.


@pytest.mark.slow
def test_a_video_is_judged_and_the_answer_has_all_its_parts(driver, landmarker: Landmarker) -> None:
    found = detect.detect(driver.path, landmarker=landmarker)
    assert 0 <= found.probability <= 1
    assert found.num_frames == 14  # of 28 at 25 frames/s
    assert found == detect.detect(driver.path, landmarker=landmarker)
    other = write_clip(driver.path.with_name("other.mp4"), driver.frames[::-1])
    assert detect.detect(other, landmarker=landmarker).probability != found.probability


@pytest.mark.slow
def test_the_bundled_portrait_animated_is_not_taken_for_filmed(landmarker: Landmarker, portrait_path: Path) -> None:
    avatar = Avatar.from_photos([portrait_path], landmarker=landmarker)
    frames = list(itertools.islice(avatar.frames("talk", fps=detect.FPS), detect.NUM_FRAMES))
    frames, points = detect.track(frames, landmarker)
    classifier = detect._classifier()
    found = classifier.judge(detect.measure(frames, points), len(frames))
    assert found.probability > 0.5 - classifier.margin


def test_what_cannot_be_judged_is_refused(small_path: Path, landmarker: Landmarker, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a still picture; use a video"):
        detect.detect(small_path, landmarker=landmarker)
    write_clip(tmp_path / "wall.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 8)
    with pytest.raises(NoFaceError, match="a face is visible in 0 of the frames"):
        detect.detect(tmp_path / "wall.mp4", landmarker=landmarker)


def corpus_clips() -> Iterator[Path]:
    folder = Path(__file__).parents[3] / "shared" / "corpus" / "dev"
    yield from sorted(folder.glob("*.mp4"))[:6]


@pytest.mark.slow
def test_filmed_people_are_mostly_not_taken_for_animated(landmarker: Landmarker) -> None:
    clips = list(corpus_clips())
    if not clips:
        pytest.skip("the corpus of talking faces is not here")
    found = [detect.detect(clip, landmarker=landmarker) for clip in clips]
    assert np.median([one.probability for one in found]) < 0.5
    assert replace(found[0], is_sure=False).sentence.startswith("Undecided")
    assert video.kind(clips[0]) == "video"
