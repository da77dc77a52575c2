"""C2PA manifests: the model, the source files and the consent stated in a file."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.config import CONSENT_LETTERS, VERSION, InputError, MediaError
from mimik.provenance.formats import (
    BINDING_LABEL,
    CONSENT_LABEL,
    GENERATOR,
    MEDIA_TYPES,
    RECIPE_LABEL,
    SOURCES_LABEL,
    WATERMARK,
    c2pa_context,
    hexadecimal,
    one_line,
    readable,
)
from mimik.provenance.marking import Marker

log = logging.getLogger(__name__)
ROLES = ("photo", "driver", "background")  # roles of source files
# IPTC NewsCodes. The photo is real, and a trained model determines its animation. For `geometry`, that model only
# detects landmarks, and every pixel shown is the photo's own. Still, the person does what they never did, so the codes
# for harmless work (algorithmicallyEnhanced, composite) would understate it. algorithmicMedia is for pictures computed
# without sampled data, trainedAlgorithmicMedia for pictures generated as a whole; both would be untrue.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
DESCRIPTION = "A still photo was animated by a program. The person shown was not filmed doing this."
# Output that is not synthetic: drawings of landmarks, annotated pictures, overviews of training data.
NO_MODEL = "none"
_DRAWN_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/composite"
_DRAWN_DESCRIPTION = "Drawn by a program: an overview, or notes on a picture. Nobody in it was animated."


@dataclass(frozen=True)
class Ingredient:
    """A source file of an animation, as its manifest names it: without its folder."""

    role: str  # one of ROLES
    name: str
    sha256: str  # 64 hexadecimal digits
    format: str  # media type, such as "image/jpeg"
    history: bytes = field(default=b"", repr=False, compare=False)  # its own C2PA manifests as an archive, if any

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r}: use one of {', '.join(ROLES)}")
        if not self.name or "/" in self.name or "\\" in self.name:
            raise ValueError(f"name {self.name!r}: use a file name without its folder; folders tell who the user is")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 {self.sha256!r}: use 64 lower-case hexadecimal digits")

    @classmethod
    def from_file(cls, role: str, path: Path, *, name: str | None = None) -> Ingredient:
        """The ingredient for a file, read once in blocks; includes the file's own Content Credentials.

        Raises InputError if the file cannot be read.

        Args: name: name in the manifest, such as "bundled smile"; None: the file's name.
        """
        media_type = (
            MEDIA_TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        )
        shown = readable(name or path.name)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                one = cls(role, shown, digest, media_type)
                file.seek(0)
                return replace(one, history=_read_history(file, one))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); use a file that exists.") from error

    @classmethod
    def from_pixels(cls, role: str, name: str, picture: NDArray[np.uint8]) -> Ingredient:
        """The ingredient for a picture uint8 RGB [H, W, 3] without a file; its hash is that of its pixels."""
        digest = hashlib.sha256(np.ascontiguousarray(picture).data).hexdigest()
        return cls(role, name, digest, "application/octet-stream")


@dataclass(frozen=True)
class Claim:
    """Statements about one output: its model, its source files and its settings."""

    title: str  # file name of the output
    model: str  # such as "geometry"; NO_MODEL: not synthetic, without a watermark
    ingredients: tuple[Ingredient, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # numbers, words, and lists of them; no text with a slash
    version: str = VERSION
    consent: str | None = None  # the maker's statement on the consent of the person shown
    label: bool = False  # whether frames get the visible label

    @property
    def is_synthetic(self) -> bool:
        return self.model != NO_MODEL

    def __post_init__(self) -> None:
        if self.consent is not None and not (self.consent.isprintable() and 0 < len(self.consent) <= CONSENT_LETTERS):
            raise ValueError(f"consent {self.consent!r}: use one line of 1 to {CONSENT_LETTERS} letters")
        for key, value in self.settings.items():
            for item in value if isinstance(value, list | tuple) else (value,):
                if not isinstance(item, str | int | float | None) or (
                    isinstance(item, str) and re.search(r"[/\\]", item)
                ):
                    raise ValueError(f"setting {key} {value!r}: use numbers and words; paths do not go into a manifest")


def source_record(one: Ingredient) -> dict[str, str]:
    """The entry of an ingredient in the assertion of sources."""
    return {"role": one.role, "name": one.name, "sha256": one.sha256, "format": one.format}


def _entry(one: Ingredient) -> dict[str, str]:
    """The entry of an ingredient in the list of ingredients; its label links it to the actions.

    Photo and background are components, because their pixels are placed in the result. The driver is an input, because
    only its motion is used.
    """
    relationship = "inputTo" if one.role == "driver" else "componentOf"
    return {"label": f"{one.role} {one.sha256}", "title": one.name, "format": one.format, "relationship": relationship}


def _read_history(file: Any, one: Ingredient) -> bytes:
    """The C2PA manifests of a file, as an archive that includes its entry; b"" if there are none that can be read."""
    import c2pa

    entry = _entry(one)
    try:
        reader = c2pa.Reader.try_create(one.format, file, context=c2pa_context())
        if reader is None:
            return b""
        reader.close()
        file.seek(0)
        builder = c2pa.Builder({"claim_generator_info": [{"name": GENERATOR}]}, c2pa_context())
        builder.add_ingredient(entry, one.format, file)
        archive = io.BytesIO()
        builder.write_ingredient_archive(entry["label"], archive)
        return archive.getvalue()
    except c2pa.C2paError as error:
        log.debug("%s: no Content Credentials kept (%s)", one.name, error)
        return b""


def sign_stream(
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
    """Copy a file and its manifest from one stream to another; the library verifies its result.

    Args: beside: do not embed the manifest in the copy.

    Returns:
        The manifest.

    Raises MediaError if the file does not match media_type, or cannot be written.
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
        block = {"scope": {}, "value": hexadecimal(marker.payload)}
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
            # A face is personal data: nobody who redistributes the file has consented to training on it.
            {
                "label": "cawg.training-mining",
                "data": {
                    "entries": {
                        "cawg.ai_training": {"use": "notAllowed"},
                        "cawg.ai_generative_training": {"use": "notAllowed"},
                    }
                },
            },
            {"label": SOURCES_LABEL, "data": {"sources": [source_record(one) for one in claim.ingredients]}},
            {"label": RECIPE_LABEL, "data": recipe},
            *optional,
        ],
    }
    try:
        builder = c2pa.Builder(readable(json.dumps(manifest, ensure_ascii=False)), c2pa_context())
        for one in claim.ingredients:
            if one.history:
                builder.add_ingredient_from_archive(io.BytesIO(one.history))
        if beside:
            builder.set_no_embed()
        signed: bytes = builder.sign(signer, media_type, source, copy)
        return signed
    except c2pa.C2paError as error:
        raise MediaError(
            f"{title}: cannot be signed as {media_type} ({one_line(error)}); use another format with -o."
        ) from error
