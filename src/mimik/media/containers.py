"""Opens local media files by content, from a fixed list of formats; media errors for the user.

A playlist that was renamed to .mp4 cannot make this program fetch an address or open other files. Every failure caused
by a file is a MediaError with a one-sentence message.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from mimik.config import MediaError

Rgb = NDArray[np.uint8]  # [H, W, 3], 0..255
MIN_FPS, MAX_FPS = 1.0, 240.0
# Demuxers that ffmpeg may try, by its names; none of them opens a second file or an address.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,obu,av1,asf,ogg,mxf,nut,rm,dv,"
    "yuv4mpegpipe,mjpeg,wav,w64,mp3,aac,flac,caf,aiff,ac3,eac3,amr,au"
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


def refuse_heif(path: Path) -> None:
    """Raise MediaError with advice if a file that Pillow could not open identifies itself as HEIF."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        raise MediaError(
            f"{path} is a damaged HEIC or AVIF picture, or of an unsupported kind; convert it to JPEG or PNG first."
        )


_READABLE = "a JPEG, PNG or WebP picture, or an MP4, MOV, WebM, MKV or AVI video"


def open_container(path: Path, readable: str = _READABLE) -> Any:
    """Open a file with PyAV; readable: accepted formats, for the error message."""
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path.resolve()}", options=options, metadata_errors="replace")
    except (FFmpegError, OSError, ValueError) as error:
        why = reason_of(error)
        said = "" if why.startswith("Invalid ") else f" ({why})"  # adds no information
        raise MediaError(f"{path} is damaged or in an unsupported format{said}; use {readable}.") from error


def video_stream(container: Any, path: Path) -> Any:
    """The best video stream; cover images are excluded."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        what = "sound but no picture" if container.streams.audio else "no picture in it"
        raise MediaError(f"{path} has {what}; use a video that shows a face.")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise MediaError(f"{path} uses a video codec that cannot be decoded here; convert it to MP4 with H.264 first.")
    return stream


def audio_stream(container: Any) -> Any | None:
    stream = container.streams.best("audio")
    return stream if stream is not None and stream.codec_context is not None else None


def exact_rate(fps: float) -> Fraction:
    """29.97... as 30000/1001, so that reader and writer compute the same timestamps for any duration."""
    return Fraction(fps).limit_denominator(1001)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Convert errors of the block that writes a file to MediaError."""
    try:
        yield
    except MediaError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        if not path.parent.is_dir():
            raise MediaError(
                f"{path} cannot be written, its folder does not exist; create it first, or use another one."
            ) from error
        raise MediaError(
            f"{path} cannot be written ({reason_of(error)}); free some space, check permissions, or use another folder."
        ) from error


def reason_of(error: BaseException) -> str:
    """A short description of an exception of another library, to be used inside a sentence."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".")[:120]


DISK_ERRNOS = (
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
)
