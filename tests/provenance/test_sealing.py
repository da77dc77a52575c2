"""The export boundary: signed files, refusals, remaining files, and the absence of any other writer."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

import mimik
from conftest import write_clip
from mimik.config import InputError, MediaError
from mimik.media import video
from mimik.provenance import sealing, verifying, watermark
from mimik.provenance.credentials import _PIXEL, Credentials
from mimik.provenance.formats import RECIPE_LABEL, SOURCES_LABEL, c2pa_context
from mimik.provenance.manifests import Claim, Ingredient
from mimik.provenance.marking import Draft, Marker, burn_label, model_number
from mimik.provenance.outputs import check_output
from mimik.provenance.sealing import seal
from mimik.provenance.verifying import Signer, Status, _judge, _roots, read_mark, verify

NUM_FRAMES = 5


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary data folder, so that no home folder is changed."""
    folder = tmp_path / "data"
    monkeypatch.setenv("MIMIK_DATA", str(folder))
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def picture(shade: int = 0) -> Image.Image:
    ramp = np.add.outer(np.arange(32), np.arange(32)) * 3
    return Image.fromarray(np.stack([ramp, ramp[::-1], np.full_like(ramp, shade * 40)], -1).astype(np.uint8))


def draw(draft: Draft, *, moving: bool = False) -> None:
    """Write small frames to a draft, as in the program."""
    if moving or draft.path.suffix.lower() in (".mp4", ".m4v", ".mov", ".gif"):
        write_frames(draft, NUM_FRAMES)
    else:
        draft.write_image(np.asarray(picture()))


def write_frames(draft: Draft, num_frames: int) -> None:
    with draft.open_writer(32, 32, 25) as writer:
        for shade in range(num_frames):
            writer.write(np.asarray(picture(shade)))


def draw_file(path: Path) -> None:
    """A small picture or clip from another program."""
    if path.suffix in (".mp4", ".m4v", ".mov"):
        write_clip(path, [np.asarray(picture(shade)) for shade in range(NUM_FRAMES)])
    else:
        picture().save(path)


def remuxed(path: Path, out: Path) -> Path:
    """Copy the packets of a video to another file, without its manifest."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return out


def claim(*ingredients: Ingredient, **settings: Any) -> Claim:
    return Claim("out", "geometry", ingredients, settings)


def sealed(path: Path, made: Claim | None = None, **options: Any) -> Path:
    with seal(path, made or claim(), **options) as draft:
        draw(draft, moving=path.name.startswith("moving"))
    return path


def manifest_of(path: Path, **trust: str) -> dict[str, Any]:
    with c2pa.Reader(str(path), context=c2pa_context(**trust)) as reader:
        report: dict[str, Any] = json.loads(reader.json())
    return report


def spoil(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x01
    path.write_bytes(content)


# Certificates of other signers.


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def pem_key(key: Any, password: bytes | None = None) -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


class Authority:
    """A root certificate and the certificates it signs."""

    def __init__(self, name: str = "Test Authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name
        self.root = self.issue(self.key, name, is_root=True)

    def issue(
        self,
        key: Any,
        name: str = "Test Signer",
        *,
        until: timedelta = timedelta(days=9),
        usage: str | None = "1.3.6.1.5.5.7.3.4",
        is_root: bool = False,
        serial: int | None = None,
    ) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name(
                [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text), x509.NameAttribute(NameOID.COMMON_NAME, text)]
            )

        now = datetime.now(UTC)
        no = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + until)
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(not is_root, key_cert_sign=is_root, crl_sign=is_root, decipher_only=False, **no),
                critical=True,
            )
        )
        if usage and not is_root:
            builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)]), critical=True)
        return builder.sign(self.key, hashes.SHA256())

    def write(self, folder: Path, key: Any, **options: Any) -> tuple[Path, Path]:
        certificate, secret = folder / "certificate.pem", folder / "key.pem"
        certificate.write_bytes(pem(self.issue(key, **options)))
        secret.write_bytes(pem_key(key))
        return certificate, secret


def signed_by_another(
    path: Path, generator: str = "Canon EOS", remote: str | None = None, source: Path | None = None
) -> Path:
    """A file with the manifest of another program, or with only the address of its manifest."""
    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1())
    info = c2pa.C2paSignerInfo("es256", pem(authority.issue(key, "Canon")), pem_key(key), None)
    capture = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": capture}]}
    definition = {
        "claim_generator_info": [{"name": generator, "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": actions}],
    }
    plain = io.BytesIO(source.read_bytes() if source else b"")
    if source is None:
        picture(3).save(plain, "JPEG")
    with path.open("w+b") as file:
        builder = c2pa.Builder(definition, c2pa_context())
        if remote:
            builder.set_no_embed()
            builder.set_remote_url(remote)
        builder.sign(c2pa.Signer.from_info(info), "image/jpeg", plain, file)
    return path


# Content of a signed file.


@pytest.mark.parametrize(
    "name", ["a.mp4", "a.m4v", "a.mov", "a.png", "a.jpg", "a.jpeg", "a.webp", "moving.webp", "moving.gif", "A.PNG"]
)
def test_every_format_is_signed_without_a_complaint_and_still_plays(work: Path, data: Path, name: str) -> None:
    out = sealed(work / name)
    # C2PA's validation: only the unknown signer is reported, and nothing if its root is trusted.
    assert [one["code"] for one in manifest_of(out)["validation_status"]] == ["signingCredential.untrusted"]
    roots = _roots((data / "signer-0001" / "certificate.pem").read_bytes()).decode()
    assert manifest_of(out, trust_anchors=roots)["validation_state"] == "Trusted"
    verdict = verify(out)
    assert (verdict.status, verdict.signer, verdict.codes) == (Status.MIMIK, Signer.THIS_COMPUTER, ())

    if out.suffix in (".mp4", ".m4v", ".mov"):
        with av.open(str(out)) as container:
            assert sum(1 for _ in container.decode(video=0)) == NUM_FRAMES
    else:
        with Image.open(out) as image:
            assert getattr(image, "n_frames", 1) == (NUM_FRAMES if name.startswith("moving") else 1)
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
    assert [path.name for path in work.iterdir()] == [name]


def test_the_manifest_names_program_model_and_sources_but_no_folder(work: Path) -> None:
    photo, driver = work / "photo.jpg", work / "driver.mp4"
    draw_file(photo)
    draw_file(driver)
    sources = (Ingredient.from_file("photo", photo), Ingredient.from_file("driver", driver, name="bundled smile"))
    out = sealed(work / "out.mp4", claim(*sources, strength=1.5, regions=("pose", "lips"), size=None))

    manifest = manifest_of(out)["manifests"][manifest_of(out)["active_manifest"]]
    assertions = {one["label"]: one["data"] for one in manifest["assertions"]}
    created, placed, watermarked = assertions["c2pa.actions.v2"]["actions"]
    assert created["action"] == "c2pa.created"
    assert created["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert created["softwareAgent"]["name"] == "mimik"
    assert placed["action"] == "c2pa.placed"
    assert watermarked["action"] == "c2pa.watermarked"
    relations = {one["title"]: one["relationship"] for one in manifest["ingredients"]}
    assert relations == {"photo.jpg": "componentOf", "bundled smile": "inputTo"}
    assert assertions["cawg.training-mining"]["entries"]["cawg.ai_training"] == {"use": "notAllowed"}
    assert "thumbnail" not in json.dumps(manifest)
    assert str(work).encode() not in out.read_bytes()

    verdict = verify(out)
    assert verdict.sources == sources
    assert verdict.sources[0].sha256 == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert (verdict.generator, verdict.model) == ("mimik", "geometry")
    assert verdict.settings == {"strength": 1.5, "regions": ["pose", "lips"], "size": None}
    assert abs(datetime.fromisoformat(verdict.created or "") - datetime.now(UTC)) < timedelta(minutes=1)
    assert "synthetic" in verdict.sentence
    assert (verdict.consent, verdict.has_label) == (None, False)
    assert json.loads(verdict.to_json())["sources"][0]["name"] == "photo.jpg"


def test_the_history_of_a_signed_photo_survives(work: Path) -> None:
    photo = signed_by_another(work / "photo.jpg")
    source = Ingredient.from_file("photo", photo)
    photo.unlink()
    out = sealed(work / "out.mp4", claim(source))
    assert verify(out).status is Status.MIMIK
    assert verify(out).earlier == ("Canon EOS",)


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"gr\xc3\xbc\xc3\x9fe", "gr\u00fc\u00dfe"), (b"d\xff", "d\ufffd")],
    ids=["UTF-8", "other bytes"],
)
def test_names_that_the_locale_cannot_read_are_signed(work: Path, name: bytes, shown: str) -> None:
    """Names as decoded by Python if the locale cannot represent them, such as LC_ALL=C without UTF-8."""
    known = name.decode("ascii", "surrogateescape")
    (work / "photo.jpg").touch()
    source = Ingredient.from_file("photo", work / "photo.jpg", name=f"{known}.jpg")
    out = sealed(work / "out.png", replace(claim(source, driver=known), title=f"{known}.png"))
    active = manifest_of(out)["manifests"][manifest_of(out)["active_manifest"]]
    assert active["title"] == f"{shown}.png"
    assert [one["title"] for one in active["ingredients"]] == [f"{shown}.jpg"]
    assert verify(out).status is Status.MIMIK


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Ingredient("photo", "/home/anna/photo.jpg", "0" * 64, "image/jpeg"),
        lambda: Ingredient("photo", "C:\\photo.jpg", "0" * 64, "image/jpeg"),
        lambda: Ingredient("music", "photo.jpg", "0" * 64, "image/jpeg"),
        lambda: Ingredient("photo", "photo.jpg", "0", "image/jpeg"),
        lambda: claim(driver="/home/anna/film.mp4"),
        lambda: claim(photos=("a.jpg", "b/c.jpg")),
        lambda: claim(path=Path("film.mp4")),
    ],
)
def test_a_claim_takes_no_paths(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        wrong()


def test_an_ingredient_that_is_missing_is_named(work: Path) -> None:
    with pytest.raises(InputError, match=r"photo\.jpg: cannot be read"):
        Ingredient.from_file("photo", work / "photo.jpg")


# Content of the frames.

SIDE = 192


def scene(number: int = 0, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A picture with light, shade and texture, and a moving disc."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    light = 90 + 60 * np.sin(x / 31) * np.cos(y / 47) + 8 * np.sin(x * y / 97)
    disc = np.hypot(x - width / 2 - 3 * number, y - height / 2) < 40
    return np.stack([light + 50 * disc, light, light - 30 * disc], -1).clip(0, 255).astype(np.uint8)


def marked(path: Path, made: Claim | None = None, num_frames: int = 6) -> Path:
    with seal(path, made or claim()) as draft:
        if path.suffix in (".png", ".jpg", ".webp") and "moving" not in path.name:
            draft.write_image(scene())
        else:
            with draft.open_writer(SIDE, SIDE, 25) as writer:
                for number in range(num_frames):
                    writer.write(scene(number))
    return path


@pytest.mark.parametrize(
    "name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.png", "a.jpg", "a.webp", "moving.webp", "moving.gif", "frames"]
)
def test_what_leaves_carries_the_mark_that_its_manifest_declares(work: Path, name: str) -> None:
    out = marked(work / name)
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    verdicts = [verify(file) for file in files]
    for verdict in verdicts:
        assert (verdict.status, verdict.codes) == (Status.MIMIK, ())
        assert verdict.mark is not None
        assert verdict.mark.value == verdict.binding
        assert verdict.mark.model == "geometry"
        assert verdict.mark.false_positive < 1e-6
        assert "mark" not in verdict.sentence  # not mentioned if everything is valid
    assert len({verdict.binding for verdict in verdicts}) == 1
    assert len(files) == (6 if name == "frames" else 1)


def test_the_soft_binding_is_that_of_the_specification(work: Path) -> None:
    out = marked(work / "a.png")
    manifest = manifest_of(out)["manifests"][manifest_of(out)["active_manifest"]]
    (data,) = [one["data"] for one in manifest["assertions"] if one["label"] == "c2pa.soft-binding"]
    reading = read_mark(out)
    assert reading.payload is not None
    assert data["alg"] == "io.github.mimik.watermark.1"
    assert data["blocks"] == [{"scope": {}, "value": f"{reading.payload.to_int():011x}"}]
    assert reading.payload.version == watermark.FORMAT_VERSION == int(data["alg"][-1])


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("geometry", 1),
        ("texture", 2),
        ("texture, fine-tuned", 3),
        ("paper, from scratch", 3),
        ("model.safetensors", 4),
        ("something else", 0),
    ],
)
def test_models_have_numbers_that_stay(model: str, number: int) -> None:
    assert model_number(model) == number
    assert Marker(model).payload.model == number


def test_every_output_has_a_unique_number() -> None:
    assert len({Marker("geometry").payload.file_id for _ in range(20)}) == 20


def test_a_marker_follows_the_size_of_a_stream() -> None:
    marker = Marker("geometry")
    for height, width in ((SIDE, SIDE), (SIDE, 260), (SIDE, SIDE)):
        frame = scene(0, height, width)
        before = frame.copy()
        reading = watermark.WatermarkDetector().read([marker.mark(frame)])
        assert reading.payload == marker.payload
        assert (frame == before).all()


def test_the_label_is_small_legible_and_in_its_corner() -> None:
    for shade in (0, 255):
        frame = np.full((400, 600, 3), shade, np.uint8)
        labeled = burn_label(frame)
        changed = np.argwhere((labeled != frame).any(-1))
        top, left = changed.min(0)
        bottom, right = changed.max(0)
        assert top > 350 and left > 530 and bottom < 395 and right < 595
        plate = labeled[360:384, 545:585].astype(int)
        assert plate.max() > 240  # white letters ..
        assert np.median(plate) < 110  # .. on a dark plate
        assert (frame == shade).all()
    assert burn_label(np.zeros((16, 16, 3), np.uint8)).max() > 0


def test_a_labeled_file_shows_and_records_the_label(work: Path) -> None:
    out = marked(work / "a.png", replace(claim(), label=True))
    with Image.open(out) as image:
        corner = np.asarray(image)[-24:, -30:].astype(int)
    assert np.abs(corner - scene()[-24:, -30:]).max() > 50
    verdict = verify(out)
    assert verdict.has_label
    assert verdict.mark is not None
    assert json.loads(verdict.to_json())["label"] is True


def test_consent_is_repeated_as_what_it_is(work: Path) -> None:
    statement = 'She agreed in writing on 3 May; see "letters/3".'
    verdict = verify(marked(work / "a.png", replace(claim(), consent=statement)))
    assert verdict.consent == statement
    assert f'Unverified statement of its maker: "{statement}"' in verdict.sentence
    for wrong in ("", "two\nlines", "x" * 501):
        with pytest.raises(ValueError, match="consent"):
            replace(claim(), consent=wrong)


def test_a_drawing_is_signed_but_not_called_synthetic(work: Path) -> None:
    out = marked(work / "a.png", Claim("a.png", "none", (), label=True))
    with Image.open(out) as image:
        assert (np.asarray(image) == scene()).all()  # neither watermark nor label
    verdict = verify(out)
    assert (verdict.status, verdict.mark, verdict.binding, verdict.has_label) == (Status.MIMIK, None, None, False)
    assert "nothing synthetic" in verdict.sentence
    manifest = manifest_of(out)["manifests"][manifest_of(out)["active_manifest"]]
    created = next(one["data"]["actions"][0] for one in manifest["assertions"] if "actions" in one["label"])
    assert created["digitalSourceType"].endswith("/composite")


def test_what_was_written_past_the_draft_is_not_signed(work: Path) -> None:
    with pytest.raises(AssertionError, match="past the draft"), seal(work / "a.png", claim()) as draft:
        picture().save(draft.path)
    assert list(work.iterdir()) == []


# Results of verify.


def encoded_again(source: Path, out: Path) -> Path:
    parts = (np.ascontiguousarray(frame[20:, 9 : 9 + SIDE - 40]) for frame in video.read_frames(source))
    return write_clip(out, parts, quality=23)


def test_a_file_without_its_manifest_is_known_by_its_mark(work: Path) -> None:
    whole = marked(work / "a.mp4", num_frames=12)
    copy = encoded_again(whole, work / "b.mp4")
    verdict = verify(copy)
    assert (verdict.status, verdict.exit_code) == (Status.STRIPPED, 5)
    assert verdict.mark is not None
    assert verdict.mark.value == verify(whole).binding
    assert f"(geometry, file {verdict.mark.file_id})" in verdict.sentence
    assert "its key is public" in verdict.sentence  # so it is not a proof
    assert json.loads(verdict.to_json())["mark"]["file_id"] == verdict.mark.file_id
    # A file format without C2PA support.
    assert verify(remuxed(copy, work / "b.mkv")).status is Status.STRIPPED


def test_the_verdict_of_an_altered_file_compares_its_mark(work: Path) -> None:
    out = marked(work / "a.png")
    other = marked(work / "b.png")
    out.write_bytes(out.read_bytes() + b"more")
    verdict = verify(out)
    assert verdict.status is Status.ALTERED
    assert "the same that these credentials name" in verdict.sentence
    moved = replace(verdict, binding=verify(other).binding)
    assert "the same" not in moved.sentence and "synthetic" in moved.sentence
    assert "carries" not in replace(verdict, mark=None).sentence.split(".", 1)[1]


def test_another_programs_manifest_does_not_hide_the_mark(work: Path) -> None:
    with Image.open(marked(work / "a.png")) as image:
        image.convert("RGB").save(work / "plain.jpg", quality=92)
    verdict = verify(signed_by_another(work / "b.jpg", source=work / "plain.jpg"))
    assert (verdict.status, verdict.exit_code) == (Status.STRIPPED, 5)
    assert "Content Credentials of Canon EOS 1, not of mimik" in verdict.sentence
    # If the other program names mimik's file as a source, the result is valid.
    honest = replace(verdict, status=Status.OTHER, earlier=("mimik",))
    assert (
        "One of its sources says that mimik made it. The picture carries mimik's invisible watermark" in honest.sentence
    )


def test_a_mark_of_another_file_is_reported(work: Path) -> None:
    verdict = verify(marked(work / "a.png"))
    assert verdict.mark is not None
    assert "not the one named in the credentials" in replace(verdict, binding="1" * 11).sentence
    assert "cannot be read" in replace(verdict, mark=None).sentence


@pytest.mark.slow
def test_a_video_is_read_beyond_its_first_seconds(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frames were not made by mimik."""
    monkeypatch.setattr(verifying, "_WINDOW_FRAMES", 4)
    monkeypatch.setattr(watermark, "_MAX_CELLS", 90.0)  # fewer widths to try
    marker = Marker("texture")
    frames = (scene(number) if number < 4 else marker.mark(scene(number)) for number in range(12))
    write_clip(work / "a.mp4", frames, 5, quality=18)
    assert read_mark(work / "a.mp4", max_windows=1).payload is None
    assert read_mark(work / "a.mp4").payload == marker.payload


def test_one_bit_of_the_picture_data_makes_it_altered(work: Path) -> None:
    film, still = sealed(work / "a.mp4"), sealed(work / "a.png")
    spoil(film, film.read_bytes().index(b"mdat") + 40)
    spoil(still, still.read_bytes().index(b"IDAT") + 20)
    for path, code in ((film, "assertion.bmffHash.mismatch"), (still, "assertion.dataHash.mismatch")):
        verdict = verify(path)
        assert (verdict.status, verdict.exit_code, verdict.model) == (Status.ALTERED, 1, "geometry")
        assert code in verdict.codes
        assert "changed or damaged" in verdict.sentence


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.jpg", "moving.gif", "moving.webp"])
def test_cut_short_longer_or_with_a_spoilt_manifest_is_altered(work: Path, name: str) -> None:
    whole = sealed(work / name).read_bytes()
    spoilt = bytearray(whole)
    spoilt[whole.index(b"io.github.mimik") + 3] ^= 1
    for content in (whole[:-10], whole + b"more" * 9, bytes(spoilt)):
        (work / name).write_bytes(content)
        assert verify(work / name).status is Status.ALTERED


def test_nothing_found_after_reencoding_proves_nothing(work: Path) -> None:
    sealed(work / "a.png")
    with Image.open(work / "a.png") as image:
        image.save(work / "b.png")
    for path in (work / "b.png", remuxed(sealed(work / "a.mp4"), work / "b.mp4")):
        verdict = verify(path)
        assert (verdict.status, verdict.exit_code) == (Status.NOTHING, 3)
        assert "proves nothing" in verdict.sentence


def test_another_program_is_named(work: Path) -> None:
    verdict = verify(signed_by_another(work / "a.jpg"))
    assert (verdict.status, verdict.exit_code, verdict.signer) == (Status.OTHER, 4, Signer.UNKNOWN)
    assert "Canon EOS 1" in verdict.sentence
    assert "not verified" in verdict.sentence


def test_another_installation_is_not_this_computer_unless_its_root_is_given(
    work: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = sealed(work / "a.png")
    monkeypatch.setenv("MIMIK_DATA", str(tmp_path / "elsewhere"))
    verdict = verify(out)
    assert (verdict.status, verdict.signer) == (Status.MIMIK, Signer.UNKNOWN)
    assert "says that it was made by mimik" in verdict.sentence
    assert "not who made it" in verdict.sentence
    assert not (tmp_path / "elsewhere").exists()
    anchored = verify(out, anchors=[data / "signer-0001" / "certificate.pem"])
    assert anchored.signer is Signer.ANCHORED


def test_a_copied_name_and_serial_number_are_not_this_computer(work: Path, data: Path, tmp_path: Path) -> None:
    Credentials.local()
    leaf = x509.load_pem_x509_certificates((data / "signer-0001" / "certificate.pem").read_bytes())[0]
    forger, key = Authority("mimik local root"), ec.generate_private_key(ec.SECP256R1())
    files = forger.write(tmp_path, key, name="mimik local signer", serial=leaf.serial_number)
    out = sealed(work / "a.png", credentials=Credentials.from_files(*files))
    assert verify(out).signer is Signer.UNKNOWN


def test_an_expired_certificate_does_not_make_the_file_altered() -> None:
    def codes(*names: str) -> list[dict[str, str]]:
        return [{"code": name} for name in names]

    report = {
        "active_manifest": "m",
        "manifests": {"m": {"claim_generator_info": [{"name": "mimik"}], "signature_info": {"common_name": "x"}}},
        "validation_results": {
            "activeManifest": {
                "success": codes("claimSignature.validated", "assertion.dataHash.match"),
                "failure": codes("signingCredential.untrusted", "signingCredential.expired"),
            }
        },
    }
    verdict = _judge(report)
    assert verdict.status is Status.MIMIK
    assert "expired" in verdict.sentence
    report["validation_results"]["activeManifest"]["success"] = []  # type: ignore[index]
    assert _judge(report).status is Status.ALTERED


def test_a_strangers_manifest_cannot_break_or_dress_up_the_verdict() -> None:
    assertions = [
        {"label": SOURCES_LABEL, "data": {"sources": [{"role": "photo", "name": "../x"}, 3]}},
        {"label": RECIPE_LABEL, "data": {"model": "\x1b[31mred", "settings": 4}},
        {"label": "c2pa.actions.v2", "data": {"actions": 5}},
    ]
    info = [{"name": "mimik\x1b[2J", "version": 7}]
    verdict = _judge(
        {"active_manifest": "m", "manifests": {"m": {"claim_generator_info": info, "assertions": assertions}}}
    )
    assert verdict.status is Status.ALTERED
    assert verdict.sources == ()
    assert "\x1b" not in verdict.sentence + (verdict.model or "")


def test_what_cannot_be_read_is_bad_input(work: Path) -> None:
    (work / "empty.mp4").touch()
    (work / "note.txt").write_text("hello")
    (work / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    for path in (work / "missing.mp4", work, work / "empty.mp4", work / "note.txt", work / "torn.png"):
        with pytest.raises(InputError, match=str(path)):
            verify(path)
    draw_file(work / "a.png")
    with pytest.raises(InputError, match="--anchor"):
        verify(work / "a.png", anchors=[work / "note.txt"])


def test_credentials_that_are_on_the_network_are_not_fetched(work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.c2pa"
        path = signed_by_another(work / "a.jpg", remote=address)
        verdict = verify(path)
        Ingredient.from_file("photo", path)
        with pytest.raises(BlockingIOError):  # no connection yet
            server.accept()
    assert (verdict.status, verdict.exit_code) == (Status.NOTHING, 3)
    assert "not fetched" in verdict.sentence


# Remaining files.


def test_whatever_ends_the_block_nothing_is_left(work: Path) -> None:
    for error in (RuntimeError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), seal(work / "a.png", claim()) as draft:
            draw(draft)
            raise error
    generator = seal(work / "a.png", claim()).gen  # type: ignore[attr-defined]
    draw(next(generator))
    generator.close()
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("name", ["out.png", "work/out.png", "/out.png"])
def test_a_full_disk_error_names_the_requested_file(work: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work.parent if name.startswith("work") else work)
    out = work / name[1:] if name.startswith("/") else Path(name)
    with (
        pytest.raises(MediaError, match=f"^{out} cannot be written \\(No space left on device\\)$"),
        seal(out, Claim(out.name, "none", ())) as draft,
    ):
        raise MediaError(f"{draft.path} cannot be written (No space left on device)")
    assert list(work.iterdir()) == []


def test_a_disk_that_is_full_while_signing_is_named(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = replace(claim(), model="none")
    monkeypatch.setattr(sealing.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5))
    with (
        pytest.raises(MediaError, match=f"^{work / 'a.png'} cannot be written \\(No space left on device\\)"),
        seal(work / "a.png", drawing) as draft,
    ):
        draft.path.write_bytes(b"no picture")  # the library fails, as on a full disk
    assert list(work.iterdir()) == []


def test_the_draft_lies_hidden_beside_the_output_and_looks_like_it(work: Path) -> None:
    with seal(work / "a.mp4", claim()) as draft:
        assert draft.path.name == "a.mp4"
        (hidden,) = work.iterdir()
        assert hidden.name.startswith(".")
        assert hidden in draft.path.parents
        assert hidden.stat().st_mode & 0o777 == 0o700
        draw(draft)


def test_nothing_empty_or_foreign_is_signed(work: Path) -> None:
    with pytest.raises(MediaError, match="nothing was written"), seal(work / "a.png", claim()):
        pass
    with pytest.raises(MediaError, match="nothing was written"), seal(work / "a.png", claim()) as draft:
        draft.path.touch()
    drawing = replace(claim(), model="none")
    with pytest.raises(MediaError, match="cannot be signed"), seal(work / "a.png", drawing) as draft:
        draft.path.write_bytes(b"not a picture")
    assert list(work.iterdir()) == []


def test_with_force_the_old_file_lives_until_the_new_one_is_whole(work: Path) -> None:
    out = work / "a.png"
    out.write_bytes(b"old")
    with pytest.raises(InputError, match="--force"), seal(out, claim()):
        pytest.fail("the block must not run")
    with pytest.raises(MediaError), seal(out, replace(claim(), model="none"), force=True) as draft:
        draft.path.write_bytes(b"no picture")
    assert out.read_bytes() == b"old"
    with seal(out, claim(), force=True) as draft:
        draw(draft)
        assert out.read_bytes() == b"old"
    assert verify(out).status is Status.MIMIK


def test_without_force_a_file_that_appeared_meanwhile_is_kept(work: Path) -> None:
    with pytest.raises(InputError, match="already exists"), seal(work / "a.png", claim()) as draft:
        draw(draft)
        (work / "a.png").write_bytes(b"another program's")
    assert (work / "a.png").read_bytes() == b"another program's"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_result_follows_the_umask(work: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            out = sealed(work / f"{mode:o}.png")
            with seal(work / f"{mode:o}", claim()) as pattern:
                write_frames(pattern, 1)
        finally:
            os.umask(before)
        assert out.stat().st_mode & 0o777 == mode
        assert out.with_suffix("").stat().st_mode & 0o777 == 0o777 & ~mask
        assert (out.with_suffix("") / "00000.png").stat().st_mode & 0o777 == mode


# Frames.


@pytest.mark.parametrize("name", ["frames", "frames/%05d.png", "frames/f%d.webp"])
def test_every_frame_of_a_new_folder_is_signed(work: Path, name: str) -> None:
    seen: list[tuple[int, int]] = []
    with seal(work / name, claim(), progress=lambda done, total: seen.append((done, total))) as pattern:
        write_frames(pattern, 3)
        assert not (work / "frames").exists()
    frames = sorted((work / "frames").iterdir())
    assert len(frames) == 3
    assert all(verify(frame).status is Status.MIMIK for frame in frames)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [path.name for path in work.iterdir()] == ["frames"]


def test_force_replaces_the_frames_and_nothing_else_in_the_folder(work: Path) -> None:
    out = work / "frames" / "%02d.png"
    with seal(out, claim()) as pattern:
        write_frames(pattern, 4)
    (work / "frames" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"), seal(out, claim()):
        pytest.fail("the block must not run")
    with pytest.raises(RuntimeError), seal(out, claim(), force=True) as pattern:
        write_frames(pattern, 1)
        raise RuntimeError
    assert len(list((work / "frames").iterdir())) == 5
    with seal(out, claim(), force=True) as pattern:
        write_frames(pattern, 2)
    assert sorted(path.name for path in (work / "frames").iterdir()) == ["00.png", "01.png", "notes.txt"]


# Beside the file.


def test_what_cannot_hold_a_manifest_has_it_beside_it(work: Path) -> None:
    out = marked(work / "a.mkv")
    assert sorted(path.name for path in work.iterdir()) == ["a.c2pa", "a.mkv"]
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6
    assert (verify(out).status, verify(out).signer) == (Status.MIMIK, Signer.THIS_COMPUTER)
    whole = out.read_bytes()
    out.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert verify(out).status is Status.ALTERED
    out.write_bytes(whole)
    (work / "a.c2pa").write_bytes(b"nonsense")
    assert verify(out).status is Status.ALTERED
    (work / "a.c2pa").unlink()
    assert verify(out).status is Status.STRIPPED


@pytest.mark.parametrize("stands", [True, False])
def test_a_sidecar_is_put_back_when_its_file_cannot_be_placed(
    work: Path, monkeypatch: pytest.MonkeyPatch, stands: bool
) -> None:
    out = work / "a.mkv"
    if stands:
        marked(out)
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == out:
            raise OSError("made up")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(OSError, match="made up"),
        seal(out, claim(), force=True) as draft,
        draft.open_writer(SIDE, SIDE, 25) as writer,
    ):
        writer.write(np.full((SIDE, SIDE, 3), 90, np.uint8))
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before


def test_a_sidecar_is_replaced_with_its_file_only(work: Path) -> None:
    (work / "a.c2pa").write_text("somebody else's")
    with pytest.raises(InputError, match=r"its manifest goes into .*a\.c2pa, which exists"):
        check_output(work / "a.mkv", force=False)
    marked(work / "b.mkv")
    first = (work / "b.c2pa").read_bytes()
    with pytest.raises(RuntimeError), seal(work / "b.mkv", claim(), force=True):
        raise RuntimeError
    assert (work / "b.c2pa").read_bytes() == first
    with seal(work / "b.mkv", claim(), force=True) as draft, draft.open_writer(SIDE, SIDE, 25) as writer:
        writer.write(scene())
    assert (work / "b.c2pa").read_bytes() != first
    assert verify(work / "b.mkv").status is Status.MIMIK


# Refusals before any work.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("film.flv", "use a file ending in"),
        ("film%d.mp4", "a pattern has one"),
        ("a%d%d.png", "a pattern has one"),
        ("missing/film.mp4", "does not exist"),
        ("missing/frames/%d.png", "does not exist"),
        ("file.txt/film.mp4", "is not a folder"),
        ("folder.mp4", "is a folder"),
        ("old.png", "--force"),
        ("full", "not empty"),
    ],
)
def test_outputs_that_are_refused(work: Path, name: str, message: str) -> None:
    (work / "file.txt").touch()
    (work / "old.png").touch()
    (work / "folder.mp4").mkdir()
    (work / "full").mkdir()
    (work / "full" / "x").touch()
    with pytest.raises(InputError, match=message):
        check_output(work / name, force=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(work: Path) -> None:
    work.chmod(0o500)
    with pytest.raises(InputError, match="is not writable"):
        check_output(work / "a.png", force=False)


def test_an_input_is_never_the_output_not_even_through_links(work: Path) -> None:
    photo = work / "photo.png"
    draw_file(photo)
    (work / "soft.png").symlink_to(photo)
    os.link(photo, work / "hard.png")
    for out in (photo, work / "soft.png", work / "hard.png", work / ".." / "work" / "photo.png"):
        with pytest.raises(InputError, match="would be replaced"):
            check_output(out, force=True, inputs=[work / "missing.mp4", photo])
    (work / "7.png").symlink_to(photo)
    draw_file(work / "8.png")
    with pytest.raises(InputError, match="would be replaced"):
        check_output(work / "%d.png", force=True, inputs=[work / "8.png"])
    check_output(work / "other.png", force=False, inputs=[photo])


# Credentials.


def test_local_credentials_are_made_once_and_kept_from_others(data: Path) -> None:
    first, second = Credentials.local(), Credentials.local()
    assert first._certificate == second._certificate
    folder = data / "signer-0001"
    assert list(data.iterdir()) == [folder]
    assert (folder.stat().st_mode & 0o777, (folder / "key.pem").stat().st_mode & 0o777) == (0o700, 0o600)
    leaf, root = x509.load_pem_x509_certificates((folder / "certificate.pem").read_bytes())
    leaf.verify_directly_issued_by(root)
    assert {one.value for one in leaf.subject} == {"mimik local signer"}
    assert "PRIVATE" not in repr(first)


def test_damaged_or_expired_credentials_are_replaced_and_kept_aside(
    work: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = sealed(work / "a.png")
    (data / "signer-0001" / "key.pem").write_text("damaged")
    Credentials.local()
    assert "signer-0001 cannot be used" in caplog.text
    key = ec.generate_private_key(ec.SECP256R1())
    Authority().write(data / "signer-0002", key, until=timedelta(days=-1))
    Credentials.local()
    assert sorted(path.name for path in data.iterdir()) == ["signer-0001", "signer-0002", "signer-0003"]
    assert (data / "signer-0001" / "key.pem").read_text() == "damaged"
    assert verify(out).signer is Signer.THIS_COMPUTER


def _local_certificate(folder: str) -> bytes:
    return Credentials.local(Path(folder))._certificate


@pytest.mark.slow
def test_processes_that_start_together_share_one_chain(data: Path) -> None:
    (data / "signer-0001").mkdir(parents=True)
    (data / "signer-0001" / "key.pem").write_text("damaged: all of them want to replace it")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        chains = set(pool.map(_local_certificate, [str(data)] * 4, chunksize=1))
    assert len(chains) == 1
    assert sorted(path.name for path in data.iterdir()) == ["signer-0001", "signer-0002"]


def test_the_error_of_a_read_only_data_folder_names_the_next_step(work: Path) -> None:
    (work / "file").touch()
    with pytest.raises(InputError, match="set MIMIK_DATA"):
        Credentials.local(work / "file" / "data")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["ec", "rsa", "ed25519"],
)
def test_own_certificates_sign(work: Path, tmp_path: Path, make: Callable[[], Any]) -> None:
    authority = Authority()
    files = authority.write(tmp_path, make(), usage="1.3.6.1.4.1.62558.2.1")  # the one of C2PA's own program
    out = sealed(work / "a.png", credentials=Credentials.from_files(*files))
    (tmp_path / "root.pem").write_bytes(pem(authority.root))
    verdict = verify(out, anchors=[tmp_path / "root.pem"])
    assert (verdict.status, verdict.signer, verdict.subject) == (Status.MIMIK, Signer.ANCHORED, "Test Signer")
    assert verify(out).signer is Signer.UNKNOWN


def test_own_certificates_that_cannot_sign_are_refused_with_a_reason(tmp_path: Path) -> None:
    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1())

    def refused(message: str, **options: Any) -> None:
        secret = options.pop("secret", None)
        files = authority.write(tmp_path, options.pop("key", key), **options)
        if secret is not None:
            files[1].write_bytes(secret)
        with pytest.raises(InputError, match=message):
            Credentials.from_files(*files)

    refused("passphrase", secret=pem_key(key, b"secret"))
    refused("not a private key", secret=b"nonsense")
    refused("does not belong", secret=pem_key(ec.generate_private_key(ec.SECP256R1())))
    refused("valid from", until=timedelta(days=-1))
    refused("C2PA does not support this kind", key=ec.generate_private_key(ec.SECP256K1()))
    refused("cannot sign", usage=ExtendedKeyUsageOID.SERVER_AUTH.dotted_string)
    refused("cannot sign", usage=None)
    (tmp_path / "certificate.pem").write_text("nonsense")
    with pytest.raises(InputError, match="not a PEM file"):
        Credentials.from_files(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with pytest.raises(InputError, match="cannot be read"):
        Credentials.from_files(tmp_path / "missing.pem", tmp_path / "key.pem")


def test_importing_the_module_loads_no_signing_library() -> None:
    code = (
        "import sys, mimik.provenance.sealing\n"
        "print([m for m in ('c2pa', 'cryptography', 'platformdirs') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_trial_pixel_is_a_sound_png() -> None:
    with Image.open(io.BytesIO(_PIXEL)) as image:
        image.load()
        assert image.size == (1, 1)
    assert zlib.crc32(b"IEND") == int.from_bytes(_PIXEL[-4:], "big")


# No other writer.

SOURCES = sorted(Path(mimik.__file__).parent.rglob("*.py"))

# Modules that may write without `seal`, and why. Only those of the media folder write pictures and videos.
ALLOWED = {
    ("sealing.py", "seal"): "the door itself",
    ("sealing.py", "_sidecar_placed"): "a manifest, beside its file",
    ("credentials.py", "_make_signer"): "certificate and key of this user, no picture",
    ("files.py", "save"): "a motion template: plain numbers, no picture",
    ("registry.py", "open_driver"): "opens a driver, and writes nothing",
    ("registry.py", "_open"): "opens a driver, and writes nothing",
    ("other_tabs.py", "_begin"): "a copy of the photo or person that was given, while its call lasts",
    ("loop.py", "train_voice"): "the trained weights",
    ("loop.py", "train_member"): "losses, and the state of a training run: numbers",
    ("speaking.py", "speak"): "the phonemes of a text that is spoken, beside its sound",
    ("speech.py", "track_folder"): "tracks: numbers",
    ("options.py", "write_json"): "a report: text",
    ("batch.py", "_record"): "what each video was made from: text",
    ("reporting.py", "__init__"): "numbers and sample grids of a training run, for TensorBoard",
    ("prepare.py", "_do_task"): "clips of one video, spooled for the parent process and gone afterwards",
    ("motions.py", "motion_extract"): "a motion template: plain numbers, no picture",
    ("avatar_file.py", "encoded_png"): "the photo that was given, into memory, for a person's file",
    ("avatar_file.py", "pack"): "a person's file, into memory: weights, and the photo that was given",
    ("checkpoint.py", "write_release"): "weights, into memory",
    ("checkpoint.py", "write_state"): "a training state, into memory and in one step; no picture",
    ("meta_learning.py", "_lock_folder"): "an empty lock file",
    ("exporting.py", "export"): "an exported model: graphs, numbers, and the photo that was given",
    ("graphs.py", "_quantized"): "graphs between two steps of quantization, gone at once",
    ("landmarks.py", "__init__"): "a network of the bundle, for OpenVINO to read; gone at once",
    ("detect.py", "save"): "the detector's weights",
    ("features.py", "download_weights"): "weights of a frozen network, from their author",
    ("files.py", "atomic_write"): "the one atomic writer; what is put in place is its caller's to answer for",
    ("files.py", "_sync"): "opens a file or folder to make it durable",
    ("files.py", "write_atomically"): "models, states, settings, and the captioned sample grids of a training run",
    ("files.py", "write_text"): "reports, records and tables: text",
    ("files.py", "atomic_folder"): "the folder of an export",
    ("files.py", "hold"): "an empty lock file, or the record of a folder of videos",
    ("cache.py", "add"): "decoded clips of shards, shared between loader processes",
    ("cache.py", "_hold"): "an empty lock file",
    ("shard_folder.py", "write_synced"): "settings, state, index and card: text",
    ("shard_folder.py", "_open_at"): "shards of training data and their index",
    ("shard_folder.py", "_reopen"): "names of shards",
    ("shard_folder.py", "_close_shard"): "names of shards",
    ("remote.py", "_received"): "a shard from a server, kept while it is used",
    ("store.py", "_file_in_memory"): "a clip of a shard, for OpenCV to read; gone at once",
    ("tracks.py", "pack_tracks"): "landmarks, into memory",
    ("motion_fidelity.py", "main"): "a report: text",
    ("reporting.py", "numbers"): "losses of a training run: text",
    ("reporting.py", "grid"): "the captioned sample grid of a training run",
    ("evaluate.py", "_mark"): "the kind of a folder: text",
    ("records.py", "put"): "a record: text",
    ("pages.py", "write_report"): "tables and the report: text",
}
# These contain the encoders, and only sealing.py may call them, in the Draft of `seal`.
MEDIA_MODULES = {"clips.py", "pictures.py", "sound.py", "writing.py"}
WRITERS = {
    *("open_writer", "write_image"),
    *("Writer", "VideoWriter", "GifWriter", "WebpWriter", "FramesWriter"),
    *("Draft", "MarkedWriter"),
}
DRAFT_METHODS = {"write_image", "open_writer"}
WRITING_METHODS = {"write_bytes", "write_text", "imwrite", "VideoWriter", "save", "savez", "savez_compressed"}
WRITING_METHODS |= {"savetxt"}
WRITING_METHODS |= {"tofile", "touch", "imsave", "symlink_to", "hardlink_to", "save_model", "NamedTemporaryFile"}
WRITING_METHODS |= {"imencode", "encode_clip"}  # pictures and videos in memory, which may be written
OPENING_MODULES = {"av", "io", "gzip", "Image", "tarfile", "lzma"}
WRITING_MODULES = {
    "os": {"replace", "rename", "renames", "open", "fdopen", "link", "symlink", "mkfifo"},
    "shutil": {"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move"},
}


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _writes(call: ast.Call) -> bool:
    """Whether a call writes a file; a mode that is not a literal counts as writing."""
    name = _name(call.func)
    owner = _name(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if owner in WRITING_MODULES:
        return name in WRITING_MODULES[owner]
    if name in WRITING_METHODS:
        return True
    if name in ("rename", "replace") and owner:
        # Path.rename and Path.replace have one argument, str.replace has two, dataclasses.replace has keywords.
        return len(call.args) == 1 and not call.keywords
    if name == "open":
        is_method = isinstance(call.func, ast.Attribute) and owner not in OPENING_MODULES
        place = 0 if is_method else 1
        modes = [one.value for one in call.keywords if one.arg == "mode"]
        modes += call.args[place : place + 1]
        if owner == "Image":
            return False
        return any(not isinstance(mode, ast.Constant) or set("wax+") & set(str(mode.value)) for mode in modes)
    return False


def _calls(tree: ast.AST, function: str = "", draft: str = "") -> Iterator[tuple[ast.Call, str, str]]:
    """All calls, with the outermost enclosing function, and the draft of an enclosing `with seal(...)`."""
    for node in ast.iter_child_nodes(tree):
        inside = function
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not function:
            inside = node.name
        if isinstance(node, ast.With | ast.AsyncWith):
            given = draft
            for item in node.items:  # a seal also covers the items after it
                yield from _calls(ast.Expression(item.context_expr), inside, given)
                if isinstance(item.context_expr, ast.Call) and _name(item.context_expr.func) == "seal":
                    given = _name(item.optional_vars) if item.optional_vars else ""
            for line in node.body:
                yield from _calls(ast.Module([line], []), inside, given)
            continue
        if isinstance(node, ast.Call):
            yield node, inside, draft
        yield from _calls(node, inside, draft)


def breaches(module: str, text: str) -> list[str]:
    """The lines of a module that write without `seal`."""
    names = WRITERS.union(WRITING_METHODS, *WRITING_MODULES.values())
    if module in MEDIA_MODULES or not re.search(rf"\b({'|'.join(names)})\s*\(", text):  # parsing takes long
        return []
    found = []
    for call, function, draft in _calls(ast.parse(text)):
        why = ""
        if _name(call.func) in WRITERS:
            owner = _name(call.func.value) if isinstance(call.func, ast.Attribute) else ""
            is_of_draft = draft and owner == draft and _name(call.func) in DRAFT_METHODS
            if not (is_of_draft or (module in ("sealing.py", "marking.py") and function in ("seal", *DRAFT_METHODS))):
                why = "a media writer that is not a method of the draft of `with seal(...)`"
        elif _writes(call) and (module, function) not in ALLOWED:
            why = "writes a file and is not in ALLOWED"
        if why:
            place = function or "the module"
            found.append(f"{module}:{call.lineno} in {place}: {ast.unparse(call)[:80]}  -- {why}")
    return found


def test_the_table_of_writers_names_only_functions_that_exist() -> None:
    texts: dict[str, str] = {}
    for path in SOURCES:  # files in different folders may have equal names
        texts[path.name] = texts.get(path.name, "") + path.read_text(encoding="utf-8")
    assert [one for one in ALLOWED if f"def {one[1]}(" not in texts.get(one[0], "")] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_frames_are_written_only_by_sealing(path: Path) -> None:
    found = breaches(path.name, path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "open('a', 'w')",
        "open('a', mode='ab')",
        "open('a', mode)",
        "path.open('xb')",
        "Path('a').open(mode='r+')",
        "path.write_bytes(b'')",
        "path.write_text('')",
        "image.save('a.png')",
        "cv2.imwrite('a.png', x)",
        "cv2.VideoWriter('a.mp4')",
        "av.open('a.mp4', 'w')",
        "av.open('a.mp4', mode='w')",
        "np.savez('a', x)",
        "x.tofile('a')",
        "shutil.copy('a', 'b')",
        "shutil.move('a', 'b')",
        "os.replace('a', 'b')",
        "path.rename('b')",
        "cv2.imencode('.png', x)",
        "video.encode_clip(frames, 25, quality=20, gop=12)",
        "video.open_writer(out, 8, 8, 25)",
        "with open_writer(seal(out)) as w: pass",
        "with d.open_writer(8, 8, 25) as w, seal(out, claim) as d: pass",
        "with seal(out, claim) as d, open_writer(d.path, 8, 8, 25) as w: w.write(frame)",
        "with seal(out, claim) as d: video.write_image(d.path, frame)",
        "with seal(out, claim): d.write_image(frame)",
        "Draft(out, None).write_image(frame)",
        "MarkedWriter(writer, None)",
    ],
)
def test_the_scan_finds_each_way_to_write(line: str) -> None:
    assert breaches("render.py", f"def run():\n    {line}")


@pytest.mark.parametrize(
    "line",
    [
        "open('a')",
        "open('a', 'rb')",
        "path.open('rb')",
        "av.open('a.mp4')",
        "Image.open('a', formats=x)",
        "text.replace('a', 'b')",
        "dataclasses.replace(one, x=2)",
        "with seal(out, claim) as d, d.open_writer(8, 8, 25) as w: w.write(frame)",
        "with seal(out, claim) as d:\n        if x: d.write_image(frame)",
    ],
)
def test_the_scan_lets_reading_and_sealed_writing_pass(line: str) -> None:
    assert breaches("render.py", f"def run():\n    {line}") == []
