"""The one door through which pictures leave, `seal`, and the reader of what it wrote, `verify`.

`seal` gives a Draft to write to. What a model made gets an invisible watermark in every frame on its way into the file,
and a visible label if asked for. Then the file is signed with a C2PA manifest (Content Credentials,
https://spec.c2pa.org, claim version 2) that says that it is synthetic, which program and model made it, from which
files, and what the watermark says; and it is put in place in one step; a file that has no room
for a manifest gets it beside it. Everything works offline: no timestamp
authority, no remote manifest, no revocation query. Frames that go to a screen or a network and not into a file get the
same marks from a Marker.

What a signature is worth here: with the certificate that the program makes for itself it proves that the file is
unchanged since it was signed. It does not prove who signed: anybody can make a certificate that says "mimik".

c2pa and cryptography are imported where they are used: together they take 0.1 to 0.2 s, which `mimik --help` need not
wait for.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import logging
import mimetypes
import mmap
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np

from mimik.config import CONSENT_LETTERS, MODEL_SUFFIX, VERSION, InputError, MediaError, data_folder
from mimik.media import video
from mimik.media.video import Rgb
from mimik.provenance.watermark import Detector, Embedder, Payload, Reading

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

log = logging.getLogger(__name__)

GENERATOR = "mimik"

STILLS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
FORMATS = {".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime", ".gif": "image/gif", **STILLS}
# C2PA has no place in these for a manifest: it stands beside them, in a file of the same name.
BESIDE = {".mkv": "video/x-matroska", ".webm": "video/webm"}
SIDECAR_SUFFIX = ".c2pa"
ROLES = ("photo", "driver", "background")  # of what an output was made from

# IPTC NewsCodes. The photo is real and a trained model decided what becomes of it. For `geometry` that model only
# finds landmarks and every pixel shown is the photo's own; still the person does what they never did, so the codes
# for harmless work (algorithmicallyEnhanced, composite) would say too little. algorithmicMedia is for pictures
# computed without any sampled data, trainedAlgorithmicMedia for pictures that a generator invented as a whole: both
# would be untrue.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
DESCRIPTION = "A still photo was animated by a program. The person shown was not filmed doing this."

# What no model made: drawings of landmarks, pictures with notes in them, overviews of training data.
NO_MODEL = "none"
_DRAWN_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/composite"
_DRAWN_DESCRIPTION = "Drawn by a program: an overview, or notes on a picture. Nobody in it was animated."

SOURCES_LABEL = "io.github.mimik.sources"
RECIPE_LABEL = "io.github.mimik.recipe"
CONSENT_LABEL = "io.github.mimik.consent"
BINDING_LABEL = "c2pa.soft-binding"
WATERMARK = "io.github.mimik.watermark.1"  # watermark.FORMAT_VERSION with the public key; not in C2PA's own list

# Extended key usages that C2PA certificates carry: e-mail protection, time stamping, OCSP, document signing, C2PA
# claim signing. The library alone knows only the first and would call the certificates of cameras and of the large
# generators invalid.
_KEY_USAGES = "1.3.6.1.5.5.7.3.4\n1.3.6.1.5.5.7.3.8\n1.3.6.1.5.5.7.3.9\n1.3.6.1.5.5.7.3.36\n1.3.6.1.4.1.62558.2.1\n"

_LOCAL_NAME = "mimik local signer"
_LOCAL_YEARS = 20  # without a timestamp authority a signature is of use only as long as its certificate

_PATTERN = re.compile(r"([^%]*)%(?:0\d+)?d([^%]*)")
# The type of the JUMBF box that holds all C2PA manifests of a file.
_STORE_MARK = b"jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
_PIXEL = base64.b64decode(  # the smallest PNG, to try a certificate on
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


# What a file says about itself.


@dataclass(frozen=True)
class Ingredient:
    """A file that an animation was made from, as its manifest names it: never with a folder."""

    role: str  # one of ROLES
    name: str
    sha256: str  # 64 hexadecimal digits
    format: str  # media type, such as "image/jpeg"
    history: bytes = field(default=b"", repr=False, compare=False)  # its own C2PA manifests as an archive, if any

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r}: give one of {', '.join(ROLES)}")
        if not self.name or "/" in self.name or "\\" in self.name:
            raise ValueError(f"name {self.name!r}: give a file name without its folder; folders tell who the user is")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 {self.sha256!r}: give 64 lower-case hexadecimal digits")

    @classmethod
    def from_file(cls, role: str, path: Path, *, name: str | None = None) -> Ingredient:
        """The ingredient for a file, read once in pieces; the file's own Content Credentials are kept.

        Args:
            role: one of ROLES.
            path: the file.
            name: what the manifest calls it; the file's own name when None. For motions inside the package: "bundled
                smile".

        Raises:
            InputError: if the file cannot be read.
        """
        media_type = (
            FORMATS.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        )
        shown = name or path.name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                one = cls(role, shown, digest, media_type)
                file.seek(0)
                return replace(one, history=_read_history(file, one))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give a file that exists.") from error


@dataclass(frozen=True)
class Claim:
    """What is said about one output: by which model it was made, from what, and how."""

    title: str  # name of the output file
    model: str  # such as "geometry"; NO_MODEL for what is not synthetic: it gets no watermark
    ingredients: tuple[Ingredient, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # numbers, words, and lists of them; no text with a slash
    version: str = VERSION
    consent: str | None = None  # what the maker states about the consent of the person shown
    label: bool = False  # whether the frames get the visible label

    @property
    def is_synthetic(self) -> bool:
        return self.model != NO_MODEL

    def __post_init__(self) -> None:
        if self.consent is not None and not (self.consent.isprintable() and 0 < len(self.consent) <= CONSENT_LETTERS):
            raise ValueError(f"consent {self.consent!r}: give one line of 1 to {CONSENT_LETTERS} letters")
        for key, value in self.settings.items():
            for item in value if isinstance(value, list | tuple) else (value,):
                if not isinstance(item, str | int | float | None) or (
                    isinstance(item, str) and re.search(r"[/\\]", item)
                ):
                    raise ValueError(
                        f"setting {key} {value!r}: give numbers and words; paths do not go into a manifest"
                    )


def _source(one: Ingredient) -> dict[str, str]:
    """How the assertion of sources names it."""
    return {"role": one.role, "name": one.name, "sha256": one.sha256, "format": one.format}


def _entry(one: Ingredient) -> dict[str, str]:
    """How the list of ingredients names it. The label only ties it to the actions.

    The pixels of photo and background are placed in the result, so they are components; of the driver the motion is
    used, so it is an input.
    """
    relationship = "inputTo" if one.role == "driver" else "componentOf"
    return {"label": f"{one.role} {one.sha256}", "title": one.name, "format": one.format, "relationship": relationship}


def _read_history(file: Any, one: Ingredient) -> bytes:
    """The C2PA manifests in a file, as an archive that holds its entry too; b"" if there are none that can be read."""
    import c2pa

    entry = _entry(one)
    try:
        reader = c2pa.Reader.try_create(one.format, file, context=_context())
        if reader is None:
            return b""
        reader.close()
        file.seek(0)
        builder = c2pa.Builder({"claim_generator_info": [{"name": GENERATOR}]}, _context())
        builder.add_ingredient(entry, one.format, file)
        archive = io.BytesIO()
        builder.write_ingredient_archive(entry["label"], archive)
        return archive.getvalue()
    except c2pa.C2paError as error:
        log.debug("%s: no Content Credentials kept (%s)", one.name, error)
        return b""


# Who signs.


class Credentials:
    """A certificate chain and its private key, checked to fit each other and to be valid today."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Check a chain and a key.

        Args:
            certificate: PEM; the signer's certificate first, then those that vouch for it.
            key: PEM, without a passphrase: EC (P-256, P-384, P-521), RSA of 2048 bits or more, or Ed25519.

        Raises:
            InputError: if they cannot be read, do not belong together, are expired, or C2PA does not accept them.
        """
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        # Read both.
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
        except ValueError as error:
            raise InputError(
                "the certificate is not a PEM file; give one that starts with BEGIN CERTIFICATE."
            ) from error
        try:
            private = serialization.load_pem_private_key(key, password=None)
        except TypeError as error:
            raise InputError(
                "the key is protected by a passphrase; give one without: openssl pkey -in KEY -out NEWKEY."
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError("the key is not a private key in a PEM file (BEGIN PRIVATE KEY).") from error

        # Do they belong together, today?
        algorithms = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in algorithms:
            algorithm = algorithms[private.curve.name]
        elif isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
            algorithm = "ps256"
        elif isinstance(private, ed25519.Ed25519PrivateKey):
            algorithm = "ed25519"
        else:
            raise InputError(
                "the key is of a kind that C2PA does not use; give EC P-256, P-384 or P-521, RSA 2048+ or Ed25519."
            )
        if private.public_key() != leaf.public_key():
            raise InputError(
                "the key does not belong to the certificate; the first certificate in the file must be the key's."
            )
        now = datetime.now(UTC)
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise InputError(
                f"the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} "
                f"to {leaf.not_valid_after_utc:%Y-%m-%d}; give one that is valid today."
            )

        # Does C2PA accept them? Sign one pixel, so that a refusal comes now and not after the film is made.
        self._algorithm = algorithm
        self._certificate = certificate
        self._key = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.subject = _subject(leaf)
        trial = Claim("trial", "none", (Ingredient("photo", "trial", "0" * 64, "image/png"),))
        try:
            _sign(io.BytesIO(_PIXEL), io.BytesIO(), "image/png", trial, trial.title, self._signer())
        except InputError as error:
            raise InputError(
                f"the certificate of {self.subject} cannot sign ({_reason(error.__cause__)}); give an end-entity "
                "certificate whose extended key usage is e-mail protection, document signing or C2PA claim signing."
            ) from error

    def __repr__(self) -> str:
        return f"Credentials({self.subject!r})"

    @classmethod
    def from_files(cls, certificate: Path, key: Path) -> Credentials:
        """The user's own certificate chain and key, both PEM.

        Raises:
            InputError: as for `Credentials`, naming the files; also if one cannot be read.
        """
        try:
            return cls(certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror}); give a PEM file.") from error
        except InputError as error:
            raise InputError(f"--certificate {certificate} with --key {key}: {error}") from error

    @classmethod
    def local(cls, data: Path | None = None) -> Credentials:
        """This user's own credentials, made on first use: a P-256 key whose certificate says "mimik local signer", no
        more.

        They stand in the newest of the folders `signer-0001`, `signer-0002`, ...: `certificate.pem`, which may be
        given to others (`verify(anchors=...)`), and `key.pem`, which must not. When they are expired or damaged the
        next folder is made and the old one stays, so that files signed earlier are still recognised. A folder appears
        whole or not at all, under a name that only one process can win, so processes that start together end up with
        the same credentials.

        Args:
            data: the folder of these folders; the environment's MIMIK_DATA or the user's data folder when None.

        Raises:
            InputError: if nothing can be written there.
        """
        data = data or data_folder()
        for _ in range(3):  # what is found, what takes its place, and what another process made in between
            newest = max(_signer_folders(data), default=None)
            if newest is not None:
                try:
                    return cls((newest / "certificate.pem").read_bytes(), (newest / "key.pem").read_bytes())
                except (InputError, OSError) as error:
                    log.warning("%s cannot be used, it is kept and a new signer is made (%s)", newest, error)
            number = int(newest.name.removeprefix("signer-")) + 1 if newest is not None else 1
            try:
                _make_signer(data, f"signer-{number:04d}")
            except OSError as error:
                raise InputError(
                    f"{data}: the signing key cannot be written there ({error.strerror}); "
                    "set MIMIK_DATA to a folder that you can write to."
                ) from error
        raise InputError(
            f"{data}: no signing key that can be used could be made there; set MIMIK_DATA to another folder."
        )

    def _signer(self) -> Any:
        import c2pa

        try:
            return c2pa.Signer.from_info(c2pa.C2paSignerInfo(self._algorithm, self._certificate, self._key, None))
        except c2pa.C2paError as error:
            raise InputError(f"the certificate of {self.subject} cannot sign ({_reason(error)}).") from error


def _signer_folders(data: Path) -> list[Path]:
    return [path for path in data.glob("signer-*") if re.fullmatch(r"signer-\d{4,}", path.name)]


def _make_signer(data: Path, name: str) -> None:
    """Make data/name: a new root, whose key is not kept, and a signer below it; no-op if the folder exists."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)

    def certificate(common_name: str, public: ec.EllipticCurvePublicKey, *, is_root: bool) -> Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, _LOCAL_NAME),
                    x509.NameAttribute(NameOID.COMMON_NAME, text),
                ]
            )

        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(common_name))
            .issuer_name(named("mimik local root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))  # for clocks that are behind
            .not_valid_after(now + timedelta(days=365 * _LOCAL_YEARS))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_root,
                    key_cert_sign=is_root,
                    crl_sign=is_root,
                    encipher_only=False,
                    decipher_only=False,
                    **usage,
                ),
                critical=True,
            )
        )
        if not is_root:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=True
            )
        return builder.sign(root_key, hashes.SHA256())

    chain = (
        certificate(_LOCAL_NAME, key.public_key(), is_root=False),
        certificate("mimik local root", root_key.public_key(), is_root=True),
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".signer-", dir=data))  # mode 0700
    try:
        (draft / "certificate.pem").write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
        with os.fdopen(os.open(draft / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
        try:
            os.rename(draft, data / name)
        except OSError:
            if not (data / name).is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _subject(certificate: Certificate) -> str:
    from cryptography.x509.oid import NameOID

    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in certificate.subject.get_attributes_for_oid(kind):
            return _plain(attribute.value)
    return "unnamed"


# What every synthetic frame gets.

# What the watermark can say about the model; the numbers are in files that are out, so they stay as they are.
_MODELS = {
    0: "an unnamed model",
    1: "geometry",
    2: "texture",
    3: "a model fine-tuned to one person",
    4: "a model of the maker's own",
}


def model_number(model: str) -> int:
    """Which number the watermark has for a model's name, as a Claim has it."""
    for number, name in _MODELS.items():
        if model == name:
            return number
    if re.search(", (fine-tuned|from scratch)$", model):
        return 3
    return 4 if model.endswith(MODEL_SUFFIX) else 0


class Marker:
    """Marks the frames of one output, be it a file, a folder of frames or a live stream.

    Holds no state but the frames' size, which may change from frame to frame.

    >>> marker = Marker("geometry", label=True)
    >>> marked = marker.mark(frame)
    """

    def __init__(self, model: str, *, label: bool = False) -> None:
        """Args: model: as a Claim has it; label: whether the visible label is burnt in as well."""
        self.payload = Payload(model_number(model), secrets.randbits(32))
        self.has_label = label
        self._embedder: Embedder | None = None

    def mark(self, frame: Rgb) -> Rgb:
        """A marked copy of uint8 RGB [H, W, 3]; about 2 ms at 512 x 512.

        Of RGBA [H, W, 4] the colours are marked, and the alpha is kept but under the label, which is always seen.
        """
        if frame.shape[2] == 4:
            alpha = frame[..., 3]
            if self.has_label:
                alpha = np.maximum(alpha, _label_cover(*alpha.shape))
            return np.dstack([self.mark(np.ascontiguousarray(frame[..., :3])), alpha])
        height, width = frame.shape[:2]
        embedder = self._embedder
        if embedder is None or (embedder.height, embedder.width) != (height, width):
            self._embedder = embedder = Embedder(height, width, self.payload)
        return embedder.embed(burn_label(frame) if self.has_label else frame)


def burn_label(frame: Rgb, scale: float = 1.0) -> Rgb:
    """A copy of uint8 RGB [H, W, 3] with a small "AI" in its lower right corner; scale: of its size, 1 is 8 % of it."""
    labelled = frame.copy()
    side = min(frame.shape[:2])
    colour, alpha = _label(max(16, round(side * 0.08 * scale)))
    height, width = alpha.shape[:2]
    margin = round(side * 0.03)
    if height + margin > frame.shape[0] or width + margin > frame.shape[1]:
        margin = 0
    bottom, right = frame.shape[0] - margin, frame.shape[1] - margin
    corner = labelled[max(0, bottom - height) : bottom, max(0, right - width) : right]
    colour, alpha = colour[: corner.shape[0], : corner.shape[1]], alpha[: corner.shape[0], : corner.shape[1]]
    corner[:] = np.rint(corner + (colour - corner) * alpha)
    return labelled


@lru_cache(maxsize=8)
def _label_cover(height: int, width: int) -> Any:
    """[H, W] uint8: how far burn_label hides what is under it; 0 but in its corner."""
    white = np.full((height, width, 3), 255, np.uint8)
    return (255 - (burn_label(white) - burn_label(np.zeros_like(white)))).max(-1)


@lru_cache(maxsize=8)
def _label(height: int) -> tuple[Any, Any]:
    """White letters on a dark plate with round corners: colour [h, w, 3] in 0..255 and opacity [h, w, 1] in 0..1."""
    fine = 8  # drawn so much larger, then reduced
    h, w = 100 * fine, 150 * fine
    plate, letters = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    radius = h // 4
    cv2.rectangle(plate, (radius, 0), (w - radius, h), 255, -1)
    cv2.rectangle(plate, (0, radius), (w, h - radius), 255, -1)
    for x in (radius, w - radius):
        for y in (radius, h - radius):
            cv2.circle(plate, (x, y), radius, 255, -1)
    # Lines and not a font: which fonts there are, and how they look, changes between versions of OpenCV.
    left, top, bottom, stroke = 28 * fine, 22 * fine, 78 * fine, 11 * fine
    middle, right, i = 54 * fine, 80 * fine, 112 * fine
    bar = top + (bottom - top) * 2 // 3
    ends = [(left, bottom, middle, top), (middle, top, right, bottom), (i, top, i, bottom)]
    part = (bar - top) / (bottom - top)
    ends.append((round(middle - (middle - left) * part), bar, round(middle + (right - middle) * part), bar))
    for x0, y0, x1, y1 in ends:
        cv2.line(letters, (x0, y0), (x1, y1), 255, stroke)
    size = round(height * w / h), height
    plate, letters = (cv2.resize(one, size, interpolation=cv2.INTER_AREA)[..., None] / 255 for one in (plate, letters))
    return 255 * letters, np.maximum(letters, 0.62 * plate)


class MarkedWriter:
    """Takes the frames of one video one by one and marks them on their way into the file; a context manager."""

    def __init__(self, writer: video.Writer, marker: Marker | None) -> None:
        self._writer, self._marker = writer, marker

    def write(self, frame: Rgb) -> None:
        """Appends one frame, uint8 RGB [height, width, 3], or RGBA where the writer was opened for it.

        Raises:
            MediaError: if it cannot be written (disk full, no permission).
        """
        self._writer.write(self._marker.mark(frame) if self._marker else frame)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


class Draft:
    """An output while it is written; `seal` gives it. Frames get into it through write_image and open_writer only.

    Attributes:
        path: where it is written: the name and the format of the output, in a hidden folder.
        marker: None where the output is not synthetic.
    """

    def __init__(self, path: Path, marker: Marker | None) -> None:
        self.path, self.marker = path, marker
        self.is_used = False

    def write_image(self, picture: Rgb) -> None:
        """Writes uint8 RGB [H, W, 3] or RGBA [H, W, 4]; see video.write_image."""
        self.is_used = True
        video.write_image(self.path, self.marker.mark(picture) if self.marker else picture)

    def open_writer(
        self,
        width: int,
        height: int,
        fps: float,
        *,
        quality: int = 18,
        audio_from: Path | None = None,
        alpha: bool = False,
    ) -> MarkedWriter:
        """A writer of a video, or of a folder of frames; see video.open_writer."""
        self.is_used = True
        writer = video.open_writer(self.path, width, height, fps, quality=quality, audio_from=audio_from, alpha=alpha)
        return MarkedWriter(writer, self.marker)


# The door.


def check_output(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output that `seal` would refuse, before the work is done.

    Args:
        out: a file, a folder for frames, or a pattern for them such as frames/%05d.webp. Beside a file of BESIDE its
            manifest is written, too.
        force: whether what is there may be replaced.
        inputs: files that are read; never replaced, not even with force.

    Raises:
        InputError: if out is of an unknown format, stands already, is one of the inputs (also through links), is a
            folder with a file's name, or its folder is missing or cannot be written to.
    """
    pattern = _frames(out)
    if pattern is None and out.suffix.lower() not in (*FORMATS, *BESIDE):
        raise InputError(
            f"-o {out}: give a file ending in {', '.join((*FORMATS, *BESIDE))}, a folder for PNG frames, or "
            "frames/%05d.webp."
        )
    if pattern is not None and not (_PATTERN.fullmatch(pattern.name) and pattern.suffix.lower() in STILLS):
        raise InputError(f"-o {out}: a pattern has one %05d and ends in {', '.join(STILLS)}, as in frames/%05d.webp.")

    for path in inputs:
        if pattern is None:
            is_input = out.exists() and path.exists() and os.path.samefile(out, path)
        else:
            real = path.resolve()
            is_input = real.parent == pattern.parent.resolve() and bool(_frame_names(pattern).fullmatch(real.name))
        if is_input:
            raise InputError(f"-o {out}: the input {path} would be replaced; give another -o.")

    # The folder that the file, the frames, or the new folder of frames is made in.
    parent = out.parent if pattern is None else pattern.parent
    is_new = pattern is not None and not os.path.lexists(parent)
    folder = parent.parent if is_new else parent
    if not folder.is_dir():
        what = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise InputError(f"-o {out}: the folder {folder} {what}; make it first, or give another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"-o {out}: the folder {folder} cannot be written to; give another -o.")

    if pattern is not None:
        if not is_new and not force and any(folder.iterdir()):
            raise InputError(f"-o {out}: {folder} is not empty; give --force to replace its frames, or another -o.")
    elif os.path.lexists(out):
        if out.is_dir():
            raise InputError(f"-o {out}: is a folder; give the name of a file in it.")
        if out.exists() and not out.is_file():
            raise InputError(f"-o {out}: is not an ordinary file; give another -o.")
        if not force:
            raise InputError(f"-o {out}: already exists; give --force to replace it, or another -o.")
    if (sidecar := _sidecar(out)) is not None and os.path.lexists(sidecar):
        if not sidecar.is_file():
            raise InputError(f"-o {out}: its manifest goes into {sidecar}, which is no ordinary file; give another -o.")
        if not force:
            raise InputError(
                f"-o {out}: its manifest goes into {sidecar}, which exists; give --force to replace both, or another "
                "-o."
            )


@contextmanager
def seal(
    out: Path,
    claim: Claim,
    *,
    credentials: Credentials | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Draft]:
    """Give a Draft to write to; when the block ends, sign what is there and put it in place of `out`.

    The draft's path has the name and the format of `out`; for a folder or a pattern it is a pattern. It lies in a
    hidden folder (mode 0700) next to `out`, which is gone at the end, however the block ends. The files that appear
    follow the umask.

    A file replaces `out` in one step. Frames go to a new folder in one step. Into a folder that stands, which takes
    force unless it is empty, they go one by one when all are signed; then older frames of the same pattern go, and
    nothing else.

    Args:
        out: a file, a folder for frames, or a pattern for them such as frames/%05d.webp; see FORMATS and STILLS.
        claim: what is said about it; a frame's title is its own file name.
        credentials: who signs; `Credentials.local()` when None.
        force: replace what is there. The old file stays whole until the new one is complete.
        progress: called with the number of files signed and of all files.

    Yields:
        What to write to. All frames of one output carry the same watermark.

    Raises:
        InputError: before the block runs, as from `check_output`; or if the credentials cannot be had.
        MediaError: after it, if nothing was written, or what was written cannot be signed; nothing is left then.
    """
    check_output(out, force=force)
    signer = (credentials or Credentials.local())._signer()
    pattern = _frames(out)
    target = pattern or out
    is_new_folder = pattern is not None and not pattern.parent.exists()
    workplace = tempfile.mkdtemp(prefix=".mimik-", dir=target.parent.parent if is_new_folder else target.parent)
    try:
        drafts, signed = Path(workplace, "draft"), Path(workplace, "signed")
        drafts.mkdir()
        signed.mkdir()
        draft = Draft(drafts / target.name, Marker(claim.model, label=claim.label) if claim.is_synthetic else None)
        yield draft

        # Sign; each draft goes as soon as its signed copy stands, so that the disk holds one file twice at most.
        accepted = _frame_names(pattern) if pattern else re.compile(re.escape(out.name))
        names = sorted(path.name for path in drafts.iterdir() if accepted.fullmatch(path.name))
        if not names or any((drafts / name).stat().st_size == 0 for name in names):
            raise MediaError(f"{out}: nothing was written to it, so nothing is kept; try another format with -o.")
        assert draft.marker is None or draft.is_used, "synthetic frames were written past the draft, without a mark"
        for done, name in enumerate(names, start=1):
            title, suffix = name if pattern else claim.title, target.suffix.lower()
            with (drafts / name).open("rb") as source, (signed / name).open("w+b") as copy:
                manifest = _sign(
                    source,
                    copy,
                    (FORMATS | BESIDE)[suffix],
                    claim,
                    title,
                    signer,
                    draft.marker,
                    beside=suffix in BESIDE,
                )
            if suffix in BESIDE:
                (signed / name).with_suffix(SIDECAR_SUFFIX).write_bytes(manifest)
            (drafts / name).unlink()
            if progress is not None:
                progress(done, len(names))

        # Put in place.
        if is_new_folder:
            check_output(out, force=force)
            os.rename(signed, target.parent)
            return
        if pattern is None:
            check_output(out, force=force)
        if (sidecar := _sidecar(out)) is not None:
            os.replace(signed / sidecar.name, sidecar)
        for name in names:
            os.replace(signed / name, target.with_name(name))
        if pattern is not None:
            for path in target.parent.iterdir():
                if accepted.fullmatch(path.name) and path.name not in names:
                    path.unlink()
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _sidecar(out: Path) -> Path | None:
    """Where the manifest of a file goes that cannot hold it; None for all others."""
    return out.with_suffix(SIDECAR_SUFFIX) if out.suffix.lower() in BESIDE else None


def _frames(out: Path) -> Path | None:
    """The pattern of the numbered stills that are meant by a folder or a pattern; None if a file is meant."""
    if "%" in out.name:
        return out
    if out.suffix.lower() not in (*FORMATS, *BESIDE) and (out.is_dir() or not (out.suffix or os.path.lexists(out))):
        return out / "%05d.png"
    return None


def _frame_names(pattern: Path) -> re.Pattern[str]:
    parts = _PATTERN.fullmatch(pattern.name)
    assert parts, "check_output lets no other pattern pass"
    return re.compile(re.escape(parts[1]) + r"\d+" + re.escape(parts[2]))


def _context(**trust: str) -> Any:
    """Settings of the C2PA library: offline, no thumbnails; trust is PEM certificates by the list that they go to."""
    import c2pa

    return c2pa.Context(
        c2pa.Settings.from_dict(
            {
                "version": 1,
                "builder": {"thumbnail": {"enabled": False}},
                "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
                "trust": {"trust_config": _KEY_USAGES, **trust},
            }
        )
    )


def _sign(
    source: Any,
    copy: Any,
    media_type: str,
    claim: Claim,
    title: str,
    signer: Any,
    marker: Marker | None = None,
    *,
    beside: bool = False,
) -> bytes:
    """Copy a file and its manifest from one stream to another; the library checks its own result.

    Args: beside: leave the manifest out of the copy.

    Returns:
        The manifest.

    Raises:
        MediaError: if the file is not what media_type says, or cannot be written.
    """
    import c2pa

    agent = {"name": GENERATOR, "version": claim.version}
    placed = [_entry(one)["label"] for one in claim.ingredients if one.role != "driver"]
    drivers = [_entry(one)["label"] for one in claim.ingredients if one.role == "driver"]
    created: dict[str, Any] = {
        "action": "c2pa.created",
        "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "digitalSourceType": SOURCE_TYPE if claim.is_synthetic else _DRAWN_TYPE,
        "softwareAgent": agent,
        "description": DESCRIPTION if claim.is_synthetic else _DRAWN_DESCRIPTION,
    }
    if drivers:
        created["parameters"] = {"ingredientIds": drivers}
    actions = [created]
    if placed:
        actions.append({"action": "c2pa.placed", "softwareAgent": agent, "parameters": {"ingredientIds": placed}})
    optional = []
    if marker is not None:
        actions.append({"action": "c2pa.watermarked", "softwareAgent": agent})
        block = {"scope": {}, "value": _hexadecimal(marker.payload)}
        optional.append({"label": BINDING_LABEL, "data": {"alg": WATERMARK, "blocks": [block]}})
    if claim.consent is not None:
        optional.append({"label": CONSENT_LABEL, "data": {"statement": claim.consent}})
    recipe = {"model": claim.model, "settings": dict(claim.settings), "label": claim.label and claim.is_synthetic}
    manifest = {
        "claim_generator_info": [agent],
        "title": title,
        "ingredients": [_entry(one) for one in claim.ingredients if not one.history],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            # A face is personal: nobody who passes the file on has agreed to training on it.
            {
                "label": "cawg.training-mining",
                "data": {
                    "entries": {
                        "cawg.ai_training": {"use": "notAllowed"},
                        "cawg.ai_generative_training": {"use": "notAllowed"},
                    }
                },
            },
            {"label": SOURCES_LABEL, "data": {"sources": [_source(one) for one in claim.ingredients]}},
            {"label": RECIPE_LABEL, "data": recipe},
            *optional,
        ],
    }
    try:
        builder = c2pa.Builder(manifest, _context())
        for one in claim.ingredients:
            if one.history:
                builder.add_ingredient_from_archive(io.BytesIO(one.history))
        if beside:
            builder.set_no_embed()
        signed: bytes = builder.sign(signer, media_type, source, copy)
        return signed
    except c2pa.C2paError as error:
        raise MediaError(f"{title}: cannot be signed as {media_type} ({_reason(error)}); is the disk full?") from error


# The reader.


class Status(StrEnum):
    """What `verify` can find; EXIT_CODES has the command line's codes."""

    MIMIK = "made by mimik"
    ALTERED = "altered since"
    NOTHING = "nothing found"
    OTHER = "signed by another program"
    STRIPPED = "made by mimik, stripped of its manifest"


# 2 is bad input everywhere in the program, here a file that cannot be read as media.
EXIT_CODES = {Status.MIMIK: 0, Status.ALTERED: 1, Status.NOTHING: 3, Status.OTHER: 4, Status.STRIPPED: 5}


class Signer(StrEnum):
    """What is known about who signed."""

    THIS_COMPUTER = "this computer"
    ANCHORED = "vouched for by an anchor"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Mark:
    """The watermark as it was read in the frames.

    Attributes:
        value: all of the payload, 11 hexadecimal digits, as the manifest's soft binding declares it.
        model: which model made the frames, in words.
        file_id: 8 hexadecimal digits, the same in all copies of a file.
        mirrored: whether the frames were mirrored since.
        false_positive: upper bound of the chance that frames without a mark give such a reading.
    """

    value: str
    model: str
    file_id: str
    mirrored: bool
    false_positive: float

    @classmethod
    def of(cls, reading: Reading) -> Mark | None:
        payload = reading.payload
        if payload is None:
            return None
        model = _MODELS.get(payload.model, "a model that this version does not know")
        value = _hexadecimal(payload)
        return cls(value, model, f"{payload.file_id:08x}", reading.mirrored, reading.false_positive)


def _hexadecimal(payload: Payload) -> str:
    return f"{payload.to_int():011x}"


@dataclass(frozen=True)
class Verdict:
    """What a file says about where it comes from, and whether that still holds.

    All but status, signer, mark and codes is what the manifest says: true only as far as its signer is to be trusted.
    """

    status: Status
    signer: Signer | None = None  # None: no signature to judge
    subject: str | None = None  # the name in the signer's certificate
    generator: str | None = None  # name of the program
    version: str | None = None  # of the program
    model: str | None = None
    created: str | None = None  # RFC 3339, by the clock of the computer that signed
    sources: tuple[Ingredient, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    consent: str | None = None  # a statement that nobody has checked
    has_label: bool = False  # whether a visible label was burnt in
    binding: str | None = None  # value of the watermark that the manifest declares
    earlier: tuple[str, ...] = ()  # programs that signed the files that this one was made from
    codes: tuple[str, ...] = ()  # C2PA's own failure codes, or its error where the file could not be read to the end
    mark: Mark | None = None  # the watermark in the frames

    @property
    def exit_code(self) -> int:
        """The command line's exit code; see EXIT_CODES."""
        return EXIT_CODES[self.status]

    @property
    def sentence(self) -> str:
        """The verdict in a few short sentences for a person."""
        program = " ".join(filter(None, (self.generator, self.version))) or "an unnamed program"
        mark = f"mimik's invisible mark ({self.mark.model}, file {self.mark.file_id})" if self.mark else ""

        if self.status is Status.NOTHING:
            found = "No Content Credentials and no invisible mark of mimik were found."
            if self.codes:
                found = (
                    "The file only points to Content Credentials on the network, which were not fetched; no invisible "
                    "mark of mimik was found."
                )
            return f"{found} That proves nothing: most files have neither, and both can be removed."

        if self.status is Status.STRIPPED:
            lost = "Its Content Credentials are gone, as after a conversion"
            if self.generator:
                lost = f"It carries the Content Credentials of {program}, not those of mimik"
            return (
                f"The picture carries {mark}: what it shows is synthetic, made by mimik. {lost}, so from what and when "
                "it was made is not known. The mark is not found by chance, but its key is public: whoever wants to "
                "can put it on any picture."
            )

        if self.status is Status.ALTERED:
            credentials = f"the Content Credentials of {program}" if self.generator else "Content Credentials"
            bound = " the same that these credentials name" if self.mark and self.mark.value == self.binding else ""
            still = f" The picture carries {mark},{bound or ' so what it shows is synthetic'}." if mark else ""
            return (
                f"This file carries {credentials}, but does not match them: it or they were changed or damaged after "
                f"signing. What they say need not hold for what you see.{still}"
            )

        return " ".join(filter(None, (self._unaltered(program), self._who(), *self._more(mark))))

    def _unaltered(self, program: str) -> str:
        if self.status is Status.OTHER:
            return f"This file says that it comes from another program, {program}, and is unchanged since."
        says = "was made by" if self.signer is Signer.THIS_COMPUTER else "says that it was made by"
        if self.model == NO_MODEL:
            return f"This file {says} {program} and is unchanged since: a drawing or an overview, nothing synthetic."
        model = f" (model {self.model})" if self.model else ""
        return f"This file {says} {program}{model} and is unchanged since: what it shows is synthetic."

    def _who(self) -> str:
        name = f'"{self.subject}"' if self.subject else "an unnamed signer"
        if "signingCredential.expired" in self.codes:
            return f"The certificate of {name} has expired, so it does not show who signed."
        if self.signer is Signer.THIS_COMPUTER:
            return "It was signed with this computer's own key."
        if self.signer is Signer.ANCHORED:
            return f"It was signed by {name}, for whom a certificate vouches that you chose to trust."
        if self.subject == _LOCAL_NAME:
            return "The signer made its certificate itself: that shows that the file is unchanged, not who made it."
        return f"It is signed as {name}; whether that is true was not checked, as no anchor for it was given."

    def _more(self, mark: str) -> Iterator[str]:
        if self.status is Status.OTHER:
            if GENERATOR in self.earlier:
                yield "One of its sources says that mimik made it."
            if mark:
                yield f"The picture carries {mark}."
            return
        if self.consent is not None:
            yield f'Its maker states, which nobody has checked: "{self.consent}"'
        if self.mark and self.mark.value != self.binding:
            yield f"The picture carries {mark}, which is not the one that the credentials name: perhaps a source's."
        elif self.binding and not self.mark:
            yield "Its invisible mark cannot be read: too little of the picture holds one."

    def to_dict(self) -> dict[str, Any]:
        """The verdict for JSON, with the sentence and the exit code."""
        return {
            "status": self.status,
            "exit_code": self.exit_code,
            "sentence": self.sentence,
            "signer": self.signer,
            "subject": self.subject,
            "generator": self.generator,
            "version": self.version,
            "model": self.model,
            "created": self.created,
            "sources": [_source(one) for one in self.sources],
            "settings": dict(self.settings),
            "consent": self.consent,
            "label": self.has_label,
            "binding": self.binding,
            "mark": vars(self.mark) if self.mark else None,
            "earlier": self.earlier,
            "codes": self.codes,
        }

    def to_json(self) -> str:
        """to_dict as text."""
        return json.dumps(self.to_dict(), indent=2)


def verify(path: Path, *, anchors: Sequence[Path] = ()) -> Verdict:
    """Read a file's Content Credentials and its watermark, and check the file against them, offline.

    MIMIK takes all three: the manifest names mimik as the program, the signature holds, and the content matches its
    hash. A certificate that is unknown, expired or unfit for C2PA makes the signer unknown, not the file altered.
    STRIPPED: no manifest of mimik, neither the file's own nor a source's, but mimik's watermark.

    Args:
        path: a picture or a video of any kind.
        anchors: PEM files with root certificates to trust besides this computer's own.

    Raises:
        MediaError: if the file is missing, a folder, empty, damaged beyond reading without a trace of credentials, or
            neither of a kind that can carry them nor a picture or a video. InputError: if an anchor is no root
            certificate in PEM.
    """
    context = _verifying_context(anchors)
    verdict, unreadable = Verdict(Status.NOTHING), None
    try:
        verdict = _verify_credentials(path, context)
    except _NoCredentialsError as error:
        unreadable = error
    is_mimik = verdict.status is Status.MIMIK
    mark = None
    if not (is_mimik and verdict.model == NO_MODEL):
        try:
            # What matches its manifest is as it was marked, from its first frame on.
            mark = Mark.of(read_mark(path, max_windows=1 if is_mimik else _MAX_WINDOWS, own_size=is_mimik))
        except MediaError:
            if unreadable is not None:
                raise MediaError(str(unreadable)) from unreadable
    status = verdict.status
    is_alone = status is Status.NOTHING or (status is Status.OTHER and GENERATOR not in verdict.earlier)
    return replace(verdict, status=Status.STRIPPED if mark and is_alone else status, mark=mark)


# Kinds of pictures and videos besides FORMATS that are looked for in a folder.
_OTHER_SUFFIXES = (
    *(".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".3gp", ".flv", ".ogv", ".wmv"),
    *(".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2"),
)


def media_files(folder: Path) -> list[Path]:
    """Pictures and videos in a folder and below, by their names; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in (*FORMATS, *_OTHER_SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


_WINDOW_FRAMES, _WINDOW_FPS, _MAX_WINDOWS = 48, 5.0, 6  # the first minute of a video, in pieces of 10 s


def read_mark(path: Path, *, max_windows: int = _MAX_WINDOWS, own_size: bool = False) -> Reading:
    """The watermark in a picture, or in the first minute of a video.

    Args:
        path: the file.
        max_windows: after so many pieces of 10 seconds the rest is left unread; a piece is enough for a mark.
        own_size: whether it is known to be neither scaled nor cropped; see Detector.read.

    Raises:
        MediaError: if it is no picture and no video that can be read.
    """
    detector = Detector()
    if video.kind(path) == "image":
        return detector.read([video.read_image(path)], own_size=own_size)
    best = None
    with closing(video.read_frames(path, fps=min(video.probe(path).fps, _WINDOW_FPS))) as frames:
        for _ in range(max_windows):
            window = list(itertools.islice(frames, _WINDOW_FRAMES))
            if not window:
                break
            reading = detector.read(window, own_size=own_size)
            if best is None or reading.payload or reading.score > best.score:
                best = reading
            if reading.payload:
                break
    if best is None:
        raise MediaError(f"{path}: shows no frame; give a video that plays.")
    return best


class _NoCredentialsError(MediaError):
    """A file in which no credentials could be looked for."""


def _verify_credentials(path: Path, context: Any) -> Verdict:
    """The verdict on the manifest.

    Raises:
        MediaError: if the file is missing, a folder or empty. _NoCredentialsError: if it is damaged without a trace of
            credentials, or of a kind that cannot carry them.
    """
    import c2pa

    suffix = path.suffix.lower()
    media_type = (FORMATS | BESIDE).get(suffix) or mimetypes.guess_type(path.name)[0]
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise MediaError(f"{path}: is empty; give a picture or a video.")
            if suffix not in FORMATS and (manifest := _manifest_beside(path)):
                return _verify_beside(file, media_type, manifest, context)
            try:
                with c2pa.Reader(media_type, file, context=context) as reader:
                    return _judge(json.loads(reader.json()))
            except c2pa.C2paError.ManifestNotFound:
                return Verdict(Status.NOTHING)
            except c2pa.C2paError as error:
                if str(error).startswith("Remote"):
                    return Verdict(Status.NOTHING, codes=(_reason(error),))
                if isinstance(error, c2pa.C2paError.NotSupported):
                    raise _NoCredentialsError(
                        f"{path}: not a file that can be checked; give a picture or a video."
                    ) from error
                return _judge_damaged(path, file.fileno(), context, error)
    except OSError as error:
        if path.is_dir():
            raise MediaError(f"{path}: is a folder; give one picture or video, such as a frame in it.") from error
        raise MediaError(f"{path}: cannot be read ({error.strerror}); give a picture or a video.") from error


_MAX_SIDECAR_BYTES = 64 << 20


def _manifest_beside(path: Path) -> bytes | None:
    """What stands in the sidecar of a file, if there is one."""
    sidecar = path.with_suffix(SIDECAR_SUFFIX)
    try:
        if sidecar == path or not 0 < sidecar.stat().st_size <= _MAX_SIDECAR_BYTES:
            return None
        return sidecar.read_bytes()
    except OSError:
        return None


def _verify_beside(file: Any, media_type: str | None, manifest: bytes, context: Any) -> Verdict:
    import c2pa

    try:
        with c2pa.Reader(media_type or "application/octet-stream", file, manifest, context=context) as reader:
            return _judge(json.loads(reader.json()))
    except c2pa.C2paError as error:
        return Verdict(Status.ALTERED, codes=(_reason(error),))


def _verifying_context(anchors: Sequence[Path]) -> Any:
    """Settings that trust the roots of this computer (the list user_anchors) and of the given files (trust_anchors)."""
    trust = {}
    given = b""
    for path in anchors:
        try:
            roots = _roots(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(
                f"--anchor {path}: cannot be read as PEM certificates; give a root certificate in PEM."
            ) from error
        if not roots:
            raise InputError(
                f"--anchor {path}: holds no root certificate; give that of the authority that the signer names."
            )
        given += roots
    own = b""
    with suppress(InputError):  # who has no folder has no signer either
        for folder in _signer_folders(data_folder()):
            with suppress(OSError, ValueError):
                own += _roots((folder / "certificate.pem").read_bytes())
    if given:
        trust["trust_anchors"] = given.decode()
    if own:
        trust["user_anchors"] = own.decode()
    return _context(**trust)


def _roots(pem: bytes) -> bytes:
    """Those of some PEM certificates that may sign others.

    Raises:
        ValueError: if a certificate cannot be read, or there is none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    kept = b""
    for certificate in x509.load_pem_x509_certificates(pem):
        with suppress(x509.ExtensionNotFound):
            if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                kept += certificate.public_bytes(Encoding.PEM)
    return kept


def _judge(report: dict[str, Any]) -> Verdict:
    """The verdict on the C2PA library's report; the manifest in it is a stranger's, so nothing is taken for granted."""
    results = report.get("validation_results") or {}
    active = results.get("activeManifest") or {}
    failures = [one["code"] for one in active.get("failure") or []]
    for delta in results.get("ingredientDeltas") or []:
        failures += [one["code"] for one in (delta.get("validationDeltas") or {}).get("failure") or []]
    is_signed = "claimSignature.validated" in [one["code"] for one in active.get("success") or []]
    # What is wrong with a certificate says nothing about the content.
    is_intact = is_signed and all(code.startswith("signingCredential.") for code in failures)

    manifests = report.get("manifests") or {}
    manifest = manifests.get(report.get("active_manifest")) or {}
    generator, version = _generator(manifest)
    signature = _dict(manifest.get("signature_info"))
    if "signingCredential.trusted" not in [one["code"] for one in active.get("success") or []]:
        signer = Signer.UNKNOWN
    elif results.get("trustListUri") == "user_anchors":
        signer = Signer.THIS_COMPUTER
    else:
        signer = Signer.ANCHORED
    if not is_intact:
        status = Status.ALTERED
    else:
        status = Status.MIMIK if generator == GENERATOR else Status.OTHER

    # What the manifest says.
    assertions = {one.get("label"): _dict(one.get("data")) for one in manifest.get("assertions") or []}
    actions = _list(_dict(assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions")).get("actions"))
    created = next((_dict(one).get("when") for one in actions if _dict(one).get("action") == "c2pa.created"), None)
    recipe = _dict(assertions.get(RECIPE_LABEL))
    consent = _dict(assertions.get(CONSENT_LABEL)).get("statement")
    binding = _dict(assertions.get(BINDING_LABEL))
    block = _dict(next(iter(_list(binding.get("blocks"))), None))
    sources = []
    for one in _list(_dict(assertions.get(SOURCES_LABEL)).get("sources")):
        with suppress(KeyError, TypeError, ValueError):
            role, name, sha256, media_type = (_plain(one[key]) for key in ("role", "name", "sha256", "format"))
            sources.append(Ingredient(role, name, sha256, media_type))
    earlier = (
        _generator(_dict(other))[0] for label, other in manifests.items() if label != report.get("active_manifest")
    )
    subject = signature.get("common_name") or signature.get("issuer")
    created = signature.get("time") or created
    return Verdict(
        status,
        signer=signer,
        subject=_plain(subject) if subject else None,
        generator=generator,
        version=version,
        model=_plain(recipe["model"]) if recipe.get("model") else None,
        created=_plain(created) if created else None,
        sources=tuple(sources),
        settings=_dict(recipe.get("settings")),
        consent=_plain(consent, CONSENT_LETTERS) if consent else None,
        has_label=recipe.get("label") is True,
        binding=_plain(block.get("value")) if binding.get("alg") == WATERMARK else None,
        earlier=tuple(sorted({name for name in earlier if name})),
        codes=tuple(sorted(set(failures))),
    )


def _judge_damaged(path: Path, file: int, context: Any, error: Exception) -> Verdict:
    """The verdict on a file that the C2PA library gave up on: look for a manifest store among its bytes.

    Raises:
        _NoCredentialsError: if there is none.
    """
    import c2pa

    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        mark = content.find(_STORE_MARK)
        if mark < 0:
            raise _NoCredentialsError(
                f"{path}: is damaged or not what its name says ({_reason(error)}); give a file that plays."
            ) from error
        # The superbox is a length of 4 bytes, "jumb", and its first box, whose length of 4 bytes stands before the
        # mark.
        start = max(mark - 12, 0)
        store = content[start : start + int.from_bytes(content[start : start + 4], "big")]
    codes = (_reason(error),)
    verdict = Verdict(Status.ALTERED)
    with suppress(c2pa.C2paError), c2pa.Reader("application/c2pa", io.BytesIO(store), context=context) as reader:
        verdict = _judge(json.loads(reader.json()))
    return Verdict(**{**vars(verdict), "status": Status.ALTERED, "codes": codes})


def _generator(manifest: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Name and version of the program that a manifest names; old ones have one text: "Program/1.0 c2pa-rs/0.3"."""
    info = _dict((manifest.get("claim_generator_info") or [{}])[0])
    name, version = info.get("name"), info.get("version")
    if not name and (text := str(manifest.get("claim_generator") or "").split(" ")[0]):
        name, _, version = text.partition("/")
    return _plain(name) if name else None, _plain(version) if version else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _reason(error: object) -> str:
    return " ".join(str(error).split())


def _plain(value: object, letters: int = 120) -> str:
    """Text of a stranger for a terminal: printable, at most so many characters."""
    return "".join(letter for letter in str(value) if letter.isprintable())[:letters]
