"""Rotated faces: rotations computed by hand, detection in rotated pictures, warnings for pictures without a face."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import turned
from mimik.animation.source_image import source_of_photo
from mimik.face.landmarks import Face, Image, Landmarker, head_pose
from mimik.face.orientation import confidence_note, find_faces, num_quarter_turns, rotated_face, upright
from mimik.media import video
from mimik.motion.drivers.driver import DriverSettings
from mimik.motion.drivers.registry import open_driver


def test_points_turn_with_their_picture(small_face: Face) -> None:
    """A mark in the picture stays at its point for each rotation; width and height differ."""
    height, width = 20, 30
    for turns in (-1, 0, 1, 2, 3, 5):
        picture = np.zeros((height, width), np.uint8)
        picture[4, 7] = 1
        face = replace(small_face, points=np.array([[7.5, 4.5, 9.0]], np.float32))
        y, x = np.argwhere(np.rot90(picture, turns))[0]
        np.testing.assert_allclose(rotated_face(face, turns, width, height).points, [[x + 0.5, y + 0.5, 9.0]])


@pytest.mark.parametrize(("roll", "turns"), [(0, 0), (-50, 0), (50, 0), (88, 1), (-91, 3), (178, 2), (-170, 2)])
def test_quarters_that_make_a_face_upright(small_face: Face, roll: float, turns: int) -> None:
    rolled = replace(small_face, points=turned(small_face.points, roll=roll).astype(np.float32))
    assert num_quarter_turns(rolled) == turns


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_is_found_whichever_side_is_up(
    landmarker: Landmarker, small_portrait: Image, small_face: Face, turns: int
) -> None:
    lying = np.ascontiguousarray(np.rot90(small_portrait, turns))
    (face,) = find_faces(landmarker, lying)
    assert face.score > 0.8
    assert num_quarter_turns(face) == -turns % 4
    picture, straight, note = upright(lying, face, "a.png")
    np.testing.assert_array_equal(picture, small_portrait)
    assert np.abs(straight.points[:, :2] - small_face.points[:, :2]).max() < 0.05 * small_face.width_px
    assert note and "a.png" in note


def test_an_upside_down_photo_is_rotated_with_a_note(
    landmarker: Landmarker, small_portrait: Image, tmp_path: Path
) -> None:
    video.write_image(tmp_path / "a.png", np.ascontiguousarray(np.rot90(small_portrait, 2)))
    image = source_of_photo(tmp_path / "a.png", landmarker, None)
    np.testing.assert_array_equal(image.picture, small_portrait)
    assert abs(head_pose(image.face.points).degrees[2]) < 20
    assert image.note == "the face in a.png is upside down; the picture is rotated upright"


def test_a_driver_that_lies_on_its_side_drives_as_an_upright_one(landmarker: Landmarker, driver) -> None:
    pictures = list(video.read_frames(driver.path))[:10]
    settings = DriverSettings(landmarker=landmarker)
    turns = []
    for quarter in (0, 1):
        lying = np.stack([np.rot90(picture, quarter) for picture in pictures])
        with open_driver(lying, 25).motion(settings) as motion:
            turns.append(np.array([frame.turn for frame in motion.frames]))
    assert np.abs(turns[0] - turns[1]).max() < np.radians(1.5)


def test_a_doubtful_face_is_reported(small_face: Face) -> None:
    assert small_face.score > 0.8 and confidence_note(small_face, "a.png") is None
    said = confidence_note(replace(small_face, score=0.31), "a.png")
    assert said and said.startswith("the face in a.png is uncertain (confidence 31 %)")


def drawn_dog(color: tuple[int, int, int], pointed: bool, side: int = 320) -> Image:
    """A drawn dog's head with ears, snout and nose on a plain background."""
    picture = np.full((side, side, 3), 125, np.uint8)
    middle = side // 2

    def place(*parts: float) -> list[int]:
        return [round(part * side) for part in parts]

    ears = tuple(part // 2 for part in color)
    for sign in (-1, 1):
        if pointed:
            corners = np.array([[0.08, 0.28], [0.26, 0.35], [0.24, 0.08]]) * [sign, 1] + [0.5, 0]
            cv2.fillConvexPoly(picture, np.round(corners * side).astype(np.int32), ears, cv2.LINE_AA)
        else:
            center = place(0.5 + sign * 0.27, 0.5)
            cv2.ellipse(picture, center, place(0.1, 0.25), -12 * sign, 0, 360, ears, -1, cv2.LINE_AA)
    cv2.ellipse(picture, (middle, middle), place(0.25, 0.28), 0, 0, 360, color, -1, cv2.LINE_AA)
    snout = tuple(min(255, part + 50) for part in color)
    cv2.ellipse(picture, place(0.5, 0.63), place(0.13, 0.14), 0, 0, 360, snout, -1, cv2.LINE_AA)
    for sign in (-1, 1):
        cv2.circle(picture, place(0.5 + sign * 0.1, 0.43), round(0.035 * side), (50, 30, 20), -1, cv2.LINE_AA)
        cv2.circle(picture, place(0.497 + sign * 0.1, 0.42), round(0.012 * side), (250, 250, 250), -1, cv2.LINE_AA)
    cv2.ellipse(picture, place(0.5, 0.57), place(0.055, 0.035), 0, 0, 360, (20, 15, 15), -1, cv2.LINE_AA)
    cv2.line(picture, place(0.5, 0.6), place(0.5, 0.67), (20, 15, 15), 2, cv2.LINE_AA)
    cv2.ellipse(picture, place(0.5, 0.68), place(0.07, 0.03), 0, 0, 180, (20, 15, 15), 2, cv2.LINE_AA)
    return picture


@pytest.mark.parametrize(("color", "pointed"), [((170, 110, 60), False), ((215, 200, 190), True), ((95, 60, 40), True)])
def test_a_dog_is_not_taken_for_a_person(landmarker: Landmarker, color: tuple[int, int, int], pointed: bool) -> None:
    found = find_faces(landmarker, drawn_dog(color, pointed))
    assert all(confidence_note(face, "dog.png") for face in found), [face.score for face in found]


def test_what_is_no_head_is_not_sure(landmarker: Landmarker, small_portrait: Image) -> None:
    """Half of a face upside down below the other half: the detector finds a face with low confidence."""
    half = small_portrait[:128]
    chimera = np.concatenate([half, half[::-1]])
    assert all(face.score < 0.85 for face in find_faces(landmarker, chimera))


def test_a_picture_that_is_a_line_shows_no_face(landmarker: Landmarker) -> None:
    assert find_faces(landmarker, np.zeros((5000, 1, 3), np.uint8)) == []
    assert find_faces(landmarker, np.zeros((1, 5000, 3), np.uint8)) == []
