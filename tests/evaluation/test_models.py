"""models.py: the nearest photo, names and files, invalid names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from evaluation_clips import write_release

from conftest import Driver, turned
from mimik.animation.source_frame import SourceFrame
from mimik.animation.source_image import SourceImage
from mimik.config import AnimateConfig, ModelError
from mimik.evaluation import models, settings
from mimik.face.landmarks import Face, Image


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("models"))


def test_of_several_photos_the_nearest_is_taken(driver: Driver) -> None:
    photos, points = np.stack(driver.frames), np.stack(driver.points).astype(np.float32)
    turned, speaking, blinking = driver.yaw.argmax(), driver.gap.argmax(), driver.blink.argmax()
    some = [0, turned, speaking, blinking]
    person = models.Copy().prepare(photos[some], points[some])
    for number in some:
        larger = points[number] * 1.1 + 20  # position and size of the head have no effect
        assert (person.frame(larger) == photos[number]).all()
    warped = models.Geometry().prepare(photos[some], points[some])
    apart = np.abs(warped.frame(points[speaking]).astype(int) - photos[speaking]).mean()
    assert apart < 0.5


def test_a_person_is_measured_as_animation_shows_it(portrait: Image, portrait_face: Face) -> None:
    """In front of the photo's own still background, within what animation changes by reading an enlarged photo."""
    goal = turned(portrait_face.points, 0, 9.0, 0).astype(np.float32)
    frame = SourceFrame(SourceImage(None, portrait, portrait_face), AnimateConfig(model="geometry"), None)
    shown = frame.paint(frame.flow(goal), goal).astype(float)
    person = models.Geometry().prepare(portrait[None], portrait_face.points[None])
    error = np.abs(person.frame(goal) - shown)
    assert error.mean() < 0.1
    corner = slice(0, 60), slice(0, 60)
    assert error[corner].max() == 0 and (person.frame(goal)[corner] == portrait[corner]).all()


def test_an_unknown_model_names_those_there_are() -> None:
    with pytest.raises(ModelError, match="--models vid2vid: no such model; use copy, geometry"):
        models.load_model("vid2vid")


def test_texture_is_the_bundled_model(release: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(models, "BUNDLED_MODEL", tmp_path / "none.safetensors")
    for name in ("texture", "learn:texture"):
        with pytest.raises(ModelError, match=f"--models {name}: this installation contains no model"):
            load(name)
    monkeypatch.setattr(models, "BUNDLED_MODEL", release)
    assert load("texture").identity in load("learn:texture").identity
    assert load("texture").num_bytes == release.stat().st_size


def load(name: str) -> Any:
    if settings.is_learned(name):
        return models.load_learning(name, device="cpu", seed=0)
    return models.load_model(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learn:geometry", "after learn: use a .safetensors file that `mimik train` wrote, or texture."),
        ("scratch:paper", "or a preset: paper_v1, paper_v2, authors_code"),
        ("learn:nowhere.safetensors", "no such file"),
        ("nowhere.avatar", "no such file; use an avatar"),
        ("paper", "and learn: or scratch: before texture"),
    ],
)
def test_models_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message.replace(".", r"\.")):
        load(name)


def test_what_is_learned_from_random_weights_has_the_networks_of_a_model_or_a_preset(release: Path) -> None:
    own, preset = load(f"scratch:{release}"), load("scratch:texture")
    assert own.arguments.from_scratch and own.arguments.model == release
    assert preset.arguments.from_scratch and (preset.arguments.preset, preset.arguments.model) == ("texture", None)
    assert len({own.identity, preset.identity, load(f"learn:{release}").identity}) == 3
    assert settings.label_of(f"scratch:{release}") == "scratch:tiny.safetensors"
