"""Edits by numbers: each slider changes only its feature, by the given amount; output is signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mimik.animation import avatar as avatar_module
from mimik.animation import edit
from mimik.animation.avatar import Avatar
from mimik.animation.edit import Editor, edited_motion_frame
from mimik.animation.sliders import SLIDERS, Edit
from mimik.app.cli import app
from mimik.config import AnimateConfig, InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Face, Landmarker, canonical_mesh, head_pose
from mimik.media import video
from mimik.motion.contact import lip_openings, with_lip_openings
from mimik.provenance.verifying import verify

MOVES = {
    "smile": faces.LIPS,
    "mouth": faces.LIPS,
    "blink": faces.EYES,
    "brows": faces.BROWS,
    "gaze_x": faces.IRISES,
    "gaze_y": [*faces.IRISES, *faces.EYES],
}
FEATURES = [*faces.LIPS, *faces.EYES, *faces.BROWS, *faces.IRISES]


@pytest.fixture(scope="module")
def editor(avatar: Avatar) -> Editor:
    return Editor(avatar, AnimateConfig(model="geometry"))


def gap(points: np.ndarray, upper: list[int], lower: list[int]) -> float:
    return float((points[lower[1:-1], 1] - points[upper[1:-1], 1]).mean())


def test_nothing_changed_is_the_photo(editor: Editor, small_portrait: np.ndarray, small_face: Face):
    assert (editor(Edit()) == small_portrait).all()
    np.testing.assert_allclose(editor.points(Edit()), small_face.points, atol=0.02)


@pytest.mark.parametrize("name", MOVES)
def test_a_slider_moves_its_own_feature_only(editor: Editor, small_face: Face, name: str):
    moved = np.linalg.norm(editor.points(Edit(**{name: 1})) - editor.points(Edit()), axis=1)
    others = [i for i in FEATURES if i not in MOVES[name]]
    assert moved[MOVES[name]].max() > 0.02 * small_face.width_px
    assert moved[others].max() < 1e-6


def test_a_mouth_opens_and_smiles(editor: Editor, small_face: Face):
    before, after = editor.points(Edit()), editor.points(Edit(mouth=0.5))
    inner = faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER
    assert gap(after, *inner) > gap(before, *inner) + 0.05 * small_face.width_px
    smiling, sad = editor.points(Edit(smile=1)), editor.points(Edit(smile=-1))
    corners = [61, 291]
    assert (smiling[corners, 1] < before[corners, 1]).all() and (sad[corners, 1] > before[corners, 1]).all()
    assert np.ptp(smiling[corners, 0]) > np.ptp(before[corners, 0])


def test_the_upper_lip_rises_early_off_the_teeth():
    mesh = np.concatenate([canonical_mesh().vertices, np.zeros((len(faces.IRISES), 3))])
    shape = with_lip_openings(mesh, np.zeros(9))
    eyes_cm = np.linalg.norm((shape[33] + shape[133] - shape[362] - shape[263]) / 2)

    def rise_mm(amount: float) -> float:
        offset = edited_motion_frame(Edit(mouth=amount), shape).offset
        return float(offset[2, 1] - offset[13, 1]) / eyes_cm * 63

    # Training frames: 2.6 mm at gaps of 6 to 9 mm, 3.9 mm at 16 to 24 mm.
    assert rise_mm(0.35) == pytest.approx(2.6, abs=0.7)
    assert rise_mm(1.0) == pytest.approx(3.7, abs=0.9)
    assert rise_mm(0.35) > 0.6 * rise_mm(1.0)


def test_lips_that_touch_smile_closed():
    shape = canonical_mesh().vertices
    shape = np.concatenate([shape, np.zeros((len(faces.IRISES), 3))])
    shut = with_lip_openings(shape, np.zeros(9))
    for base, parts in ((shut, False), (with_lip_openings(shape, np.full(9, 0.1)), True)):
        frame = edited_motion_frame(Edit(smile=1), base)
        widened = np.abs(lip_openings(base + frame.offset) - lip_openings(base)).max()
        assert widened > 0.02 if parts else widened < 1e-6
        assert (frame.offset[[61, 291], 1] < -0.2).all()  # the corners rise, in centimeters


def test_eyes_shut_and_widen(editor: Editor):
    for lids in ((faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER), (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER)):
        usual = gap(editor.points(Edit()), *lids)
        assert gap(editor.points(Edit(blink=1)), *lids) < 0.15 * usual
        assert gap(editor.points(Edit(blink=0.5)), *lids) == pytest.approx(0.5 * usual, rel=0.12)
        assert gap(editor.points(Edit(blink=-1)), *lids) > 1.3 * usual


@pytest.mark.parametrize("name, axis", [("yaw", 0), ("pitch", 1), ("roll", 2)])
@pytest.mark.parametrize("degrees", [-10, 12])
def test_the_picture_is_turned_by_the_degrees_asked_for(
    editor: Editor, landmarker: Landmarker, name: str, axis: int, degrees: float
):
    before, after = (
        head_pose(found_in(editor, landmarker, e).points).degrees for e in (Edit(), Edit(**{name: degrees}))
    )
    change = np.subtract(after, before)
    assert change[axis] == pytest.approx(degrees, abs=3)
    assert np.abs(np.delete(change, axis)).max() < 4  # the photo's own pose is not quite frontal
    assert editor.notes(Edit(**{name: degrees})) == []


def test_a_head_turns_about_the_neck():
    """Degrees; shift of the middle of the face, 6.1 cm above and 3.9 cm before the pivot, by hand."""
    shape = canonical_mesh().vertices.astype(np.float64)
    shape = np.concatenate([shape, np.zeros((faces.NUM_POINTS - len(shape), 3))])
    for name, degrees, expected in (
        ("yaw", 30, (3.9 * 0.5, 0)),  # to the right, like the nose
        ("pitch", 20, (0, 6.1 * (1 - 0.9397) + 3.9 * 0.3420)),  # down, like the nose
        ("roll", 90, (6.1, 6.1)),  # clockwise
    ):
        amounts = dict.fromkeys(SLIDERS, 0.0) | {name: float(degrees)}
        np.testing.assert_allclose(edited_motion_frame(amounts, shape).shift[:2], expected, atol=0.01)


def found_in(editor: Editor, landmarker: Landmarker, one: Edit) -> Face:
    """The face detected in the edited picture."""
    return landmarker.detect(editor(one))[0]


def blendshape(face: Face, *names: str) -> float:
    return float(np.mean([face.blendshapes[BLENDSHAPES.index(name)] for name in names]))


def test_thirty_degrees_are_reached_or_the_note_states_the_angle(editor: Editor, landmarker: Landmarker):
    for degrees in (30, -30):
        turned = [head_pose(found_in(editor, landmarker, e).points).degrees[0] for e in (Edit(), Edit(yaw=degrees))]
        change = turned[1] - turned[0]
        notes = editor.notes(Edit(yaw=degrees))
        if abs(change - degrees) > 3:
            assert notes and "this photo allows" in notes[0]
            assert abs(change) > 20


def test_expressions_reach_the_blendshape_that_they_name(editor: Editor, landmarker: Landmarker):
    wide = blendshape(found_in(editor, landmarker, Edit(mouth=1)), "jawOpen")
    assert wide > 0.4  # of a broad smile
    assert wide > 0.6 or editor.notes(Edit(mouth=1))
    assert blendshape(found_in(editor, landmarker, Edit(smile=1)), "mouthSmileLeft", "mouthSmileRight") > 0.6
    assert blendshape(found_in(editor, landmarker, Edit(brows=1)), "browInnerUp", "browOuterUpLeft") > 0.55
    right = found_in(editor, landmarker, Edit(gaze_x=1))
    assert blendshape(right, "eyeLookOutLeft", "eyeLookInRight") > 0.55
    half = blendshape(found_in(editor, landmarker, Edit(mouth=0.5)), "jawOpen")
    assert 0.1 < half < 0.8 * wide


def test_what_a_photo_does_not_allow_is_reported(editor: Editor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(edit, "_MEASURES", edit._MEASURES | {"yaw": replace(edit._MEASURES["yaw"], furthest=0.5)})
    assert editor.notes(Edit(yaw=27))[0].startswith("--yaw 27: this photo allows only 1")
    monkeypatch.setattr(edit, "_MEASURES", edit._MEASURES | {"mouth": replace(edit._MEASURES["mouth"], furthest=0.3)})
    assert "--mouth 0.9: this photo allows" in editor.notes(Edit(mouth=0.9))[0]
    assert editor.notes(Edit(blink=1)) == editor.notes(Edit()) == []


def test_what_a_photo_shows_already_is_hardly_drawn():
    assert edit._slider_room("smile", 1.0, 0.0) == 1
    assert edit._slider_room("smile", 1.0, 0.4) == pytest.approx(0.5)  # of 0.8
    assert edit._slider_room("smile", 1.0, 0.96) == edit._LEAST_ROOM
    assert edit._slider_room("gaze_x", -1.0, 0.7) == 1  # to the other side
    assert edit._slider_room("yaw", 20.0, 25.0) == 1  # degrees are added


def test_lids_follow_a_falling_gaze_and_stay_open(small_face: Face):
    shape = head_pose(small_face.points).invert(small_face.points)
    amounts = dict.fromkeys(SLIDERS, 0.0) | {"gaze_y": 10.0}
    for upper, lower in ((159, 145), (386, 374)):
        moved = shape + edit.edited_motion_frame(amounts, shape).offset
        before, after = ((one[lower, 1] - one[upper, 1]) for one in (shape, moved))
        assert 0.3 * before < after < 0.7 * before


def test_a_rising_gaze_is_not_a_stare(small_face: Face):
    shape = head_pose(small_face.points).invert(small_face.points)
    for upper, lower in ((159, 145), (386, 374)):
        moved = shape + edit.edited_motion_frame(dict.fromkeys(SLIDERS, 0.0) | {"gaze_y": -10.0}, shape).offset
        before, after = ((one[lower, 1] - one[upper, 1]) for one in (shape, moved))
        assert 1.1 * before < after < 1.25 * before
        assert moved[lower, 1] < shape[lower, 1]  # the lower lid rises, too


def test_both_sides_of_a_face_do_the_same(landmarker: Landmarker):
    """Edits of a mirror-symmetric face are symmetric."""
    order, _ = faces.mirror_order()
    mesh = faces.canonical_mesh().vertices
    iris = [mesh[[a, b]].mean(0) for a, b in ((33, 133), (362, 263))]
    rim = 0.5 * np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [-1, 0, 0], [0, 1, 0]])
    shape = np.concatenate([mesh, iris[0] + rim, iris[1] + rim])
    shape = (shape + shape[order] * [-1, 1, 1]) / 2
    for change in ({"smile": 1}, {"smile": -1}, {"mouth": 1}, {"brows": 1}, {"blink": 1}, {"gaze_y": 1}):
        offset = edit.edited_motion_frame(Edit(**change), shape).offset
        np.testing.assert_allclose(offset, offset[order] * [-1, 1, 1], atol=1e-9, err_msg=str(change))


def test_the_picture_shows_what_the_points_say(editor: Editor, landmarker: Landmarker, small_face: Face):
    found = landmarker.detect(editor(Edit(yaw=12, mouth=0.5)))[0]
    wanted = editor.points(Edit(yaw=12, mouth=0.5))
    error = np.linalg.norm(found.points[FEATURES, :2] - wanted[FEATURES, :2], axis=1).mean()
    assert error < 0.03 * small_face.width_px


@pytest.mark.parametrize("name", SLIDERS)
def test_values_outside_the_slider_are_refused(name: str):
    low, high = SLIDERS[name]
    Edit(**{name: low})
    Edit(**{name: high})
    for value in (low - 0.1, high + 0.1, float("nan")):
        with pytest.raises(InputError, match=rf"--{name.replace('_', '-')} .*use a number from"):
            Edit(**{name: value})


@pytest.mark.usefixtures("one_landmarker")
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_command_writes_a_sealed_picture(small_path: Path, tmp_path: Path, suffix: str):
    out = tmp_path / f"smiling{suffix}"
    arguments = ["edit", str(small_path), "--smile", "0.6", "--yaw", "12", "--model", "geometry", "-o", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "256x256" in result.stdout
    verdict = verify(out)
    assert verdict.exit_code == 0
    assert "geometry" in verdict.sentence
    assert '"smile": 0.6' in verdict.to_json() and '"yaw": 12' in verdict.to_json()
    changed = np.abs(video.read_image(out).astype(int) - video.read_image(small_path)).mean()
    assert changed > 2
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("one_landmarker")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--smile", "2"], "--smile 2.0: use a number from -1 to 1"),
        (["--yaw", "much"], "'much' is not a number"),
        (["-o", "smiling.mp4"], "an edit produces one picture"),
        (["-o", "frames/%05d.png"], "an edit produces one picture"),
        (["-o", "there.png"], "already exists"),
        (["--model", "best"], "no such model"),
        (["--certificate", "mine.pem"], "--certificate and --key go together"),
    ],
)
def test_bad_input_is_reported_and_writes_nothing(
    small_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"mine")
    given = arguments if "-o" in arguments else [*arguments, "-o", "new.png"]
    result = CliRunner().invoke(app, ["edit", str(small_path), *given])
    assert result.exit_code == 2
    assert message in result.stderr
    assert (tmp_path / "there.png").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_landmarker")
def test_every_step_is_reported_before_it_starts(small_path: Path, tmp_path: Path):
    told: list[tuple[str, int, int | None]] = []
    avatar_module.edit_photo(small_path, tmp_path / "a.png", smile=0.5, size=64, progress=lambda *how: told.append(how))
    assert [(done, total) for _, done, total in told] == [
        (number, edit.EDIT_STEPS) for number in range(edit.EDIT_STEPS)
    ]
    assert told[0][0] == "reading the photo" and told[-1][0] == "marking and signing"
