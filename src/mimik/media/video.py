"""Pictures, videos and sound in and out; the only file of the package that opens media.

Outside this file a picture is uint8 RGB [H, W, 3], upright, and a video is an iterator of such pictures at a constant
rate whose first picture stands at time 0. Everything that goes wrong because of a file is a MediaError with one
sentence for the user.

Reading takes files by their content, never by their name, from a fixed list of formats and only from the local disk: a
playlist that was renamed to .mp4 cannot make this program fetch an address or open other files.
"""

from __future__ import annotations

import errno
import io
import itertools
import logging
import math
import os
import re
import struct
import tempfile
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import av
import av.filter
import cv2
import numpy as np
import pillow_heif
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from mimik.config import MediaError

logger = logging.getLogger(__name__)

Rgb = NDArray[np.uint8]  # [H, W, 3], 0..255
StrPath = str | os.PathLike[str]
Kind = Literal["image", "video"]
OutputKind = Literal["image", "video", "frames"]
T = TypeVar("T")

MAX_MEGAPIXELS = 100  # of one picture; refused before anything is decoded
MIN_SIDE_PX, MAX_SIDE_PX = 16, 16384  # of a written picture or video; the upper bound is that of x264
MIN_FPS, MAX_FPS = 1.0, 240.0
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # H.264, and ProRes in .mov
OUTPUTS = (
    ".mp4, .m4v, .mov, .mkv, .webm, .gif or .webp for a video, .png or .jpg for a picture, "
    "a folder for PNG frames or a pattern such as frames/%05d.webp"
)

pillow_heif.register_heif_opener()  # what phones take photos in

# Formats that Pillow may try. Left out: those that run other programs (EPS), only name what they found (MPEG, GRIB,
# HDF5) or take almost any bytes for theirs (TGA).
_PICTURE_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM"),
    *("ICO", "ICNS", "PCX", "PSD", "QOI", "SGI", "DDS"),
)
_ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")  # several pages of a TIFF or an MPO are no animation
# What Pillow's decoders let through when a file is damaged; found by flipping bytes.
_PICTURE_ERRORS = (
    *(
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        AttributeError,
        AssertionError,
        EOFError,
        LookupError,
        ArithmeticError,
    ),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)

# Demuxers that ffmpeg may try, by its names; none of them opens a second file or an address.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,obu,av1,asf,ogg,mxf,nut,rm,dv,"
    "yuv4mpegpipe,mjpeg,wav,w64,mp3,aac,flac,caf,aiff,ac3,eac3,amr,au"
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")

_RESAMPLE_TOLERANCE_S = 0.005  # timestamps are rounded (1 ms in WebM), phones' clocks jitter; a quarter frame at most
_MAX_GAP_S = 60.0  # a longer jump of the timestamps is a fault of the file, not a pause
_MAX_LAST_FRAME_S = 10.0
_HDR_TRANSFERS = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG

_DISK_ERRNOS = (
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
)

_COPIED_AUDIO = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"},
    "matroska": set(),  # it has no edit lists that would hide what copied sound needs before its start
}
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_OPUS_PREROLL_S = 0.08  # RFC 7845, Sec. 4.6: what a decoder needs to converge
_UNKNOWN_PACKET_S = Fraction(1, 10)  # longer than the sound packets of any codec that is copied
_GIF_PALETTE_BYTES = 64 << 20  # frames held at the start to choose the palette from: at most this much ...
_GIF_PALETTE_FRAMES = 24  # ... and at most so many


# ---------------------------------------------------------------------------------------------------------------------
# What a file is.


def kind(path: StrPath) -> Kind:
    """Whether a file holds a still picture or a moving one, by its content.

    An animated GIF, WebP, PNG or AVIF is a video; a TIFF with several pages is a picture.

    Raises:
        MediaError: if the file is missing, a folder, empty, sound only, or no format that can be read.
    """
    return "image" if _identify(Path(path)) == "still" else "video"


def _identify(path: Path) -> Literal["still", "animation", "container"]:
    _check_file(path)
    try:
        with _open_picture(path) as image:
            return "animation" if _is_animated(image) else "still"
    except UnidentifiedImageError:
        pass
    _refuse_heif(path)
    with closing(_open_container(path)) as container:
        _video_stream(container, path)
    return "container"


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder; give one picture or video file.")
        if not path.exists():
            raise MediaError(f"{path} does not exist; check the path.")
        if not path.is_file():
            raise MediaError(f"{path} is not an ordinary file; give a picture or video file on disk.")
        if path.stat().st_size == 0:
            raise MediaError(f"{path} is empty (0 bytes); copy or download it again.")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{path} cannot be opened ({reason}); check its path and permissions.") from error


def _refuse_heif(path: Path) -> None:
    """Pillow could not open the file; if it says that it is a HEIF picture, say what to do about it."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        raise MediaError(
            f"{path} is a damaged HEIC or AVIF picture, or of an unknown kind; convert it to JPEG or PNG first."
        )


# ---------------------------------------------------------------------------------------------------------------------
# Pictures.


def read_image(path: StrPath) -> Rgb:
    """One picture, upright, in sRGB; of an animation the first.

    The EXIF orientation is applied, embedded colour profiles are converted to sRGB, transparency is laid on white,
    16-bit and float pictures are scaled to 0..255.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        MediaError: if the file is no picture, damaged, or larger than MAX_MEGAPIXELS (known before anything is
        decoded).
    """
    path = Path(path)
    _check_file(path)
    try:
        with _open_picture(path) as image, warnings.catch_warnings(action="ignore"):
            _check_megapixels(path, image.width, image.height)
            image.load()
            return _upright(_to_rgb(image), image)
    except UnidentifiedImageError as error:
        if _identify(path) == "container":
            raise MediaError(f"{path} is a video; give a picture (JPEG, PNG, WebP, TIFF).") from error
        raise
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError(f"{path} does not fit into memory; give a smaller picture.") from error
    except _PICTURE_ERRORS as error:
        raise MediaError(f"{path} is damaged or incomplete ({_reason(error)}); give an intact JPEG or PNG.") from error


def _open_picture(path: Path) -> Image.Image:
    """Reads the header only.

    Raises:
        UnidentifiedImageError: if it is no picture.
        MediaError: if it is one with a damaged header or of an impossible size.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's own limit is lower and only warns
            return Image.open(path, formats=_PICTURE_FORMATS)
    except UnidentifiedImageError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path} has more than {MAX_MEGAPIXELS} megapixels; give a smaller picture.") from error
    except _PICTURE_ERRORS as error:
        raise MediaError(f"{path} has a damaged header ({_reason(error)}); give an intact JPEG or PNG.") from error


def _check_megapixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise MediaError(
            f"{path} has {width * height / 1e6:.0f} megapixels ({width}x{height}); "
            f"give a picture of at most {MAX_MEGAPIXELS} megapixels."
        )


def _is_animated(image: Image.Image) -> bool:
    try:
        return image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False)
    except _PICTURE_ERRORS:  # there is no intact second frame
        return False


def _to_rgb(image: Image.Image) -> Rgb:
    """A loaded Pillow image of any mode as uint8 RGB [H, W, 3] in sRGB, on white."""
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _to_8_bit(np.asarray(image))
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)

    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        image_rgb = _to_srgb(rgba.convert("RGB"), image.info.get("icc_profile"))
    else:
        image_rgb = _to_srgb(image, image.info.get("icc_profile"))
    rgb = np.array(image_rgb)
    return rgb if alpha is None else _on_white(rgb, alpha)


def _to_8_bit(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W] integers of 16 or 32 bits, or floats, as uint8; white follows from the type, else from the data."""
    if grey.dtype == np.uint16:
        return np.rint(grey / np.float32(257)).astype(np.uint8)
    values = np.nan_to_num(grey.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(values.max())
    whites = (1.0, 255.0, 65535.0) if grey.dtype.kind == "f" else (255.0, 65535.0)
    white = next((white for white in whites if peak <= white), peak)
    return np.rint(np.clip(values / white, 0.0, 1.0) * 255).astype(np.uint8)


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Mode RGB in sRGB, by the embedded profile where there is a usable one."""
    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.mode in ("P", "PA", "1", "YCbCr", "HSV", "LA", "La", "RGBX"):
        image = image.convert("RGB")
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = profile.profile.xcolor_space.strip()
            if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) == image.mode:
                converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
                assert converted is not None
                return converted
        except (ImageCms.PyCMSError, *_PICTURE_ERRORS) as error:
            logger.warning("unusable colour profile left out (%s)", _reason(error))
    return image.convert("RGB")


def _on_white(rgb: Rgb, alpha: NDArray[np.uint8]) -> Rgb:
    """rgb [H, W, 3] over white; alpha [H, W], straight."""
    weight = alpha.astype(np.float32)[..., None] / 255
    return np.rint(rgb * weight + 255 * (1 - weight)).astype(np.uint8)


def _upright(rgb: Rgb, image: Image.Image) -> Rgb:
    """Applies what is left of the EXIF orientation (Pillow has applied that of a TIFF while loading)."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except _PICTURE_ERRORS:
        orientation = 1
    # (transpose, mirror x, mirror y); EXIF 2.32, Sec. 4.6.4, tag 274.
    turns = {
        2: (False, True, False),
        3: (False, True, True),
        4: (False, False, True),
        5: (True, False, False),
        6: (True, True, False),
        7: (True, True, True),
        8: (True, False, True),
    }
    return _Turn(*turns[orientation])(rgb) if orientation in turns else rgb


@dataclass(frozen=True)
class _Turn:
    """How a stored picture is turned for display: transpose, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, rgb: Rgb) -> Rgb:
        if self.transpose:
            rgb = cv2.transpose(rgb)
        if self.mirror_x or self.mirror_y:
            rgb = cv2.flip(rgb, -1 if self.mirror_x and self.mirror_y else int(self.mirror_x))
        return rgb

    @property
    def degrees(self) -> int:
        """Clockwise; a mirrored picture counts as the nearest rotation."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0


def write_image(path: StrPath, rgb: Rgb) -> None:
    """Writes uint8 RGB [H, W, 3] as .png (lossless), .jpg/.jpeg (quality 95, full chroma) or .webp (quality 95).

    .png and .webp take RGBA [H, W, 4], too.

    Raises:
        MediaError: on another suffix, an impossible size or a file that cannot be written.
    """
    path = Path(path)
    assert rgb.dtype == np.uint8 and rgb.ndim == 3, "rgb must be uint8 [H, W, 3]"
    assert rgb.shape[2] == 3 or (rgb.shape[2] == 4 and keeps_alpha(path)), f"{path}, {rgb.shape[2]} channels"
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise MediaError(f"{path}: pictures are written as {', '.join(IMAGE_SUFFIXES)}; choose one of these.")
    _check_size(path, rgb.shape[1], rgb.shape[0])
    _save(path, rgb, {"compress_level": 6}, {"quality": 95})


def _save(path: Path, rgb: Rgb, png: dict[str, Any], webp: dict[str, Any]) -> None:
    options = {".png": ("PNG", png), ".webp": ("WEBP", webp)}
    name, settings = options.get(path.suffix.lower(), ("JPEG", {"quality": 95, "subsampling": 0}))
    try:
        Image.fromarray(np.ascontiguousarray(rgb)).save(path, name, **settings)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


# ---------------------------------------------------------------------------------------------------------------------
# Videos: what is in them.


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, for progress bars and decisions; read_frames measures again what it must be exact about."""

    path: Path
    width: int  # pixels as displayed: upright, with square pixels
    height: int
    fps: float  # average, MIN_FPS..MAX_FPS
    duration_s: float | None  # None: the file does not say
    num_frames: int | None  # estimate of what read_frames gives at `fps`
    has_audio: bool
    rotation: int  # degrees clockwise that the stored picture is turned for display: 0, 90, 180 or 270


def probe(path: StrPath) -> VideoInfo:
    """What a video holds; decodes one frame, so that a file without any is known before work starts.

    Raises:
        MediaError: if it is no video, has sound only, or no frame can be decoded.
    """
    path = Path(path)
    found = _identify(path)
    if found == "still":
        raise MediaError(f"{path} is a still picture; give a video.")
    if found == "animation":
        return _probe_animation(path)
    with closing(_open_container(path)) as container:
        stream = _video_stream(container, path)
        fps = float(_nominal_rate(path, stream))
        stream.codec_context.thread_count = 1  # the first frame comes without filling a pipeline
        first = _first_frame(container, stream, path)
        turn = _display_turn(first)
        width, height = _display_size(first, stream, None)
        duration_s = _duration_s(container, stream)
        return VideoInfo(
            path=path,
            width=height if turn.transpose else width,
            height=width if turn.transpose else height,
            fps=fps,
            duration_s=duration_s,
            num_frames=None if duration_s is None else max(1, round(duration_s * fps)),
            has_audio=_audio_stream(container) is not None,
            rotation=turn.degrees,
        )


def _probe_animation(path: Path) -> VideoInfo:
    num_frames, duration_s = 0, 0.0
    width = height = 0
    for start_s, length_s, rgb in _animation_frames(path):
        num_frames, duration_s = num_frames + 1, start_s + length_s
        height, width = rgb.shape[:2]
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        fps=min(max(num_frames / duration_s, MIN_FPS), MAX_FPS),
        duration_s=duration_s,
        num_frames=num_frames,
        has_audio=False,
        rotation=0,
    )


def _open_container(path: Path) -> Any:
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path.resolve()}", options=options, metadata_errors="replace")
    except (FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path} is damaged or in no format that can be read ({_reason(error)}); "
            "give a JPEG, PNG or WebP picture, or an MP4, MOV, WebM, MKV or AVI video."
        ) from error


def _video_stream(container: Any, path: Path) -> Any:
    """The best stream of moving pictures; a cover image is none."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        what = "sound but no picture" if container.streams.audio else "no picture in it"
        raise MediaError(f"{path} has {what}; give a video that shows a face.")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise MediaError(f"{path} uses a video codec that cannot be decoded here; convert it to MP4 with H.264 first.")
    return stream


def _audio_stream(container: Any) -> Any | None:
    stream = container.streams.best("audio")
    return stream if stream is not None and stream.codec_context is not None else None


def _nominal_rate(path: Path, stream: Any) -> Fraction:
    """Frames a second as the container says; as its timestamps say where that is not credible (browser recordings)."""
    rate = stream.average_rate or stream.guessed_rate
    if not rate or not MIN_FPS <= rate <= 120:
        rate = _measured_rate(path) or rate or Fraction(25)
    return _exact_rate(min(max(float(rate), MIN_FPS), MAX_FPS))


def _measured_rate(path: Path, num_packets: int = 240) -> Fraction | None:
    times: list[Fraction] = []
    with closing(_open_container(path)) as container, suppress(FFmpegError):
        stream = _video_stream(container, path)
        for packet in container.demux(stream):
            if packet.pts is not None:
                times.append(packet.pts * packet.time_base)
            if len(times) == num_packets:
                break
    if len(times) < 2 or max(times) == min(times):
        return None
    return (len(times) - 1) / (max(times) - min(times))


def _exact_rate(fps: float) -> Fraction:
    """29.97... as 30000/1001, so that reader and writer count the same instants however long the video is."""
    return Fraction(fps).limit_denominator(1001)


def _duration_s(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        duration_s = container.duration / av.time_base
        if stream.start_time and stream.time_base:
            # Matroska tells its end, the others how much lies between start and end.
            begin_s = 0.0 if "matroska" in container.format.name else (container.start_time or 0) / av.time_base
            duration_s -= float(stream.start_time * stream.time_base) - begin_s
        return duration_s if duration_s > 0 else None
    return None


def _display_turn(frame: Any) -> _Turn:
    """From the display matrix: (x, y) is shown at (a x + c y, b x + d y)."""
    for side_data in frame.side_data:
        if side_data.type == av.sidedata.sidedata.Type.DISPLAYMATRIX:
            a, b, _, c, d = struct.unpack("=5i", bytes(side_data)[:20])
            if abs(b) + abs(c) > abs(a) + abs(d):
                return _Turn(True, mirror_x=c < 0, mirror_y=b < 0)
            return _Turn(False, mirror_x=a < 0, mirror_y=d < 0)
    return _Turn()


def _display_size(frame: Any, stream: Any, max_side: int | None) -> tuple[int, int]:
    """(width, height) of the stored picture with square pixels, not turned yet, longer side at most max_side."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width = frame.width * (aspect if 0.1 <= aspect <= 10 else 1.0)
    height = float(frame.height)
    scale = 1.0 if max_side is None else min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


# ---------------------------------------------------------------------------------------------------------------------
# Videos: their frames.


def read_frames(
    path: StrPath, *, fps: float | None = None, max_side: int | None = None, num_threads: int | None = None
) -> Generator[Rgb]:
    """Frames of a video at a constant rate, from the first one on, for as long as the video lasts.

    Frame k is what the video shows k / fps seconds after its first frame: frames are repeated or left out as its
    timestamps, which may come at any rhythm, demand. Timestamps up to 5 ms (a quarter frame at most) late count as in
    time. VideoWriter's `audio_from` starts the sound at the same first frame, so lips and sound stay together.

    Turned upright, square pixels, SDR. The memory used does not grow with the length. What is damaged is skipped with a
    warning in the log; a file that was cut off gives what it has. When the resolution changes, frames keep the size of
    the first.

    Args:
        path: the video; also an animated GIF, WebP, PNG or AVIF.
        fps: frames a second to give; None: those of probe().
        max_side: longer side at most, in pixels; smaller videos are not enlarged.
        num_threads: of the decoder; None: up to four.

    Yields:
        uint8 RGB [H, W, 3], each an array of its own.

    Raises:
        MediaError: at the first frame, if it is no video or no frame can be decoded.
    """
    path = Path(path)
    found = _identify(path)
    if found == "still":
        raise MediaError(f"{path} is a still picture; give a video.")
    if found == "animation":
        rate = _exact_rate(fps or probe(path).fps)
        for rgb, repeated in _mark_repeats(_at_constant_rate(_animation_frames(path), rate)):
            rgb = _shrink(rgb, max_side)
            yield rgb.copy() if repeated else rgb
        return

    with closing(_open_container(path)) as container:
        stream = _video_stream(container, path)
        nominal = _nominal_rate(path, stream)
        rate = _exact_rate(fps) if fps else nominal
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads or min(4, os.cpu_count() or 1)
        convert: _ToRgb | None = None
        rgb = np.empty((0, 0, 3), np.uint8)
        timed = _timed_frames(_decoded(container, stream, path), float(1 / nominal), path)
        for frame, repeated in _mark_repeats(_at_constant_rate(timed, rate)):
            if convert is None:
                convert = _ToRgb(frame, _display_size(frame, stream, max_side))
            rgb = rgb.copy() if repeated else convert(frame)
            yield rgb
        if convert is None:
            raise _no_frame(path)


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Every frame that can be decoded, in order of display."""
    num_faults = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (FFmpegError, OSError) as error:
            logger.warning("%s: reading ends early (%s)", path, _reason(error))
            packet = None
        try:
            frames = stream.codec_context.decode(packet)
        except EOFError:
            frames = []
        except FFmpegError:
            num_faults += 1
            frames = []
        yield from frames
        # The demuxer's own empty packet or the one above has flushed the decoder.
        if packet is None or (packet.size == 0 and packet.dts is None):
            break
    if num_faults:
        logger.warning("%s: %d damaged packets skipped", path, num_faults)


def _first_frame(container: Any, stream: Any, path: Path) -> Any:
    frame = next(_decoded(container, stream, path), None)
    if frame is None:
        raise _no_frame(path)
    return frame


def _no_frame(path: Path) -> MediaError:
    return MediaError(
        f"{path} holds no frame that can be decoded (damaged, cut off or copy-protected); "
        "give an intact video, for example MP4 with H.264."
    )


def _timed_frames(frames: Iterable[Any], nominal_s: float, path: Path) -> Iterator[tuple[float, float, Any]]:
    """(start, duration, frame), seconds since the first frame; starts ascend strictly, whatever the file says."""
    origin_s: float | None = None
    last_s = -nominal_s
    for frame in frames:
        stamp_s = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        if stamp_s is None:
            stamp_s = last_s + nominal_s + (origin_s or 0.0)
        if origin_s is None:
            origin_s = stamp_s
        start_s = stamp_s - origin_s
        if start_s - last_s > _MAX_GAP_S or start_s - last_s < -1.0:
            logger.warning("%s: timestamps jump from %.2f s to %.2f s; the gap is closed", path, last_s, start_s)
            origin_s = stamp_s - (last_s + nominal_s)
            start_s = last_s + nominal_s
        if start_s <= last_s:
            continue
        last_s = start_s
        duration_s = float((frame.duration or 0) * (frame.time_base or 0))
        if duration_s < nominal_s / 2:  # some containers leave it out, others give one tick
            duration_s = nominal_s
        yield start_s, min(duration_s, _MAX_LAST_FRAME_S), frame


def _at_constant_rate(timed: Iterable[tuple[float, float, T]], rate: Fraction) -> Iterator[T]:
    """The item shown at each instant k / rate, until the last one's time is over; at least one if there is any.

    Args:
        timed: (start, duration, item), seconds; starts ascend from 0. Only the last item's duration matters.
        rate: instants a second.
    """
    step = 1 / rate
    tolerance_s = min(float(step) / 4, _RESAMPLE_TOLERANCE_S)
    count = 0
    current: list[T] = []  # nothing, or the newest item
    end_s = 0.0
    for start_s, duration_s, item in timed:
        while current and float(count * step) + tolerance_s < start_s:
            yield current[0]
            count += 1
        current, end_s = [item], start_s + duration_s
    while current and (count == 0 or float(count * step) + tolerance_s < end_s):
        yield current[0]
        count += 1


def _mark_repeats(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Each item with whether it is the very object that came before it."""
    last: list[T] = []
    for item in items:
        yield item, bool(last) and item is last[0]
        last = [item]


class _ToRgb:
    """Decoded frames of any pixel format, size and colour space as upright uint8 RGB of one size."""

    def __init__(self, first: Any, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.turn = _display_turn(first)
        self.reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Rgb:
        # Without a tag players take BT.709 from 720 lines on and BT.601 below.
        options: dict[str, Any] = {"width": self.width, "height": self.height, "interpolation": Interpolation.AREA}
        if frame.colorspace == 2:  # AVCOL_SPC_UNSPECIFIED
            options["src_colorspace"] = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
        if any(component.is_alpha for component in frame.format.components):
            rgba: Any = self.reformatter.reformat(frame, format="rgba", **options).to_ndarray()
            return self.turn(_on_white(rgba[..., :3], rgba[..., 3]))
        if frame.color_trc in _HDR_TRANSFERS:
            sdr = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
            with suppress(FFmpegError):
                return self._turned(frame, {**options, **sdr})
        return self._turned(frame, options)

    def _turned(self, frame: Any, options: dict[str, Any]) -> Rgb:
        stored: Any = self.reformatter.reformat(frame, format="rgb24", **options).to_ndarray()
        rgb = self.turn(stored)
        # Not turned it is a view with padded rows, for RGB codecs of the very picture that the decoder still refers to.
        return rgb.copy() if rgb is stored else rgb


def _animation_frames(path: Path) -> Iterator[tuple[float, float, Rgb]]:
    """(start, duration, frame), seconds, of an animated picture."""
    start_s = 0.0
    with _open_picture(path) as image:
        _check_megapixels(path, image.width, image.height)
        for index in itertools.count():
            try:
                image.seek(index)
                image.load()
                rgb = _to_rgb(image)
            except _PICTURE_ERRORS as error:
                if index == 0:
                    raise _no_frame(path) from error
                if isinstance(error, EOFError):  # the regular end
                    break
                logger.warning("%s: reading ends early at frame %d (%s)", path, index, _reason(error))
                break
            milliseconds = float(image.info.get("duration") or 0)
            duration_s = milliseconds / 1000 if milliseconds > 10 else 0.1  # as browsers do
            yield start_s, duration_s, rgb
            start_s += duration_s


def _shrink(rgb: Rgb, max_side: int | None) -> Rgb:
    height, width = rgb.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return rgb
    scale = max_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


# ---------------------------------------------------------------------------------------------------------------------
# Writing.


def output_kind(path: StrPath) -> OutputKind:
    """What would be written to this path, known from its name alone; call it before any work is done.

    "video" for .mp4, .m4v, .mov, .mkv, .webm, .gif and .webp; "image" for .png, .jpg and .jpeg; "frames" for a folder
    (an existing one, or a name without a suffix) and for a pattern such as frames/%05d.webp.

    Raises:
        MediaError: on anything else.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if "%" in path.name:
        if _PATTERN.fullmatch(path.name) and suffix in IMAGE_SUFFIXES:
            return "frames"
        raise MediaError(
            f"{path}: a pattern has one %05d and ends in .png, .jpg or .webp; give one such as frames/%05d.webp."
        )
    if path.is_dir() or (not suffix and not path.exists()):
        return "frames"
    if suffix in (*CONTAINERS, ".webm", ".gif", ".webp"):
        return "video"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    raise MediaError(f"{path} cannot be written as {suffix or 'a file without a suffix'}; give {OUTPUTS}.")


def keeps_alpha(path: StrPath) -> bool:
    """Whether what is written to this path can be transparent: .png, .webp, .webm, .mov, and folders of frames."""
    path = Path(path)
    suffix = path.suffix.lower()
    return suffix in (".png", ".webp", ".webm", ".mov") or ("%" not in path.name and output_kind(path) == "frames")


def open_writer(
    path: StrPath,
    width: int,
    height: int,
    fps: float,
    *,
    quality: int = 18,
    audio_from: StrPath | None = None,
    alpha: bool = False,
) -> Writer:
    """The writer for a path's suffix, folder or pattern; see output_kind.

    Args:
        path: where to write; an existing file is overwritten. Its folder must exist, a folder of frames is made.
        width: of the frames, in pixels.
        height: likewise.
        fps: frames a second.
        quality: 0 (best) .. 51, on the scale of x264's constant rate factor; not for .gif, frames and ProRes.
        audio_from: a file whose sound goes along; .mp4, .m4v, .mov and .mkv can hold it, the others say so in the log.
        alpha: frames are RGBA, straight; see keeps_alpha. A .mov is ProRes 4444 then, a .webm VP9 with alpha.

    Raises:
        MediaError: if the name, the size or the place is not possible, or `audio_from` cannot be opened.
    """
    path = Path(path)
    what = output_kind(path)
    suffix = path.suffix.lower()
    if what == "image":
        raise MediaError(f"{path} holds one picture; for a video give {OUTPUTS}.")
    assert not alpha or keeps_alpha(path), path
    if what == "video" and suffix in CONTAINERS:
        return VideoWriter(path, width, height, fps, quality=quality, audio_from=audio_from, alpha=alpha)
    if audio_from is not None:
        logger.info("%s cannot hold sound; that of %s is left out", path, audio_from)
    if what == "frames":
        return FramesWriter(path, width, height, fps, alpha=alpha)
    if suffix == ".gif":
        return GifWriter(path, width, height, fps)
    kind = WebmWriter if suffix == ".webm" else WebpWriter
    return kind(path, width, height, fps, quality=quality, alpha=alpha)


class Writer(ABC):
    """Takes the frames of one video one by one; a context manager.

    What stands on disk before close() has returned, or after an error, is incomplete; removing it is the caller's task.
    """

    max_side_px = MAX_SIDE_PX

    def __init__(self, path: StrPath, width: int, height: int, fps: float, *, alpha: bool = False) -> None:
        self.path = Path(path)
        self.width, self.height = width, height
        self.num_channels = 4 if alpha else 3
        self.num_frames = 0  # written so far
        self._closed = self._failed = False
        _check_size(self.path, width, height, self.max_side_px)
        if not (math.isfinite(fps) and MIN_FPS <= fps <= MAX_FPS):
            raise MediaError(f"{self.path}: {fps} frames a second; give {MIN_FPS:g} to {MAX_FPS:g}.")
        self._rate = _exact_rate(fps)

    def write(self, frame: Rgb) -> None:
        """Appends one frame, uint8 RGB [height, width, 3], or RGBA [height, width, 4] where it was opened for that.

        Raises:
            MediaError: if it cannot be written (disk full, no permission).
        """
        assert not self._closed, "write() after close()"
        assert frame.dtype == np.uint8, f"frame is {frame.dtype}, not uint8"
        shape = self.height, self.width, self.num_channels
        assert frame.shape == shape, f"frame {frame.shape}, not {shape}"
        try:
            self._append(frame)
        except MediaError:
            self._failed = True
            raise
        except (OSError, FFmpegError, ValueError) as error:
            self._failed = True
            raise _unwritable(self.path, error) from error
        self.num_frames += 1

    def close(self) -> None:
        """Completes the file; a second call, or one after an error, only lets go of it.

        Raises:
            MediaError: if the file cannot be completed or no frame was written.
        """
        if self._closed:
            return
        self._closed = True
        if self._failed or not self.num_frames:
            self._release()
            if not self._failed:
                raise MediaError(f"{self.path} got no frame; give a driving video that has at least one.")
            return
        try:
            self._finish()
        except (OSError, FFmpegError, ValueError) as error:
            self._release()
            raise _unwritable(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._failed = self._failed or error_type is not None
        self.close()

    @abstractmethod
    def _append(self, frame: Rgb) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _release(self) -> None:
        """Lets go of open files without completing them; raises nothing."""


class _StreamWriter(Writer):
    """A writer whose pictures are one stream of one container of PyAV."""

    _container: Any
    _stream: Any

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _release(self) -> None:
        with suppress(FFmpegError, OSError, ValueError):
            self._container.close()


class VideoWriter(_StreamWriter):
    """H.264 in .mp4, .m4v, .mov or .mkv, or ProRes 4444 with alpha in .mov, with the sound of another file.

    4:2:0 colour needs even sizes: an odd width or height loses its last column or row. Colours are BT.709, limited
    range, and tagged so. `quality` 0 is written as 1, because lossless H.264 plays hardly anywhere.

    Sound: packets of `audio_from` are copied unchanged where the container can hold them, else they are transcoded to
    AAC. Time 0 is the first frame of the video in `audio_from` (see read_frames), or its start if it has none; the
    sound ends with the video. Broken sound is left out with a warning in the log.
    """

    def __init__(
        self,
        path: StrPath,
        width: int,
        height: int,
        fps: float,
        *,
        quality: int = 18,
        audio_from: StrPath | None = None,
        preset: str = "veryfast",
        gop: int | None = None,
        num_threads: int | None = None,
        alpha: bool = False,
    ) -> None:
        """The sizes, fps, quality, audio_from and alpha are those of open_writer.

        Args:
            preset: x264's trade of time for size.
            gop: every so many frames one that can be decoded alone; None: x264 chooses.
            num_threads: of the encoder, whose output depends on it; None: x264 chooses.
        """
        super().__init__(path, width, height, fps, alpha=alpha)
        container_name = CONTAINERS.get(self.path.suffix.lower())
        if container_name is None:
            raise MediaError(f"{self.path} cannot be written as H.264; give {', '.join(CONTAINERS)}.")
        assert 0 <= quality <= 51, f"quality {quality}"
        if audio_from is not None:
            _check_file(Path(audio_from))
        self._codec, self._format = ("prores_ks", "yuva444p10le") if alpha else ("libx264", "yuv420p")
        self._options = {"crf": str(max(1, quality)), "preset": preset, "profile": "high"}
        if alpha:
            self._options = {"profile": "4444", "vendor": "apl0"}
        if gop is not None:
            self._options |= {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
        self._num_threads = num_threads
        self._reformatter = VideoReformatter()
        self._sound = _open_sound(Path(audio_from), container_name) if audio_from is not None else None
        try:
            self._open(container_name)
        except (FFmpegError, OSError, ValueError) as error:
            if self._sound is None or getattr(error, "errno", None) in _DISK_ERRNOS:
                raise _unwritable(self.path, error) from error
            # The header may have been refused because of the sound.
            self._drop_sound(error)
            try:
                self._open(container_name)
            except (FFmpegError, OSError, ValueError) as second:
                raise _unwritable(self.path, second) from second

    def _open(self, container_name: str) -> None:
        options = {} if container_name == "matroska" else {"movflags": "+faststart"}
        self._container = av.open(f"file:{self.path.absolute()}", "w", format=container_name, container_options=options)
        try:
            stream = self._container.add_stream(self._codec, rate=self._rate, options=self._options)
            stream.width, stream.height = self.width // 2 * 2, self.height // 2 * 2
            stream.pix_fmt = self._format
            if self._num_threads is not None:
                stream.codec_context.thread_count = self._num_threads
            stream.codec_context.time_base = 1 / self._rate
            stream.colorspace = stream.color_primaries = stream.color_trc = 1  # BT.709 in each of the three lists
            stream.color_range = ColorRange.MPEG
            self._stream = stream
            if self._sound is not None:
                self._sound.add_to(self._container)
            self._container.start_encoding()
        except (FFmpegError, OSError, ValueError):
            self._release()
            raise

    def _append(self, frame: Rgb) -> None:
        even = np.ascontiguousarray(frame[: self._stream.height, : self._stream.width])
        picture = _coded(self._reformatter, even, self._format)
        picture.pts = self.num_frames
        picture.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._mux_sound(Fraction(self.num_frames + 1) / self._rate)

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._mux_sound(self.num_frames / self._rate, last=True)
        self._container.close()
        if self._sound is not None:
            self._sound.close()

    def _mux_sound(self, until_s: Fraction, last: bool = False) -> None:
        """Sound up to a time on the video's axis, so that the two lie side by side in the file."""
        if self._sound is None:
            return
        packets = self._sound.packets(until_s, last)
        while True:
            try:
                packet = next(packets, None)
            except (FFmpegError, ValueError, OSError) as error:
                self._drop_sound(error)
                return
            if packet is None:
                return
            try:
                self._container.mux(packet)
            except (FFmpegError, ValueError, OSError) as error:
                if getattr(error, "errno", None) in _DISK_ERRNOS:
                    raise
                self._drop_sound(error)
                return

    def _drop_sound(self, error: BaseException) -> None:
        assert self._sound is not None
        logger.warning("%s: the sound is broken and left out from here on (%s)", self._sound.path, _reason(error))
        self._sound.close()
        self._sound = None

    def _release(self) -> None:
        super()._release()
        if self._sound is not None:
            self._sound.close()


def _coded(reformatter: VideoReformatter, frame: Rgb, pixel_format: str) -> Any:
    """A frame of PyAV in BT.709, limited range, for uint8 RGB or RGBA [H, W, C]."""
    picture = reformatter.reformat(
        av.VideoFrame.from_numpy_buffer(frame, "rgba" if frame.shape[2] == 4 else "rgb24"),
        format=pixel_format,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BILINEAR,
    )
    picture.color_primaries = picture.color_trc = 1
    return picture


class WebmWriter(_StreamWriter):
    """VP9 in .webm, without sound; with alpha it is what browsers and OBS show transparent."""

    def __init__(
        self, path: StrPath, width: int, height: int, fps: float, *, quality: int = 18, alpha: bool = False
    ) -> None:
        super().__init__(path, width, height, fps, alpha=alpha)
        assert 0 <= quality <= 51, f"quality {quality}"
        # Its scale ends at 63. Frames from the future would need an alpha of their own, for which there is no place.
        options = {"crf": str(round(quality * 63 / 51)), "b": "0", "deadline": "realtime", "cpu-used": "7"}
        options |= {"row-mt": "1", "auto-alt-ref": "0", "lag-in-frames": "0"}
        self._format = "yuva420p" if alpha else "yuv420p"
        self._reformatter = VideoReformatter()
        try:
            self._container = av.open(f"file:{self.path.absolute()}", "w", format="webm")
            self._stream = self._container.add_stream("libvpx-vp9", rate=self._rate, options=options)
            self._stream.width, self._stream.height = width // 2 * 2, height // 2 * 2
            self._stream.pix_fmt = self._format
            self._stream.codec_context.time_base = 1 / self._rate
            self._stream.colorspace = self._stream.color_primaries = self._stream.color_trc = 1  # BT.709
            self._stream.color_range = ColorRange.MPEG
            if alpha:
                self._stream.metadata["alpha_mode"] = "1"
            self._container.start_encoding()
        except (FFmpegError, OSError, ValueError) as error:
            raise _unwritable(self.path, error) from error

    def _append(self, frame: Rgb) -> None:
        even = np.ascontiguousarray(frame[: self._stream.height, : self._stream.width])
        picture = _coded(self._reformatter, even, self._format)
        picture.pts, picture.time_base = self.num_frames, 1 / self._rate
        self._container.mux(self._stream.encode(picture))


def frame_of(rgb: Rgb) -> Any:
    """uint8 RGB [H, W, 3] as a frame of PyAV, for streams that are not files; without a time."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")


def rgb_of(frame: Any) -> Rgb:
    """A frame of PyAV that came by such a stream, as uint8 RGB [H, W, 3]."""
    return np.asarray(frame.to_ndarray(format="rgb24"))


def encode_clip(frames: Iterable[Rgb], fps: float, *, quality: int, gop: int, preset: str = "medium") -> bytes:
    """Frames of training data as H.264 in MP4, in memory; the same bytes on every machine with the same libraries.

    Args:
        frames: uint8 RGB [H, W, 3], at least one, all of one even size.
        fps: frames a second.
        quality: x264's constant rate factor, 0 (best) .. 51.
        gop: every so many frames one that can be decoded alone.
        preset: x264's trade of time for size.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    with tempfile.TemporaryDirectory(prefix="mimik-", dir=_memory_folder()) as folder:
        path = Path(folder, "clip.mp4")
        with VideoWriter(path, width, height, fps, quality=quality, preset=preset, gop=gop, num_threads=1) as writer:
            for frame in itertools.chain([first], frames):
                writer.write(frame)
        return path.read_bytes()


def read_clip(mp4: bytes, numbers: Iterable[int]) -> list[Rgb]:
    """Some frames of what encode_clip gave: uint8 RGB [H, W, 3] each.

    Args:
        mp4: the clip.
        numbers: of the frames, ascending, from 0.
    """
    wanted = set(numbers)
    with tempfile.TemporaryDirectory(prefix="mimik-", dir=_memory_folder()) as folder:
        path = Path(folder, "clip.mp4")
        path.write_bytes(mp4)
        with closing(read_frames(path, num_threads=1)) as frames:
            last = max(wanted, default=-1)
            return [rgb for i, rgb in enumerate(itertools.islice(frames, last + 1)) if i in wanted]


def _memory_folder() -> str | None:
    """Where small temporary files never reach a disk, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class _Sound(ABC):
    """The sound of a file on the time axis of the written video."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path, self._input, self._source = path, container, stream
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all  # nothing but sound is read from disk
        self._origin_s = _origin_s(path)
        self._demuxed = (packet for packet in container.demux(stream) if packet.pts is not None and packet.size)
        self._next = next(self._demuxed, None)
        if self._next is None:
            raise ValueError("no sound packet in it")

    @abstractmethod
    def add_to(self, output: Any) -> None:
        """Adds the stream to the container that is written; may be called again for another container."""

    @abstractmethod
    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        """What starts before a time and was not given before; `last` says that no more will be asked for."""

    def _source_packets(self, until_s: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """(start on the video's axis, packet of the source), in order."""
        while self._next is not None:
            start_s = self._next.pts * self._next.time_base - self._origin_s
            if start_s >= until_s:
                return
            packet, self._next = self._next, None
            yield start_s, packet
            self._next = next(self._demuxed, None)

    def close(self) -> None:
        self._input.close()


class _CopiedSound(_Sound):
    """Packets as they are, only their timestamps are moved."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        super().__init__(path, container, stream)
        self._preroll_s = _OPUS_PREROLL_S if stream.codec_context.name in ("opus", "libopus") else 0.0
        self._last_dts: int | None = None

    def add_to(self, output: Any) -> None:
        self._target = output.add_stream_from_template(self._source)

    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        for start_s, packet in self._source_packets(until_s):
            # Decoders need what comes just before: one packet, more for Opus. Players skip it (edit list).
            duration_s = packet.duration * packet.time_base if packet.duration else _UNKNOWN_PACKET_S
            if start_s + duration_s + max(duration_s, self._preroll_s) <= 0:
                continue
            if packet.dts is None or (self._last_dts is not None and packet.dts <= self._last_dts):
                continue
            self._last_dts = packet.dts
            shift = round(self._origin_s / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = self._target
            yield packet


class _TranscodedSound(_Sound):
    """Decoded, laid on the video's axis sample by sample (gaps are silence), and encoded as AAC."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        super().__init__(path, container, stream)
        rate = stream.codec_context.sample_rate
        self._rate = min(_AAC_RATES, key=lambda known: abs(known - rate))
        self._layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        self._samples = np.empty((1 if self._layout == "mono" else 2, 0), np.float32)  # decoded, not encoded yet
        self._start: int | None = None  # samples from the video's start to the next sample of the resampler
        self._sent = 0  # samples given to the encoder

    def add_to(self, output: Any) -> None:
        self._target = output.add_stream("aac", rate=self._rate, layout=self._layout, bit_rate=128_000)

    def packets(self, until_s: Fraction, last: bool) -> Iterator[Any]:
        for start_s, packet in self._source_packets(until_s):
            try:
                frames = self._source.codec_context.decode(packet)
            except FFmpegError:
                continue  # the gap is filled with silence
            for frame in frames:
                time_s = start_s if frame.pts is None else frame.pts * frame.time_base - self._origin_s
                self._lay(frame, round(time_s * self._rate))
            yield from self._encode()
        if last:
            # Cut at the end of the video.
            end = round(until_s * self._rate)
            self._samples = self._samples[:, : max(0, end - self._sent)]
            yield from (
                packet for packet in self._encode(rest=True) if packet.pts * packet.time_base * self._rate < end
            )

    def _lay(self, frame: Any, start: int) -> None:
        frame.pts = None
        chunks = [part.to_ndarray() for part in self._resampler.resample(frame)]
        chunk = np.concatenate(chunks, axis=1) if chunks else self._samples[:, :0]
        position = self._sent + self._samples.shape[1]
        if self._start is None or abs(start - self._start) > self._rate // 20:
            self._start = start
        gap = self._start - position
        self._start += chunk.shape[1]
        if gap < 0:
            chunk = chunk[:, -gap:]
        elif gap:
            if gap > _MAX_GAP_S * self._rate:
                raise ValueError(f"{gap / self._rate:.0f} s are missing")
            chunk = np.pad(chunk, ((0, 0), (gap, 0)))
        self._samples = np.concatenate([self._samples, chunk.astype(np.float32)], axis=1)

    def _encode(self, rest: bool = False) -> Iterator[Any]:
        size = 1024  # samples of an AAC frame
        while self._samples.shape[1] >= size or (rest and self._samples.shape[1]):
            block, self._samples = self._samples[:, :size], self._samples[:, size:]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
            frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._sent
            self._sent += block.shape[1]
            yield from self._target.encode(frame)
        if rest:
            yield from self._target.encode(None)


def _open_sound(path: Path, container_name: str) -> _Sound | None:
    """The sound of a file; None if it has none, or none that can be read, which is said in the log."""
    container = _open_container(path)
    try:
        stream = _audio_stream(container)
        if stream is not None:
            copied = stream.codec_context.codec.canonical_name in _COPIED_AUDIO[container_name]
            return (_CopiedSound if copied else _TranscodedSound)(path, container, stream)
    except (FFmpegError, ValueError, OSError) as error:
        logger.warning("%s: the sound cannot be read and is left out (%s)", path, _reason(error))
    container.close()
    return None


def _origin_s(path: Path) -> Fraction:
    """The time, in the file's own clock, that is time 0 of what read_frames gives."""
    with closing(_open_container(path)) as container:
        try:
            stream = _video_stream(container, path)
            stream.codec_context.thread_count = 1
            first = _first_frame(container, stream, path)
            if first.pts is not None:
                return first.pts * first.time_base
        except MediaError:
            pass  # sound only
        return Fraction(container.start_time or 0, av.time_base)


class GifWriter(_StreamWriter):
    """Animated GIF that repeats for ever: one palette of 256 colours, from the first frames, and ordered dithering.

    GIF counts in hundredths of a second and players slow down below two of them: more than 50 frames a second are
    thinned out.
    """

    def __init__(self, path: StrPath, width: int, height: int, fps: float) -> None:
        super().__init__(path, width, height, fps)
        self._held: list[Rgb] | None = []  # None once the palette is chosen
        self._last_centisecond = -2
        try:
            options = {"loop": "0", "final_delay": str(max(2, round(100 / self._rate)))}
            self._container = av.open(f"file:{self.path.absolute()}", "w", format="gif", container_options=options)
            self._stream = self._container.add_stream("gif", rate=100)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "pal8"
            self._stream.codec_context.time_base = Fraction(1, 100)
            self._container.start_encoding()
        except (FFmpegError, OSError, ValueError) as error:
            raise _unwritable(self.path, error) from error

    def _append(self, frame: Rgb) -> None:
        if self._held is None:
            self._encode(frame, self.num_frames)
            return
        self._held.append(frame.copy())
        if len(self._held) >= min(_GIF_PALETTE_FRAMES, 1 + _GIF_PALETTE_BYTES // frame.nbytes):
            self._choose_palette()

    def _choose_palette(self) -> None:
        held, self._held = self._held or [], None
        palette_graph, source, sink = self._graph("palettegen", "reserve_transparent=0:stats_mode=full")
        palette_graph.configure()
        for index, frame in enumerate(held):
            source.push(self._picture(frame, index))
        source.push(None)
        palette = sink.pull()
        self._dither, self._source, self._sink = self._graph("paletteuse", "dither=bayer:bayer_scale=3")
        palette_size = {"width": palette.width, "height": palette.height}
        chosen = self._dither.add_buffer(**palette_size, format="bgra", time_base=Fraction(1, 100))
        chosen.link_to(self._paletteuse, 0, 1)
        self._dither.configure()
        palette.pts = 0
        chosen.push(palette)
        chosen.push(None)
        for index, frame in enumerate(held):
            self._encode(frame, index)

    def _graph(self, name: str, options: str) -> tuple[Any, Any, Any]:
        """(graph, source, sink) around one filter; its second input is left open."""
        graph = av.filter.Graph()
        source = graph.add_buffer(width=self.width, height=self.height, format="bgra", time_base=Fraction(1, 100))
        node = graph.add(name, options)
        sink = graph.add("buffersink")
        source.link_to(node)
        node.link_to(sink)
        self._paletteuse = node
        return graph, source, sink

    def _picture(self, frame: Rgb, pts: int) -> Any:
        picture = av.VideoFrame.from_ndarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGRA), "bgra")
        picture.pts, picture.time_base = pts, Fraction(1, 100)
        return picture

    def _encode(self, frame: Rgb, index: int) -> None:
        centisecond = round(index * 100 / self._rate)
        if centisecond - self._last_centisecond < 2:
            return
        self._last_centisecond = centisecond
        self._source.push(self._picture(frame, centisecond))
        self._container.mux(self._stream.encode(self._sink.pull()))

    def _finish(self) -> None:
        if self._held is not None:
            self._choose_palette()
        super()._finish()


class WebpWriter(_StreamWriter):
    """Animated WebP that repeats for ever. The compressed frames stay in memory until the end; the pictures do not."""

    max_side_px = 16383  # of the format

    def __init__(
        self, path: StrPath, width: int, height: int, fps: float, *, quality: int = 18, alpha: bool = False
    ) -> None:
        super().__init__(path, width, height, fps, alpha=alpha)
        assert 0 <= quality <= 51, f"quality {quality}"
        # 0 -> 100, 18 -> 90, 51 -> 20 on WebP's scale: about what x264 gives for the same number.
        options = {"quality": str(round(100 - 80 * (quality / 51) ** 2)), "compression_level": "2", "lossless": "0"}
        try:
            loop = {"loop": "0"}
            self._container = av.open(f"file:{self.path.absolute()}", "w", format="webp", container_options=loop)
            self._stream = self._container.add_stream("libwebp_anim", rate=self._rate, options=options)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "bgra"
            self._stream.codec_context.time_base = Fraction(1, 1000)
            self._container.start_encoding()
        except (FFmpegError, OSError, ValueError) as error:
            raise _unwritable(self.path, error) from error

    def _append(self, frame: Rgb) -> None:
        order = cv2.COLOR_RGBA2BGRA if self.num_channels == 4 else cv2.COLOR_RGB2BGRA
        picture = av.VideoFrame.from_ndarray(cv2.cvtColor(frame, order), "bgra")
        picture.pts, picture.time_base = round(self.num_frames * 1000 / self._rate), Fraction(1, 1000)
        self._container.mux(self._stream.encode(picture))


_PATTERN = re.compile(r"[^%]*%(0\d+)?d[^%]*")


class FramesWriter(Writer):
    """A numbered picture for each frame, from 0 on: lossless PNG or WebP, or JPEG.

    `path` is a folder (made if missing; 00000.png and so on) or a pattern such as frames/%05d.webp.
    """

    def __init__(self, path: StrPath, width: int, height: int, fps: float, *, alpha: bool = False) -> None:
        super().__init__(path, width, height, fps, alpha=alpha)
        self._pattern = self.path if "%" in self.path.name else self.path / "%05d.png"
        if not _PATTERN.fullmatch(self._pattern.name) or self._pattern.suffix.lower() not in IMAGE_SUFFIXES:
            raise MediaError(f"{self.path}: give a folder or a pattern such as frames/%05d.webp.")
        if self._pattern.suffix.lower() == ".webp":
            _check_size(self.path, width, height, WebpWriter.max_side_px)
        try:
            self._pattern.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _append(self, frame: Rgb) -> None:
        path = self._pattern.with_name(self._pattern.name % self.num_frames)
        # Exact: the mark lies under what is transparent, too.
        webp = {"lossless": True, "quality": 20, "method": 1, "exact": True}
        _save(path, frame, {"compress_level": 1}, webp)

    def _finish(self) -> None:
        """Each frame is complete by itself."""

    def _release(self) -> None:
        """Nothing stays open."""


def _check_size(path: Path, width: int, height: int, max_side_px: int = MAX_SIDE_PX) -> None:
    if not (MIN_SIDE_PX <= width <= max_side_px and MIN_SIDE_PX <= height <= max_side_px):
        raise MediaError(
            f"{path} would be {width}x{height} pixels; each side must be {MIN_SIDE_PX} to {max_side_px}, "
            "choose another size."
        )


def _unwritable(path: Path, error: BaseException) -> MediaError:
    if not path.parent.is_dir():
        return MediaError(f"{path} cannot be written, its folder does not exist; make it or give another place.")
    return MediaError(
        f"{path} cannot be written ({_reason(error)}); free some space, check permissions or give another place."
    )


def _reason(error: BaseException) -> str:
    """A few words of somebody else's exception, fit for the middle of a sentence."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".")[:120]
