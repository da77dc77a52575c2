"""Verification of a file: its manifest, its integrity, and its watermark."""

from __future__ import annotations

import io
import itertools
import json
import logging
import mimetypes
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mimik.config import CONSENT_LETTERS, InputError, MediaError, data_folder
from mimik.media import video
from mimik.provenance.credentials import LOCAL_NAME, signer_folders
from mimik.provenance.formats import (
    BESIDE,
    BINDING_LABEL,
    CONSENT_LABEL,
    GENERATOR,
    MEDIA_TYPES,
    RECIPE_LABEL,
    SIDECAR_SUFFIX,
    SOURCES_LABEL,
    STORE_MARK,
    WATERMARK,
    c2pa_context,
    hexadecimal,
    one_line,
    plain_text,
)
from mimik.provenance.manifests import NO_MODEL, Ingredient, source_record
from mimik.provenance.marking import MODEL_NUMBERS
from mimik.provenance.watermark import Reading, WatermarkDetector

log = logging.getLogger(__name__)


class Status(StrEnum):
    """Results of `verify`; EXIT_CODES has the exit codes of the command line."""

    MIMIK = "made by mimik"
    ALTERED = "altered since"
    NOTHING = "nothing found"
    OTHER = "signed by another program"
    STRIPPED = "made by mimik, stripped of its manifest"


# 2 is invalid input in all commands, here a file that cannot be read as media.
EXIT_CODES = {Status.MIMIK: 0, Status.ALTERED: 1, Status.NOTHING: 3, Status.OTHER: 4, Status.STRIPPED: 5}


class Signer(StrEnum):
    """Trust in the signer."""

    THIS_COMPUTER = "this computer"
    ANCHORED = "vouched for by an anchor"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Mark:
    """The watermark read from the frames."""

    value: str  # the whole payload, 11 hexadecimal digits, as declared by the manifest's soft binding
    model: str  # name of the model of the frames
    file_id: str  # 8 hexadecimal digits, identical in all copies of a file
    mirrored: bool  # whether the frames were mirrored after marking
    false_positive: float  # upper bound of the probability of such a reading in unmarked frames

    @classmethod
    def of(cls, reading: Reading) -> Mark | None:
        payload = reading.payload
        if payload is None:
            return None
        model = MODEL_NUMBERS.get(payload.model, "a model that this version does not know")
        value = hexadecimal(payload)
        return cls(value, model, f"{payload.file_id:08x}", reading.mirrored, reading.false_positive)


@dataclass(frozen=True)
class Verdict:
    """The stated origin of a file, and whether the statement still holds.

    All fields but status, signer, mark and codes are from the manifest: only as reliable as its signer.
    """

    status: Status
    signer: Signer | None = None  # None: no signature to verify
    subject: str | None = None  # the name in the signer's certificate
    generator: str | None = None  # name of the program
    version: str | None = None  # of the program
    model: str | None = None
    created: str | None = None  # RFC 3339, by the clock of the signing computer
    sources: tuple[Ingredient, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    consent: str | None = None  # a statement that nobody has checked
    has_label: bool = False  # whether a visible label was burnt in
    binding: str | None = None  # value of the watermark that the manifest declares
    earlier: tuple[str, ...] = ()  # programs that signed the source files
    codes: tuple[str, ...] = ()  # C2PA's failure codes, or its error if the file could not be read completely
    mark: Mark | None = None  # watermark in the frames

    @property
    def exit_code(self) -> int:
        """The command line's exit code; see EXIT_CODES."""
        return EXIT_CODES[self.status]

    @property
    def sentence(self) -> str:
        """The verdict in a few short sentences for the user."""
        program = " ".join(filter(None, (self.generator, self.version))) or "an unnamed program"
        mark = f"mimik's invisible watermark ({self.mark.model}, file {self.mark.file_id})" if self.mark else ""

        if self.status is Status.NOTHING:
            found = "No Content Credentials and no invisible watermark of mimik were found."
            if self.codes:
                found = (
                    "The file only points to Content Credentials on the network, which were not fetched; no invisible "
                    "mark of mimik was found."
                )
            return f"{found} This proves nothing: most files have neither, and both can be removed."

        if self.status is Status.STRIPPED:
            lost = "Its Content Credentials were removed, for example by a conversion"
            if self.generator:
                lost = f"It carries Content Credentials of {program}, not of mimik"
            return (
                f"The picture carries {mark}: it is synthetic, made by mimik. {lost}, so its sources and date "
                "are unknown. The mark is not found by chance, but its key is public, so anyone can put it "
                "on any picture."
            )

        if self.status is Status.ALTERED:
            credentials = f"the Content Credentials of {program}" if self.generator else "Content Credentials"
            bound = " the same that these credentials name" if self.mark and self.mark.value == self.binding else ""
            still = f" The picture carries {mark},{bound or ' so it is synthetic'}." if mark else ""
            return (
                f"This file carries {credentials}, but does not match them: the file or the credentials were changed "
                f"or damaged after signing. Their statements may not apply to what you see.{still}"
            )

        return " ".join(filter(None, (self._unaltered(program), self._who(), *self._more(mark))))

    def _unaltered(self, program: str) -> str:
        if self.status is Status.OTHER:
            return f"This file says that it comes from another program, {program}, and is unchanged since."
        says = "was made by" if self.signer is Signer.THIS_COMPUTER else "says that it was made by"
        if self.model == NO_MODEL:
            return f"This file {says} {program} and is unchanged since: a drawing or contact sheet, nothing synthetic."
        model = f" (model {self.model})" if self.model else ""
        return f"This file {says} {program}{model} and is unchanged since: it is synthetic."

    def _who(self) -> str:
        name = f'"{self.subject}"' if self.subject else "an unnamed signer"
        if "signingCredential.expired" in self.codes:
            return f"The certificate of {name} has expired, so it does not show who signed."
        if self.signer is Signer.THIS_COMPUTER:
            return "It was signed with this computer's own key."
        if self.signer is Signer.ANCHORED:
            return f"It was signed by {name}, verified by a certificate that you chose to trust."
        if self.subject == LOCAL_NAME:
            return "The certificate is self-signed: it shows that the file is unchanged, not who made it."
        return f"It is signed as {name}; this was not verified, because no matching --anchor was given."

    def _more(self, mark: str) -> Iterator[str]:
        if self.status is Status.OTHER:
            if GENERATOR in self.earlier:
                yield "One of its sources says that mimik made it."
            if mark:
                yield f"The picture carries {mark}."
            return
        if self.consent is not None:
            yield f'Unverified statement of its maker: "{self.consent}"'
        if self.mark and self.mark.value != self.binding:
            yield f"The picture carries {mark}, not the one named in the credentials; it may come from a source."
        elif self.binding and not self.mark:
            yield "Its invisible watermark cannot be read: too little of the picture can carry one."

    def to_dict(self) -> dict[str, Any]:
        """The verdict as a dictionary for JSON, with the sentence and the exit code."""
        about = vars(self) | {
            "sources": [source_record(one) for one in self.sources],
            "settings": dict(self.settings),
            "mark": vars(self.mark) if self.mark else None,
        }
        about["label"] = about.pop("has_label")
        return {"status": self.status, "exit_code": self.exit_code, "sentence": self.sentence} | about

    def to_json(self) -> str:
        """to_dict as JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def verify(path: Path, *, anchors: Sequence[Path] = ()) -> Verdict:
    """Read a file's Content Credentials and watermark, and verify the file against them, offline.

    MIMIK requires that the manifest names mimik as the program, that the signature is valid, and that the content
    matches its hash. A certificate that is unknown, expired or unfit for C2PA makes the signer unknown, not the file
    altered. STRIPPED: the file has mimik's watermark, but no manifest of mimik, neither its own nor that of a source.

    Args:
        path: a picture or a video of any format.
        anchors: PEM files with root certificates to trust in addition to this computer's own.

    Raises:
        MediaError: if the file is missing, a folder, empty, unreadable without any credentials, or of a format that is
            neither media nor able to carry credentials. InputError: if an anchor is not a root certificate in PEM.
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
            # A file that matches its manifest is as it was marked, from its first frame on.
            mark = Mark.of(read_mark(path, max_windows=1 if is_mimik else _MAX_WINDOWS, own_size=is_mimik))
        except MediaError as error:
            if unreadable is not None:
                raise MediaError(str(unreadable)) from unreadable
            if verdict.status is Status.NOTHING:  # an unreadable file cannot be reported as NOTHING
                raise error
    status = verdict.status
    is_alone = status is Status.NOTHING or (status is Status.OTHER and GENERATOR not in verdict.earlier)
    return replace(verdict, status=Status.STRIPPED if mark and is_alone else status, mark=mark)


# Suffixes of pictures and videos, besides MEDIA_TYPES, that are included in a folder.
_OTHER_SUFFIXES = (
    *(".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".3gp", ".flv", ".ogv", ".wmv"),
    *(".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2"),
)


def media_files(folder: Path) -> list[Path]:
    """Pictures and videos in a folder and its subfolders, by suffix; hidden ones are excluded."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in (*MEDIA_TYPES, *_OTHER_SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


_WINDOW_FRAMES, _WINDOW_FPS, _MAX_WINDOWS = 48, 5.0, 6  # the first minute of a video, in windows of 10 s


def read_mark(path: Path, *, max_windows: int = _MAX_WINDOWS, own_size: bool = False) -> Reading:
    """Read the watermark of a picture, or of the first minute of a video.

    Args:
        path: the file.
        max_windows: read at most this many windows of 10 seconds; one window suffices for a mark.
        own_size: whether it is known to be neither scaled nor cropped; see WatermarkDetector.read.

    Raises:
        MediaError: if it is not a readable picture or video.
    """
    detector = WatermarkDetector()
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
        raise MediaError(f"{path}: contains no frame; use a video that plays.")
    return best


class _NoCredentialsError(MediaError):
    """The file cannot be searched for credentials."""


def _verify_credentials(path: Path, context: Any) -> Verdict:
    """The verdict on the manifest.

    Raises:
        MediaError: if the file is missing, a folder or empty. _NoCredentialsError: if it is damaged without any
            credentials, or of a format that cannot carry them.
    """
    import c2pa

    suffix = path.suffix.lower()
    media_type = (MEDIA_TYPES | BESIDE).get(suffix) or mimetypes.guess_type(path.name)[0]
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise MediaError(f"{path}: is empty; use a picture or a video.")
            if suffix not in MEDIA_TYPES and (manifest := _manifest_beside(path)):
                try:
                    return _judged(media_type or "application/octet-stream", file, manifest, context=context)
                except c2pa.C2paError as error:
                    return Verdict(Status.ALTERED, codes=(one_line(error),))
            try:
                return _judged(media_type, file, context=context)
            except c2pa.C2paError.ManifestNotFound:
                return Verdict(Status.NOTHING)
            except c2pa.C2paError as error:
                if str(error).startswith("Remote"):
                    return Verdict(Status.NOTHING, codes=(one_line(error),))
                if isinstance(error, c2pa.C2paError.NotSupported):
                    raise _NoCredentialsError(
                        f"{path}: not a file that can be checked; use a picture or a video."
                    ) from error
                return _judge_damaged(path, file.fileno(), context, error)
    except OSError as error:
        if path.is_dir():
            raise MediaError(f"{path}: is a folder; use one picture or video, such as a frame in it.") from error
        raise MediaError(f"{path}: cannot be read ({error.strerror}); use a picture or a video.") from error


_MAX_SIDECAR_BYTES = 64 << 20


def _manifest_beside(path: Path) -> bytes | None:
    """Content of a file's sidecar; None if there is none."""
    sidecar = path.with_suffix(SIDECAR_SUFFIX)
    try:
        if sidecar == path or not 0 < sidecar.stat().st_size <= _MAX_SIDECAR_BYTES:
            return None
        return sidecar.read_bytes()
    except OSError:
        return None


def _judged(*given: Any, context: Any) -> Verdict:
    """The verdict on the manifest that c2pa.Reader reads. Raises C2paError."""
    import c2pa

    with c2pa.Reader(*given, context=context) as reader:
        return _judge(json.loads(reader.json()))


def _verifying_context(anchors: Sequence[Path]) -> Any:
    """Settings that trust the roots of this computer (list user_anchors) and of the given files (trust_anchors)."""
    trust = {}
    given = b""
    for path in anchors:
        try:
            roots = _roots(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(
                f"--anchor {path}: cannot be read as PEM certificates; use a root certificate in PEM."
            ) from error
        if not roots:
            raise InputError(
                f"--anchor {path}: contains no root certificate; use that of the authority that the signer names."
            )
        given += roots
    own = b""
    with suppress(InputError):  # without a data folder there is no signer
        for folder in signer_folders(data_folder()):
            with suppress(OSError, ValueError):
                own += _roots((folder / "certificate.pem").read_bytes())
    if given:
        trust["trust_anchors"] = given.decode()
    if own:
        trust["user_anchors"] = own.decode()
    return c2pa_context(**trust)


def _roots(pem: bytes) -> bytes:
    """The certificates among some PEM certificates that may sign others.

    Raises ValueError if a certificate cannot be read, or there is none.
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
    """The verdict on the C2PA library's report; its manifest is untrusted, so every field is checked."""
    results = report.get("validation_results") or {}
    active = results.get("activeManifest") or {}
    failures = [one["code"] for one in active.get("failure") or []]
    for delta in results.get("ingredientDeltas") or []:
        failures += [one["code"] for one in (delta.get("validationDeltas") or {}).get("failure") or []]
    is_signed = "claimSignature.validated" in [one["code"] for one in active.get("success") or []]
    # Problems of a certificate do not affect the integrity of the content.
    is_intact = is_signed and all(code.startswith("signingCredential.") for code in failures)

    manifests = report.get("manifests") or {}
    manifest = manifests.get(report.get("active_manifest")) or {}
    generator, version = _program(manifest)
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

    # Fields of the manifest.
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
            role, name, sha256, media_type = (plain_text(one[key]) for key in ("role", "name", "sha256", "format"))
            sources.append(Ingredient(role, name, sha256, media_type))
    earlier = (
        _program(_dict(other))[0] for label, other in manifests.items() if label != report.get("active_manifest")
    )
    subject = signature.get("common_name") or signature.get("issuer")
    created = signature.get("time") or created
    return Verdict(
        status,
        signer=signer,
        subject=plain_text(subject) if subject else None,
        generator=generator,
        version=version,
        model=plain_text(recipe["model"]) if recipe.get("model") else None,
        created=plain_text(created) if created else None,
        sources=tuple(sources),
        settings=_dict(recipe.get("settings")),
        consent=plain_text(consent, CONSENT_LETTERS) if consent else None,
        has_label=recipe.get("label") is True,
        binding=plain_text(block.get("value")) if binding.get("alg") == WATERMARK else None,
        earlier=tuple(sorted({name for name in earlier if name})),
        codes=tuple(sorted(set(failures))),
    )


def _judge_damaged(path: Path, file: int, context: Any, error: Exception) -> Verdict:
    """The verdict on a file that the C2PA library cannot parse: search its bytes for a manifest store.

    Raises _NoCredentialsError if there is none.
    """
    import c2pa

    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        mark = content.find(STORE_MARK)
        if mark < 0:
            raise _NoCredentialsError(
                f"{path}: is damaged or not what its name says; use a file that plays."
            ) from error
        # The superbox consists of a length of 4 bytes, "jumb", and its first box, whose length of 4 bytes precedes the
        # mark.
        start = max(mark - 12, 0)
        store = content[start : start + int.from_bytes(content[start : start + 4], "big")]
    codes = (one_line(error),)
    verdict = Verdict(Status.ALTERED)
    with suppress(c2pa.C2paError):
        verdict = _judged("application/c2pa", io.BytesIO(store), context=context)
    return replace(verdict, status=Status.ALTERED, codes=codes)


def _program(manifest: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Name and version of a manifest's program; old manifests have one string: "Program/1.0 c2pa-rs/0.3"."""
    info = _dict((manifest.get("claim_generator_info") or [{}])[0])
    name, version = info.get("name"), info.get("version")
    if not name and (text := str(manifest.get("claim_generator") or "").split(" ")[0]):
        name, _, version = text.partition("/")
    return plain_text(name) if name else None, plain_text(version) if version else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
