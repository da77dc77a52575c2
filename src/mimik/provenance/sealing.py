"""`seal`: the only function that writes pictures; each is marked and signed.

`seal` yields a Draft to write to. Every frame of a synthetic output gets an invisible watermark and, if requested, a
visible label. Then the file is signed with a C2PA manifest (Content Credentials, https://spec.c2pa.org, claim version
2) and moved into place atomically. The manifest states the synthetic origin, the program, the model, the source files
and the watermark's payload. Everything works offline. Frames for a screen or a network get the same marks from a
Marker.

A signature with the self-issued certificate of the program proves that the file is unchanged since it was signed. It
does not prove who signed: anybody can make a certificate that says "mimik".

Importing c2pa and cryptography takes 0.1 to 0.2 s. They are imported where they are used, so that `mimik --help` is not
delayed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mimik.config import MediaError
from mimik.provenance.credentials import Credentials
from mimik.provenance.formats import BESIDE, MEDIA_TYPES, SIDECAR_SUFFIX, STILLS
from mimik.provenance.manifests import Claim, sign_stream
from mimik.provenance.marking import Draft, Marker
from mimik.provenance.outputs import check_output, frame_names, frames_pattern, sidecar_of


@contextmanager
def seal(
    out: Path,
    claim: Claim,
    *,
    credentials: Credentials | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Draft]:
    """Yield a Draft to write to; when the block ends, sign the result and move it to `out`.

    The draft's path has the name and the format of `out`; for a folder or a pattern it is a pattern. The draft
    is in a hidden folder (mode 0700) next to `out`; this folder is always deleted at the end. Permissions of the
    resulting files follow the umask.

    A file replaces `out` atomically, and frames become a new folder atomically. An existing folder requires force
    unless it is empty. There, frames are moved one by one after all are signed; then older frames of the same pattern
    are deleted, and no other files.

    Args:
        out: a file, a folder for frames, or a pattern for them such as frames/%05d.webp; see MEDIA_TYPES and STILLS.
        claim: statements for the manifest; the title of a frame is its file name.
        credentials: signing key and certificate; None: `Credentials.local()`.
        force: replace existing output. The old file is kept until the new one is complete.
        progress: called with the number of signed files and the number of all files.

    Yields:
        The draft to write to. All frames of one output carry the same watermark.

    Raises:
        InputError: before the block runs, as from `check_output`, or if the credentials are not available.
        MediaError: after the block, if nothing was written, or the result cannot be signed; no output is left then.
    """
    check_output(out, force=force)
    signer = (credentials or Credentials.local())._signer()
    pattern = frames_pattern(out)
    target = pattern or out
    is_new_folder = pattern is not None and not pattern.parent.exists()
    workplace = tempfile.mkdtemp(prefix=".mimik-", dir=target.parent.parent if is_new_folder else target.parent)
    try:
        drafts, signed = Path(workplace, "draft"), Path(workplace, "signed")
        drafts.mkdir()
        signed.mkdir()
        # Numbered frames count as video, because they are usually encoded by another program.
        is_video = pattern is not None or target.suffix.lower() not in (*STILLS, ".gif")
        marker = Marker(claim.model, label=claim.label, is_video=is_video) if claim.is_synthetic else None
        draft = Draft(drafts / target.name, marker)
        yield draft

        # Sign; delete each draft once its signed copy exists, so that at most one file is on the disk twice.
        accepted = frame_names(pattern) if pattern else re.compile(re.escape(out.name))
        names = sorted(path.name for path in drafts.iterdir() if accepted.fullmatch(path.name))
        if not names or any((drafts / name).stat().st_size == 0 for name in names):
            raise MediaError(f"{out}: nothing was written, so no file is kept; try another format with -o.")
        assert draft.marker is None or draft.is_used, "synthetic frames were written past the draft, without a mark"
        for done, name in enumerate(names, start=1):
            title, suffix = name if pattern else claim.title, target.suffix.lower()
            with (
                _disk_full_reported(signed / name, (drafts / name).stat().st_size),
                (drafts / name).open("rb") as source,
                (signed / name).open("w+b") as copy,
            ):
                manifest = sign_stream(
                    source,
                    copy,
                    (MEDIA_TYPES | BESIDE)[suffix],
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
        with _sidecar_placed(sidecar_of(out), signed):
            for name in names:
                os.replace(signed / name, target.with_name(name))
        if pattern is not None:
            for path in target.parent.iterdir():
                if accepted.fullmatch(path.name) and path.name not in names:
                    path.unlink()
    except MediaError as error:
        # Report a full disk with the path of the output, not with that of its hidden draft.
        hidden = re.escape(str(Path(workplace))) + r"[/\\]\w+[/\\]"
        shown = "" if target.parent == Path() else f"{target.parent}{os.sep}"
        raise type(error)(re.sub(hidden, lambda _: shown, str(error))) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def _disk_full_reported(copy: Path, size: int) -> Iterator[None]:
    """Name the reason of a failed copy of this size if it is a full disk: the library reports it as a number."""
    try:
        yield
    except (MediaError, OSError) as error:
        if isinstance(error, MediaError) and shutil.disk_usage(copy.parent).free >= size:
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or os.strerror(errno.ENOSPC)
        raise MediaError(f"{copy} cannot be written ({reason}); free some space, or use another folder.") from error


@contextmanager
def _sidecar_placed(sidecar: Path | None, signed: Path) -> Iterator[None]:
    """Move the manifest beside its file before the block moves the file; on failure, restore the older manifest.

    Args: sidecar: from sidecar_of; signed: the folder of the new manifest.
    """
    if sidecar is None:
        yield
        return
    old = signed / "older manifest"
    if sidecar.exists():
        os.rename(sidecar, old)
    try:
        os.replace(signed / sidecar.name, sidecar)
        yield
    except BaseException:
        sidecar.unlink(missing_ok=True)
        if old.exists():
            os.rename(old, sidecar)
        raise
