"""evaluate.py: real frames are perfect, a still photo is not, a stopped run goes on, and bad input is told."""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install 'mimik[train]'")

from conftest import DRIVER_FPS, SIDE_PX, Driver
from mimik.app.cli import app
from mimik.config import InputError, LossWeights, ModelError, NetworkConfig, Preset, TrainConfig
from mimik.data.dataset import ClipInfo, pack_tracks, read_index
from mimik.evaluation import evaluate
from mimik.evaluation.evaluate import CROSS, FIRST, TRUTH, EvaluateConfig
from mimik.evaluation.metrics import METRICS
from mimik.face.landmarks import Face, Landmarker, head_pose
from mimik.inference.avatar_file import AvatarFile, SourceFile
from mimik.media import video
from mimik.networks.checkpoint import load_release, save_release
from mimik.networks.features import FaceNet
from mimik.networks.generators import build
from mimik.provenance import sealing as provenance
from mimik.training import fine_tuning
from mimik.training.fine_tuning import LearnArguments, Photo, Recipe

MODELS = ("geometry", "copy", "truth")
QUICK = EvaluateConfig(models=MODELS, shots=(1,), holdout=9, size=128)


def mimik(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], prog_name="mimik")


def clip_info(key: str = "ada_00", num_frames: int = 28, size: int = SIDE_PX, **fields: Any) -> ClipInfo:
    values = {
        "shard": "clips-000000.tar",
        "members": dict.fromkeys(("mp4", "npz", "json"), (512, 1)),
        "fps": DRIVER_FPS,
        "person": "ada",
        "source": "ada.mp4",
        "source_sha256": "0" * 64,
        "licence": None,
        "start_s": 0.0,
        "end_s": num_frames / DRIVER_FPS,
        "box": (0, 0, size),
        "face_px": 92.0,
        "sharpness": 1.0,
        "yaw_range": (0.0, 14.0),
        "fingerprint": "00",
    }
    return ClipInfo(**{**values, "key": key, "num_frames": num_frames, "size": size, **fields})


@pytest.fixture(scope="module")
def shards(driver: Driver, driver_faces: list[Face], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of a face that turns, speaks and blinks, with the landmarks found in it: every second frame."""
    folder = tmp_path_factory.mktemp("shards")
    frames, found = driver.frames[::2], driver_faces[::2]
    points, blendshapes = (np.stack([getattr(f, name) for f in found]) for name in ("points", "blendshapes"))
    data = {
        "mp4": video.encode_clip(frames, DRIVER_FPS / 2, quality=12, gop=12),
        "npz": pack_tracks(points, blendshapes, np.array([head_pose(p).degrees for p in points])),
        "json": b"{}",
    }
    members = {}
    with tarfile.open(folder / "clips-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in data.items():
            entry = tarfile.TarInfo(f"ada_00.{name}")
            entry.size = len(content)
            members[name] = (tar.offset + 512, len(content))
            tar.addfile(entry, io.BytesIO(content))
    info = clip_info(num_frames=len(points), fps=DRIVER_FPS / 2, members=members)
    (folder / "index.jsonl").write_text(info.to_json() + "\n")
    return folder


@pytest.fixture(scope="module")
def portraits(small_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait, and a picture without a face."""
    folder = tmp_path_factory.mktemp("portraits")
    (folder / "ada.png").write_bytes(small_path.read_bytes())
    video.write_image(folder / "wall.png", np.full((64, 64, 3), 128, np.uint8))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_speed() -> Iterator[None]:
    """What runs the program twice in processes of their own is measured in a slow test only."""
    whole = {"frames_per_second": 30.0, "ms_per_frame": {"flow": 10.0}, "peak_memory_mb": 500.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "speed", lambda out, model, asked: whole)
        yield


@pytest.fixture(scope="module")
def report(shards: Path, portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("reports") / "report"
    return out, evaluate.evaluate(shards, out, QUICK, portraits=portraits)


def means(results: dict[str, Any], protocol: str, model: str) -> dict[str, float]:
    table = results["protocols"][protocol]["models"][model]
    return {name: statistics.get("mean", math.nan) for name, statistics in table.items()}


SIZES = {"embedder_channels": (4, 8), "generator_channels": (4, 8), "discriminator_channels": (4, 8)}
TINY = Preset(
    networks=NetworkConfig(form="texture", image_px=64, embedding_dim=6, attention=False, landmarks="smooth", **SIZES),
    losses=LossWeights(content={}, pixel=3.0, adversarial=0.1, feature_matching=0.1, synthesised=2.0, drawn=0.25),
    train=TrainConfig(),
)
RECIPE = Recipe(lr_generator=1e-3, lr_discriminator=2e-3, num_steps=3, probe_every=2)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    torch.manual_seed(1)
    save_release(path, build(TINY.networks, 1), TINY, {"steps": 1})
    return path


@pytest.fixture(scope="module")
def face_net() -> FaceNet:
    return FaceNet()


@pytest.fixture
def quick_learning(monkeypatch: pytest.MonkeyPatch, landmarker: Landmarker, face_net: FaceNet) -> None:
    """Few pairs, probes and steps, networks that are loaded once."""
    monkeypatch.setattr(fine_tuning, "Landmarker", lambda: landmarker)
    monkeypatch.setattr(fine_tuning, "FaceNet", lambda: face_net)
    monkeypatch.setattr(fine_tuning, "_POOL", 3)
    monkeypatch.setattr(fine_tuning, "_KEPT", 2)
    monkeypatch.setattr(fine_tuning, "_PROBES", (("laugh", "offset"), ("look-around", "turn")))
    monkeypatch.setattr(Recipe, "of", classmethod(lambda cls, preset, from_scratch=False: RECIPE))


# What is measured.


def test_photos_and_targets_never_overlap() -> None:
    index = [clip_info(f"clip{number}", num_frames) for number, num_frames in enumerate((3, 20, 47, 200))]
    found = evaluate.tasks(index, EvaluateConfig(shots=(1, 8), holdout=12))
    assert [(task.clip.key, task.protocol) for task in found] == [
        ("clip1", FIRST),
        ("clip1", "T = 1"),
        ("clip1", "T = 8"),
        *[(f"clip{n}", protocol) for n in (2, 3) for protocol in (FIRST, "T = 1", "T = 8")],
    ]
    for task in found:
        assert not set(task.sources) & set(task.targets)
        assert max(*task.sources, *task.targets) < task.clip.num_frames
    one, eight = found[1], found[2]
    assert one.targets == eight.targets
    assert eight.sources[:1] == one.sources
    assert (found[0].sources, found[0].targets) == ((0,), tuple(range(1, 20)))
    with pytest.raises(InputError, match="the longest of 4 clips has 200"):
        evaluate.tasks(index, EvaluateConfig(shots=(190,), holdout=12))


def test_the_papers_numbers_of_photos_leave_short_clips_out() -> None:
    index = [clip_info(f"clip{number}", num_frames) for number, num_frames in enumerate((40, 63, 64))]
    found = evaluate.tasks(index, EvaluateConfig(shots=(8, 32), holdout=32))
    assert [task.clip.key for task in found if task.protocol == "T = 8"] == ["clip0", "clip1", "clip2"]
    (task,) = [task for task in found if task.protocol == "T = 32"]
    assert task.clip.key == "clip2"
    assert sorted([*task.sources, *task.targets]) == list(range(64))


def test_equal_pictures_are_looked_at_once(
    driver: Driver, landmarker: Landmarker, monkeypatch: pytest.MonkeyPatch
) -> None:
    still, turned = driver.frames[0], driver.frames[driver.yaw.argmax()]
    images = np.stack([still, turned, still, still])
    assert evaluate._distinct(images) == ([0, 1], [0, 1, 0, 0])
    instruments = evaluate.Instruments(torch.device("cpu"), None)
    looked = []
    detect = landmarker.detect
    vars(instruments)["landmarker"] = landmarker
    monkeypatch.setattr(landmarker, "detect", lambda image: looked.append(1) or detect(image))
    points, blendshapes = instruments.find(images, in_order=False)
    assert len(looked) == 2
    for i, image in enumerate(images):
        (face,) = detect(image)
        assert (points[i] == face.points).all() and (blendshapes[i] == face.blendshapes).all()


@pytest.mark.slow
def test_equal_pictures_have_the_same_features_as_alone(driver: Driver) -> None:
    instruments = evaluate.Instruments(torch.device("cpu"), None)
    images = np.stack([driver.frames[i] for i in (0, 6, 0, 6, 6, 6, 0, 0, 6, 6)])
    at = list(range(len(images)))
    look = instruments.look(images, at, in_order=False)
    assert [len(layers[0]) for layers in look.features] == [8, 2]
    with torch.inference_mode():
        plain = instruments.content(instruments.planes(images))
    for number, layer in enumerate(plain):
        torch.testing.assert_close(torch.cat([layers[number] for layers in look.features]), layer, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(look.identity, instruments.identity(images, look.points), atol=1e-5)


@pytest.mark.slow
def test_the_real_frames_are_perfect(report: tuple[Path, dict[str, Any]]) -> None:
    perfect = {"lower": 0, "higher": 1, "one": 1}
    for protocol in ("T = 1", FIRST):
        for name, value in means(report[1], protocol, TRUTH).items():
            best = 100 if name == "psnr_db" else perfect[METRICS[name].better]
            assert value == pytest.approx(best, abs=1e-5), (protocol, name)
        if protocol != FIRST:
            assert report[1]["protocols"][protocol]["frechet_lite0"][TRUTH] == 0


@pytest.mark.slow
def test_a_still_photo_does_not_move(report: tuple[Path, dict[str, Any]]) -> None:
    copy = means(report[1], FIRST, "copy")
    assert (copy["acceleration_error"], copy["jitter_ratio"]) == pytest.approx((1, 0), abs=0.1)
    copy = means(report[1], "T = 1", "copy")
    assert (copy["pose_correlation"], copy["blendshape_correlation"]) == (0, 0)


@pytest.mark.slow
def test_the_warp_is_better_than_a_still_photo(report: tuple[Path, dict[str, Any]]) -> None:
    motion = ("akd68_percent", "pose_correlation", "blendshape_correlation")
    # In the whole picture a copy may be nearer here: little of it moves, and what is warped is sampled once more.
    for protocol, names in (("T = 1", motion), (FIRST, (*motion, "eyes_l1", "mouth_l1"))):
        geometry, copy = means(report[1], protocol, "geometry"), means(report[1], protocol, "copy")
        for name in names:
            assert METRICS[name].badness(geometry[name]) < METRICS[name].badness(copy[name]), (protocol, name)
        better = report[1]["protocols"][protocol]["better"]
        assert (better["geometry over copy"][names[-1]], better["copy over geometry"][names[-1]]) == (1, 0)
        assert TRUTH not in " ".join(better)
    assert report[1]["protocols"]["T = 1"]["clips"] == 1


def test_of_several_photos_the_nearest_is_taken(driver: Driver) -> None:
    photos, points = np.stack(driver.frames), np.stack(driver.points).astype(np.float32)
    turned, speaking, blinking = driver.yaw.argmax(), driver.gap.argmax(), driver.blink.argmax()
    some = [0, turned, speaking, blinking]
    person = evaluate.Copy().prepare(photos[some], points[some])
    for number in some:
        larger = points[number] * 1.1 + 20  # place and size of the head do not count
        assert (person.frame(larger) == photos[number]).all()
    warped = evaluate.Geometry().prepare(photos[some], points[some])
    apart = np.abs(warped.frame(points[speaking]).astype(int) - photos[speaking]).mean()
    assert apart < 0.5


@pytest.mark.slow
def test_a_portrait_is_driven_as_users_do_it(report: tuple[Path, dict[str, Any]]) -> None:
    values = means(report[1], CROSS, "geometry")
    assert values["csim_dlib"] > 0.9  # the same person drives herself
    assert values["pose_correlation"] > 0.7
    assert values["lost_percent"] == 0
    assert "psnr_db" not in values
    assert report[1]["left_out"].keys() == {"wall.png"}
    assert "no face found in wall.png" in report[1]["left_out"]["wall.png"]


# What is learned for each clip, and who was learned before.


@pytest.mark.slow
def test_stages_begin_with_the_model_and_end_with_what_is_kept(
    release: Path, driver: Driver, driver_faces: list[Face], quick_learning: None
) -> None:
    photos = [Photo(driver.frames[i], driver_faces[i], 0) for i in (0, 6)]
    course = fine_tuning.learn_photos(photos, LearnArguments(model=release, device="cpu"), (0, 1000))
    first, second = course.stages
    assert (first.steps, first.seconds, course.ended) == (0, 0.0, "the steps were done")
    assert second is course.kept
    networks = load_release(release).networks
    own = {name.removeprefix("G."): value for name, value in first.tensors.items()}
    for name, value in networks.G.state_dict().items():
        assert (own[name] == value.numpy().astype(np.float16)).all(), name
    assert not any(name.startswith(("E.", "D.", "P.", "psi")) for name in first.tensors)
    with_time = fine_tuning.learn_photos(photos, LearnArguments(model=release, device="cpu"), (0, 1e-6, 1000))
    assert [stage.steps for stage in with_time.stages][:2] == [0, 1]
    assert any((first.tensors[n] != with_time.stages[1].tensors[n]).any() for n in first.tensors)


@pytest.mark.slow
def test_people_are_learned_measured_and_not_learned_again(
    shards: Path, release: Path, tmp_path: Path, quick_learning: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("geometry", f"learn:{release}", f"scratch:{release}")
    config = EvaluateConfig(models=models, shots=(1, 2), holdout=3, size=64, learn_seconds=(0, 900))
    out = tmp_path / "report"
    told: list[tuple[str, int, int]] = []
    results = evaluate.evaluate(shards, out, config, progress=lambda *state: told.append(state))
    names = ["learn:tiny.safetensors", "scratch:tiny.safetensors"]
    assert list(results["learning"]) == ["T = 1", "T = 2"]
    for protocol in results["learning"]:
        assert list(results["learning"][protocol]) == names
        for rows in results["learning"][protocol].values():
            assert [row["seconds"] for row in rows] == [0, 900, None]
            assert rows[0]["steps"] == 0
            assert rows[1]["metrics"] == rows[2]["metrics"]  # it had ended before
        assert list(results["protocols"][protocol]["models"]) == ["geometry", *names]
    kept = results["learning"]["T = 1"][names[0]][2]["metrics"]["l1"]
    assert results["protocols"]["T = 1"]["models"][names[0]]["l1"] == kept
    assert list(results["protocols"][FIRST]["models"]) == ["geometry"]
    assert results["same_clips"]["clips"] == 1
    assert (told[-1][1], told[-1][2]) == (told[-1][2], 3 + 2 * 2 * 3 + 1)  # geometry; two, T, three times; the speed
    assert any("of learning" in what for what, _, _ in told)
    pictures = {path.name for path in (out / "pictures").iterdir()}
    assert {"best-learn-tiny.safetensors.png", "worst-scratch-tiny.safetensors.png"} < pictures
    assert video.read_image(out / "pictures/grid.png").shape[1] == 6 * 192
    assert provenance.verify(next((out / "pictures").glob("ada_00-t1-learn-*"))).exit_code == 0
    curves = (out / "learning-t1.svg").read_text()
    assert curves.startswith("<svg") and curves.count("<rect") == 8 and "learn:tiny.safetensors" in curves
    assert "learning-t1.svg" in (out / "report.html").read_text()
    with (out / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == names[1]]
    assert [row["seconds"] for row in rows] == ["0", "900", ""] * 2

    monkeypatch.setattr(fine_tuning, "learn_photos", None)
    monkeypatch.setattr(evaluate, "speed", None)
    again = evaluate.evaluate(shards, out, config)
    assert (again["protocols"], again["learning"]) == (results["protocols"], results["learning"])


@pytest.mark.slow
def test_an_avatar_is_a_model(
    shards: Path, release: Path, tmp_path: Path, small_portrait: Any, small_face: Face
) -> None:
    torch.manual_seed(2)
    networks = build(TINY.networks, 0)
    tensors = {f"G.{name}": value.numpy().astype(np.float16) for name, value in networks.G.state_dict().items()}
    with torch.no_grad():
        psi = networks.P(torch.zeros(1, 6))[0].numpy()
    person = AvatarFile(
        TINY, {}, tensors, psi, small_portrait, small_face, (SourceFile("ada.mp4", "0" * 64, "video/mp4"),)
    )
    path = tmp_path / "ada.avatar"
    path.write_bytes(person.pack())
    config = EvaluateConfig(models=("copy", str(path)), shots=(1,), holdout=3, size=64)
    results = evaluate.evaluate(shards, tmp_path / "report", config)
    assert math.isfinite(means(results, "T = 1", "ada.avatar")["l1"])
    own = results["models"]["ada.avatar"]
    assert own["megabytes"] == round(path.stat().st_size / 1e6, 2)
    assert own["parameters"] == sum(p.numel() for p in networks.G.parameters()) + len(psi)
    assert own["whole"]["peak_memory_mb"] == 500
    assert "ada.avatar was learned from the very video of these clips: ada_00." in results["notes"]
    assert "peak memory, MB" in (tmp_path / "report/report.md").read_text()


# The report.


def record(clip: str, model: str, protocol: str, l1: float | None) -> dict[str, Any]:
    return {"clip": clip, "person": clip, "model": model, "protocol": protocol, "metrics": {"l1": l1}}


def test_models_are_compared_on_clips_that_both_have() -> None:
    a = [record("x", "a", FIRST, 1.0), record("y", "a", FIRST, 3.0)]
    b = [record("y", "b", FIRST, 2.0), record("z", "b", FIRST, 9.0)]
    assert evaluate._share(METRICS["l1"], a, b) == 0
    assert evaluate._share(METRICS["l1"], b, a) == 1
    assert math.isnan(evaluate._share(METRICS["l1"], a[:1], b))


def test_numbers_of_photos_are_compared_on_the_same_clips() -> None:
    some = [("x", "T = 1", 1.0), ("y", "T = 1", 3.0), ("x", "T = 8", 5.0), ("z", "T = 8", 7.0)]
    records = [record(clip, "a", protocol, l1) for clip, protocol, l1 in some]
    records.append(record("x", "a", FIRST, 0.0))
    same = evaluate._same_clips(["a"], records)
    assert same["clips"] == 1
    assert {protocol: means["l1"] for protocol, means in same["models"]["a"].items()} == {"T = 1": 1.0, "T = 8": 5.0}
    assert evaluate._same_clips(["a"], records[:2]) == {}


def test_a_number_of_fewer_clips_says_so() -> None:
    statistics = evaluate._statistics(np.array([1.0, 2.0, math.nan, 6.0]))
    assert evaluate._cell_text(statistics, 1, 3).endswith("; 2.0")
    assert evaluate._cell_text(statistics, 1, 4).endswith("; 2.0 (3 of 4 clips)")
    assert evaluate._cell_text({"clips": 0}, 1, 4) == "-"


@pytest.mark.slow
def test_the_report_tells_everything(report: tuple[Path, dict[str, Any]]) -> None:
    out, results = report
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(results))
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    for text in (markdown, page):
        for word in ("T = 1", "Cross-identity", "LPIPS: not available", "NOT comparable", "no face found"):
            assert word in text
        assert all(metric.label in text.replace("&#x27;", "'") for metric in METRICS.values())
    with (out / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(MODELS) + 1
    mine = next(row for row in rows if row["protocol"] == FIRST and row["model"] == "geometry")
    assert float(mine["l1"]) == results["protocols"][FIRST]["models"]["geometry"]["l1"]["mean"]
    assert "geometry: L1" in evaluate.overview(results)
    assert results["models"]["geometry"]["megabytes"] == 0
    assert results["models"]["geometry"]["frame"] > 0


@pytest.mark.slow
def test_pictures_are_sealed_and_shown(report: tuple[Path, dict[str, Any]]) -> None:
    pictures = sorted((report[0] / "pictures").iterdir())
    assert {"grid.png", "best-geometry.png", "worst-geometry.png"} < {path.name for path in pictures}
    assert provenance.verify(pictures[0]).exit_code == 0
    page = (report[0] / "report.html").read_text()
    assert all(f"pictures/{path.name}" in page for path in pictures)
    # source, target, landmarks, geometry, copy
    assert video.read_image(report[0] / "pictures/grid.png").shape[1] == 5 * 192


@pytest.mark.slow
def test_the_same_command_goes_on(
    report: tuple[Path, dict[str, Any]], shards: Path, portraits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = report
    damaged = next((out / "clips").glob("*-t1-copy-*.json"))
    damaged.write_text(damaged.read_text()[:-20])  # as a full disk leaves it
    looked: list[int] = []
    look = evaluate.Instruments.look

    def counted(self: evaluate.Instruments, images: Any, at: list[int], **options: Any) -> evaluate.Look:
        looked.append(len(images))
        return look(self, images, at, **options)

    monkeypatch.setattr(evaluate.Instruments, "look", counted)
    monkeypatch.setattr(evaluate, "speed", None)
    told: list[tuple[int, int]] = []
    after = evaluate.evaluate(
        shards, out, QUICK, portraits=portraits, progress=lambda what, done, total: told.append((done, total))
    )
    assert looked == [9, 9]  # the real frames and the copies of one record
    assert after["protocols"] == before["protocols"]
    assert told == [(i + 1, len(told) + 1) for i in range(len(told))]  # all but the wall


@pytest.mark.slow
def test_a_new_model_or_number_is_measured_alone(
    report: tuple[Path, dict[str, Any]], shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Grey(evaluate.Copy):
        identity = "grey"

        def prepare(self, photos: Any, points: Any) -> evaluate.Person:
            made.append(len(photos))
            return super().prepare(np.full_like(photos, 128), points)

    monkeypatch.setitem(evaluate.MODELS_TO_MEASURE, "grey", lambda device: Grey())
    config = EvaluateConfig(models=("copy", "grey"), shots=(1,), holdout=9, size=128)
    results = evaluate.evaluate(shards, report[0], config)
    grey = means(results, FIRST, "grey")
    assert grey["lost_percent"] == 100
    assert math.isnan(grey["akd68_percent"])
    assert results["protocols"][FIRST]["better"]["copy over grey"]["csim_dlib"] == 1  # no value is worse than any
    assert set(results["protocols"]) == {"T = 1", FIRST}
    assert set(made) == {1}


# What goes wrong.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": ()}, "--models : give one name or more"),
        ({"models": ("copy", "copy")}, "each once"),
        ({"shots": (0,)}, "--shots 0: give numbers of photos"),
        ({"holdout": 2}, "--holdout 2: give 3 frames or more"),
        ({"size": 32}, "--size 32: give 64 to 2048"),
        ({"limit": 0}, "--limit 0: give 1 or more"),
        ({"pairs": 0}, "--pairs 0: give 1 or more"),
        ({"learn_seconds": (0, 0.5)}, "--learn-seconds 0,0.5: give rising seconds"),
        ({"learn_seconds": (30, 10)}, "--learn-seconds 30,10: give rising seconds"),
        ({"device": "tpu"}, "--device tpu: give one of auto, cpu, cuda"),
    ],
)
def test_impossible_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluateConfig(**fields)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(InputError, match="finds no CUDA device"):
        EvaluateConfig(device="cuda")


def test_an_unknown_model_names_those_there_are() -> None:
    with pytest.raises(ModelError, match="--models vid2vid: no such model; there are copy, geometry"):
        evaluate.load_model("vid2vid", torch.device("cpu"))


def test_texture_is_the_bundled_model(release: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluate, "BUNDLED_MODEL", tmp_path / "none.safetensors")
    for name in ("texture", "learn:texture"):
        with pytest.raises(ModelError, match=f"--models {name}: no model comes with this installation"):
            load(name)
    monkeypatch.setattr(evaluate, "BUNDLED_MODEL", release)
    assert load("texture").identity in load("learn:texture").identity
    assert load("texture").num_bytes == release.stat().st_size


def load(name: str) -> Any:
    if evaluate.is_lesson(name):
        return evaluate.load_lesson(name, device="cpu", seed=0)
    return evaluate.load_model(name, torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learn:geometry", "after learn: give a .safetensors file that `mimik train` wrote, or texture."),
        ("scratch:paper", "or a preset: paper_v1, paper_v2, authors_code"),
        ("learn:nowhere.safetensors", "there is no such file"),
        ("nowhere.avatar", "there is no such file; give an avatar"),
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
    assert evaluate.label_of(f"scratch:{release}") == "scratch:tiny.safetensors"


def _with_other_things(out: Path) -> None:
    out.mkdir()
    (out / "diary.txt").write_text("dear")


@pytest.mark.parametrize(
    ("options", "message", "before"),
    [
        (["--models", "gan"], "no such model; there are", None),
        (["--models", "learn:gan,copy"], "--models learn:gan: no such model; after learn: give", None),
        (["--learn-seconds", "soon"], "--learn-seconds soon: give seconds", None),
        (["--shots", "one"], "--shots one: give whole numbers", None),
        (["--shots", "1,90"], "Use fewer shots", None),
        (["--size", "512"], "--size 512: clip ada_00 has 256 px", None),
        (["--portraits", "nowhere"], "--portraits nowhere: is no folder", None),
        (["--portraits", "nowhere", "--models", "copy"], "is for models that animate", None),
        (["--pairs", "3"], "--pairs 3: goes with --portraits FOLDER", None),
        (["--lpips", "nowhere"], "there is no alexnet-owt-7be5be79.pth", None),
        (["--data", "nowhere"], "no index.jsonl there", None),
        ([], "is a folder with other things in it", _with_other_things),
        ([], "is a file; give a folder", lambda out: out.write_text("x")),
    ],
)
def test_bad_input_ends_in_one_sentence(
    shards: Path, tmp_path: Path, options: list[str], message: str, before: Callable[[Path], None] | None
) -> None:
    out = tmp_path / "report"
    if before is not None:
        before(out)
    there = sorted(tmp_path.rglob("*"))
    result = mimik("--data", shards, "-o", out, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == there  # nothing half-written


@pytest.mark.slow
def test_damaged_clips_are_left_out_and_told(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "clips-000000.tar").write_bytes((shards / "clips-000000.tar").read_bytes())
    (sound,) = read_index(shards)
    offset, size = sound.members["mp4"]
    broken = clip_info("bob_00", members={**sound.members, "mp4": (offset, size - 9)})
    (folder / "index.jsonl").write_text(f"{broken.to_json()}\n{sound.to_json()}\n")
    config = EvaluateConfig(models=("copy",), shots=(1,), holdout=3, size=64)
    results = evaluate.evaluate(folder, tmp_path / "report", config)
    assert results["protocols"]["T = 1"]["clips"] == 1
    assert "is damaged" in results["left_out"]["bob_00"]
    (folder / "index.jsonl").write_text(f"{broken.to_json()}\n")
    with pytest.raises(InputError, match="nothing could be measured; clip bob_00"):
        evaluate.evaluate(folder, tmp_path / "other", config)


@pytest.mark.slow
def test_a_folder_of_videos_through_the_command_line(driver: Driver, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "ada.mp4").write_bytes(driver.path.read_bytes())
    arguments = ("--data", videos, "--models", "geometry,truth", "--shots", 1, "--holdout", 6, "--size", 128)
    result = mimik(*arguments, "-o", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    assert "truth: L1 0.00, SSIM 1.000" in result.stdout
    assert (tmp_path / "report/shards/index.jsonl").exists()


@pytest.mark.slow
def test_speed_is_that_of_the_program_itself(tmp_path: Path) -> None:
    measured = SPEED(tmp_path, "geometry", "geometry")
    assert measured["frames_per_second"] > 1
    assert measured["ms_per_frame"].keys() >= {"decode", "track", "flow", "paint", "encode"}
    assert (measured["width"], measured["height"]) == (512, 512)
    assert provenance.verify(tmp_path / "speed/geometry.mp4").exit_code == 0


SPEED = evaluate.speed  # as it is, before the fixture replaces it
