"""Signing credentials: a certificate and its key, of this computer's user or given."""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimik.config import InputError, data_folder

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

from mimik.provenance.formats import one_line, plain_text
from mimik.provenance.manifests import Claim, Ingredient, sign_stream

log = logging.getLogger(__name__)

LOCAL_NAME = "mimik local signer"
_LOCAL_YEARS = 20  # without a timestamp authority, signatures expire with the certificate
_PIXEL = base64.b64decode(  # the smallest PNG, for a trial signature
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


class Credentials:
    """A certificate chain and its private key; validated to match and to be valid today."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Validate a chain and a key.

        Args:
            certificate: PEM; the signer's certificate first, then its issuers.
            key: PEM, without a passphrase: EC (P-256, P-384, P-521), RSA of 2048 bits or more, or Ed25519.

        Raises:
            InputError: if they cannot be read, do not match, are expired, or are not accepted by C2PA.
        """
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        # Parse both.
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
        except ValueError as error:
            raise InputError(
                "the certificate is not a PEM file; use one that starts with BEGIN CERTIFICATE."
            ) from error
        try:
            private = serialization.load_pem_private_key(key, password=None)
        except TypeError as error:
            raise InputError(
                "the key is protected by a passphrase; remove it: openssl pkey -in KEY -out NEWKEY."
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError("the key is not a private key in a PEM file (BEGIN PRIVATE KEY).") from error

        # Check that they match and are valid today.
        algorithms = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in algorithms:
            algorithm = algorithms[private.curve.name]
        elif isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
            algorithm = "ps256"
        elif isinstance(private, ed25519.Ed25519PrivateKey):
            algorithm = "ed25519"
        else:
            raise InputError(
                "C2PA does not support this kind of key; use EC P-256, P-384 or P-521, RSA 2048+ or Ed25519."
            )
        if private.public_key() != leaf.public_key():
            raise InputError(
                "the key does not belong to the certificate; the first certificate in the file must be the key's."
            )
        now = datetime.now(UTC)
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise InputError(
                f"the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} "
                f"to {leaf.not_valid_after_utc:%Y-%m-%d}; use one that is valid today."
            )

        # Check that C2PA accepts them: sign one pixel, so that an error occurs before the video is made.
        self._algorithm = algorithm
        self._certificate = certificate
        self._key = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.subject = _subject(leaf)
        trial = Claim("trial", "none", (Ingredient("photo", "trial", "0" * 64, "image/png"),))
        try:
            sign_stream(io.BytesIO(_PIXEL), io.BytesIO(), "image/png", trial, trial.title, self._signer())
        except InputError as error:
            raise InputError(
                f"the certificate of {self.subject} cannot sign ({one_line(error.__cause__)}); use an end-entity "
                "certificate whose extended key usage is e-mail protection, document signing or C2PA claim signing."
            ) from error

    def __repr__(self) -> str:
        return f"Credentials({self.subject!r})"

    @classmethod
    def from_files(cls, certificate: Path, key: Path) -> Credentials:
        """Credentials from the user's certificate chain and key, both PEM. Raises InputError, naming the files."""
        try:
            return cls(certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror}); use a PEM file.") from error
        except InputError as error:
            raise InputError(f"--certificate {certificate} with --key {key}: {error}") from error

    @classmethod
    def local(cls, data: Path | None = None) -> Credentials:
        """This user's credentials, generated on first use: a P-256 key and its certificate.

        The name in the certificate is only "mimik local signer". The credentials are in the newest of the folders
        `signer-0001`, `signer-0002`, ...: `certificate.pem`, which may be shared (`verify(anchors=...)`), and
        `key.pem`, which must not. If they are expired or damaged, the next folder is created. The old one is kept, so
        that files signed earlier are still recognized. A folder is created atomically under a name that only one
        process can claim, so concurrent processes obtain the same credentials.

        Args:
            data: parent of these folders; None: MIMIK_DATA of the environment, else the user's data folder.

        Raises:
            InputError: if the folder is not writable.
        """
        data = data or data_folder()
        for _ in range(3):  # for an existing signer, its replacement, and one made by another process in between
            newest = max(signer_folders(data), default=None)
            if newest is not None:
                try:
                    return cls((newest / "certificate.pem").read_bytes(), (newest / "key.pem").read_bytes())
                except (InputError, OSError) as error:
                    log.warning("%s cannot be used; it is kept, and a new signer is created (%s)", newest, error)
            number = int(newest.name.removeprefix("signer-")) + 1 if newest is not None else 1
            try:
                _make_signer(data, f"signer-{number:04d}")
            except OSError as error:
                raise InputError(
                    f"{data}: the signing key cannot be written there ({error.strerror}); "
                    "set MIMIK_DATA to a folder that you can write to."
                ) from error
        raise InputError(f"{data}: no usable signing key could be created there; set MIMIK_DATA to another folder.")

    def _signer(self) -> Any:
        import c2pa

        try:
            return c2pa.Signer.from_info(c2pa.C2paSignerInfo(self._algorithm, self._certificate, self._key, None))
        except c2pa.C2paError as error:
            raise InputError(f"the certificate of {self.subject} cannot sign ({one_line(error)}).") from error


def signer_folders(data: Path) -> list[Path]:
    return [path for path in data.glob("signer-*") if re.fullmatch(r"signer-\d{4,}", path.name)]


def _make_signer(data: Path, name: str) -> None:
    """Create data/name: a new root, whose key is discarded, and a signer issued by it; no-op if the folder exists."""
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
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, LOCAL_NAME),
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
            .not_valid_before(now - timedelta(days=1))  # for slow clocks
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
        certificate(LOCAL_NAME, key.public_key(), is_root=False),
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
            return plain_text(attribute.value)
    return "unnamed"
