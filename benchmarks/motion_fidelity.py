"""Motion fidelity: the drivers' motion in photos of other people, by landmarks detected in the final frames.

    python benchmarks/motion_fidelity.py [--model geometry] [--photos A,B] [--drivers A,B] [-o OUT.json]

Eight photos (closed and open mouths, paintings, a drawing, black and white) by six clips of the development set, the
first 5 seconds at 12.5 frames per second, cropped to the face at 384 px, rendered by `Avatar.frames`. The 68 points are
detected in result and driver by dlib if installed, else by MediaPipe; the report names the detector. `ceiling` compares
each driver with itself in smaller pictures: the best score that detector noise allows. `detectors` compares each
driver's signals by MediaPipe, from which motion is computed, with those by dlib. The signals are defined in
mimik.evaluation.motion_fidelity. Prints tables, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2

from mimik import Avatar
from mimik.arrays import Float
from mimik.config import VERSION, InputError
from mimik.evaluation import motion_fidelity
from mimik.evaluation.detectors import INSTALL_DLIB, Detector
from mimik.face.landmarks import Image, Landmarker
from mimik.media import video
from mimik.motion.smoothing import BEGIN_S
from reporting import ROOT, SHARED, commit, exit_code, machine, write_json

PHOTOS = {  # by name: what it tests
    "eileen_collins.png": "a photo, smiling with teeth",
    "female_512_74.jpg": "a photo, mouth wide open",
    "male_512_24.jpg": "a photo, lips parted, narrow eyes",
    "photo_black_and_white_2048.jpg": "black and white, lips closed",
    "painting_mona_lisa.jpg": "a painting, lips closed, old varnish",
    "painting_pearl_earring.jpg": "a painting, turned by a quarter, lips parted",
    "painting_woman_in_black.jpg": "a painting, lips closed",
    "drawing_girl.jpg": "a drawing, lips closed",
}
DRIVERS = ("1c3f5d502b_0", "205922bbc8_0", "332bc88cc6_0", "3cc4f18adc_0", "79ca7f2fce_0", "b50419cbcd_0")
FOLDERS = (ROOT / "src/mimik/assets/portraits", SHARED / "assets/donors", SHARED / "portraits")
FPS, SECONDS, SIZE_PX = 12.5, 5.0, 384
_SMALLER = 0.8  # scale of the driver's pictures for the ceiling


def file_of(option: str, name: str, usual: Iterable[Path]) -> Path:
    """The given path, or the first default path that exists. Raises InputError if there is none."""
    places = [Path(name), *usual]
    for path in places:
        if path.is_file():
            return path
    folders = ", ".join(str(path.parent) for path in places[1:])
    raise InputError(f"--{option} {name}: no such file, here or in {folders}; use a path.")


def first_frames(path: Path) -> Iterator[Image]:
    """The first frames of a driver."""
    for number, image in enumerate(video.read_frames(path, fps=FPS)):
        if number >= round(FPS * SECONDS):
            return
        yield image


def smaller(image: Image) -> Image:
    """The picture scaled down, as from a camera farther away."""
    return cv2.resize(image, None, fx=_SMALLER, fy=_SMALLER, interpolation=cv2.INTER_AREA)


def without_beginning(signals: dict[str, Float]) -> dict[str, Float]:
    """A driver's signals relative to its initial pose, because the head starts in the photo's pose."""
    values = {name: value.copy() for name, value in signals.items()}
    for name in ("yaw", "pitch", "roll"):
        values[name][: math.ceil(FPS * BEGIN_S)] = math.nan
    return values


def measured(
    photos: Sequence[Path], drivers: Sequence[Path], options: dict[str, Any], *, with_ceiling: bool
) -> dict[str, Any]:
    """Results of fidelity(): `pairs` of photo and driver; `ceiling` and `detectors` by driver."""
    landmarker = Landmarker()
    detector = Detector.best(landmarker)
    with tempfile.TemporaryDirectory() as folder:
        clips, signals, ceiling, detectors = {}, {}, {}, {}
        for path in drivers:
            images = list(first_frames(path))
            clips[path.stem] = Path(folder) / f"{path.stem}.mp4"
            clips[path.stem].write_bytes(video.encode_clip(images, FPS, quality=10, gop=25))
            images = list(video.read_frames(clips[path.stem]))
            driver = detector.find(images)
            signals[path.stem] = motion_fidelity.signals(driver)
            if with_ceiling:
                again = motion_fidelity.signals(detector.find(map(smaller, images)))
                ceiling[path.stem] = motion_fidelity.compare_signals(signals[path.stem], again)
                own = motion_fidelity.signals(driver.own())
                detectors[path.stem] = motion_fidelity.compare_signals(signals[path.stem], own)
        pairs: dict[str, Any] = {}
        for photo in photos:
            avatar = Avatar.from_photos([photo], landmarker=landmarker)
            for name, clip in clips.items():
                result = detector.find(avatar.frames(clip, **options))
                pair = f"{photo.stem} by {name}"
                pairs[pair] = motion_fidelity.compare_signals(
                    without_beginning(signals[name]), motion_fidelity.signals(result)
                )
                print(f"{len(pairs)}/{len(photos) * len(clips)} {pair}", file=sys.stderr, flush=True)
    more = {"ceiling": ceiling, "detectors": detectors}
    return {"detector": detector.name, "gaze": "MediaPipe's irises", **more, "pairs": pairs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="geometry", help="as in mimik animate")
    parser.add_argument("--photos", default=",".join(PHOTOS), help="names or paths, separated by commas")
    parser.add_argument("--drivers", default=",".join(DRIVERS), help="names or paths, separated by commas")
    parser.add_argument("--no-ceiling", action="store_true", help="skip what does not depend on the program")
    parser.add_argument("-o", "--out", type=Path, default=Path("motion_fidelity.json"))
    args = parser.parse_args()
    return exit_code(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    options = {"model": args.model, "frame": "crop", "size": SIZE_PX}
    start, version = time.process_time(), commit()
    photos = [file_of("photos", name, (folder / name for folder in FOLDERS)) for name in args.photos.split(",")]
    clips = SHARED / "corpus/dev"
    drivers = [file_of("drivers", name, [clips / f"{name}.mp4"]) for name in args.drivers.split(",")]
    if not args.out.parent.is_dir():
        raise InputError(f"-o {args.out}: the folder {args.out.parent} does not exist; make it first.")
    found = measured(photos, drivers, options, with_ceiling=not args.no_ceiling)
    groups = "pairs", "ceiling", "detectors"
    summaries = {name: motion_fidelity.fidelity_summary(found[name]) for name in groups if found[name]}
    report = {
        "mimik": VERSION,
        "commit": version,
        "machine": machine(),
        "options": options | {"fps": FPS, "seconds": SECONDS},
        "processor_seconds": round(time.process_time() - start, 1),
        "summary": summaries["pairs"],
        "summary_of_ceiling": summaries.get("ceiling"),
        "summary_of_detectors": summaries.get("detectors"),
        **found,
    }
    write_json(args.out, motion_fidelity.rounded(report))
    print(f"{len(found['pairs'])} pairs, commit {report['commit']}, {report['processor_seconds']} s of processor time")
    print(f"points by {found['detector']}; gaze by {found['gaze']}")
    if "NOT independent" in found["detector"]:
        print(f"For an independent detector: {INSTALL_DLIB}.")
    print(motion_fidelity.table(summaries["pairs"]))
    for name, line in summaries["pairs"].items():
        print(f"worst of {name}: {', '.join(line['worst'])}")
    if "ceiling" in summaries:
        print("\nCeiling: each driver against itself in smaller pictures:\n")
        print(motion_fidelity.table(summaries["ceiling"]))
        print("\nEach driver by MediaPipe against the same by the detector named above:\n")
        print(motion_fidelity.table(summaries["detectors"]))


if __name__ == "__main__":
    sys.exit(main())
