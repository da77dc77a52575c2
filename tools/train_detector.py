"""Train `mimik detect`: render examples, measure them, fit the bundled weights, and test them on other people.

    python tools/train_detector.py make CORPUS CACHE [--model NAME_OR_FILE ...] [--limit N]
    python tools/train_detector.py fit CORPUS CACHE [--limit N]

CORPUS contains train/, dev/ and foreign/ with clips of talking people, and clips.csv with their identities. `make`
animates the first frame of each clip of train/ and dev/ with the motion of another clip of the same split, without
watermark, which the detector would otherwise learn. Run it once per model. `fit` encodes real and animated clips at
several qualities, computes features (mimik.provenance.detect), fits the classifier on train/ only, and writes
src/mimik/assets/detector.npz and benchmarks/results/detect.json. foreign/ contains outputs of other generators and is
never used for training.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.animation import render, source_frame
from mimik.animation.avatar import Avatar
from mimik.config import AnimateConfig, InputError
from mimik.face.landmarks import Landmarker
from mimik.media import video
from mimik.motion.drivers import video as video_driver
from mimik.provenance import detect
from mimik.provenance.marking import Marker

ROOT = Path(__file__).parents[1]
MADE_FRAMES = detect.NUM_FRAMES
MADE_FPS = detect.FPS


def auc(real: Sequence[float] | NDArray[Any], made: Sequence[float] | NDArray[Any]) -> float:
    """AUC: probability that an animated clip scores higher than a real one; ties count half."""
    higher = np.subtract.outer(np.asarray(made, float), np.asarray(real, float))
    return float(((higher > 0) + 0.5 * (higher == 0)).mean())


def bootstrapped(
    real: Sequence[tuple[str, float]], made: Sequence[tuple[str, float]], *, rounds: int = 2000, seed: int = 0
) -> detect.DetectorTest:
    """AUC with a 95 % bootstrap interval over people, each with all clips.

    Args: real, made: (person, score) of each clip.
    """
    rng = np.random.default_rng(seed)
    real_of, made_of = _by_person(real), _by_person(made)
    values = []
    for _ in range(rounds):
        a, b = (np.concatenate([of[name] for name in rng.choice(sorted(of), len(of))]) for of in (real_of, made_of))
        values.append(auc(a, b))
    low, high = np.quantile(values, [0.025, 0.975])
    score = auc([one for _, one in real], [one for _, one in made])
    return detect.DetectorTest(score, float(low), float(high), len(real), len(made))


def _by_person(scores: Sequence[tuple[str, float]]) -> dict[str, NDArray[np.float64]]:
    found: dict[str, list[float]] = {}
    for name, score in scores:
        found.setdefault(name, []).append(score)
    return {name: np.array(values) for name, values in found.items()}


def people(corpus: Path) -> dict[str, str]:
    """Identity in each clip, by name; for foreign/ the generator, so that intervals are over generators."""
    with (corpus / "clips.csv").open(newline="") as file:
        return {
            row["clip"]: row["repository"] if row["split"] == "foreign" else row["person"]
            for row in csv.DictReader(file)
        }


def make(corpus: Path, cache: Path, model: str, limit: int | None) -> None:
    """Render one animated clip for each clip of train/ and dev/; resumes if interrupted."""
    who = people(corpus)
    landmarker = Landmarker()
    # One thread: faster on a busy machine.
    render.prefetch = source_frame.prefetch = video_driver.prefetch = lambda items, size=0: items
    for split in ("train", "dev"):
        clips = sorted((corpus / split).glob("*.mp4"))
        out = cache / split / Path(model).stem
        out.mkdir(parents=True, exist_ok=True)
        step = max(1, len(clips) // limit) if limit and split == "train" else 1
        for number in range(0, len(clips), step):
            clip = clips[number]
            path = out / clip.name
            if path.exists():
                continue
            others = [one for one in clips[number + 1 :] + clips[:number] if who[one.name] != who[clip.name]]
            driver = others[(7 * number) % len(others)]
            try:
                make_one(clip, driver, path, model, landmarker)
            except InputError as error:
                print(f"{clip.name} by {driver.name}: {error}", file=sys.stderr)
            else:
                print(f"{split} {clip.name} by {driver.name}", flush=True)


def make_one(clip: Path, driver: Path, path: Path, model: str, landmarker: Landmarker) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.png")
        with closing(video.read_frames(clip)) as frames:
            picture = next(frames)
        height, width = (side // 2 * 2 for side in picture.shape[:2])
        cv2.imwrite(str(photo), picture[:height, :width, ::-1])
        avatar = Avatar.from_photos([photo], landmarker=landmarker)
        draft = path.with_suffix(".part.mp4")
        with (
            closing(avatar._unmarked(driver, AnimateConfig(model=model, fps=MADE_FPS))) as images,
            video.open_writer(draft, width, height, MADE_FPS, quality=8) as writer,
        ):
            for image in itertools.islice(images, MADE_FRAMES):
                writer.write(image)
        draft.rename(path)


# Measuring.

# Encoding of each clip: x264's constant rate factor, and whether it carries the watermark. Real clips carry it as
# often as animated ones, so that the detector does not learn it.
VERSIONS = {
    "train": ((20, False), (28, False), (35, False), (23, True)),
    "dev": ((23, False), (31, False), (23, True)),
    "foreign": ((23, False), (31, False)),
}


def coded(frames: list[np.ndarray], crf: int, is_marked: bool) -> list[np.ndarray]:
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    marker = Marker("geometry")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mp4")
        with video.VideoWriter(path, width, height, detect.FPS, quality=crf, num_threads=1) as writer:
            for frame in frames:
                even = np.ascontiguousarray(frame[:height, :width])
                writer.write(marker.mark(even) if is_marked else even)
        return list(video.read_frames(path, num_threads=1))


def measure_clip(path: Path, versions: tuple[tuple[int, bool], ...], landmarker: Landmarker) -> list[dict[str, float]]:
    """Features of a clip in each version."""
    with closing(video.read_frames(path, fps=detect.FPS, num_threads=1)) as read:
        frames, points = detect.track(read, landmarker)
    if len(frames) < detect.MIN_FRAMES:
        return []
    return [detect.measure(coded(frames, crf, is_marked), points) for crf, is_marked in versions]


def measure_all(corpus: Path, cache: Path, limit: int | None) -> list[dict[str, Any]]:
    """One cached record per clip: split, kind, person, features of each version."""
    who, records, landmarker = people(corpus), [], Landmarker()
    made = []
    for folder in sorted(cache.glob("dev/*")) + sorted(cache.glob("train/*")):
        clips = sorted(path for path in folder.glob("*.mp4") if ".part" not in path.name)
        made += clips[:: max(1, len(clips) // limit) if limit and folder.parent.name == "train" else 1]
    used = {(path.parts[-3], path.name) for path in made}
    todo = [("made", path.parts[-3], path.parts[-2], path) for path in made]
    todo += [("real", split, "real", corpus / split / name) for split, name in sorted(used)]
    todo += [("made", "foreign", "foreign", path) for path in sorted((corpus / "foreign").glob("*.mp4"))]
    for kind, split, model, path in todo:
        kept = cache / "numbers" / split / model / f"{path.stem}.json"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            numbers = measure_clip(path, VERSIONS[split], landmarker)
            kept.write_text(json.dumps(numbers))
            print(split, model, path.name, len(numbers), flush=True)
        numbers = json.loads(kept.read_text())
        records.append({"kind": kind, "split": split, "model": model, "person": who[path.name], "numbers": numbers})
    return records


# Fitting.


def logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Weights and bias that minimize the weighted log loss plus penalty / 2 times their square, by Newton's method."""
    x1 = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = np.full(x1.shape[1], penalty)
    ridge[-1] = 1e-9
    solution = np.zeros(x1.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x1 @ solution, -30, 30)))
        gradient = x1.T @ (weights * (p - y)) + ridge * solution
        hessian = (x1 * (weights * p * (1 - p))[:, None]).T @ x1 + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        solution -= step
        if np.abs(step).max() < 1e-8:
            break
    return solution[:-1], float(solution[-1])


def rows(
    records: list[dict[str, Any]], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All versions of the clips: features, whether animated, person, weight (equal for both classes and all clips)."""
    x, y, who, w = [], [], [], []
    for one in records:
        for numbers in one["numbers"]:
            x.append([numbers[name] for name in names])
            y.append(one["kind"] == "made")
            who.append(one["person"])
            w.append(1 / len(one["numbers"]))
    y_, w_ = np.array(y, float), np.array(w)
    for side in (0, 1):
        w_[y_ == side] *= 0.5 * w_.sum() / max(w_[y_ == side].sum(), 1e-9)
    return np.array(x), y_, np.array(who), w_


PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def out_of_fold(x: np.ndarray, y: np.ndarray, who: np.ndarray, w: np.ndarray, penalty: float) -> np.ndarray:
    """Cross-validated score of each row, by weights fitted without its person."""
    scores = np.zeros(len(y))
    names = sorted(set(who))
    for fold in range(6):
        test = np.isin(who, names[fold::6])
        mean, deviation = x[~test].mean(0), x[~test].std(0) + 1e-6
        z = np.clip((x - mean) / deviation, -4, 4)
        weights, bias = logistic(z[~test], y[~test], w[~test], penalty)
        scores[test] = z[test] @ weights + bias
    return scores


def fit(corpus: Path, cache: Path, limit: int | None) -> None:
    records = measure_all(corpus, cache, limit)
    train = [one for one in records if one["split"] == "train"]
    names = tuple(sorted(train[0]["numbers"][0]))
    x, y, who, w = rows(train, names)
    losses = {}
    for penalty in PENALTIES:
        scores = out_of_fold(x, y, who, w, penalty)
        losses[penalty] = float((w * np.logaddexp(0, np.where(y == 1, -scores, scores))).sum() / w.sum())
    penalty = min(losses, key=lambda one: losses[one])

    # Calibration of the cross-validated scores.
    scores = out_of_fold(x, y, who, w, penalty)
    slope, shift = logistic(scores[:, None], y, w, 1e-3)
    calibrated = 1 / (1 + np.exp(-(scores * slope[0] + shift)))
    margin = 0.45
    for tried in np.arange(0.05, 0.46, 0.05):
        sure = np.abs(calibrated - 0.5) >= tried
        wrong = (calibrated > 0.5) != (y == 1)
        if sure.any() and (w * (wrong & sure)).sum() / (w * sure).sum() < 0.1:
            margin = float(tried)
            break

    mean, deviation = x.mean(0), x.std(0) + 1e-6
    z = np.clip((x - mean) / deviation, -4, 4)
    weights, bias = logistic(z, y, w, penalty)
    limit = float(np.quantile((z**2).mean(1), 0.99))
    none = detect.DetectorTest(0.5, 0.0, 1.0, 0, 0)
    final = detect.Classifier(
        names, mean, deviation, weights * slope[0], bias * slope[0] + shift, limit, margin, none, none
    )

    def scored(chosen: list[dict[str, Any]], is_marked: bool = False) -> list[tuple[str, float]]:
        return [
            (one["person"], float(final.standardized(numbers) @ final.weights + final.bias))
            for one in chosen
            for numbers, version in zip(one["numbers"], VERSIONS[one["split"]], strict=False)
            if version[1] == is_marked
        ]

    dev = [one for one in records if one["split"] == "dev"]
    real = scored([one for one in dev if one["kind"] == "real"])
    made = [one for one in dev if one["kind"] == "made"]
    report: dict[str, Any] = {
        "penalty": penalty,
        "log_loss_out_of_fold": losses,
        "auc_out_of_fold": auc(scores[y == 0], scores[y == 1]),
        "margin": margin,
        "num_train_clips": {kind: sum(one["kind"] == kind for one in train) for kind in ("real", "made")},
        "models": sorted({one["model"] for one in train if one["kind"] == "made"}),
        "trials": {},
    }
    known = bootstrapped(real, scored(made) + scored(made, is_marked=True))  # with and without watermark
    report["trials"]["dev, with the watermark"] = vars(bootstrapped(real, scored(made, is_marked=True)))
    for model in sorted({one["model"] for one in made}):
        trial = bootstrapped(real, scored([one for one in made if one["model"] == model]))
        report["trials"][f"dev, {model}, without the watermark"] = vars(trial)
    strangers = scored([one for one in records if one["split"] == "foreign"])
    foreign = bootstrapped(real, strangers)
    report["trials"] |= {"dev, all models": vars(known), "foreign": vars(foreign)}
    for name in sorted({person for person, _ in strangers}):
        scores_of = [score for person, score in strangers if person == name]
        alone = auc([score for _, score in real], scores_of)
        report["trials"][f"foreign, {name}"] = {"auc": round(alone, 3), "num_made": len(scores_of)}
    final = dataclasses.replace(final, known=known, foreign=foreign)
    for name, chosen in (("dev real", real), ("foreign", strangers)):
        said = 1 / (1 + np.exp(-np.array([score for _, score in chosen])))
        report[f"said of {name}"] = {
            "sure and right": float((said < 0.5 - margin if name == "dev real" else said >= 0.5 + margin).mean()),
            "sure and wrong": float((said >= 0.5 + margin if name == "dev real" else said < 0.5 - margin).mean()),
        }
    order = np.argsort(-np.abs(final.weights))[:15]
    report["heaviest"] = {names[i]: round(float(final.weights[i]), 3) for i in order}
    final.save(ROOT / "src/mimik/assets/detector.npz")
    (ROOT / "benchmarks/results/detect.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, fitting = commands.add_parser("make"), commands.add_parser("fit")
    for one in (making, fitting):
        one.add_argument("corpus", type=Path)
        one.add_argument("cache", type=Path)
        one.add_argument("--limit", type=int, help="approximate number of animated clips of train/ per model")
    making.add_argument("--model", default="geometry", help="as for mimik animate")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.corpus, arguments.cache, arguments.model, arguments.limit)
    else:
        fit(arguments.corpus, arguments.cache, arguments.limit)


if __name__ == "__main__":
    main()
