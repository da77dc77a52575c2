"""fine_tuning.py: initial state, effects of a step, stopping, and the written file."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from torch import Tensor

from conftest import Driver, turned
from mimik.animation.avatar import Avatar
from mimik.app import cli
from mimik.app.cli.training import _what_was_learned
from mimik.config import InputError, LossWeights, ModelError, NetworkConfig, NoFaceError, Preset, TrainConfig
from mimik.face.landmarks import POINTS_68, Face, Image, Landmarker
from mimik.inference.avatar_file import read_avatar
from mimik.inference.windows import photo_windows, to_planes
from mimik.media import video
from mimik.networks import losses
from mimik.networks.checkpoint import load_release, save_release
from mimik.networks.features import FaceNet
from mimik.networks.generators import Synthesis, build_networks
from mimik.provenance.verifying import Status, verify
from mimik.training import fine_tuning, pairs, probes
from mimik.training.arguments import files_in
from mimik.training.fine_tuning import LearnArguments, LearnOutcome
from mimik.training.learner import Learner, Recipe
from mimik.training.photos import Deadline, Photo, read_photos
from mimik.training.probes import Point
from quick_learning import shorten

PX = 64
SIZES = {"embedder_channels": (4, 8), "generator_channels": (4, 8), "discriminator_channels": (4, 8)}
PAPER = Preset(
    networks=NetworkConfig(image_px=PX, embedding_dim=6, attention=False, **SIZES),
    losses=LossWeights(content={}, pixel=3.0, adversarial=0.5, feature_matching=4.0),
    train=TrainConfig(),
)
TEXTURE = Preset(
    networks=NetworkConfig(form="texture", image_px=PX, embedding_dim=6, attention=False, landmarks="smooth", **SIZES),
    losses=LossWeights(content={}, pixel=3.0, adversarial=0.1, feature_matching=0.1, synthesized=2.0, drawn=0.25),
    train=TrainConfig(),
)
RATES = {"lr_generator": 1e-3, "lr_discriminator": 2e-3}
FORMS = {"paper": PAPER, "texture": TEXTURE}


@pytest.fixture(scope="module")
def face_net() -> FaceNet:
    return FaceNet()


@pytest.fixture(scope="module", autouse=True)
def small(landmarker: Landmarker, face_net: FaceNet) -> Iterator[None]:
    """Few pairs and probes, networks that are loaded once, one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, landmarker, face_net)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photo(small_portrait: Image, small_face: Face) -> Photo:
    return Photo(small_portrait, small_face, 0)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("releases")
    for form, preset in FORMS.items():
        torch.manual_seed(1)
        save_release(folder / f"{form}.safetensors", build_networks(preset.networks, 1), preset, {"steps": 1})
    return {form: folder / f"{form}.safetensors" for form in FORMS}


def learner(releases: dict[str, Path], form: str, photos: list[Photo], **recipe: Any) -> Learner:
    release = load_release(releases[form])
    return Learner(release.preset, release.networks, photos, Recipe(**RATES | recipe), "cpu", 0)


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(before: list[Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


# Initial state.


def test_it_starts_from_the_papers_psi_and_w(releases: dict[str, Path], photo: Photo) -> None:
    shifted = dataclasses.replace(photo, picture=photo.picture[:, ::-1].copy())
    made = learner(releases, "paper", [photo, shifted])
    nets = load_release(releases["paper"]).networks
    x, y, _ = photo_windows(PAPER.networks, [photo.picture, shifted.picture], [photo.face.points] * 2)
    with torch.no_grad():
        each = [nets.E(*(torch.from_numpy(to_planes(v[t : t + 1]))[None] for v in (x, y)))[0, 0] for t in (0, 1)]
        e_hat = (each[0] + each[1]) / 2
        torch.testing.assert_close(made.generator.psi[0].detach(), nets.P(e_hat[None])[0])
        torch.testing.assert_close(made.discriminator_step.w.detach(), nets.D.linear.weight[0] + e_hat)


@pytest.mark.parametrize("form", FORMS)
def test_a_step_moves_all_that_is_the_persons(releases: dict[str, Path], photo: Photo, form: str) -> None:
    made = learner(releases, form, [photo])
    before = {
        "G": weights(made.generator.G),
        "psi": [made.generator.psi.detach().clone()],
        "V": weights(made.discriminator_step.D.residual),
        "w": [made.discriminator_step.w.detach().clone()],
    }
    for _ in range(3):  # the texture form starts as the identity: at first only its last layer changes
        terms = made.train_step()
    expected = {"content", "pixel", "adversarial", "feature_matching", "d_loss"}
    assert terms.keys() == expected | ({"synthesized", "kept"} if form == "texture" else set())
    assert moved(before["G"], made.generator.G) and moved(before["V"], made.discriminator_step.D.residual)
    assert not torch.equal(before["psi"][0], made.generator.psi)
    assert not torch.equal(before["w"][0], made.discriminator_step.w)


def test_the_first_step_is_the_one_of_the_equations(releases: dict[str, Path], photo: Photo) -> None:
    made = learner(releases, "paper", [photo])
    batch = made.pairs.batch(np.array([0]))
    with torch.no_grad():
        x_hat = made.generator.G(batch["y"], made.generator.psi).image
        fake, fake_acts = made.discriminator_step.D(x_hat, batch["y"], w=made.discriminator_step.w)
        real, real_acts = made.discriminator_step.D(batch["x"], batch["y"], w=made.discriminator_step.w)
    terms = made.train_step()
    # Spectral norm does one power iteration per pass, so the values differ slightly.
    torch.testing.assert_close(terms["adversarial"], 0.5 * losses.adversarial_loss(fake), rtol=0.2, atol=0.05)
    fm = 4.0 * losses.feature_matching_loss(fake_acts, real_acts)
    torch.testing.assert_close(terms["feature_matching"], fm, rtol=0.2, atol=0.05)
    assert terms["d_loss"].item() == pytest.approx(losses.discriminator_loss(real, fake).item(), rel=0.2)


def test_the_average_follows(releases: dict[str, Path], photo: Photo) -> None:
    made = learner(releases, "paper", [photo], ema=0.5)
    start = made.generator.psi.detach().clone()
    made.train_step()
    one = made.generator.psi.detach().clone()
    torch.testing.assert_close(made.average.psi, 0.1 * start + 0.9 * one)  # the decay is min(ema, n / (9 + n))
    for kept, live in zip(made.average.buffers(), made.generator.buffers(), strict=True):
        assert torch.equal(kept, live)


@pytest.mark.slow
def test_a_photo_is_learned(releases: dict[str, Path], photo: Photo) -> None:
    made = learner(releases, "paper", [photo], lr_generator=5e-3)
    first = made.train_step()["pixel"].item()
    for _ in range(60):
        last = made.train_step()["pixel"].item()
    assert last < 0.6 * first


# Inputs of G.


def test_one_photo_is_warped_there_and_back(releases: dict[str, Path], photo: Photo) -> None:
    pairs = learner(releases, "texture", [photo]).pairs
    batch = pairs.batch(np.arange(3))
    assert batch["warped"].shape == batch["x"].shape == (3, 3, 2 * PX, 2 * PX)
    assert batch["geometry"].shape == (3, 4, PX // 2, PX // 2)
    apart = (batch["warped"] - batch["x"]).abs().mean((1, 2, 3))
    assert (apart > 0.001).all() and (apart < 0.1).all()  # back in place, with lost detail
    assert torch.equal(batch["where"], batch["regions"])  # the loss covers only eyes and mouth


def test_of_two_photos_one_is_warped_to_the_other(
    releases: dict[str, Path], small_portrait: Image, small_face: Face, driver: Driver
) -> None:
    turn = int(driver.yaw.argmax())
    other = dataclasses.replace(small_face, points=driver.points[turn].astype(np.float32))
    # Twice as large: windows are compared, independent of the photos' sizes.
    large = np.repeat(np.repeat(driver.frames[turn], 2, 0), 2, 1)
    other = dataclasses.replace(other, points=other.points * 2)
    made = learner(releases, "texture", [Photo(small_portrait, small_face, 0), Photo(large, other, 1)])
    pairs = made.pairs
    assert sorted(one.target for one in pairs._warped) == [0, 1]
    crossed = [n for n, one in enumerate(pairs._warped) if one.target == 1]
    batch = pairs.batch(np.array(crossed))
    x, y, _ = photo_windows(TEXTURE.networks, [small_portrait, large], [small_face.points, other.points])
    np.testing.assert_allclose(batch["x"][0].numpy(), to_planes(x[1:])[0], atol=1e-6)
    np.testing.assert_allclose(batch["y"][0].numpy(), to_planes(y[1:])[0], atol=1e-6)
    middle = slice(PX // 2, -PX // 2)
    photo = torch.from_numpy(to_planes(x[:1])[0])[:, middle, middle]
    target, warped = batch["x"][0][:, middle, middle], batch["warped"][:, :, middle, middle]
    apart = (warped - target).abs().mean((1, 2, 3))
    assert apart.min() < 0.5 * (photo - target).abs().mean()
    # They are from two files: the loss covers the face, not the background.
    where = batch["where"][0, 0]
    assert where[PX, PX] > 0.99 and where[0].max() == where[:, 0].max() == 0


def test_all_of_another_frame_of_the_same_video_counts(
    releases: dict[str, Path], small_portrait: Image, small_face: Face, driver: Driver
) -> None:
    rotated_face = dataclasses.replace(small_face, points=driver.points[7].astype(np.float32))
    photos = [Photo(small_portrait, small_face, 0), Photo(driver.frames[7], rotated_face, 0)]
    pairs = learner(releases, "texture", photos).pairs
    assert all((one.where == 1).all() for one in pairs._warped)


def test_nothing_is_learned_where_the_target_does_not_count(releases: dict[str, Path], photo: Photo) -> None:
    gradients = []
    for noise in (0.0, 1.0):
        made = learner(releases, "texture", [photo])
        pair = made.pairs._warped[0]
        where = pair.where
        made.pairs._x = made.pairs._x + noise * (1 - where)  # another background
        made._batches = iter([made.pairs.batch(np.array([0]))])
        made.train_step()
        gradients.append(made.generator.G.to_picture.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_of_several_photos_every_fourth_is_not_trained_on(
    releases: dict[str, Path], photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_POOL", 30)
    made = learner(releases, "texture", [photo] * 4)
    assert {one.target for one in made.pairs._warped} == {0, 2, 3} and len(made.pairs._warped) == 6
    held = made.pairs.left_out()
    assert held is not None
    torch.testing.assert_close(held["x"], made.pairs.batch(np.array([0]))["x"])  # all photos are the same here
    assert made.left_out() == pytest.approx(1)
    with torch.no_grad():
        made.average.G.to_picture.bias += 0.5
    assert made.left_out() > 1.01
    before = weights(made.discriminator_step)
    assert "d_loss" not in made.train_step() and not moved(before, made.discriminator_step)
    assert learner(releases, "texture", [photo] * 2).left_out() is None
    assert learner(releases, "paper", [photo] * 4).left_out() is None


def test_sharing_a_face_averages_what_photos_do_not_have_in_common(releases: dict[str, Path], photo: Photo) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        dataclasses.replace(
            photo, picture=(photo.picture * 0.5 + 64 + rng.normal(0, 9, photo.picture.shape)).round().astype(np.uint8)
        )
        for _ in range(4)
    ]
    made = learner(releases, "texture", noisy).pairs
    assert made.has_same_lighting(2) == [0, 1, 3]
    # From one photo the error is that of two noises; from three, of one and a third, and of half of one as detail.
    most, least = 1 - (4 / 3 / 2) ** 0.5, 1 - ((1 + 1 / 3 + (1 - 1 / 3) / 4) / 2) ** 0.5
    assert least - 0.02 < made.sharing_gain(2, [0, 1, 3]) < most
    dark = dataclasses.replace(photo, picture=noisy[0].picture - np.uint8(20))
    assert learner(releases, "texture", [*noisy[:3], dark]).pairs.has_same_lighting(0) == [1, 2]


def test_every_pair_comes_once_in_a_round(releases: dict[str, Path], photo: Photo) -> None:
    pairs = learner(releases, "texture", [photo]).pairs
    seen: list[Tensor] = []
    batches = pairs.batches(2)
    for _ in range(2):  # 3 pairs, at most 2 at once
        seen += list(next(batches)["warped"])
    assert len(seen) == 3 and len({float(one.sum()) for one in seen}) == len(
        {float(one.warped.sum()) for one in pairs._warped}
    )


# Stopping.


def test_following_is_a_share_of_the_way(small_face: Face) -> None:
    rest = small_face.points
    goal = turned(rest, yaw=20).astype(np.float32)
    assert probes._motion_fidelity("turn", goal, rest, goal) == pytest.approx(1)
    assert probes._motion_fidelity("turn", goal, rest, rest) == pytest.approx(0)
    assert probes._motion_fidelity("turn", goal, rest, (rest + goal) / 2) == pytest.approx(0.5, abs=1e-3)
    away = rest[POINTS_68, :2] - (goal - rest)[POINTS_68, :2]
    other = rest.copy()
    other[POINTS_68, :2] = away
    assert probes._motion_fidelity("turn", goal, rest, other) == pytest.approx(-1, abs=1e-3)


def test_a_turn_is_no_expression(small_face: Face) -> None:
    rest = small_face.points
    goal = rest.copy()
    goal[[61, 291], 1] -= 6  # the corners of the mouth
    turned_too = turned(goal, yaw=10).astype(np.float32)
    assert probes._motion_fidelity("offset", goal, rest, turned_too) > 0.9
    assert probes._motion_fidelity("offset", goal, rest, turned(rest, yaw=10).astype(np.float32)) < 0.1


def test_the_warped_photo_is_the_person_and_follows(releases: dict[str, Path], photo: Photo) -> None:
    """The untrained texture form returns the warped photo, which is known to have both properties."""
    made = learner(releases, "texture", [photo])
    identity, motion_fidelity = made.probe()
    assert identity > 0.4 and motion_fidelity > 0.3
    still = made.probes.batch["warped"][:0].new_zeros(2, 3, 2 * PX, 2 * PX) - 1  # no face
    assert made.probes.scores(still) == (0.0, 0.0)


def test_a_face_that_does_not_move_is_the_person_but_does_not_follow(releases: dict[str, Path], photo: Photo) -> None:
    made = learner(releases, "texture", [photo])
    x, _, _ = photo_windows(TEXTURE.networks, [photo.picture], [photo.face.points])
    still = torch.from_numpy(to_planes(x)).expand(2, -1, -1, -1)
    identity, motion_fidelity = made.probes.scores(still)
    assert identity > made.probe()[0]
    assert motion_fidelity < 0.3 * made.probe()[1]


class Scripted:
    """A learner whose probes return scripted scores."""

    def __init__(self, found: list[tuple[float, float]], loss: float = 1.0, **recipe: Any) -> None:
        self.recipe = Recipe(**RATES | {"num_steps": 100, "patience": 2, "min_steps": 0} | recipe)
        self.found, self.loss, self.step = found, loss, 0

    def train_step(self) -> dict[str, Tensor]:
        self.step += 1
        return {"content": torch.tensor(self.loss)}

    def probe(self) -> tuple[float, float]:
        return self.found[min(-(-self.step // self.recipe.probe_every), len(self.found) - 1)]

    def left_out(self) -> float | None:
        return None

    def state(self) -> dict[str, Any]:
        return {"at": self.step}


def run(learner: Scripted, max_seconds: float | None = None) -> tuple[list[Point], Any, str]:
    told: list[tuple[int, int]] = []
    curve, best, ended = fine_tuning._run(
        learner,
        Deadline.after(max_seconds, time.monotonic()),
        lambda point, step, ends: told.append((step, ends)),
    )  # type: ignore[arg-type]
    assert [step for step, _ in told] == list(range(1, len(told) + 1))
    assert all(step <= ends <= learner.recipe.num_steps for step, ends in told)
    if "finite" not in ended and told:
        assert told[-1][0] == told[-1][1], "where it ends is known at the end"
    return curve, best, ended


def test_the_best_state_is_kept_and_patience_ends_it() -> None:
    curve, best, ended = run(Scripted([(0.4, 0.9), (0.6, 0.9), (0.7, 0.85), (0.9, 0.4), (0.95, 0.2), (1, 1)]))
    assert [point.step for point in curve] == [0, 10, 20, 30, 40]
    assert best.point == curve[2] and best.state == {"at": 20} and "improved" in ended
    assert curve[0].score == pytest.approx(0.65)


def test_looks_are_the_share_of_the_face_that_is_drawn(releases: dict[str, Path], photo: Photo) -> None:
    made = learner(releases, "paper", [photo])
    x, _, where = made.pairs.faces(8)
    inside = where[0, 0] > 0.99
    mean = (x[0] * where[0]).sum((1, 2)) / where[0].sum()
    for share in (0.0, 0.25, 1.0):  # the output is between the mean color and the photo
        drawn = mean[:, None, None] + share * (x - mean[:, None, None])
        drawn[..., ~inside & (where[0, 0] == 0)] = -1.0  # not measured there
        # type: ignore[method-assign]
        made.average.forward = lambda batch, drawn=drawn: Synthesis(drawn.expand(len(batch["y"]), -1, -1, -1))
        assert made.appearance() == pytest.approx(share, abs=1e-5)
    same = made.average(made.probes.batch).image
    assert made.probe()[0] == pytest.approx((made.probes.scores(same)[0] + 1) / 2, abs=1e-6)


def test_hardly_better_is_kept_but_does_not_go_on_for_long() -> None:
    found = [(0.5 + 0.002 * number, 0.5) for number in range(20)]
    curve, best, _ = run(Scripted(found, min_gain=0.0015))
    assert best.point == curve[-1] and curve[-1].step == 100  # 0.001 per probe: every second one is better
    curve, best, _ = run(Scripted(found, min_gain=0.01))
    assert best.point == curve[-1] and curve[-1].step == 20


def test_a_fall_at_first_does_not_end_it() -> None:
    found = [(0.5, 0.5), (0.1, 0.5), (0.2, 0.5), (0.4, 0.5), (0.6, 0.5), (0.5, 0.5), (0.5, 0.5), (0.9, 0.9)]
    curve, best, _ = run(Scripted(found, min_steps=40))
    assert [point.step for point in curve][-1] == 60 and best.point.step == 40
    assert run(Scripted(found))[1].point.step == 0


def test_both_failures_score_less_than_a_compromise() -> None:
    _, best, _ = run(Scripted([(0.1, 1.0), (0.6, 0.6), (1.0, 0.1)]))
    assert best.point.step == 10


def test_with_one_photo_it_is_held_to_what_it_drew_elsewhere(releases: dict[str, Path], photo: Photo) -> None:
    made = learner(releases, "texture", [photo])
    batch, before = made._kept
    assert made._drift(batch, before).item() == 0
    with torch.no_grad():
        made.generator.G.to_picture.bias += 0.1
        now = made.generator(batch)
    expected = 3 * (now.image - before.image).abs().mean() + 2 * (now.synthesized - before.synthesized).abs().mean()
    torch.testing.assert_close(made._drift(batch, before), expected)
    assert learner(releases, "texture", [photo, photo])._kept is None


def test_recording_continues_without_a_face() -> None:
    curve, best, _ = run(Scripted([(0, 0)] * 6 + [(0.5, 0), (0.4, 0)]))
    assert best.point.step == 60 and curve[-1].step == 80


def test_what_never_becomes_better_stays_as_it_was() -> None:
    curve, best, _ = run(Scripted([(0.8, 0.8), (0.7, 0.7)]))
    assert best.point.step == 0 and best.state == {"at": 0} and curve[-1].step == 20


@pytest.mark.parametrize("limit", [3, 8, 20, 33, 34, 35, 36])
def test_the_time_limit_includes_the_scores(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 1 s, a score 2 s, and the first one 4 s."""
    now = [0.0]

    class Slow(Scripted):
        def train_step(self) -> dict[str, Tensor]:
            now[0] += 1
            return super().train_step()

        def probe(self) -> tuple[float, float]:
            now[0] += 2 if self.step else 4
            return super().probe()

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    curve, _, ended = run(Slow([(0.1 * i, 0.1 * i) for i in range(1, 9)]), max_seconds=limit)
    assert now[0] <= max(limit + 1, 4) and now[0] > limit - 5 and "time" in ended
    assert curve[-1].step >= limit - 14


def test_steps_and_time_end_it_with_a_probe() -> None:
    rising = [(0.1 * i, 0.1 * i) for i in range(1, 9)]
    curve, best, ended = run(Scripted(rising, num_steps=25))
    assert curve[-1].step == best.point.step == 25 and "steps" in ended
    curve, best, ended = run(Scripted(rising), max_seconds=0)
    assert curve == [best.point] and best.point.step == 0 and "time" in ended


def test_a_loss_that_is_not_finite_ends_it_with_the_best_so_far() -> None:
    _, best, ended = run(Scripted([(0.5, 0.5)], loss=math.nan))
    assert best.point.step == 0 and "finite" in ended


# Photos.


def learn(paths: list[Path], out: Path, arguments: LearnArguments, **options: Any) -> LearnOutcome:
    return fine_tuning.learn(read_photos(paths, probes.Landmarker()), out, arguments, **options)


def test_photos_folders_and_videos_are_read(
    small_path: Path, driver: Driver, landmarker: Landmarker, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    video.write_image(folder / "a.png", video.read_image(small_path))
    video.write_image(folder / "b.png", np.zeros((64, 64, 3), np.uint8))
    (folder / "c.txt").write_text("no picture")
    photos, sources, notes = read_photos([small_path, folder, driver.path], landmarker, shots=3)
    assert [photo.source for photo in photos] == [0, 1, 2, 2, 2]
    assert [source.name for source in sources] == ["person.png", "a.png", "driver.mp4"]
    assert len(notes) == 2 and "b.png" in notes[0] and "c.txt" in notes[1]
    yaw = [np.abs(photo.face.points[1] - photos[2].face.points[1]).max() for photo in photos[2:]]
    assert yaw[1] > 2  # the frames are spread over the video, so they differ


def test_an_empty_folder_and_a_missing_file_are_reported(tmp_path: Path) -> None:
    (tmp_path / ".hidden.png").write_text("x")
    with pytest.raises(InputError, match="is an empty folder; use photos of one person"):
        files_in(tmp_path)
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        files_in(tmp_path / "none.png")
    (tmp_path / "anna.avatar").write_bytes(b"weights")
    with pytest.raises(InputError, match=r"anna\.avatar is a learned avatar; pass the photos"):
        files_in(tmp_path / "anna.avatar")


def test_no_more_photos_are_read_when_time_is_over(small_path: Path, landmarker: Landmarker) -> None:
    told: list[tuple[str, int, int | None]] = []
    photos, _, notes = read_photos(
        [small_path] * 3, landmarker, deadline=Deadline(0.0), progress=lambda *how: told.append(how)
    )
    assert len(photos) == 1 and "the time ran out after 1 of 3 files" in notes[0]
    assert told == [("reading the photos", 0, 3), ("reading the photos", 1, 3)]


def test_time_that_is_over_ends_the_preparation(
    releases: dict[str, Path], small_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_POOL", 8)
    told: list[tuple[str, int, int | None]] = []
    arguments = LearnArguments(model=releases["texture"], max_seconds=1)
    outcome = learn(
        [small_path],
        tmp_path / "a.avatar",
        arguments,
        began_s=time.monotonic() - 10,
        preparing=lambda *how: told.append(how),
    )
    warps = [done for what, done, _ in told if what == "warping the photos"]
    assert warps == list(range(pairs._SMALLEST_POOL + 1)), "of 8, only those that a batch needs"
    assert outcome.curve[-1].step == 0 and outcome.ended == "the time limit was reached"
    assert "--max-seconds: the time ran out during preparation; allow more" in outcome.notes  # of one photo


def test_a_photo_without_a_face_is_named(tmp_path: Path, landmarker: Landmarker) -> None:
    for name, side in (("black.png", 64), ("tiny.png", 5)):
        cv2.imwrite(str(tmp_path / name), np.zeros((side, side, 3), np.uint8))
        with pytest.raises(NoFaceError, match=f"no face found in {name}"):
            read_photos([tmp_path / name], landmarker)
    with pytest.raises(InputError, match="none of its files shows a face"):
        read_photos([tmp_path], landmarker)


def test_of_several_faces_the_widest_is_taken_with_a_note(
    small_portrait: Image, landmarker: Landmarker, tmp_path: Path
) -> None:
    video.write_image(tmp_path / "two.png", np.concatenate([small_portrait, small_portrait], 1))
    photos, _, notes = read_photos([tmp_path / "two.png"], landmarker)
    assert len(photos) == 1 and "shows 2 faces" in notes[0]
    photos, _, notes = read_photos([tmp_path / "two.png"], landmarker, face=2)
    assert len(photos) == 1 and notes == []
    with pytest.raises(NoFaceError, match="face 3"):
        read_photos([tmp_path / "two.png"], landmarker, face=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "--device tpu"),
        ({"preset": "debug"}, "--preset requires --from-scratch"),
        ({"preset": "none", "from_scratch": True}, "--preset none"),
        ({"preset": "debug", "from_scratch": True, "model": Path("m")}, "are mutually exclusive"),
        ({"steps": 0}, "--steps 0"),
        ({"max_seconds": 0}, "--max-seconds 0"),
        ({"shots": 0}, "--shots 0"),
        ({"face": 0}, "--face 0"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LearnArguments(**options)


# A run and its file.


@pytest.fixture(scope="module")
def learned(releases: dict[str, Path], small_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learned") / "person.avatar"
    learn([small_path], path, LearnArguments(model=releases["texture"], steps=3))
    return path


def test_the_avatar_records_its_training(learned: Path, releases: dict[str, Path], small_path: Path) -> None:
    person = read_avatar(learned)
    assert person.preset == TEXTURE and person.model == "texture, fine-tuned"
    record = person.record
    assert record["model"]["name"] == "texture.safetensors" and record["photos"] == 1 and not record["from_scratch"]
    assert [point["step"] for point in record["curve"]] == [0, 3] and record["steps"] in (0, 3)
    assert [source.name for source in person.sources] == [small_path.name]
    np.testing.assert_array_equal(person.picture, video.read_image(small_path))
    with safe_open(releases["texture"], "np") as file:
        generator = {name for name in file.keys() if name.startswith("G.")}  # noqa: SIM118
    assert person.tensors.keys() == generator


@pytest.mark.parametrize("form", FORMS)
def test_without_torch_it_draws_what_was_trained(
    releases: dict[str, Path], photo: Photo, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Learner] = []
    monkeypatch.setattr(
        fine_tuning,
        "Learner",
        lambda *args: kept.append(Learner(*args)) or kept[0],  # type: ignore[func-returns-value]
    )
    # Each probe is better, so that the last state is kept.
    monkeypatch.setattr(Learner, "probe", lambda self: (0.1 * self.step, 0.1 * self.step))
    video.write_image(tmp_path / "a.png", photo.picture)
    learn([tmp_path / "a.png"], tmp_path / "a.avatar", LearnArguments(model=releases[form], steps=2))
    batch = {name: value[:1] for name, value in kept[0].probes.batch.items()}
    generator = read_avatar(tmp_path / "a.avatar").generator._generator.result()
    if form == "texture":  # G reads the warped photo at half its size
        batch["warped"] = batch["warped"].unflatten(3, (PX, 2)).unflatten(2, (PX, 2)).mean((3, 5))
    ours = generator(*(batch[name].numpy() for name in ("y", "warped", "geometry") if name in batch))
    with torch.no_grad():
        average = kept[0].average
        if form == "paper":
            theirs = [average(batch).image]
        else:
            theirs = average.G.predict(batch["y"], average.psi, batch["warped"], batch["geometry"])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=0.1)  # float16, and bfloat16 where the processor has it
        assert np.abs(a - b.numpy()).mean() < 0.01


@pytest.mark.slow
def test_the_same_seed_gives_the_same_person(releases: dict[str, Path], small_path: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        arguments = LearnArguments(from_scratch=True, model=releases["paper"], steps=2, seed=seed)
        learn([small_path], tmp_path / name, arguments)
    a, b, c = (read_avatar(tmp_path / name) for name in "abc")
    assert a.model == "paper, from scratch"
    assert all(np.array_equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    assert np.array_equal(a.psi, b.psi) and not np.array_equal(a.psi, c.psi)


def test_a_learned_person_is_animated_and_its_photos_are_named(
    learned: Path, landmarker: Landmarker, portrait_path: Path, small_path: Path, tmp_path: Path
) -> None:
    report = Avatar.load(learned, landmarker=landmarker).render(portrait_path, tmp_path / "out.png")
    assert report.model == "texture, fine-tuned"
    verdict = verify(tmp_path / "out.png")
    assert verdict.status is Status.MIMIK and verdict.model == "texture, fine-tuned"
    names = [(one.role, one.name) for one in verdict.sources]
    assert names == [("photo", "person.avatar"), ("photo", small_path.name), ("driver", portrait_path.name)]
    assert verdict.sources[1].sha256 == read_avatar(learned).sources[0].sha256


def test_an_avatar_stands_alone(learned: Path, small_path: Path, landmarker: Landmarker) -> None:
    with pytest.raises(InputError, match="pass it alone"):
        Avatar.from_photos([learned, small_path])
    with pytest.raises(InputError, match="has one face"):
        Avatar.from_photos([learned], face=2)
    avatar = Avatar.from_photos([learned], landmarker=landmarker)
    assert avatar.model == "texture, fine-tuned" and avatar.generator("geometry") is None


# The command.


def mimik(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], prog_name="mimik")


@pytest.mark.slow
def test_the_command_learns_and_animates(
    releases: dict[str, Path], small_path: Path, portrait_path: Path, tmp_path: Path
) -> None:
    out, curve = tmp_path / "p.avatar", tmp_path / "curve.json"
    asked = ("learn", small_path, "-o", out, "--model", releases["texture"], "--steps", 2)
    done = mimik(*asked, "--curve", curve)
    assert done.exit_code == 0, done.output
    assert "motion fidelity" in done.output and "kept" in done.output
    assert "learned from 1 photo" in done.output and "ended because the number of steps was reached" in done.output
    assert json.loads(curve.read_text()) == read_avatar(out).record
    again = mimik(*asked)
    assert again.exit_code == 2 and "--force" in again.output
    shown = mimik("animate", out, portrait_path, "-o", tmp_path / "out.png")
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["learn", "PHOTO", "-o", "person.zip"], "an avatar file ends in .avatar"),
        (["learn", "PHOTO", "-o", "nowhere/person.avatar"], "does not exist; create it first"),
        (["learn", "missing.jpg", "-o", "person.avatar", "--model", "MODEL"], "missing.jpg"),
        (["learn", "PHOTO", "-o", "person.avatar", "--model", "missing.safetensors"], "no such file"),
        (["learn", "PHOTO", "-o", "person.avatar", "--model", "PHOTO"], "not a model of this program"),
        (["animate", "missing.avatar", "talk", "-o", "out.mp4"], "does not exist"),
    ],
)
def test_errors_of_the_command(
    arguments: list[str],
    words: str,
    releases: dict[str, Path],
    small_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"PHOTO": small_path, "MODEL": releases["paper"]}
    done = mimik(*(files.get(word, word) for word in arguments))
    assert done.exit_code == 2 and words in " ".join(done.output.split()), done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [
        ("person.png", "auto", "pip install '.[train]'"),
        ("white.png", "auto", "no face found in white.png"),
        ("person.png", "cuda", "--device cuda: torch is not installed"),
    ],
)
def test_inputs_are_checked_before_torch_is_loaded(
    name: str, device: str, words: str, small_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mimik.training.fine_tuning")
    monkeypatch.delattr("mimik.training.fine_tuning")
    monkeypatch.setitem(sys.modules, "torch", None)
    if name == "white.png":  # as if torch were installed
        monkeypatch.setattr("mimik.app.learning.find_spec", lambda name: name)
    video.write_image(tmp_path / "white.png", np.full((64, 64, 3), 255, np.uint8))
    photo = small_path if name == small_path.name else tmp_path / name
    done = mimik("learn", photo, "-o", tmp_path / "p.avatar", "--device", device)
    assert done.exit_code == 2 and words in " ".join(done.output.split())


def test_without_a_model_it_asks_for_one(small_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine_tuning, "BUNDLED_MODEL", tmp_path / "none")
    with pytest.raises(ModelError, match="pass --model FILE"):
        learn([small_path], tmp_path / "p.avatar", LearnArguments())


def test_a_full_disk_leaves_nothing(
    releases: dict[str, Path], small_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="no space left"):
        learn([small_path], tmp_path / "p.avatar", LearnArguments(model=releases["paper"], steps=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "num_photos", "num_others", "said"),
    [
        (30, 1, 0, "learned from 1 photo in 30 steps"),
        (10, 4, 3, "learned from 4 photos in 10 steps"),
        (0, 8, 7, "in which 8 photos share the face; training added nothing to it"),
        (0, 4, 0, "in which nothing was learned from 4 photos: it moves as `mimik animate` of the photo alone does"),
    ],
)
def test_the_summary_of_learning_is_truthful(step: int, num_photos: int, num_others: int, said: str) -> None:
    person = SimpleNamespace(record={"photos": num_photos}, others=(None,) * num_others)
    assert _what_was_learned(SimpleNamespace(best=SimpleNamespace(step=step), person=person)) == said
