"""dataset.py: packed landmarks, the index, clips by range, episodes that are the same whoever makes them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import io
import json
import pickle
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install 'mimik[train]'")

from conftest import turned
from mimik.config import InputError
from mimik.data import dataset
from mimik.data.dataset import (
    Augmentation,
    ClipFrames,
    ClipInfo,
    ClipStore,
    DamagedClipError,
    Episodes,
    EpisodeSampler,
    evaluation_episodes,
    flip_permutation,
    load_evaluation,
    loader,
    pack_tracks,
    read_index,
    split_people,
    to_model_range,
    unpack_tracks,
    view_of,
)
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face
from mimik.motion.draw import feature_mask, landmark_image
from mimik.rendering.flow import NUM_GEOMETRY, Warper
from mimik.rendering.painter import Painter

SIDE = 32
LENGTHS = (40, 12, 3, 30, 45)  # frames of the clips; the third is too short for K = 8
PEOPLE = ("ada", "ada", "bob", "cleo", "dora")


def level(number: int) -> int:
    """Grey of frame number: the picture says which one it is."""
    return 20 + 5 * number


def face_points(num_frames: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """[T, 478, 3] the canonical face, a little different in every frame."""
    vertices = faces.canonical_mesh().vertices
    whole = np.concatenate([vertices, vertices[[159] * 5 + [386] * 5]])
    whole[faces.RIGHT_IRIS[1:], :2] += [[0.5, 0], [0, -0.5], [-0.5, 0], [0, 0.5]]
    whole[faces.LEFT_IRIS[1:], :2] += [[0.5, 0], [0, -0.5], [-0.5, 0], [0, 0.5]]
    shift = np.random.default_rng(seed).normal(0, 0.05 * side, (num_frames, 1, 3))
    return (whole * (0.7 * side / 20) + side / 2 + shift).astype(np.float32)


def encoded(num_frames: int, side: int = SIDE) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        options = {"crf": "10", "g": "12", "keyint_min": "12"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            picture = np.full((side, side, 3), level(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def write_shards(folder: Path, lengths: tuple[int, ...] = LENGTHS, clips_per_shard: int = 3) -> list[dict[str, Any]]:
    """Shards as `mimik prepare` writes them; returns the lines of the index."""
    lines: list[dict[str, Any]] = []
    for number, (length, person) in enumerate(zip(lengths, PEOPLE, strict=False)):
        key, shard = f"{number:010x}_00", f"clips-{number // clips_per_shard:06d}.tar"
        rng = np.random.default_rng(number)
        pose = rng.normal(0, 10, (length, 3)).astype(np.float32)
        tracks = pack_tracks(face_points(length, seed=number), rng.random((length, 52), np.float32), pose)
        line = {
            "key": key,
            "shard": shard,
            "num_frames": length,
            "fps": 25.0,
            "size": SIDE,
            "person": person,
            "source": f"{person}/{number}.mp4",
            "source_sha256": f"{number:064x}",
            "licence": None,
            "start_s": 0.0,
            "end_s": length / 25,
            "box": [1, 2, 64.5],
            "face_px": 20.0,
            "sharpness": 1.5,
            "yaw_range": [-10.0, 12.5],
            "fingerprint": "00ff",
        }
        members = {}
        with tarfile.open(folder / shard, "a", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in (("mp4", encoded(length)), ("npz", tracks), ("json", json.dumps(line).encode())):
                entry = tarfile.TarInfo(f"{key}.{name}")
                entry.size = len(data)
                members[name] = [tar.offset + 512, len(data)]
                tar.addfile(entry, io.BytesIO(data))
        lines.append({**line, "members": members})
    write_index(folder, lines)
    return lines


def write_index(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


@pytest.fixture(scope="module")
def index(shards: Path) -> list[ClipInfo]:
    return read_index(shards)


# Packed landmarks.


@given(
    points=hnp.arrays(np.float32, (3, 478, 3), elements=st.floats(-2047, 2047, width=32), fill=st.floats(-50, 300)),
    blend=hnp.arrays(np.float32, (3, 52), elements=st.floats(0, 1, width=32)),
)
@settings(max_examples=15, deadline=None)
def test_packed_landmarks_are_exact_to_a_32nd_of_a_pixel(points: np.ndarray, blend: np.ndarray) -> None:
    pose = np.array([[10.5, -3.25, 0], [90, 1, 2], [-80, 0, 0]], np.float32)
    tracks = unpack_tracks(pack_tracks(points, blend, pose))
    assert tracks.points.dtype == tracks.blendshapes.dtype == tracks.pose.dtype == np.float32
    assert np.abs(tracks.points - points).max() <= 1 / 32 + 1e-3 * (np.abs(points).max() > 1000)
    assert np.abs(tracks.blendshapes - blend).max() <= 1 / 510 + 1e-6
    np.testing.assert_allclose(tracks.pose, pose, atol=0.05)


def test_extreme_steps_survive() -> None:
    points = np.full((3, 478, 3), 2047, np.float32)
    points[1] *= -1
    points[:, ::2] *= -1
    assert (unpack_tracks(pack_tracks(points, np.zeros((3, 52)), np.zeros((3, 3)))).points == points).all()


def test_packing_is_small_and_always_the_same() -> None:
    motion = np.cumsum(np.random.default_rng(0).normal(0, 0.5, (200, 1, 3)), 0)
    points = face_points(1, 256) + motion + np.random.default_rng(1).normal(0, 0.05, (200, 478, 3))
    packed = pack_tracks(points, np.zeros((200, 52)), np.zeros((200, 3)))
    assert packed == pack_tracks(points, np.zeros((200, 52)), np.zeros((200, 3)))
    assert len(packed) / 200 < 700


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((2, 468, 3)), "shapes"),
        (np.zeros((0, 478, 3)), "shapes"),
        (np.full((2, 478, 3), np.nan), "not finite"),
        (np.full((2, 478, 3), 3000.0), "3000 px"),
    ],
)
def test_tracks_that_cannot_be_packed(points: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack_tracks(points, np.zeros((len(points), 52)), np.zeros((len(points), 3)))


@functools.cache
def small_pack() -> bytes:
    return pack_tracks(face_points(3), np.zeros((3, 52)), np.zeros((3, 3)))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_landmarks_are_an_input_error(data: st.DataObject) -> None:
    packed = bytearray(small_pack())
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(packed), len(packed) // 2, 0]))
    try:
        tracks = unpack_tracks(bytes(packed[:cut]))
    except InputError:
        return
    # Some bytes of a zip file say nothing.
    assert (tracks.points == unpack_tracks(small_pack()).points).all()


def test_landmarks_of_another_version() -> None:
    with np.load(io.BytesIO(small_pack())) as arrays:
        other = {**arrays, "header": np.array([9, 3], np.int32)}
    out = io.BytesIO()
    np.savez(out, **other)
    with pytest.raises(InputError, match="format 9"):
        unpack_tracks(out.getvalue())


# The index.


def test_index_gives_every_field(shards: Path, index: list[ClipInfo]) -> None:
    assert [clip.num_frames for clip in index] == list(LENGTHS)
    assert index[0].box == (1, 2, 64.5)
    assert index[1].shard == "clips-000000.tar"
    assert index[3].shard == "clips-000001.tar"
    assert [ClipInfo.from_json(clip.to_json()) for clip in index] == index
    assert read_index(shards / "index.jsonl") == index
    assert read_index(str(shards) + "/") == index


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "line 2: unknown field 'colour'"),
        ({"person": None}, "'person' is 'None', not a name"),
        ({"num_frames": 0}, "'num_frames' is '0'"),
        ({"num_frames": True}, "'num_frames' is 'True'"),
        ({"shard": "../../etc/x.tar"}, "'shard'"),
        ({"key": "A b"}, "'key'"),
        ({"members": {"mp4": [0, 1]}}, "'members'"),
        ({"members": {"mp4": [0, 1], "npz": [-1, 2], "json": [1, 1]}}, "'members'"),
        ({"fps": float("inf")}, "'fps'"),
        ({"key": "0000000000_00"}, "stands there twice"),
    ],
)
def test_index_lines_that_are_not_understood(
    shards: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    lines = [json.loads(line) for line in (shards / "index.jsonl").read_text().splitlines()]
    write_index(tmp_path, [lines[0], {**lines[1], **change}])
    with pytest.raises(InputError, match=message):
        read_index(tmp_path)


def test_index_with_a_missing_field_or_broken_line(shards: Path, tmp_path: Path) -> None:
    line = json.loads((shards / "index.jsonl").read_text().splitlines()[0])
    del line["licence"]
    write_index(tmp_path, [line])
    with pytest.raises(InputError, match="'licence' is missing"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").write_text('{"key": ')
    with pytest.raises(InputError, match="line 1: not JSON"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        read_index(tmp_path)


def test_no_index_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mimik prepare -o"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").touch()
    with pytest.raises(InputError, match="lists no clip"):
        read_index(tmp_path)


def test_people_are_on_one_side_only(index: list[ClipInfo]) -> None:
    train, held_out = split_people(index, 0.25, seed=3)
    assert {c.person for c in train}.isdisjoint({c.person for c in held_out})
    assert len({c.person for c in held_out}) == 1
    assert sorted([*train, *held_out], key=index.index) == index
    assert split_people(index[::-1], 0.25, seed=3)[1] == held_out[::-1]
    assert len({split_people(index, 0.25, seed=seed)[1][0].person for seed in range(20)}) > 1
    with pytest.raises(InputError, match="two or more"):
        split_people(index[:2], 0.5)
    with pytest.raises(InputError, match="between 0 and 1"):
        split_people(index, 1.0)


# Clips.


def seen(images: np.ndarray) -> list[int]:
    """Frame numbers that the pictures say."""
    return [round((float(image.mean()) - 20) / 5) for image in images]


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_a_clip_gives_the_frames_asked_for(shards: Path, index: list[ClipInfo], cache_mb: float) -> None:
    store = ClipStore(shards, cache_mb=cache_mb)
    for numbers in ([39, 0, 5], [2], [38, 39], [31, 30, 31], [0, 35], list(range(40))):
        frames = store.read(index[0], numbers)
        assert frames.images.shape == (len(numbers), SIDE, SIDE, 3)
        assert seen(frames.images) == numbers
        assert np.abs(frames.points - face_points(40)[numbers]).max() <= 1 / 32
    assert store.frames(index[3]).shape == (30, SIDE, SIDE, 3)
    tracks = store.tracks(index[0])
    assert np.abs(tracks.points - face_points(40)).max() <= 1 / 32
    assert tracks.blendshapes.shape == (40, 52)
    assert tracks.pose.shape == (40, 3)


def test_every_frame_alone_is_the_right_one(shards: Path, index: list[ClipInfo]) -> None:
    # Far frames are sought, near ones decoded: both have to land on the frame.
    store = ClipStore(shards)
    assert [seen(store.read(index[4], [n]).images)[0] for n in range(45)] == list(range(45))


def test_colours_are_not_swapped_and_not_shifted(tmp_path: Path) -> None:
    colour = (200, 60, 30)
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width = stream.height = SIDE
        picture = np.full((SIDE, SIDE, 3), colour, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    (line,) = write_shards(tmp_path, (1,))
    clip = ClipInfo.from_json(json.dumps(line))
    image = ClipStore(tmp_path)._decode(clip, path.read_bytes(), None)[0]
    assert np.abs(image.mean((0, 1)) - colour).max() < 4


def test_cached_clips_are_read_once_by_all_and_never_beyond_the_bound(
    shards: Path, index: list[ClipInfo], tmp_path: Path
) -> None:
    store = ClipStore(shards, cache_mb=0.4, cache_dir=tmp_path)  # one clip of 40 frames takes 0.37
    first = store.read(index[0], [3, 1])
    assert store.read(index[3], [2]).images.shape == (1, SIDE, SIDE, 3)
    assert len(list(tmp_path.iterdir())) == 1
    copy = pickle.loads(pickle.dumps(store))
    copy.root = "/nowhere"
    assert (copy.read(index[0], [3, 1]).images == first.images).all()
    with pytest.raises(InputError, match="/nowhere"):
        copy.read(index[1], [0])


def test_the_cache_goes_with_the_store_and_survives_its_loss(shards: Path, index: list[ClipInfo]) -> None:
    store = ClipStore(shards, cache_mb=10)
    store.read(index[0], [0])
    assert store._cache is not None
    folder = store._cache._folder
    for path in folder.iterdir():
        path.unlink()
    assert seen(store.read(index[0], [7]).images) == [7]
    del store
    assert not folder.exists()


def test_smaller_frames(shards: Path, index: list[ClipInfo]) -> None:
    for cache_mb in (0, 10):
        store = ClipStore(shards, size=16, cache_mb=cache_mb)
        for _ in range(2):
            frames = store.read(index[0], [4, 9])
            assert frames.images.shape == (2, 16, 16, 3)
            assert np.abs(frames.points - face_points(40)[[4, 9]] / 2).max() <= 1 / 64
    with pytest.raises(InputError, match="size 64, but clip"):
        ClipStore(shards, size=64).read(index[0], [0])
    with pytest.raises(InputError, match="--size 64, but clip"):
        Episodes(ClipStore(shards, size=64), index)
    with pytest.raises(InputError, match="size of 1 px"):
        ClipStore(shards, size=0)


def damage(folder: Path, how: str) -> ClipInfo:
    """Shards of two clips, the first of them damaged."""
    lines = write_shards(folder, (12, 12))
    clip = ClipInfo.from_json(json.dumps(lines[0]))
    data = bytearray((folder / clip.shard).read_bytes())
    (mp4, mp4_size), (npz, npz_size) = clip.members["mp4"], clip.members["npz"]
    if how == "mp4":
        data[mp4 : mp4 + mp4_size] = bytes(mp4_size)
    elif how == "npz":
        data[npz + npz_size // 2] ^= 255
    elif how == "cut":
        del data[npz + 10 :]
    elif how == "moved":
        lines[0]["members"]["mp4"][0] += 512
    elif how == "frames":
        lines[0]["num_frames"] = 11
    write_index(folder, lines)
    (folder / clip.shard).write_bytes(data)
    return read_index(folder)[0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("mp4", "video of 0 frames, 12 in the index"),
        ("npz", "damaged landmarks"),
        ("cut", "the shard ends at byte"),
        ("moved", "its mp4 is not at byte"),
        ("frames", "landmarks of 12 frames, 11 in the index"),
    ],
)
def test_a_damaged_clip_is_named_and_can_be_skipped(tmp_path: Path, how: str, message: str) -> None:
    clip = damage(tmp_path, how)
    with pytest.raises(DamagedClipError, match=message) as caught:
        ClipStore(tmp_path).read(clip, [0])
    assert clip.key in str(caught.value)
    assert clip.shard in str(caught.value)
    index = read_index(tmp_path)
    strict = Episodes(ClipStore(tmp_path), index, num_sources=2)
    bad = next(n for n in range(2) if strict.choose(n)[0] == 0)
    with pytest.raises(DamagedClipError):
        strict[bad]
    if how != "cut":  # there the other clip is gone as well
        item = Episodes(ClipStore(tmp_path), index, num_sources=2, skip_damaged=True)[bad]
        assert item["skipped"] > 0
        assert item["clip"] == 1
    else:
        with pytest.raises(InputError, match="damaged clips in a row"):
            Episodes(ClipStore(tmp_path), index, num_sources=2, skip_damaged=True)[bad]


def test_a_missing_shard_is_not_a_damaged_clip(tmp_path: Path) -> None:
    write_shards(tmp_path, (12,))
    clip = read_index(tmp_path)[0]
    (tmp_path / clip.shard).unlink()
    with pytest.raises(InputError, match="beside the index") as caught:
        ClipStore(tmp_path).read(clip, [0])
    assert not isinstance(caught.value, DamagedClipError)


# URLs.


class Server(http.server.SimpleHTTPRequestHandler):
    """Sends files and, when asked and able, parts of them; fails as often as told first."""

    ranges = True
    failures: ClassVar[list[int | str]] = []
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        fault = self.failures.pop(0) if self.failures else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        if wanted and self.ranges:
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            if first >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "short" else data)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    Server.ranges, Server.failures[:], Server.asked[:] = True, [], []
    handler = functools.partial(Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


@pytest.fixture
def server(shards: Path) -> Iterator[str]:
    with served(shards) as address:
        yield address


def test_a_clip_of_a_url_is_one_request_for_its_range(server: str, index: list[ClipInfo]) -> None:
    assert read_index(server) == read_index(f"{server}/index.jsonl") == index
    Server.asked.clear()
    frames = ClipStore(server).read(index[3], [29, 4])
    assert seen(frames.images) == [29, 4]
    start, stop = index[3].members["mp4"][0] - 512, sum(index[3].members["npz"])
    assert Server.asked == [("/clips-000001.tar", f"bytes={start}-{stop - 1}")]


def test_a_server_that_sends_whole_files_is_asked_once_for_each(server: str, index: list[ClipInfo]) -> None:
    Server.ranges = False
    store = ClipStore(server)
    for number in (0, 1, 0):
        assert seen(store.read(index[number], [3, 7]).images) == [3, 7]
    assert store._spool is not None
    assert [path for path, _ in Server.asked] == ["/clips-000000.tar"] * 2  # the range in vain, then all
    folder = store._spool._folder
    assert folder.exists()
    del store
    assert not folder.exists()


@pytest.mark.parametrize("failures", [[503, 429], ["short", "short"]])
def test_what_passes_is_tried_again(server: str, index: list[ClipInfo], failures: list[int | str]) -> None:
    Server.failures[:] = failures
    assert seen(ClipStore(server, backoff_s=0.001).read(index[0], [3]).images) == [3]
    assert len(Server.asked) == 3


def test_what_does_not_pass_is_an_error(server: str, index: list[ClipInfo]) -> None:
    Server.failures[:] = [500] * 9
    with pytest.raises(InputError, match=r"clips-000000.tar cannot be read .*500"):
        ClipStore(server, retries=2, backoff_s=0.001).read(index[0], [0])
    assert len(Server.asked) == 3
    Server.failures.clear()
    Server.asked.clear()
    with pytest.raises(InputError, match="404"):
        read_index(f"{server}/elsewhere")
    assert len(Server.asked) == 1  # what is not there is not asked for again
    with pytest.raises(InputError, match="cannot be read"):
        ClipStore("http://127.0.0.1:9", retries=0).read(index[0], [0])
    beyond = ClipInfo.from_json(
        json.dumps({**json.loads(index[0].to_json()), "members": {n: [10**9, 10] for n in ("mp4", "npz", "json")}})
    )
    with pytest.raises(DamagedClipError, match="does not fit"):
        ClipStore(server).read(beyond, [0])


# S3.


KEYS = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Says where the store is, and with which keys; nothing of this computer's own is used."""
    pytest.importorskip("boto3", reason="the extra `s3` is not installed")

    def use(endpoint: str, keys: tuple[str, str] | None = ("reader", "secret")) -> None:
        for name, value in zip(KEYS, keys or (None, None), strict=True):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        dataset._s3_client.cache_clear()

    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield use
    dataset._s3_client.cache_clear()


class Store:
    """moto's S3, with the shards in the bucket `shelf`, which one pair of keys may read."""

    def __init__(self, shards: Path, use: Callable[..., None]) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        self.make = ThreadedMotoServer
        self.server = self.make("127.0.0.1", 0, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        use(self.endpoint)
        self.ask("reset")
        client = boto3.Session().client("s3")
        client.create_bucket(Bucket="shelf")
        for path in shards.iterdir():
            client.put_object(Bucket="shelf", Key=f"faces/{path.name}", Body=path.read_bytes())
        iam = boto3.Session().client("iam")
        iam.create_user(UserName="reader")
        allowed = [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::shelf/*"}]
        policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        made = iam.create_access_key(UserName="reader")["AccessKey"]
        self.keys = made["AccessKeyId"], made["SecretAccessKey"]
        use(self.endpoint, self.keys)

    def ask(self, what: str, body: str = "") -> None:
        """Of moto itself: reset, which forgets all; reset-auth, from when on keys are checked."""
        url = f"{self.endpoint}/moto-api/{what}"
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    def restart(self) -> None:
        self.server = self.make("127.0.0.1", self.port, verbose=False)
        self.server.start()


@pytest.fixture
def store(shards: Path, s3: Callable[..., None]) -> Iterator[Store]:
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    running = Store(shards, s3)
    yield running
    running.ask("reset-auth", "inf")
    running.ask("reset")
    running.server.stop()


def test_shards_are_read_from_s3(store: Store, index: list[ClipInfo]) -> None:
    store.ask("reset-auth", "0")
    root = "s3://shelf/faces"
    assert read_index(root) == read_index(f"{root}/index.jsonl") == index
    frames = ClipStore(root).read(index[3], [29, 4])
    assert seen(frames.images) == [29, 4]
    again = pickle.loads(pickle.dumps(ClipStore(root)))  # as workers get it
    assert seen(again.read(index[0], [3]).images) == [3]


def test_what_s3_does_not_give_is_told(
    store: Store, s3: Callable[..., None], index: list[ClipInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ask("reset-auth", "0")
    place = json.loads(index[0].to_json()) | {"members": {n: [10**9, 10] for n in ("mp4", "npz", "json")}}
    with pytest.raises(DamagedClipError, match="does not fit"):
        ClipStore("s3://shelf/faces").read(ClipInfo.from_json(json.dumps(place)), [0])
    with pytest.raises(InputError, match=r"s3://shelf/faces/index.jsonl: the store refuses these keys \(InvalidAcc"):
        s3(store.endpoint, ("AKIAWRONG", "wrong"))
        read_index("s3://shelf/faces")
    with pytest.raises(InputError, match=r"the store refuses these keys \(SignatureDoesNotMatch\); check AWS_ACC"):
        s3(store.endpoint, (store.keys[0], "wrong"))
        read_index("s3://shelf/faces")
    with pytest.raises(InputError, match=r"no keys for it were found; set AWS_ACCESS_KEY_ID"):
        s3(store.endpoint, None)
        read_index("s3://shelf/faces")
    store.ask("reset-auth", "inf")
    s3(store.endpoint)
    with pytest.raises(InputError, match=r"there is no bucket shelves at http://127\.0\.0\.1.*AWS_ENDPOINT_URL"):
        read_index("s3://shelves/faces")
    with pytest.raises(InputError, match=r"s3://shelf/elsewhere/index\.jsonl cannot be read .*NoSuchKey"):
        read_index("s3://shelf/elsewhere")
    with pytest.raises(InputError, match=r"s3:///faces/index\.jsonl cannot be read"):
        read_index("s3:///faces")
    monkeypatch.setitem(sys.modules, "boto3", None)
    dataset._s3_client.cache_clear()
    with pytest.raises(InputError, match=r"needs boto3; install it with: pip install 'mimik\[s3\]'"):
        read_index("s3://shelf/faces")


def test_a_store_that_goes_away_is_waited_for(store: Store, index: list[ClipInfo]) -> None:
    clips = ClipStore("s3://shelf/faces", retries=2, backoff_s=0.01)
    assert seen(clips.read(index[0], [3]).images) == [3]
    store.server.stop()
    with pytest.raises(InputError, match=r"clips-000001\.tar cannot be read .*check the address and the server, then"):
        clips.read(index[3], [4])
    clips = ClipStore("s3://shelf/faces", retries=6, backoff_s=0.05)
    back = threading.Timer(0.4, store.restart)
    back.start()
    assert seen(clips.read(index[3], [4]).images) == [4]
    back.join()


@pytest.mark.parametrize("failures", [[503, "short"], ["short", "short"]])
def test_what_passes_is_asked_of_s3_again(
    shards: Path, s3: Callable[..., None], index: list[ClipInfo], failures: list[int | str]
) -> None:
    with served(shards.parent) as endpoint:
        s3(endpoint)
        Server.failures[:] = failures
        clips = ClipStore(f"s3://{shards.name}", backoff_s=0.001)
        assert seen(clips.read(index[0], [3]).images) == [3]
        assert len(Server.asked) == 3


# Augmentation.


def test_flipping_exchanges_the_sides_of_the_face() -> None:
    flip = flip_permutation()
    assert sorted(flip.tolist()) == list(range(478))
    assert (flip[flip] == np.arange(478)).all()
    assert flip[faces.RIGHT_EYE_UPPER].tolist() == faces.LEFT_EYE_UPPER
    assert flip[faces.RIGHT_EYE_LOWER].tolist() == faces.LEFT_EYE_LOWER
    assert flip[faces.RIGHT_BROW].tolist() == faces.LEFT_BROW
    assert flip[faces.RIGHT_IRIS[0]] == faces.LEFT_IRIS[0]
    for line in (faces.LIPS_OUTER_UPPER, faces.LIPS_OUTER_LOWER, faces.LIPS_INNER_UPPER, faces.LIPS_INNER_LOWER):
        assert flip[line].tolist() == line[::-1]
    assert set(flip[faces.OVAL]) == set(faces.OVAL)
    assert {1, 4, 10, faces.CHIN, 168} <= set(np.flatnonzero(flip == np.arange(478)))


def test_a_flipped_portrait_has_the_flipped_points(
    landmarker: faces.Landmarker, small_portrait: np.ndarray, small_face: faces.Face
) -> None:
    change = Augmentation(flip=1, **OFF).draw(np.random.default_rng(0), 256)
    (image,) = change.images(small_portrait[None])
    assert (image == small_portrait[:, ::-1]).all()
    (points,) = change.points(small_face.points[None], 256)
    found = landmarker.detect(image)[0].points
    apart = np.linalg.norm((found - points)[:, :2], axis=1)
    assert np.median(apart) < 1.5
    assert apart[faces.IRISES].max() < 2.5  # a wrong order of the rims is 4 px and more


OFF: dict[str, float] = dict.fromkeys(
    ("rotation_deg", "scale", "shift", "brightness", "contrast", "saturation", "gamma", "hue_deg"), 0.0
)


@pytest.mark.parametrize("style", ["paper", "full"])
def test_colours_stay_at_the_persons_own_sides(style: str) -> None:
    points = face_points(1, 128)
    change = Augmentation(flip=1, **OFF).draw(np.random.default_rng(0), 128)
    flipped = landmark_image(change.points(points, 128)[0], 128, 128, style=style)
    for colour, left_of_picture in (((255, 0, 0), True), ((0, 255, 0), False)):
        x = np.flatnonzero((flipped == colour).all(-1).any(0))
        assert len(x)
        assert (x.mean() < 64) == left_of_picture
    # It is the mirror image in which the colours of the sides are exchanged, but for a pixel of rounding.
    mirrored = landmark_image(points[0], 128, 128, style=style)[:, ::-1]
    for before, after in (((255, 0, 0), (0, 255, 0)), ((255, 0, 255), (0, 255, 255)), ((255, 255, 0),) * 2):
        for one, other, image in ((before, after, flipped), (after, before, flipped)):
            there = cv2.dilate((mirrored == one).all(-1).astype(np.uint8), np.ones((3, 3), np.uint8))
            assert there[(image == other).all(-1)].mean() > 0.97


@pytest.mark.parametrize("seed", range(6))
def test_points_go_where_their_pixels_go(seed: int) -> None:
    side, at = 96, np.array([[30.5, 40.5], [60.5, 31.5], [48.5, 70.5]])
    images = np.zeros((3, side, side, 3), np.uint8)
    for image, (x, y) in zip(images, at, strict=True):
        image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    points = np.repeat(np.append(at, np.ones((3, 1)), 1)[:, None], 478, 1).astype(np.float32)
    colours = dict.fromkeys(("brightness", "contrast", "saturation", "gamma", "hue_deg"), 0.0)
    change = Augmentation(strength=1.5, **colours).draw(np.random.default_rng(seed), side)
    moved, images = change.points(points, side), change.images(images)
    for image, (x, y) in zip(images, moved[:, 0, :2], strict=True):
        weight = image[..., 0].astype(float)
        rows, columns = np.indices(weight.shape) + 0.5  # points count from the corner of the first pixel
        centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose((x, y), centre, atol=0.1)
    across = np.linalg.norm(moved[0, 0, :2] - moved[1, 0, :2]) / np.linalg.norm(at[0] - at[1])
    np.testing.assert_allclose(moved[..., 2], across, rtol=1e-4)


def test_colour_leaves_grey_grey_and_is_one_for_all_frames() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    images[:, :8] = images[:, :8, :, :1]
    colour = Augmentation(flip=0, rotation_deg=0, scale=0, shift=0)
    change = colour.draw(np.random.default_rng(1), 16)
    out = change.images(images)
    assert np.ptp(out[:, :8].astype(int), axis=-1).max() <= 2
    assert np.abs(out.astype(int) - images).mean() > 2
    assert (change.images(images[1:])[0] == out[1]).all()


def test_strength_zero_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for seed in range(4):
        change = Augmentation(strength=0).draw(np.random.default_rng(seed), 16)
        assert (change.images(images) == images).all()
        np.testing.assert_array_equal(change.points(face_points(2), 16), face_points(2))


def test_some_episodes_have_no_colours() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    changes = [Augmentation(hue_deg=0).draw(np.random.default_rng(seed), 8) for seed in range(300)]
    grey = [change for change in changes if np.ptp(change.images(picture), axis=-1).max() <= 1]
    assert 15 <= len(grey) <= 50  # a tenth


@pytest.mark.parametrize(("values", "message"), [({"flip": 2}, "flip 2"), ({"hue_deg": -1}, "hue_deg -1")])
def test_impossible_augmentation(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(**values)
    with pytest.raises(InputError, match="too strong"):
        Augmentation(strength=6)


# Episodes.


@pytest.fixture(scope="module")
def episodes(shards: Path, index: list[ClipInfo]) -> Episodes:
    return Episodes(ClipStore(shards, cache_mb=50), index, as_uint8=True)


def test_an_episode_is_frames_of_one_clip_with_their_landmarks(episodes: Episodes, index: list[ClipInfo]) -> None:
    assert len(episodes) == 4
    assert episodes.num_left_out == 1
    item = episodes[2]
    assert item["x"].shape == item["y"].shape == (3, SIDE, SIDE)
    assert item["x_s"].shape == item["y_s"].shape == (8, 3, SIDE, SIDE)
    assert item["x"].dtype == item["y_s"].dtype == torch.uint8
    frames = [item["frame"], *item["frames_s"].tolist()]
    assert len(set(frames)) == 9
    assert seen(torch.cat([item["x"][None], item["x_s"]]).numpy()) == frames
    clip = item["clip"]
    assert item["key"] == index[clip].key
    assert item["person"] == sorted(set(PEOPLE)).index(PEOPLE[clip])
    truth = face_points(LENGTHS[clip], seed=clip)[frames]
    np.testing.assert_allclose(torch.cat([item["points"][None], item["points_s"]]), truth, atol=1 / 32)
    drawn = landmark_image(item["points"].numpy(), SIDE, SIDE)
    assert (item["y"].permute(1, 2, 0).numpy() == drawn).all()


def test_model_range(episodes: Episodes, shards: Path, index: list[ClipInfo]) -> None:
    item = Episodes(ClipStore(shards), index)[2]
    assert item["x"].dtype == item["y_s"].dtype == torch.float32
    assert item["y"].min() == -1
    assert torch.equal(item["x_s"], to_model_range(episodes[2]["x_s"]))
    assert to_model_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_every_clip_once_an_epoch_in_another_order(episodes: Episodes) -> None:
    orders = [[episodes.choose(n)[0] for n in range(e * 4, e * 4 + 4)] for e in range(8)]
    assert all(sorted(order) == [0, 1, 3, 4] for order in orders)  # the third has too few frames
    assert len({tuple(order) for order in orders}) > 2
    assert episodes.position(9) == (2, 1)


def test_target_and_sources_are_drawn_evenly(episodes: Episodes) -> None:
    numbers = [n for n in range(2000) if episodes.choose(n)[0] == 1]
    counts = np.bincount([episodes.choose(n)[1] for n in numbers], minlength=12)
    assert counts.min() > 0.5 * counts.mean()
    assert counts.max() < 1.6 * counts.mean()


def test_far_targets_differ_more_from_the_sources(shards: Path, index: list[ClipInfo]) -> None:
    def apart(target: str) -> float:
        data = Episodes(ClipStore(shards, cache_mb=50), index, num_sources=1, target=target)
        total = 0.0
        for n in range(60):
            clip, frame, sources = data.choose(n)
            assert frame not in sources
            tracks = data.store.tracks(index[clip])
            state = np.concatenate([tracks.blendshapes, tracks.pose / 15], 1)
            total += float(np.linalg.norm(state[frame] - state[sources[0]]))
        return total

    assert apart("far") > 1.1 * apart("uniform")


def test_augmented_episodes_are_the_same_each_time_and_one_change_for_all(shards: Path, index: list[ClipInfo]) -> None:
    plain = Episodes(ClipStore(shards), index, num_sources=2, as_uint8=True)
    changed = Episodes(ClipStore(shards), index, num_sources=2, as_uint8=True, augment=Augmentation())
    one, again = changed[5], changed[5]
    assert all(torch.equal(one[name], again[name]) for name in ("x", "y", "x_s", "y_s", "points", "points_s"))
    assert torch.equal(one["frames_s"], plain[5]["frames_s"])  # the frames do not depend on augmentation
    assert not torch.equal(one["points"], plain[5]["points"])
    assert (one["y"].permute(1, 2, 0).numpy() == landmark_image(one["points"].numpy(), SIDE, SIDE)).all()


def test_regions_are_the_targets_eyes_and_mouth(episodes: Episodes) -> None:
    item = episodes[2]
    assert item["regions"].shape == (1, SIDE, SIDE)
    assert (item["regions"][0].numpy() == feature_mask(item["points"].numpy(), SIDE, SIDE)).all()


class Portraits(ClipStore):
    """One clip: a portrait that nods a little; its frames are made when asked for."""

    def __init__(self, picture: np.ndarray, points: np.ndarray) -> None:
        self.size, self.root = None, "portraits"
        self._picture, self._points = picture, points

    def read(self, clip: ClipInfo, numbers: Any) -> ClipFrames:
        warper = Warper(self._points, *self._picture.shape[1::-1])
        painter = Painter(self._picture, warper)
        points = [turned(self._points, 0, 3.0 * n, 0) for n in numbers]
        return ClipFrames(np.stack([painter.paint(warper.flow(p)) for p in points]), np.stack(points))


def test_windows_hold_the_face_and_the_photo_warped_to_the_target(
    portrait: np.ndarray, portrait_face: Face, index: list[ClipInfo]
) -> None:
    picture = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    store = Portraits(picture, portrait_face.points / 2)
    clip = dataclasses.replace(index[0], num_frames=3, size=256)
    for augment in (None, Augmentation()):
        data = Episodes(store, [clip], num_sources=2, as_uint8=True, window_px=64, augment=augment)
        item = data[0]
        assert item["x"].shape == item["warped"].shape == (3, 128, 128)
        assert item["y"].shape == (3, 64, 64) and item["regions"].shape == (1, 128, 128)
        assert item["x_s"].shape == (2, 3, 64, 64)
        assert item["geometry"].shape == (NUM_GEOMETRY, 32, 32)
        # The head fills the window and stands in its middle.
        height = np.linalg.norm(item["points"][10, :2] - item["points"][faces.CHIN, :2])
        assert height == pytest.approx(64 / 1.7, rel=0.2 if augment else 0.03)
        assert (item["points"][:, :2].mean(0) - 32).abs().max() < 6
        # The photo, warped, is nearer to the target than the photo itself.
        x, warped, photo = (item[name].float() for name in ("x", "warped", "x_s"))
        small = x.unflatten(2, (64, 2)).unflatten(1, (64, 2)).mean((2, 4))
        assert (x - warped).abs().mean() < 0.5 * (small - photo[0]).abs().mean()
        assert (item["y"].permute(1, 2, 0).numpy() == landmark_image(item["points"].numpy(), 64, 64)).all()
    unit = item["points"].numpy() / 64
    views = np.stack([view_of(unit, 64, np.random.default_rng(seed)) for seed in range(200)])
    whole = (views < 0).all(1)
    assert 80 < whole.sum() < 120 and views[~whole].min() >= 0 and views[~whole].max() <= 64
    floats = Episodes(store, [clip], num_sources=2, window_px=64)[0]
    assert floats["warped"].dtype == torch.float32 and floats["warped"].min() >= -1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sources": 0}, "--k 0"),
        ({"num_sources": 45}, "--k 45 needs 46 frames of a clip, but clip 0000000004_00, the longest, has 45"),
        ({"style": "oil"}, "style 'oil'"),
        ({"target": "near"}, "target 'near'"),
    ],
)
def test_episodes_that_cannot_be(shards: Path, index: list[ClipInfo], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Episodes(ClipStore(shards), index, **options)


def drawn(batches: Any) -> list[tuple[str, int, tuple[int, ...]]]:
    """(key, target, sources) of all episodes of batches."""
    return [
        (key, int(frame), tuple(sources.tolist()))
        for batch in batches
        for key, frame, sources in zip(batch["key"], batch["frame"], batch["frames_s"], strict=True)
    ]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.slow
def test_workers_and_ranks_change_nothing(episodes: Episodes) -> None:
    def load(num_workers: int, **options: Any) -> list[Any]:
        return drawn(loader(episodes, batch_size=2, num_workers=num_workers, pin_memory=False, **options))

    alone = load(0, num_episodes=24)
    assert len(alone) == 24
    assert load(1, num_episodes=24) == load(3, num_episodes=24) == alone
    ranks = [load(0, num_episodes=24, rank=rank, world_size=2) for rank in range(2)]
    assert [item for pair in zip(*ranks, strict=True) for item in pair] == alone
    # Stopped after 10 episodes of two ranks, gone on with one.
    assert load(0, start_episode=10, num_episodes=14) == alone[10:]


def test_the_sampler_has_no_end_and_takes_torchruns_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = iter(EpisodeSampler(start_episode=6, rank=1, world_size=3))
    assert [next(endless) for _ in range(4)] == [7, 10, 13, 16]
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert list(EpisodeSampler(num_episodes=11)) == [2, 6]
    with pytest.raises(InputError, match="rank 4 of 4"):
        EpisodeSampler(rank=4, world_size=4)


def test_the_papers_protocol(shards: Path, index: list[ClipInfo]) -> None:
    one, eight = evaluation_episodes(index, 1), evaluation_episodes(index, 8)
    assert [e.clip for e in one] == [0, 4]
    assert [e.clip for e in eight] == [0, 4]
    for few, many in zip(one, eight, strict=True):
        assert few.holdout == many.holdout
        assert set(few.sources) < set(many.sources)
        assert len(many.holdout) == 32
        assert set(many.holdout).isdisjoint(many.sources)
    assert [e.sources for e in evaluation_episodes(index[4:], 8)] == [eight[1].sources]
    tensors = load_evaluation(ClipStore(shards), eight[0], as_uint8=True)
    assert {name: tuple(t.shape[:1]) for name, t in tensors.items()} == {
        **dict.fromkeys(("x", "y", "points"), (32,)),
        **dict.fromkeys(("x_s", "y_s", "points_s"), (8,)),
    }
    assert seen(tensors["x"].numpy()) == list(eight[0].holdout)
    assert seen(tensors["x_s"].numpy()) == list(eight[0].sources)
    with pytest.raises(InputError, match="64 frames, but the longest of 5 clips has 45"):
        evaluation_episodes(index, 32)
    with pytest.raises(InputError, match="1 or more"):
        evaluation_episodes(index, 0)


@pytest.mark.slow
def test_a_training_machine_needs_torch_numpy_and_opencv_only(shards: Path) -> None:
    code = """
import sys
for name in ("av", "openvino", "PIL", "pillow_heif", "c2pa", "typer", "rich", "scipy"):
    sys.modules[name] = None
from mimik.data.dataset import *
from mimik.data.dataset import ClipStore, Episodes, Augmentation, read_index
item = Episodes(ClipStore(sys.argv[1]), read_index(sys.argv[1]), augment=Augmentation())[0]
print(tuple(item["x_s"].shape))
"""
    done = subprocess.run([sys.executable, "-c", code, str(shards)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"(8, 3, {SIDE}, {SIDE})", done.stderr
