"""Results of an evaluation by group: skin tone, head turn, glasses, beard, teeth.

    python benchmarks/groups.py REPORT --data SHARDS [--models geometry,texture] [--labels FILE.csv] [-o OUT.json]

REPORT is a folder of `mimik evaluate`, SHARDS its --data. Groups are measured on the pictures, or labeled by one person
on the first frame of each clip (groups.csv); nobody is identified. Age and sex are not covered.

Skin: the individual typology angle, ITA = atan2(L* - 50, b*) in degrees, of cheeks and forehead, in CIELAB of sRGB
under D65, median over pixels, then over frames (Chardon et al. 1991, with their limits 55, 41, 28, 10, -30). ITA is
defined for known lighting. In a video it also depends on light, camera and color grading, so its spread over a clip's
frames and the difference between the cheeks are reported too. Groups: above and below 28 degrees, and thirds.

The gain is the improvement of the second model over the first in a clip, in the unit of the metric; positive is better.
Intervals are bootstraps over clips; for a difference between two groups, each group is resampled. A difference smaller
than half its interval cannot be detected. There is no correction for multiple comparisons: one in 20 differences is
significant by chance.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mimik.arrays import Float
from mimik.config import VERSION, InputError
from mimik.data.index import ClipInfo, read_index
from mimik.data.store import ClipStore
from mimik.evaluation import metrics
from mimik.evaluation.metrics import METRICS
from mimik.evaluation.motion_fidelity import rounded
from mimik.evaluation.protocols import FIRST
from mimik.face.landmarks import Image
from reporting import exit_code, markdown, write_json

LABELS = Path(__file__).with_suffix(".csv")
LIMITS = {"very light": 55.0, "light": 41.0, "intermediate": 28.0, "tan": 10.0, "brown": -30.0, "dark": -math.inf}
ITA_SPLIT = 28.0  # degrees: in the middle of the six classes
NUM_FRAMES = 16  # of a clip, evenly spaced
# Hulls of mesh points: bare skin below the eyes and above the brows, clear of lids, nostrils, beards and most hair.
SKIN = {
    "right cheek": [117, 118, 101, 36, 205, 50],
    "left cheek": [346, 347, 330, 266, 425, 280],
    "forehead": [107, 69, 108, 151, 337, 299, 336, 9],
}
SEEN = {"glasses": "glasses", "beard": "beard", "teeth": "teeth in the photo"}  # columns of the labels
HEADLINES = ("l1", "lite0_distance", "csim_dlib", "akd68_percent", "eyes_l1", "mouth_l1")
COVARIATES = {"ita": "ITA", "yaw": "turn", "face_px": "face, px", "sharpness": "sharpness"}


# Measures of the pictures.


def ita(lab: NDArray[Any]) -> Any:
    """[...] individual typology angle in degrees of CIELAB colors [..., 3]."""
    return np.degrees(np.arctan2(lab[..., 0] - 50, lab[..., 2]))


def class_of(angle: float) -> str:
    """The class of Chardon et al. 1991."""
    return next(name for name, limit in LIMITS.items() if angle > limit)


def skin_ita(image: Image, points: NDArray[Any]) -> dict[str, float]:
    """ITA of the median color of each skin patch, and of all patches; NaN outside the picture.

    Args:
        image: uint8 RGB [H, W, 3].
        points: [478, 2 or 3].
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    masks = {name: metrics.region_mask(points, [index], 0.0, image.shape[:2]) for name, index in SKIN.items()}
    masks["all"] = np.any(list(masks.values()), axis=0)
    return {name: float(ita(np.median(lab[mask], 0))) if mask.any() else math.nan for name, mask in masks.items()}


def measures(store: ClipStore, clip: ClipInfo) -> dict[str, float]:
    """Measures of a clip's pictures and landmarks.

    Returns:
        ita: median over frames, degrees. ita_frames: 5th to 95th percentile range over frames. ita_cheeks: median
        difference between the cheeks. yaw: 95th percentile of the yaw relative to the first frame, degrees. face_px:
        median width of the face in the video. sharpness: as measured by `mimik prepare`.
    """
    numbers = np.unique(np.linspace(0, clip.num_frames - 1, NUM_FRAMES).round().astype(int))
    frames = store.read(clip, numbers)
    found = [skin_ita(image, points) for image, points in zip(frames.images, frames.points, strict=True)]
    angles, right, left = (np.array([one[name] for one in found]) for name in ("all", "right cheek", "left cheek"))
    yaw = store.tracks(clip).pose[:, 0]
    return {
        "ita": float(np.nanmedian(angles)),
        "ita_frames": float(np.ptp(np.nanpercentile(angles, [5, 95]))),
        "ita_cheeks": float(np.nanmedian(np.abs(right - left))),
        "yaw": float(np.percentile(np.abs(yaw - yaw[0]), 95)),
        "face_px": clip.face_px,
        "sharpness": clip.sharpness,
    }


# Statistics.


def spearman(a: Sequence[float] | Float, b: Sequence[float] | Float) -> float:
    """Rank correlation, with mean ranks for ties; NaN if one of the arguments is constant.

    Args: a, b: [N]; pairs with a NaN are excluded.
    """
    pairs = np.stack([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    if pairs.shape[1] < 3 or (np.ptp(pairs, axis=1) == 0).any():
        return math.nan
    return float(stats.spearmanr(*pairs).statistic)


def chance_spearman(number: int, *, num_samples: int = 10000, seed: int = 0) -> float:
    """95th percentile of the absolute correlation of `number` unrelated pairs."""
    rng = np.random.default_rng(seed)
    ranks = np.arange(number)
    found = [abs(np.corrcoef(ranks, rng.permutation(number))[0, 1]) for _ in range(num_samples)]
    return float(np.quantile(found, 0.95))


def difference_interval(a: Float, b: Float, *, seed: int = 0, num_samples: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap of mean(a) - mean(b), each resampled; NaN if one has fewer than two values."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = [some[rng.integers(len(some), size=(num_samples, len(some)))].mean(1) for some in (a, b)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def gains(metric: metrics.Metric, before: Float, after: Float) -> Float:
    """[N] improvement of `after` over `before`; in logarithms for a metric whose best value is 1."""
    bad = [np.array([metric.badness(value) for value in values]) for values in (before, after)]
    return np.array([a - b if np.isfinite(a) and np.isfinite(b) else math.nan for a, b in zip(*bad, strict=True)])


# Groups.


def splits(
    rows: Mapping[str, Mapping[str, float]], seen: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, list[str]]]:
    """Keys of the clips by split and group; the first two groups of a split are compared.

    Args:
        rows: measures() of each clip.
        seen: "yes" or "no" by clip and column of the labels; clips without labels are in none of those groups.
    """
    order = sorted(rows, key=lambda clip: rows[clip]["ita"])
    dark, middle, light = (list(some) for some in np.array_split(np.array(order), 3))
    found = {
        f"ITA, {ITA_SPLIT:g} degrees": {
            "below": [clip for clip in order if rows[clip]["ita"] <= ITA_SPLIT],
            "above": [clip for clip in order if rows[clip]["ita"] > ITA_SPLIT],
        },
        "ITA, thirds": {"lowest": dark, "highest": light, "middle": middle},
    }
    by_yaw = sorted(rows, key=lambda clip: rows[clip]["yaw"])
    little, much = (list(some) for some in np.array_split(np.array(by_yaw), 2))
    found["turn of the head, halves"] = {"larger": much, "smaller": little}
    for column, name in SEEN.items():
        found[name] = {
            answer: [clip for clip in rows if seen.get(clip, {}).get(column) == answer] for answer in ("yes", "no")
        }
    return found


def statistics_of(values: Float) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if len(known) else math.nan
    return {"clips": len(known), "mean": mean, "interval": metrics.bootstrap_interval(values)}


def report(
    rows: Mapping[str, Mapping[str, float]],
    people: Mapping[str, str],
    seen: Mapping[str, Mapping[str, str]],
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    models: tuple[str, str],
) -> dict[str, Any]:
    """The content of the tables.

    Args:
        rows: measures() of each clip.
        people: person of each clip.
        seen: labels of each clip.
        values: by metric, model and clip.
        models: the baseline and the model to compare.
    """
    clips = list(rows)
    kinds: dict[str, dict[str, Float]] = {}
    for name in values:
        before, after = (np.array([values[name][model][clip] for clip in clips]) for model in models)
        kinds[name] = {models[0]: before, models[1]: after, "gain": gains(METRICS[name], before, after)}
    place = {clip: number for number, clip in enumerate(clips)}
    groups: dict[str, Any] = {}
    for split, parts in splits(rows, seen).items():
        picked = {name: [place[clip] for clip in some] for name, some in parts.items()}
        found: dict[str, Any] = {"groups": {}, "differences": {}}
        for name, some in parts.items():
            found["groups"][name] = {
                "clips": len(some),
                "people": len({people[clip] for clip in some}),
                **{key: _mean(np.array([rows[clip][key] for clip in some])) for key in ("ita", "yaw", "face_px")},
                "metrics": {
                    metric: {kind: statistics_of(array[picked[name]]) for kind, array in of.items()}
                    for metric, of in kinds.items()
                },
            }
        one, other = list(parts)[:2]
        for metric, of in kinds.items():
            found["differences"][metric] = {
                kind: {
                    "mean": _mean(array[picked[one]]) - _mean(array[picked[other]]),
                    "interval": difference_interval(array[picked[one]], array[picked[other]]),
                }
                for kind, array in of.items()
            }
        groups[split] = found
    covariates = {name: np.array([rows[clip][name] for clip in clips]) for name in COVARIATES}
    angles = covariates["ita"]
    return {
        "clips": len(clips),
        "people": len(set(people.values())),
        "models": list(models),
        "ita": {
            "classes": {name: sum(class_of(angle) == name for angle in angles) for name in LIMITS},
            "range": [float(angles.min()), float(angles.max())],
            "spread_over_clips": float(angles.std(ddof=1)),
            "of_a_clips_frames": float(np.median([rows[clip]["ita_frames"] for clip in clips])),
            "of_the_two_cheeks": float(np.median([rows[clip]["ita_cheeks"] for clip in clips])),
        },
        "groups": groups,
        "correlations": {
            metric: {
                name: {kind: spearman(array, of[kind]) for kind in (models[1], "gain")}
                for name, array in covariates.items()
            }
            for metric, of in kinds.items()
        },
        "covariates": {
            f"{COVARIATES[a]} and {COVARIATES[b]}": spearman(covariates[a], covariates[b])
            for a, b in itertools.combinations(covariates, 2)
        },
        "chance_correlation": chance_spearman(len(clips)),
    }


def _mean(values: Float) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


# Tables.


def _with_interval(one: Mapping[str, Any], digits: int, sign: str = "") -> str:
    if not math.isfinite(one["mean"]):
        return "-"
    low, high = one["interval"]
    text = f"{one['mean']:{sign}.{digits}f}"
    return text if math.isnan(low) else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def tables(results: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: groups, differences between them, correlations."""
    before, after = results["models"]
    shown = [name for name in HEADLINES if name in results["correlations"]]
    heads = [METRICS[name].label for name in shown]
    skin = results["ita"]
    classes = ", ".join(f"{number} {name}" for name, number in skin["classes"].items() if number)
    intro = [
        f"{results['clips']} clips of {results['people']} people. ITA {skin['range'][0]:.0f} to "
        f"{skin['range'][1]:.0f} degrees (by Chardon's limits {classes}); standard deviation over clips "
        f"{skin['spread_over_clips']:.0f}, 5th to 95th percentile of a clip's frames {skin['of_a_clips_frames']:.0f}, "
        f"between the two cheeks of a frame {skin['of_the_two_cheeks']:.0f} (medians).",
        "",
        f"Means of `{after}`, and its gain over `{before}` (positive is better):",
        "",
    ]
    rows = []
    for split, found in results["groups"].items():
        for name, group in found["groups"].items():
            cells = [f"{split}: {name}", f"{group['clips']} ({group['people']})"]
            cells += [f"{group[key]:.0f}" if group["clips"] else "-" for key in ("ita", "yaw")]
            for metric in shown:
                of, digits = group["metrics"][metric], METRICS[metric].digits
                cells.append(f"{_with_interval(of[after], digits)}; {of['gain']['mean']:+.{digits}f}")
            rows.append(cells)
    lines = [*intro, *markdown(["group", "clips (people)", "ITA", "turn", *heads], rows).splitlines()]
    rows = []
    for split, found in results["groups"].items():
        one, other = list(found["groups"])[:2]
        if min(found["groups"][name]["clips"] for name in (one, other)) < 2:
            continue
        cells = [f"{split}: {one} less {other}"]
        for metric in shown:
            of, digits = found["differences"][metric], METRICS[metric].digits
            cells.append(f"{_with_interval(of[after], digits, '+')}; {_with_interval(of['gain'], digits, '+')}")
        rows.append(cells)
    lines += ["", "Differences between two groups, and what of them is chance:", ""]
    lines += markdown([f"difference of `{after}`; of the gain", *heads], rows).splitlines()
    lines += [
        "",
        f"Rank correlations (Spearman) over clips of `{after}`'s value; of its gain. Unrelated numbers exceed "
        f"{results['chance_correlation']:.2f} in one of 20 cases:",
        "",
    ]
    rows = []
    for key, name in COVARIATES.items():
        found = [results["correlations"][metric][key] for metric in shown]
        rows.append([name, *(f"{one[after]:+.2f}; {one['gain']:+.2f}" for one in found)])
    lines += markdown(["", *heads], rows).splitlines()
    pairs = ", ".join(f"{name} {value:+.2f}" for name, value in results["covariates"].items())
    return [*lines, "", f"Among themselves: {pairs}."]


# A run.


def read_values(
    folder: Path, protocol: str, models: Sequence[str]
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, str]]:
    """Values by metric, model and clip (NaN if missing), and the person of each clip.

    Raises InputError if the folder lacks these values.
    """
    path = folder / "clips.csv"
    if not path.is_file():
        raise InputError(f"{folder}: has no clips.csv; use a folder that `mimik evaluate -o` wrote.")
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    wanted = [line for line in lines if line["protocol"] == protocol and line["model"] in models]
    if {line["model"] for line in wanted} != set(models):
        there = sorted({f"{line['model']} ({line['protocol']})" for line in lines})
        raise InputError(f"{folder}: has no {' and '.join(models)} under {protocol}; it has {', '.join(there)}.")
    names = [name for name in METRICS if any(line.get(name) for line in wanted)]
    values: dict[str, dict[str, dict[str, float]]] = {name: {model: {} for model in models} for name in names}
    for line, name in itertools.product(wanted, names):
        values[name][line["model"]][line["clip"]] = float(line[name] or "nan")
    return values, {line["clip"]: line["person"] for line in wanted}


def read_labels(path: Path) -> dict[str, dict[str, str]]:
    """Labels of each clip.

    Raises InputError if the file is not a labels file.
    """
    if not path.is_file():
        raise InputError(f"--labels {path}: is no file; use a CSV with the columns clip, {', '.join(SEEN)}.")
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for number, line in enumerate(lines, 2):
        if not line.get("clip") or any(line.get(column) not in ("yes", "no") for column in SEEN):
            raise InputError(f"--labels {path}: line {number} is not a clip and yes or no for {', '.join(SEEN)}.")
    return {line["clip"]: line for line in lines}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder that mimik evaluate wrote")
    parser.add_argument("--data", type=Path, required=True, help="the shards that it measured")
    parser.add_argument("--models", default="geometry,texture", help="the one to compare with, and the one to look at")
    parser.add_argument("--protocol", default=FIRST, help="as in clips.csv")
    parser.add_argument("--labels", type=Path, default=LABELS, help="what was seen in the clips")
    parser.add_argument("-o", "--out", type=Path, help="the same as JSON")
    args = parser.parse_args()
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    models = tuple(args.models.split(","))
    if len(models) != 2:
        raise InputError(f"--models {args.models}: use two names, the one to compare with first.")
    if args.out is not None and not args.out.parent.is_dir():
        raise InputError(f"-o {args.out}: the folder {args.out.parent} does not exist; make it first.")
    values, people = read_values(args.report, args.protocol, models)
    seen = read_labels(args.labels)
    index = {clip.key: clip for clip in read_index(args.data)}
    if missing := [clip for clip in people if clip not in index]:
        raise InputError(f"--data {args.data}: lacks clip {missing[0]} of {args.report}; use what was measured.")
    store = ClipStore(args.data)
    rows = {}
    for number, clip in enumerate(people):
        rows[clip] = measures(store, index[clip])
        print(f"{number + 1}/{len(people)}", end="\r", file=sys.stderr, flush=True)
    results = report(rows, people, seen, values, (models[0], models[1]))
    print("\n".join(tables(results)))
    write_json(args.out, rounded({"mimik": VERSION, "protocol": args.protocol, **results, "of_clips": rows}, 6))


if __name__ == "__main__":
    sys.exit(main())
