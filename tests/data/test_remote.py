"""remote.py: byte ranges over http and s3; transient errors are retried, others are raised."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import pickle
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mimik.config import InputError
from mimik.data import remote
from mimik.data.index import ClipInfo, read_index
from mimik.data.remote import DamagedClipError
from mimik.data.store import ClipStore
from synthetic_shards import seen


class Server(http.server.SimpleHTTPRequestHandler):
    """Sends files or byte ranges, if supported; the first requests fail as configured."""

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
    """Serves a folder; returns its address."""
    Server.ranges, Server.failures[:], Server.asked[:] = True, [], []
    handler = functools.partial(Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without waiting."""
    monkeypatch.setattr(remote, "_BACKOFF_S", 0.001)


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


def test_a_wrong_address_is_reported_within_seconds(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mimik")
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    Server.failures[:] = [503] * 9
    with pytest.raises(InputError, match=r"index.jsonl cannot be read .*; check the address and the server"):
        read_index(server)
    assert sum(waits) <= 2 and len(Server.asked) == 3
    first, *others = caplog.messages
    assert first == f"reading {server}/index.jsonl"
    assert len(others) == 2 and "503" in others[0] and others[1].endswith("; retry 2 of 2")

    def silent(*_: object, timeout: float) -> None:
        waits.append(timeout)
        raise TimeoutError("timed out")

    waits.clear()
    monkeypatch.setattr(remote.urllib.request, "urlopen", silent)
    with pytest.raises(InputError, match="timed out"):
        read_index(server)
    assert max(waits) == 10 and sum(waits) < 32


def test_a_server_that_sends_whole_files_is_asked_once_for_each(server: str, index: list[ClipInfo]) -> None:
    Server.ranges = False
    store = ClipStore(server)
    for number in (0, 1, 0):
        assert seen(store.read(index[number], [3, 7]).images) == [3, 7]
    assert store._spool is not None
    assert [path for path, _ in Server.asked] == ["/clips-000000.tar"] * 2  # the range fails, then the whole file
    folder = store._spool._folder
    assert folder.exists()
    del store
    assert not folder.exists()


@pytest.mark.parametrize("failures", [[503, 429], ["short", "short"]])
def test_what_passes_is_tried_again(
    server: str, index: list[ClipInfo], failures: list[int | str], impatient: None
) -> None:
    Server.failures[:] = failures
    assert seen(ClipStore(server).read(index[0], [3]).images) == [3]
    assert len(Server.asked) == 3


def test_what_does_not_pass_is_an_error(
    server: str, index: list[ClipInfo], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_REQUEST_RETRIES", 2)
    Server.failures[:] = [500] * 9
    with pytest.raises(InputError, match=r"clips-000000.tar cannot be read .*500"):
        ClipStore(server).read(index[0], [0])
    assert len(Server.asked) == 3
    Server.failures.clear()
    Server.asked.clear()
    with pytest.raises(InputError, match="404"):
        read_index(f"{server}/elsewhere")
    assert len(Server.asked) == 1  # missing files are not retried
    with pytest.raises(InputError, match="cannot be read"):
        ClipStore("http://127.0.0.1:9").read(index[0], [0])
    beyond = ClipInfo.from_json(
        json.dumps({**json.loads(index[0].to_json()), "members": {n: [10**9, 10] for n in ("mp4", "npz", "json")}})
    )
    with pytest.raises(DamagedClipError, match="does not fit"):
        ClipStore(server).read(beyond, [0])


KEYS = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Sets address and keys of the store; the computer's AWS settings are not used."""
    pytest.importorskip("boto3", reason="the extra `s3` is not installed")

    def use(endpoint: str, keys: tuple[str, str] | None = ("reader", "secret")) -> None:
        for name, value in zip(KEYS, keys or (None, None), strict=True):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        remote._s3_client.cache_clear()

    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield use
    remote._s3_client.cache_clear()


class Store:
    """moto's S3, with the shards in the bucket `shelf`, readable with one pair of keys."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self.make = ThreadedMotoServer
        self.server = self.make("127.0.0.1", 0, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def fill(self, shards: Path, use: Callable[..., None]) -> None:
        import boto3

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
        """Control of moto: reset deletes everything; reset-auth enables the check of keys."""
        url = f"{self.endpoint}/moto-api/{what}"
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    def restart(self) -> None:
        self.server = self.make("127.0.0.1", self.port, verbose=False)
        self.server.start()


@pytest.fixture(scope="module")
def moto() -> Iterator[Store]:
    pytest.importorskip("boto3", reason="the extra `s3` is not installed")
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    running = Store()
    yield running
    running.server.stop()


@pytest.fixture
def store(moto: Store, shards: Path, s3: Callable[..., None]) -> Iterator[Store]:
    moto.fill(shards, s3)
    yield moto
    moto.ask("reset-auth", "inf")
    moto.ask("reset")


@pytest.mark.slow
def test_shards_are_read_from_s3(store: Store, index: list[ClipInfo]) -> None:
    store.ask("reset-auth", "0")
    root = "s3://shelf/faces"
    assert read_index(root) == read_index(f"{root}/index.jsonl") == index
    frames = ClipStore(root).read(index[3], [29, 4])
    assert seen(frames.images) == [29, 4]
    again = pickle.loads(pickle.dumps(ClipStore(root)))  # as in workers
    assert seen(again.read(index[0], [3]).images) == [3]


@pytest.mark.slow
def test_errors_of_s3_are_reported(
    store: Store, s3: Callable[..., None], index: list[ClipInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ask("reset-auth", "0")
    place = json.loads(index[0].to_json()) | {"members": {n: [10**9, 10] for n in ("mp4", "npz", "json")}}
    with pytest.raises(DamagedClipError, match="does not fit"):
        ClipStore("s3://shelf/faces").read(ClipInfo.from_json(json.dumps(place)), [0])
    with pytest.raises(InputError, match=r"s3://shelf/faces/index.jsonl: the store rejects these keys \(InvalidAcc"):
        s3(store.endpoint, ("AKIAWRONG", "wrong"))
        read_index("s3://shelf/faces")
    with pytest.raises(InputError, match=r"the store rejects these keys \(SignatureDoesNotMatch\); check AWS_ACC"):
        s3(store.endpoint, (store.keys[0], "wrong"))
        read_index("s3://shelf/faces")
    with pytest.raises(InputError, match=r"no keys found; set AWS_ACCESS_KEY_ID"):
        s3(store.endpoint, None)
        read_index("s3://shelf/faces")
    store.ask("reset-auth", "inf")
    s3(store.endpoint)
    with pytest.raises(InputError, match=r"no bucket shelves at http://127\.0\.0\.1.*AWS_ENDPOINT_URL"):
        read_index("s3://shelves/faces")
    with pytest.raises(InputError, match=r"s3://shelf/elsewhere/index\.jsonl cannot be read .*NoSuchKey"):
        read_index("s3://shelf/elsewhere")
    with pytest.raises(InputError, match=r"s3:///faces/index\.jsonl cannot be read"):
        read_index("s3:///faces")
    monkeypatch.setitem(sys.modules, "boto3", None)
    remote._s3_client.cache_clear()
    with pytest.raises(InputError, match=r"needs boto3; install it with: pip install '.\[s3\]'"):
        read_index("s3://shelf/faces")


@pytest.mark.slow
def test_a_store_that_goes_away_is_waited_for(
    store: Store, index: list[ClipInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_REQUEST_RETRIES", 2)
    monkeypatch.setattr(remote, "_BACKOFF_S", 0.01)
    clips = ClipStore("s3://shelf/faces")
    assert seen(clips.read(index[0], [3]).images) == [3]
    store.server.stop()
    with pytest.raises(InputError, match=r"clips-000001\.tar cannot be read .*check the address and the server, then"):
        clips.read(index[3], [4])
    monkeypatch.setattr(remote, "_REQUEST_RETRIES", 8)
    back = threading.Timer(0.4, store.restart)
    back.start()
    assert seen(clips.read(index[3], [4]).images) == [4]
    back.join()


@pytest.mark.parametrize("failures", [[503, "short"], ["short", "short"]])
def test_what_passes_is_asked_of_s3_again(
    shards: Path, s3: Callable[..., None], index: list[ClipInfo], failures: list[int | str], impatient: None
) -> None:
    with served(shards.parent) as endpoint:
        s3(endpoint)
        Server.failures[:] = failures
        clips = ClipStore(f"s3://{shards.name}")
        assert seen(clips.read(index[0], [3]).images) == [3]
        assert len(Server.asked) == 3
