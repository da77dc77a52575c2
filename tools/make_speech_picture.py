"""Render the film strip of docs/voice.md: a portrait that says a sentence, with captions under the frames.

python tools/make_speech_picture.py docs/pictures/voice.jpg PHOTO --say "Bob and Mary." --show 1:o 10:M
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from mimik.animation.avatar import Avatar
from mimik.inference.synthesis import DEFAULT_MODEL
from mimik.media.speaking import speak
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.sealing import seal

CELL_PX = 240
CAPTION_PX = 34


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    cell = np.zeros((CELL_PX + CAPTION_PX, CELL_PX, 3), np.uint8)
    cell[:CELL_PX] = cv2.resize(image, (CELL_PX, CELL_PX), interpolation=cv2.INTER_AREA)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.7, 1)
    place = (CELL_PX - width) // 2, CELL_PX + 24
    cv2.putText(cell, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 1, cv2.LINE_AA)
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--say", required=True)
    parser.add_argument("--show", nargs="+", required=True, metavar="FRAME:TEXT", help="frame numbers at 25 per second")
    arguments = parser.parse_args()
    wanted = {int(number): text for number, _, text in (one.partition(":") for one in arguments.show)}
    with tempfile.TemporaryDirectory() as folder:
        speech = speak(arguments.say, Path(folder) / "speech.wav")
        frames = Avatar.from_photos([arguments.photo]).frames(speech, frame="crop", size=2 * CELL_PX)
        cells = [captioned(frame, wanted[number]) for number, frame in enumerate(frames) if number in wanted]
    claim = Claim(arguments.out.name, DEFAULT_MODEL, (Ingredient.from_file("photo", arguments.photo),))
    with seal(arguments.out, claim, force=True) as draft:
        draft.write_image(np.concatenate(cells, axis=1))


if __name__ == "__main__":
    main()
