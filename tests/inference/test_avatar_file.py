"""avatar_file.py: avatars are read back exactly, and damaged files give an error."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from mimik.config import PRESETS, ModelError
from mimik.face.landmarks import Face, Image
from mimik.inference.avatar_file import PREVIEW_PX, AvatarFile, SourceFile, most_neutral_face, read_avatar
from mimik.rendering.layers.teeth import shipped


@pytest.fixture(scope="module")
def person(small_portrait: Image, small_face: Face) -> AvatarFile:
    rng = np.random.default_rng(0)
    tensors = {f"G.{name}": rng.normal(size=(3, 2)).astype(np.float16) for name in ("down.0.weight", "up.0.weight")}
    return AvatarFile(
        PRESETS["debug"],
        {"steps": 7, "curve": [{"step": 0, "score": 0.5}]},
        tensors,
        rng.normal(size=20).astype(np.float32),
        small_portrait,
        small_face,
        (SourceFile("photo.jpg", "0" * 64, "image/jpeg"),),
    )


@pytest.fixture(scope="module")
def path(person: AvatarFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatars") / "person.avatar"
    path.write_bytes(person.pack())
    return path


def test_what_is_read_is_what_was_written(person: AvatarFile, path: Path) -> None:
    read = read_avatar(path)
    assert (read.preset, read.record, read.sources) == (person.preset, person.record, person.sources)
    assert read.tensors.keys() == person.tensors.keys()
    for name, value in person.tensors.items():
        assert read.tensors[name].dtype == np.float16
        np.testing.assert_array_equal(read.tensors[name], value)
    np.testing.assert_array_equal(read.psi, person.psi)
    np.testing.assert_array_equal(read.picture, person.picture)  # lossless
    np.testing.assert_array_equal(read.face.points, person.face.points)
    np.testing.assert_array_equal(read.face.blendshapes, person.face.blendshapes)
    assert read.face.score == pytest.approx(person.face.score)


def test_the_teeth_that_other_photos_show_stay_with_the_person(person: AvatarFile, tmp_path: Path) -> None:
    path = tmp_path / "smiling.avatar"
    teeth = replace(shipped()[3], name="own")
    path.write_bytes(replace(person, teeth=teeth).pack())
    read = read_avatar(path).teeth
    assert read is not None
    for field in fields(teeth):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(teeth, field.name))


def test_further_photos_stay_with_the_person(person: AvatarFile, tmp_path: Path) -> None:
    path = tmp_path / "several.avatar"
    others = (
        (person.picture[20:], replace(person.face, blendshapes=person.face.blendshapes / 2)),
        (person.picture, person.face),
    )
    path.write_bytes(replace(person, others=others).pack())
    read = read_avatar(path).others
    assert len(read) == 2
    for (picture, face), (expected, given) in zip(read, others, strict=True):
        np.testing.assert_array_equal(picture, expected)
        np.testing.assert_array_equal(face.points, given.points)
        np.testing.assert_array_equal(face.blendshapes, given.blendshapes)


def test_the_preview_shows_the_face(person: AvatarFile, path: Path) -> None:
    with safe_open(path, "np") as file:
        preview = cv2.imdecode(file.get_tensor("preview.png"), cv2.IMREAD_COLOR_RGB)
    assert preview.shape == (PREVIEW_PX, PREVIEW_PX, 3)
    left, top, right, bottom = person.face.box
    face = person.picture[int(top) : int(bottom), int(left) : int(right)]
    middle = preview[PREVIEW_PX // 4 : -PREVIEW_PX // 4, PREVIEW_PX // 4 : -PREVIEW_PX // 4]
    assert np.abs(middle.mean((0, 1)) - face.mean((0, 1))).max() < 25


def test_an_avatar_names_its_model(person: AvatarFile) -> None:
    assert person.model == "paper, fine-tuned"
    assert replace(person, record={"from_scratch": True}).model == "paper, from scratch"


@pytest.mark.parametrize("at", [3, 5000, 60_000, -3])
def test_one_changed_byte_is_seen(path: Path, tmp_path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    bad = tmp_path / "bad.avatar"
    bad.write_bytes(data)
    with pytest.raises(ModelError, match=r"bad\.avatar: is damaged or not an avatar"):
        read_avatar(bad)


def test_a_file_that_ends_early_is_seen(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for length in (0, 4, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "short.avatar").write_bytes(data[:length])
        with pytest.raises(ModelError, match="is damaged or not an avatar"):
            read_avatar(tmp_path / "short.avatar")


def test_what_is_no_avatar_is_named(tmp_path: Path, portrait_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_avatar(tmp_path / "none.avatar")
    with pytest.raises(ModelError, match="is damaged or not an avatar"):
        read_avatar(portrait_path)
    with pytest.raises(ModelError, match="is damaged or not an avatar"):
        read_avatar(tmp_path)
    (tmp_path / "other.avatar").write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, {"format": "another"}))
    with pytest.raises(ModelError, match="its format is 'another'"):
        read_avatar(tmp_path / "other.avatar")


def packed(person: AvatarFile, tmp_path: Path) -> Path:
    path = tmp_path / "changed.avatar"
    path.write_bytes(person.pack())
    return path


def test_content_that_makes_no_sense_is_refused_though_its_hash_fits(person: AvatarFile, tmp_path: Path) -> None:
    nan = np.full(20, np.nan, np.float32)
    flat = replace(person.face, points=person.face.points * np.float32(1e-3))
    for bad, why in (
        (replace(person, psi=nan), "psi has values that are not finite"),
        (replace(person, psi=np.zeros((2, 3), np.float32)), "its face or psi"),
        (replace(person, face=flat), "its face or psi"),
        (replace(person, face=replace(person.face, blendshapes=np.zeros(5))), r"photo.blendshapes is float32 \[5\]"),
        (replace(person, tensors={"D.weight": np.zeros(2, np.float16)}), "D.weight is missing or unexpected"),
        (replace(person, record=["a list"]), "its record is not a JSON object"),
    ):
        with pytest.raises(ModelError, match=why):
            read_avatar(packed(bad, tmp_path))


def test_a_name_with_a_folder_is_refused(person: AvatarFile, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no plain name"):
        SourceFile("../photo.jpg", "0" * 64, "image/jpeg")
    data = person.pack().replace(b"photo.jpg", b"../ph.jpg")  # the header is JSON of unchanged length
    (tmp_path / "bad.avatar").write_bytes(data)
    with pytest.raises(ModelError, match="is damaged or not an avatar"):
        read_avatar(tmp_path / "bad.avatar")


def test_a_generator_that_fits_nothing_ends_with_a_sentence(person: AvatarFile, path: Path) -> None:
    with pytest.raises(ModelError, match="this avatar cannot be used"):
        _ = read_avatar(path).generator


def test_a_source_is_named_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
    assert SourceFile.of(tmp_path / "a.png") == SourceFile("a.png", digest, "image/png")


def test_the_most_neutral_face_is_nearest_to_the_median(small_face: Face) -> None:
    rest = np.full(52, 0.1, np.float32)
    loud = rest.copy()
    loud[[25, 44, 45]] = 0.9
    found = [replace(small_face, blendshapes=b) for b in (loud, rest, rest + 0.01)]
    assert most_neutral_face(found) in (1, 2)


def test_the_record_is_plain_json(path: Path) -> None:
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["record"])["steps"] == 7
