"""File formats that can carry a manifest, labels of the manifest, and settings of the C2PA library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimik.provenance.watermark import Payload

GENERATOR = "mimik"
STILLS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
MEDIA_TYPES = {".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime", ".gif": "image/gif", **STILLS}
# C2PA cannot embed a manifest in these formats; it is written to a file of the same name beside them.
BESIDE = {".mkv": "video/x-matroska", ".webm": "video/webm"}
SIDECAR_SUFFIX = ".c2pa"
SOURCES_LABEL = "io.github.mimik.sources"
RECIPE_LABEL = "io.github.mimik.recipe"
CONSENT_LABEL = "io.github.mimik.consent"
BINDING_LABEL = "c2pa.soft-binding"
WATERMARK = "io.github.mimik.watermark.1"  # watermark.FORMAT_VERSION with the public key; not in C2PA's registry
# Extended key usages of C2PA certificates: e-mail protection, time stamping, OCSP, document signing, C2PA claim
# signing. The library's default is only the first, which would make certificates of cameras and large generators
# invalid.
_KEY_USAGES = "1.3.6.1.5.5.7.3.4\n1.3.6.1.5.5.7.3.8\n1.3.6.1.5.5.7.3.9\n1.3.6.1.5.5.7.3.36\n1.3.6.1.4.1.62558.2.1\n"
# Type of the JUMBF box that contains all C2PA manifests of a file.
STORE_MARK = b"jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"


def c2pa_context(**trust: str) -> Any:
    """Settings of the C2PA library: offline, no thumbnails; trust: PEM certificates by trust list."""
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


def hexadecimal(payload: Payload) -> str:
    return f"{payload.to_int():011x}"


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def readable(text: str) -> str:
    """Valid UTF-8 text: a file name keeps its UTF-8 in any locale; other bytes become U+FFFD."""
    # Among lone surrogates, U+DC80 to U+DCFF stand for bytes of a name that the locale cannot decode.
    known = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)
    return known.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def plain_text(value: object, letters: int = 120) -> str:
    """Untrusted text for a terminal: only printable characters, at most `letters` of them."""
    return "".join(letter for letter in str(value) if letter.isprintable())[:letters]
