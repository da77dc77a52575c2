"""The Python API: photos and drivers in memory, options, edits, and error messages."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import mimik
from mimik.animation.avatar import Avatar
from mimik.animation.options import EditOptions, FrameOptions, RenderOptions, Sliders, in_python_words
from mimik.config import AnimateConfig, InputError, MediaError, OptionError
from mimik.face.landmarks import Image
from mimik.media import video
from mimik.motion.drivers.registry import open_driver
from mimik.motion.drivers.video import extract_motion
from mimik.motion.files import bundled_motions
from mimik.provenance.verifying import Status, verify

pytestmark = pytest.mark.usefixtures("the_warp_alone", "one_landmarker")


def frames_of(avatar: Avatar, driver: object, **options: object) -> list[Image]:
    return [np.array(frame) for frame in avatar._unmarked(driver, AnimateConfig(model="geometry", **options))]


# Photos.


def test_a_photo_is_a_path_a_picture_an_array_or_a_list_of_these(small_path: Path, small_portrait: Image) -> None:
    rgba = np.dstack([small_portrait, np.full(small_portrait.shape[:2], 255, np.uint8)])
    for photo in (str(small_path), small_path, Pillow.fromarray(small_portrait), small_portrait, rgba):
        for photos in (photo, [photo], (photo,)):
            np.testing.assert_array_equal(Avatar.from_photos(photos).picture, small_portrait)
    both = Avatar.from_photos([small_path, small_portrait])
    assert len(both._every) == 2


def test_a_string_is_one_path_and_not_its_letters() -> None:
    with pytest.raises(MediaError, match=r"^no_such\.jpg does not exist"):
        Avatar.from_photos("no_such.jpg")


def test_a_picture_in_memory_is_upright_and_on_white(small_portrait: Image, small_path: Path, tmp_path: Path) -> None:
    lying = Pillow.fromarray(np.rot90(small_portrait))
    exif = lying.getexif()
    exif[0x0112] = 6  # rotated clockwise by 90 degrees for display
    lying.info["exif"] = exif.tobytes()
    lying.save(tmp_path / "lying.png", exif=exif)
    opened = Pillow.open(tmp_path / "lying.png")
    np.testing.assert_array_equal(Avatar.from_photos(opened).picture, video.read_image(tmp_path / "lying.png"))


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (np.zeros((8, 8, 3)), r"an array float64 \[8, 8, 3\] is not a picture: its values must be uint8"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"an array uint8 \[2, 8, 8, 3\] is not a picture; use a path"),
        (7, "int is not a picture"),
        ([], "no photo was given"),
    ],
)
def test_what_is_no_photo_is_refused(photo: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Avatar.from_photos(photo)  # type: ignore[arg-type]


def test_an_empty_output_is_not_the_current_folder(
    small_portrait: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r'^out="": the name is empty'):
        Avatar.from_photos(small_portrait).render("smile", "", fps=2, force=True)
    assert not list(tmp_path.iterdir())


def test_a_picture_in_memory_is_named_in_the_manifest(small_portrait: Image, tmp_path: Path) -> None:
    report = Avatar.from_photos(small_portrait).render("smile", tmp_path / "a.mp4", fps=2)
    verdict = verify(tmp_path / "a.mp4")
    assert verdict.status is Status.MIMIK
    assert [source.name for source in verdict.sources] == ["picture in memory", "bundled smile"]
    assert report.photo == "picture in memory"


# Drivers.


@pytest.mark.slow
def test_a_motion_in_memory_drives_as_its_file_does(avatar: Avatar, tmp_path: Path) -> None:
    motion = mimik.Motion.load(bundled_motions()["smile"])
    for one, other in zip(frames_of(avatar, motion, fps=2), frames_of(avatar, "smile", fps=2), strict=True):
        np.testing.assert_array_equal(one, other)
    avatar.render(motion, tmp_path / "a.mp4", fps=2)
    assert verify(tmp_path / "a.mp4").status is Status.MIMIK


@pytest.mark.slow
def test_frames_in_memory_drive_as_their_video_does(avatar: Avatar, driver) -> None:
    pictures = list(video.read_frames(driver.path))[:5]
    rate = video.probe(driver.path).fps
    given: list[Callable[[], object]] = [
        lambda: np.stack(pictures),
        lambda: iter(pictures),
        lambda: [Pillow.fromarray(picture) for picture in pictures],
    ]
    expected = frames_of(avatar, given[0](), fps=rate)
    assert len(expected) == 5
    for make in given[1:]:
        for one, other in zip(frames_of(avatar, make(), fps=rate), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    motion = extract_motion(open_driver(np.stack(pictures), rate))
    assert len(motion) == 5 and motion.fps == rate


@pytest.mark.slow
def test_a_picture_in_memory_drives_as_its_file_does(avatar: Avatar, portrait_path: Path, portrait: Image) -> None:
    expected = frames_of(avatar, portrait_path, fps=2)
    for picture in (portrait, Pillow.fromarray(portrait)):
        for one, other in zip(frames_of(avatar, picture, fps=2), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_no_driver_is_refused(avatar: Avatar, portrait: Image) -> None:
    with pytest.raises(TypeError, match=r"frames in memory have no rate; pass fps=, frames per second"):
        avatar.frames(portrait[None])
    with pytest.raises(InputError, match="the driver has no frames"):
        avatar.frames(portrait[None][:0], fps=25)
    with pytest.raises(InputError, match="int is not a driver"):
        avatar.frames(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="drive_by=sound: a driver in memory has no sound"):
        avatar.frames(portrait[None], fps=25, drive_by="sound")
    once = open_driver(iter([portrait]), 25)
    list(once.pictures(512))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="used up"):
        list(once.pictures(512))  # type: ignore[attr-defined]


# Options.


def test_options_are_those_of_the_settings() -> None:
    ours = {field.name for field in fields(AnimateConfig)}
    assert set(RenderOptions.__annotations__) == ours - {"face"}
    assert set(FrameOptions.__annotations__) == ours - {"face", "quality", "audio", "consent"}
    assert set(Sliders.__annotations__) == {field.name for field in fields(mimik.Edit)}
    types = typing.get_type_hints(AnimateConfig)
    for name, annotation in typing.get_type_hints(RenderOptions).items():
        if name != "size":
            assert annotation == types[name], name
    for function in (Avatar.frames, Avatar.render, Avatar.edit):
        assert typing.Any not in typing.get_type_hints(function).values()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strenght": 1}, r"^render\(\) got an unexpected keyword argument 'strenght'; did you mean 'strength'\?$"),
        ({"face": 2}, r"^render\(\) got an unexpected keyword argument 'face'; the face is chosen by Avatar"),
        ({"config": AnimateConfig(), "fps": 2}, r"^render\(\) got config and 'fps'; pass only one$"),
        ({"driver_face": 2}, "^driver_face=2: bundled smile is a motion and shows no faces"),
        ({"seed": 2}, "^seed=2: bundled smile is a motion and has its own motion; .* or omit seed="),
        ({"neutral": 1.0}, "^neutral=1: bundled smile"),
    ],
)
def test_unknown_and_useless_options_are_type_errors(
    avatar: Avatar, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        avatar.render("smile", tmp_path / "a.mp4", **options)
    assert not list(tmp_path.iterdir())


def test_options_that_a_file_does_not_have_are_type_errors(avatar: Avatar, tmp_path: Path, small_path: Path) -> None:
    with pytest.raises(TypeError, match=r"quality=3: applies to videos only; omit it for a\.gif"):
        avatar.render("smile", tmp_path / "a.gif", quality=3)
    with pytest.raises(TypeError, match=r"fps=: a\.png is one picture; omit fps="):
        avatar.render(small_path, tmp_path / "a.png", fps=3)
    with pytest.raises(TypeError, match=r"frames\(\) got an unexpected keyword argument 'quality'; it is the quality"):
        avatar.frames("smile", quality=3)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"a\.tiff cannot be written as \.tiff"):
        avatar.render("smile", tmp_path / "a.tiff")


def test_native_size(avatar: Avatar) -> None:
    assert AnimateConfig(size="native").size is None  # type: ignore[arg-type]
    assert next(iter(avatar.frames("smile", size="native", fps=2))).shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("--size 20: use a number", "size=20: use a number"),
        ("-o a.mp4: already exists; pass --force to replace it, or use another -o.",
         "out=a.mp4: already exists; pass force=True to replace it, or use another out."),
        ("--driver-face 2: x-ray; omit --driver-face", "driver_face=2: x-ray; omit driver_face="),
        ("sound; pass --no-audio", "sound; pass audio=False"),
    ],
)  # fmt: skip
def test_messages_in_python_words(message: str, expected: str) -> None:
    assert in_python_words(message) == expected


def test_the_command_line_keeps_its_words(avatar: Avatar, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^--seed 2"):
        avatar.render("smile", tmp_path / "a.mp4", config=AnimateConfig(seed=2))


# Edits.


def test_an_edit_from_an_avatar(avatar: Avatar, small_path: Path, tmp_path: Path) -> None:
    made = avatar.edit(tmp_path / "a.png", smile=0.6, size="native")
    assert (made.width, made.height) == (256, 256)
    assert verify(tmp_path / "a.png").status is Status.MIMIK
    mimik.edit(small_path, tmp_path / "b.png", mimik.Edit(smile=0.6))
    difference = video.read_image(tmp_path / "a.png").astype(int) - video.read_image(tmp_path / "b.png")
    assert np.abs(difference).max() < 24  # each has a different watermark
    assert set(EditOptions.__annotations__) >= set(Sliders.__annotations__)
    for options, message in (
        ({"smiles": 1}, "unexpected keyword argument 'smiles'; did you mean 'smile'"),
        ({"edit": mimik.Edit(), "smile": 1.0}, "got an Edit and 'smile'"),
    ):
        with pytest.raises(TypeError, match=message):
            avatar.edit(tmp_path / "c.png", **options)
    with pytest.raises(InputError, match=r"^yaw=90: use a number from -35 to 35"):
        avatar.edit(tmp_path / "c.png", yaw=90)
    for value in (None, "x", True):
        with pytest.raises(InputError, match=f"^smile={value}: use a number from -1 to 1"):
            avatar.edit(tmp_path / "c.png", smile=value)
    assert type(mimik.Edit(smile=np.float32(0.5)).smile) is float and type(mimik.Edit(smile=np.int64(1)).smile) is float
    with pytest.raises(InputError, match=r"^no change was requested; .*, such as smile=0\.6 for half a smile"):
        avatar.edit(tmp_path / "c.png")
    with pytest.raises(InputError, match="already exists; pass force=True"):
        avatar.edit(tmp_path / "a.png", yaw=9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "big"}, "size big: use an integer from 64"),
        ({"size": 64.5}, "size 64.5: use an integer from 64"),
        ({"fps": "x"}, "fps x: use a number from 1"),
        ({"strength": None}, "strength None: use a number from 0"),
        ({"seed": 1.5}, "seed 1.5: use an integer from 0"),
        ({"model": 3}, "model 3: use a text"),
        ({"consent": 3}, "consent 3: use a text"),
        ({"background": 3}, "background 3: use a text"),
        ({"regions": 3}, "regions 3: use any of pose"),
    ],
)
def test_options_of_another_type_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^--{message}"):
        mimik.AnimateConfig(**options)


def test_the_number_of_a_face(small_path: Path) -> None:
    for face in (0, 1.5, "1", True):
        with pytest.raises(InputError, match=f"^face {face}: use an integer from 1 to 99"):
            Avatar.from_photos(small_path, face=face)  # type: ignore[arg-type]


def test_the_front_door_names_what_programs_need() -> None:
    for name in mimik.__all__:
        assert getattr(mimik, name) is not None
    assert dir(mimik) == sorted(mimik.__all__)
    with pytest.raises(AttributeError):
        _ = mimik.nothing


def test_everything_public_has_a_docstring() -> None:
    for cls in (mimik.Avatar, mimik.Motion, mimik.Report, mimik.Edit, mimik.AnimateConfig):
        for name in dir(cls):
            if name[0] != "_" and (callable(one := getattr(cls, name)) or isinstance(one, property)):
                assert inspect.getdoc(one), f"{cls.__name__}.{name}"


def test_an_avatar_says_why_it_cannot_be_pickled(small_path: Path) -> None:
    avatar = Avatar.from_photos(small_path)
    for call in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"cannot be copied or pickled; pass the photo or the \.avatar file"):
            call(avatar)
