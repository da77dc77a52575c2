"""Video input: properties of a video, and its frames at a constant rate."""

from __future__ import annotations

import itertools
import logging
import os
import re
import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import av.filter
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

from mimik.config import MediaError, counted
from mimik.media.containers import (
    MAX_FPS,
    MIN_FPS,
    Rgb,
    audio_stream,
    exact_rate,
    open_container,
    reason_of,
    video_stream,
)
from mimik.media.formats import StrPath
from mimik.media.pictures import PICTURE_ERRORS, Turn, check_megapixels, identify, on_white, open_picture, to_rgb

log = logging.getLogger(__name__)

Item = TypeVar("Item")
_RESAMPLE_TOLERANCE_S = 0.005  # for rounded (1 ms in WebM) and jittering timestamps; at most a quarter frame
MAX_GAP_S = 60.0  # a longer jump of the timestamps is an error of the file, not a pause
_MAX_LAST_FRAME_S = 10.0
_WHOLE, _CUT_S = 0.95, 0.5  # warn if less than this share was read and more seconds than this are missing
_HDR_TRANSFERS = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
# Weights of red and blue in luma, by AVColorSpace: BT.709, BT.601 (PAL, NTSC).
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, for progress bars and decisions; read_frames measures exact values itself."""

    path: Path
    width: int  # pixels as displayed: upright, square pixels
    height: int
    fps: float  # average, MIN_FPS..MAX_FPS
    duration_s: float | None  # None: not stated in the file
    num_frames: int | None  # estimated number of frames that read_frames yields at `fps`
    has_audio: bool
    rotation: int  # clockwise rotation of the stored picture for display, degrees: 0, 90, 180 or 270


def probe(path: StrPath) -> VideoInfo:
    """Properties of a video; decodes one frame, so that an undecodable file is detected early.

    Raises MediaError if it is not a video, has only sound, or no frame can be decoded.
    """
    path = Path(path)
    found = identify(path)
    if found == "still":
        raise MediaError(f"{path} is a still picture; use a video.")
    if found == "animation":
        return _probe_animation(path)
    with closing(open_container(path)) as container:
        stream = video_stream(container, path)
        fps = float(_nominal_rate(path, stream))
        stream.codec_context.thread_count = 1  # the first frame is returned without filling a pipeline
        first = first_frame(container, stream, path)
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
            has_audio=audio_stream(container) is not None,
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


def _nominal_rate(path: Path, stream: Any) -> Fraction:
    """Frame rate stated by the container; if implausible (browser recordings), measured from its timestamps."""
    rate = stream.average_rate or stream.guessed_rate
    if not rate or not MIN_FPS <= rate <= 120:
        rate = _measured_rate(path) or rate or Fraction(25)
    return exact_rate(min(max(float(rate), MIN_FPS), MAX_FPS))


def _measured_rate(path: Path, num_packets: int = 240) -> Fraction | None:
    times: list[Fraction] = []
    with closing(open_container(path)) as container, suppress(FFmpegError):
        stream = video_stream(container, path)
        for packet in container.demux(stream):
            if packet.pts is not None:
                times.append(packet.pts * packet.time_base)
            if len(times) == num_packets:
                break
    if len(times) < 2 or max(times) == min(times):
        return None
    return (len(times) - 1) / (max(times) - min(times))


def _stream_duration_s(stream: Any) -> float | None:
    """Duration that the file states of its video, without its sound; None if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska has a tag with the time at which the stream ends.
    if found := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        end_s = 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])
        duration_s = end_s - float((stream.start_time or 0) * stream.time_base)
        return duration_s if duration_s > 0 else None
    return None


def _duration_s(container: Any, stream: Any) -> float | None:
    if (stated := _stream_duration_s(stream)) is not None:
        return stated
    if container.duration:
        duration_s = container.duration / av.time_base
        if stream.start_time and stream.time_base:
            # Matroska states the end, other containers the time between start and end.
            begin_s = 0.0 if "matroska" in container.format.name else (container.start_time or 0) / av.time_base
            duration_s -= float(stream.start_time * stream.time_base) - begin_s
        return duration_s if duration_s > 0 else None
    return None


def _display_turn(frame: Any) -> Turn:
    """Read the display matrix: (x, y) is displayed at (a x + c y, b x + d y)."""
    for side_data in frame.side_data:
        if side_data.type == av.sidedata.sidedata.Type.DISPLAYMATRIX:
            a, b, _, c, d = struct.unpack("=5i", bytes(side_data)[:20])
            if abs(b) + abs(c) > abs(a) + abs(d):
                return Turn(True, mirror_x=c < 0, mirror_y=b < 0)
            return Turn(False, mirror_x=a < 0, mirror_y=d < 0)
    return Turn()


def _display_size(frame: Any, stream: Any, max_side: int | None) -> tuple[int, int]:
    """(width, height) of the stored picture with square pixels, before rotation, longer side at most max_side."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width = frame.width * (aspect if 0.1 <= aspect <= 10 else 1.0)
    height = float(frame.height)
    scale = 1.0 if max_side is None else min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def read_frames(
    path: StrPath,
    *,
    fps: float | None = None,
    max_side: int | None = None,
    num_threads: int | None = None,
) -> Generator[Rgb]:
    """Frames of a video at a constant rate, from its first frame to its end.

    Frame k is what the video displays k / fps seconds after its first frame. Frames are repeated or dropped to match
    the timestamps, which may be irregular. A timestamp up to 5 ms (at most a quarter frame) late counts as on time.
    VideoWriter's `audio_from` starts the sound at the same first frame, which keeps lips and sound in sync.

    Frames are upright, with square pixels, in SDR. Memory use does not grow with the length. Damaged parts are skipped
    with a warning in the log; a truncated file yields the frames that it has. If the resolution changes, frames keep
    the size of the first.

    Args:
        path: the video; also an animated GIF, WebP, PNG or AVIF.
        fps: output frame rate; None: that of probe().
        max_side: largest length of the longer side, in pixels; smaller videos are not enlarged.
        num_threads: of the decoder; None: up to four.

    Yields:
        uint8 RGB [H, W, 3], each a separate array.

    Raises:
        MediaError: at the first frame, if it is not a video or no frame can be decoded.
    """
    rgb = np.empty((0, 0, 3), np.uint8)
    with closing(decode_frames(path, fps=fps, max_side=max_side, num_threads=num_threads)) as frames:
        for frame, repeated in _mark_repeats(frames):
            rgb = rgb.copy() if repeated else np.asarray(frame)
            yield rgb


def decode_frames(
    path: StrPath,
    *,
    fps: float | None = None,
    max_side: int | None = None,
    num_threads: int | None = None,
    every: int = 1,
    rough: bool = False,
    skim: bool = False,
) -> Generator[VideoFrame | Rgb]:
    """The frames of read_frames, not yet converted to RGB; a repeated frame is the same object.

    Args:
        path, fps, max_side, num_threads: as in read_frames.
        every: yield only every n-th frame, starting with the first.
        rough: do not deblock frames that the decoder does not need for others; the points of a face are as steady.
        skim: skip frames that the decoder does not need for others; the frame before, mostly one earlier, is yielded
            instead. Takes two thirds of the time if half of the frames are such.

    Yields:
        VideoFrame, or uint8 RGB [H, W, 3] for animated pictures.
    """
    path = Path(path)
    found = identify(path)
    if found == "still":
        raise MediaError(f"{path} is a still picture; use a video.")
    if found == "animation":
        rate = exact_rate(fps or probe(path).fps)
        shrunk = ((start_s, length_s, _shrink(rgb, max_side)) for start_s, length_s, rgb in _animation_frames(path))
        yield from itertools.islice(_at_constant_rate(shrunk, rate), 0, None, every)
        return

    with closing(open_container(path)) as container:
        stream = video_stream(container, path)
        nominal = _nominal_rate(path, stream)
        rate = exact_rate(fps) if fps else nominal
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads or min(4, os.cpu_count() or 1)
        if rough:
            stream.codec_context.options = {"skip_loop_filter": "noref"}
        if skim:
            stream.codec_context.skip_frame = "NONREF"
        convert: _RgbConverter | None = None
        timed = _timed_frames(
            _decoded(container, stream, path), float(1 / nominal), path, _stated_duration_s(container, stream)
        )
        made: VideoFrame | None = None
        for frame, repeated in _mark_repeats(itertools.islice(_at_constant_rate(timed, rate), 0, None, every)):
            if convert is None:
                convert = _RgbConverter(frame, _display_size(frame, stream, max_side))
            if made is None or not repeated:
                made = VideoFrame(frame, convert)
            yield made
        if convert is None:
            raise _no_frame(path)


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """All decodable frames, in display order."""
    num_faults = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (FFmpegError, OSError) as error:
            log.warning("%s: reading ends early (%s)", path, reason_of(error))
            packet = None
        try:
            frames = stream.codec_context.decode(packet)
        except EOFError:
            frames = []
        except FFmpegError:
            num_faults += 1
            frames = []
        yield from frames
        # An empty packet, of the demuxer or the one above, has flushed the decoder.
        if packet is None or (packet.size == 0 and packet.dts is None):
            break
    if num_faults:
        log.warning("%s: %s skipped", path, counted(num_faults, "damaged packet"))


def first_frame(container: Any, stream: Any, path: Path) -> Any:
    frame = next(_decoded(container, stream, path), None)
    if frame is None:
        raise _no_frame(path)
    return frame


def _no_frame(path: Path) -> MediaError:
    return MediaError(
        f"{path} holds no frame that can be decoded (damaged, cut off or copy-protected); "
        "use an intact video, for example MP4 with H.264."
    )


def _stated_duration_s(container: Any, stream: Any) -> float | None:
    """Duration of the video as stated by the file; None if it is not stated, or may be that of the sound."""
    if (stated := _stream_duration_s(stream)) is not None:
        return stated
    return container.duration / av.time_base if container.duration and not container.streams.audio else None


def _timed_frames(
    frames: Iterable[Any], nominal_s: float, path: Path, told_s: float | None
) -> Iterator[tuple[float, float, Any]]:
    """Yield (start, duration, frame), in seconds since the first frame; starts increase strictly for any input.

    If a file ends before told_s, the duration that it states, the log reports how much was read.
    """
    origin_s: float | None = None
    last_s, duration_s = -nominal_s, nominal_s
    for frame in frames:
        stamp_s = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        if stamp_s is None:
            stamp_s = last_s + nominal_s + (origin_s or 0.0)
        if origin_s is None:
            origin_s = stamp_s
        start_s = stamp_s - origin_s
        if start_s - last_s > MAX_GAP_S or start_s - last_s < -1.0:
            log.warning("%s: timestamps jump from %.2f s to %.2f s; the gap is closed", path, last_s, start_s)
            origin_s = stamp_s - (last_s + nominal_s)
            start_s = last_s + nominal_s
            told_s = None  # includes the gap
        if start_s <= last_s:
            continue
        last_s = start_s
        duration_s = float((frame.duration or 0) * (frame.time_base or 0))
        if duration_s < nominal_s / 2:  # some containers omit it, others state one tick
            duration_s = nominal_s
        yield start_s, min(duration_s, _MAX_LAST_FRAME_S), frame
    read_s = last_s + duration_s
    if told_s is not None and 0 < read_s < _WHOLE * told_s and told_s - read_s > _CUT_S:
        log.warning(
            "%s is cut off or damaged: only %.0f %% of it could be read, %.1f of %.1f seconds",
            *(path.name, 100 * read_s / told_s, read_s, told_s),
        )


def _at_constant_rate(timed: Iterable[tuple[float, float, Item]], rate: Fraction) -> Iterator[Item]:
    """Yield the item displayed at each time k / rate until the end of the last one; at least one if there is any.

    Args:
        timed: (start, duration, item), in seconds; starts increase from 0. Only the last item's duration is used.
        rate: output frames per second.
    """
    step = 1 / rate
    tolerance_s = min(float(step) / 4, _RESAMPLE_TOLERANCE_S)
    count = 0
    current: list[Item] = []  # empty, or the newest item
    end_s = 0.0
    for start_s, duration_s, item in timed:
        while current and float(count * step) + tolerance_s < start_s:
            yield current[0]
            count += 1
        current, end_s = [item], start_s + duration_s
    while current and (count == 0 or float(count * step) + tolerance_s < end_s):
        yield current[0]
        count += 1


def _mark_repeats(items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Yield each item, and whether it is the same object as the one before."""
    last: list[Item] = []
    for item in items:
        yield item, bool(last) and item is last[0]
        last = [item]


class _RgbConverter:
    """Converts decoded frames of any pixel format, size and color space to upright uint8 RGB of one size."""

    def __init__(self, first: Any, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.turn = _display_turn(first)
        self.reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Rgb:
        options: dict[str, Any] = {"width": self.width, "height": self.height, "interpolation": Interpolation.AREA}
        if frame.colorspace == _UNSPECIFIED:
            options["src_colorspace"] = _usual_colorspace(frame)
        if any(component.is_alpha for component in frame.format.components):
            rgba: Any = self.reformatter.reformat(frame, format="rgba", **options).to_ndarray()
            return self.turn(on_white(rgba[..., :3], rgba[..., 3]))
        if frame.color_trc in _HDR_TRANSFERS:
            sdr = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
            with suppress(FFmpegError):
                return self._turned(frame, {**options, **sdr})
        return self._turned(frame, options)

    def _turned(self, frame: Any, options: dict[str, Any]) -> Rgb:
        stored: Any = self.reformatter.reformat(frame, format="rgb24", **options).to_ndarray()
        rgb = self.turn(stored)
        # Without rotation, the array is a view with padded rows; for RGB codecs, of a picture that the decoder still
        # uses.
        return rgb.copy() if rgb is stored else rgb


def _usual_colorspace(frame: Any) -> Colorspace:
    """How players decode untagged video: as BT.709 from 720 lines up, and as BT.601 below."""
    return Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601


@dataclass(frozen=True)
class Plane:
    """Luma or chroma of a decoded frame.

    Attributes:
        pixels: uint8 [h, w].
        place: [2, 3] matrix from pixels of the displayed frame to pixels of this plane; (0, 0) is the center of the
            first pixel.
        black: value outside the plane.
    """

    pixels: NDArray[np.uint8]
    place: NDArray[np.float64]
    black: int


class VideoFrame:
    """A decoded frame; np.asarray converts it to uint8 RGB [H, W, 3].

    Attributes:
        shape: (height, width, 3) as displayed.
    """

    def __init__(self, frame: Any, convert: _RgbConverter) -> None:
        self._frame, self._convert = frame, convert
        size = convert.height, convert.width
        self.shape = (*(size[::-1] if convert.turn.transpose else size), 3)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Rgb:
        return self._convert(self._frame)

    def planes(self) -> tuple[list[Plane], NDArray[np.float64]] | None:
        """Planes Y, U and V, without a copy, and the matrix [3, 4] from their values to RGB.

        To resample a part of the frame, this takes less time than converting all of it. None if the frame is of a
        format other than 4:2:0 with 8 bits, in HDR or rotated: convert it.
        """
        frame = self._frame
        space = _usual_colorspace(frame) if frame.colorspace == _UNSPECIFIED else frame.colorspace
        kr, kb = _LUMA_WEIGHTS.get(int(space), (0.0, 0.0))
        if (
            not kr
            or frame.format.name not in ("yuv420p", "yuvj420p")
            or frame.color_trc in _HDR_TRANSFERS
            or self._convert.turn != Turn()
        ):
            return None
        is_full = frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG
        low, luma, chroma = (0, 1.0, 1.0) if is_full else (16, 255 / 219, 255 / 224)
        kg = 1 - kr - kb
        to_rgb = np.array(
            [[1, 0, 2 - 2 * kr], [1, -2 * (1 - kb) * kb / kg, -2 * (1 - kr) * kr / kg], [1, 2 - 2 * kb, 0]]
        )
        to_rgb *= [luma, chroma, chroma]
        shift = -to_rgb @ [low, 128, 128]
        k = np.array([frame.width / self._convert.width, frame.height / self._convert.height])
        planes = []
        # 4:2:0 chroma lies beside every second column, between two rows.
        for plane, step, black, siting in zip(
            frame.planes, (1, 2, 2), (low, 128, 128), ([0.0, 0.0], [0.25, 0.0], [0.25, 0.0]), strict=True
        ):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            place = np.column_stack([np.diag(k / step), 0.5 * k / step - 0.5 + siting])
            planes.append(Plane(rows[: plane.height, : plane.width], place, black))
        return planes, np.column_stack([to_rgb, shift])


def _animation_frames(path: Path) -> Iterator[tuple[float, float, Rgb]]:
    """Yield (start, duration, frame) of an animated picture, times in seconds."""
    start_s = 0.0
    with open_picture(path) as image:
        check_megapixels(path, image.width, image.height)
        for index in itertools.count():
            try:
                image.seek(index)
                image.load()
                rgb = to_rgb(image)
            except PICTURE_ERRORS as error:
                if index == 0:
                    raise _no_frame(path) from error
                if isinstance(error, EOFError):  # the regular end
                    break
                log.warning("%s: reading ends early at frame %d (%s)", path, index, reason_of(error))
                break
            milliseconds = float(image.info.get("duration") or 0)
            duration_s = milliseconds / 1000 if milliseconds > 10 else 0.1  # as in browsers
            yield start_s, duration_s, rgb
            start_s += duration_s


def _shrink(rgb: Rgb, max_side: int | None) -> Rgb:
    height, width = rgb.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return rgb
    scale = max_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def video_frame(frame: Any) -> VideoFrame:
    """A PyAV frame of another source, such as a call, as a frame of its own size."""
    return VideoFrame(frame, _RgbConverter(frame, (frame.width, frame.height)))
