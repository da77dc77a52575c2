"""Video output: writers for containers, animations and numbered pictures."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import av.filter
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from mimik.config import MediaError
from mimik.media.containers import DISK_ERRNOS, MAX_FPS, MIN_FPS, Rgb, exact_rate, reason_of, write_errors
from mimik.media.formats import (
    CONTAINERS,
    FRAMES_PATTERN,
    IMAGE_SUFFIXES,
    OUTPUT_FORMATS,
    StrPath,
    check_input,
    keeps_alpha,
    output_kind,
)
from mimik.media.palette import palette_of
from mimik.media.pictures import MAX_SIDE_PX, check_size, save_image
from mimik.media.sound import open_sound

log = logging.getLogger(__name__)

MarkFrame = Callable[[NDArray[np.uint8]], None]

# At 2048x2048 px: 59 instead of 84 ms of processor time per frame; files are 15 % larger at the same quality.
_LARGE_PX, _LESS_SEARCH = 1920 * 1080, "analyse=none:subme=0"
_GIF_PALETTE_BYTES = 64 << 20  # limit of the frames buffered at the start to choose the palette from
_GIF_PALETTE_FRAMES = 100  # limit in frames; includes colors of a mouth that opens later


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
        path: output path; an existing file is overwritten. Its folder must exist; a folder of frames is created.
        width, height: of the frames, in pixels.
        quality: 0 (best) .. 51, on the scale of x264's constant rate factor; not used for .gif, frames and ProRes.
        audio_from: a file whose sound is added; see holds_sound. Formats without sound log that it is omitted.
        alpha: whether frames are RGBA with straight alpha; see keeps_alpha. A .mov is then ProRes 4444, a .webm VP9
            with alpha.

    Raises:
        MediaError: if the name, the size or the folder is not valid, or `audio_from` cannot be opened.
    """
    path = Path(path)
    what = output_kind(path)
    suffix = path.suffix.lower()
    if what == "image":
        raise MediaError(f"{path} holds one picture; for a video use {OUTPUT_FORMATS}.")
    assert not alpha or keeps_alpha(path), path
    if what == "video" and suffix in CONTAINERS:
        return VideoWriter(path, width, height, fps, quality=quality, audio_from=audio_from, alpha=alpha)
    if audio_from is not None:
        log.info("%s cannot contain sound; that of %s is dropped", path, audio_from)
    if what == "frames":
        return FramesWriter(path, width, height, fps, alpha=alpha)
    if suffix == ".gif":
        return GifWriter(path, width, height, fps)
    return WebpWriter(path, width, height, fps, quality=quality, alpha=alpha)


class Writer(ABC):
    """Writes the frames of one video; a context manager.

    Until close() has returned, and after an error, the output is incomplete; the caller removes it.
    """

    max_side_px = MAX_SIDE_PX
    has_luma = False  # whether frames are encoded as planes, luma first

    def __init__(self, path: StrPath, width: int, height: int, fps: float, *, alpha: bool = False) -> None:
        self.path = Path(path)
        self.width, self.height = width, height
        self.num_channels = 4 if alpha else 3
        self.num_frames = 0  # written so far
        self._closed = self._failed = False
        check_size(self.path, width, height, self.max_side_px)
        if not (math.isfinite(fps) and MIN_FPS <= fps <= MAX_FPS):
            raise MediaError(f"{self.path}: {fps} frames per second; use {MIN_FPS:g} to {MAX_FPS:g}.")
        self._rate = exact_rate(fps)

    def write(self, frame: Rgb, mark: MarkFrame | None = None) -> None:
        """Append one frame, uint8 RGB [height, width, 3], or RGBA [height, width, 4] if opened with alpha.

        Raises MediaError if it cannot be written (disk full, no permission).

        Args: mark: changes the luma plane, uint8 [height, width], even sides, 16..235, before encoding; requires
        has_luma.
        """
        assert not self._closed, "write() after close()"
        assert frame.dtype == np.uint8, f"frame is {frame.dtype}, not uint8"
        shape = self.height, self.width, self.num_channels
        assert frame.shape == shape, f"frame {frame.shape}, not {shape}"
        assert mark is None or self.has_luma, "a writer without luma planes marks none"
        try:
            with write_errors(self.path):
                self._append(frame, mark)
        except MediaError:
            self._failed = True
            raise
        self.num_frames += 1

    def close(self) -> None:
        """Complete the file. A second call, or a call after an error, only releases it.

        Raises MediaError if the file cannot be completed or no frame was written.
        """
        if self._closed:
            return
        self._closed = True
        if self._failed or not self.num_frames:
            self._release()
            if not self._failed:
                raise MediaError(f"{self.path} received no frame; use a driving video that has at least one.")
            return
        try:
            with write_errors(self.path):
                self._finish()
        except MediaError:
            self._release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._failed = self._failed or error_type is not None
        self.close()

    @abstractmethod
    def _append(self, frame: Rgb, mark: MarkFrame | None) -> None: ...

    def _finish(self) -> None:  # noqa: B027  a no-op if each frame is a file
        """Completes the file."""

    def _release(self) -> None:  # noqa: B027  likewise
        """Close open files without completing them; never raises."""


class _StreamWriter(Writer):
    """A writer whose pictures are one stream of one PyAV container."""

    _container: Any
    _stream: Any

    def _start(self, container: dict[str, Any], stream: dict[str, Any], pix_fmt: str, time_base: Fraction) -> None:
        """Open the file. Args: container, stream: arguments of av.open and of its container's add_stream."""
        self._container = av.open(f"file:{self.path.absolute()}", "w", **container)
        self._stream = self._container.add_stream(**stream)
        self._stream.width, self._stream.height, self._stream.pix_fmt = self.width, self.height, pix_fmt
        self._stream.codec_context.time_base = time_base
        self._container.start_encoding()

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _release(self) -> None:
        with suppress(FFmpegError, OSError, ValueError):
            self._container.close()


class VideoWriter(_StreamWriter):
    """A video with the sound of another file: H.264 in .mp4, .m4v, .mov and .mkv, VP9 in .webm.

    With alpha, .mov is ProRes 4444, and .webm is as browsers and OBS display it.

    4:2:0 color requires even sides: an odd width or height loses its last column or row. Colors are BT.709, limited
    range, and tagged as such. `quality` 0 is written as 1, because few players support lossless H.264.

    Sound: packets of `audio_from` are copied unchanged if the container supports their codec. Otherwise they are
    transcoded to AAC, in .webm to Opus. Time 0 is the first video frame of `audio_from` (see read_frames), or its start
    if it has no video; the sound ends with the video. Broken sound is omitted, with a warning in the log.
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
        preset: str | None = None,
        gop: int | None = None,
        num_threads: int | None = None,
        alpha: bool = False,
    ) -> None:
        """Sizes, fps, quality, audio_from and alpha are those of open_writer.

        Args:
            preset: x264's trade-off of time and size; None: superfast, with less search for large frames.
            gop: keyframe interval in frames; None: x264 chooses.
            num_threads: of the encoder, whose output depends on it; None: x264 chooses.
        """
        super().__init__(path, width, height, fps, alpha=alpha)
        container_name = CONTAINERS.get(self.path.suffix.lower())
        if container_name is None:
            raise MediaError(f"{self.path} cannot be written as a video; use {', '.join(CONTAINERS)}.")
        assert 0 <= quality <= 51, f"quality {quality}"
        if audio_from is not None:
            check_input(Path(audio_from))
        self._codec, self._format = "libx264", "yuv420p"
        self._options = {"crf": str(max(1, quality)), "preset": preset or "superfast", "profile": "high"}
        if preset is None and width * height > _LARGE_PX:
            self._options["x264-params"] = _LESS_SEARCH
        if container_name == "webm":
            self._codec, self._format = "libvpx-vp9", "yuva420p" if alpha else "yuv420p"
            # VP9's quality scale ends at 63. The alpha of alternate reference frames cannot be stored.
            self._options = {"crf": str(round(quality * 63 / 51)), "b": "0", "deadline": "realtime", "cpu-used": "7"}
            self._options |= {"row-mt": "1", "auto-alt-ref": "0", "lag-in-frames": "0"}
        elif alpha:
            self._codec, self._format = "prores_ks", "yuva444p10le"
            self._options = {"profile": "4444", "vendor": "apl0"}
        if gop is not None:
            self._options |= {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
        self._num_threads = num_threads
        self._reformatter = VideoReformatter()
        self._sound = open_sound(Path(audio_from), container_name) if audio_from is not None else None
        with write_errors(self.path):
            try:
                self._open(container_name)
            except (FFmpegError, OSError, ValueError) as error:
                if self._sound is None or getattr(error, "errno", None) in DISK_ERRNOS:
                    raise
                # The container may have rejected the header because of the sound.
                self._drop_sound(error)
                self._open(container_name)

    def _open(self, container_name: str) -> None:
        flags = {"movflags": "+faststart"} if container_name in ("mp4", "mov") else {}
        self._container = av.open(f"file:{self.path.absolute()}", "w", format=container_name, container_options=flags)
        try:
            stream = self._container.add_stream(self._codec, rate=self._rate, options=self._options)
            stream.width, stream.height = self.width // 2 * 2, self.height // 2 * 2
            stream.pix_fmt = self._format
            if self._num_threads is not None:
                stream.codec_context.thread_count = self._num_threads
            if self._codec == "libx264":  # PyAV's default, slices, waits for each frame, and needs more bytes
                stream.codec_context.thread_type = "FRAME"
            stream.codec_context.time_base = 1 / self._rate
            stream.colorspace = stream.color_primaries = stream.color_trc = 1  # BT.709 in each of the three lists
            stream.color_range = ColorRange.MPEG
            if container_name == "webm" and self.num_channels == 4:
                stream.metadata["alpha_mode"] = "1"
            self._stream = stream
            if self._sound is not None:
                self._sound.add_to(self._container)
            self._container.start_encoding()
        except (FFmpegError, OSError, ValueError):
            self._release()
            raise

    @property
    def has_luma(self) -> bool:  # type: ignore[override]  # a constant in other writers
        return self._format == "yuv420p"

    def _append(self, frame: Rgb, mark: MarkFrame | None) -> None:
        even = np.ascontiguousarray(frame[: self._stream.height, : self._stream.width])
        picture: Any = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(even, "rgba" if self.num_channels == 4 else "rgb24"),
            format=self._format,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BILINEAR,
        )
        picture.color_primaries = picture.color_trc = 1
        if mark is not None:
            plane = picture.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            mark(rows[: self._stream.height, : self._stream.width])
        picture.pts, picture.time_base = self.num_frames, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._mux_sound(Fraction(self.num_frames + 1) / self._rate)

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._mux_sound(self.num_frames / self._rate, last=True)
        self._container.close()
        if self._sound is not None:
            self._sound.close()

    def _mux_sound(self, until_s: Fraction, last: bool = False) -> None:
        """Write sound up to a time on the video's axis, so that both are interleaved in the file."""
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
                if getattr(error, "errno", None) in DISK_ERRNOS:
                    raise
                self._drop_sound(error)
                return

    def _drop_sound(self, error: BaseException) -> None:
        assert self._sound is not None
        log.warning("%s: the sound is broken and dropped from here on (%s)", self._sound.path, reason_of(error))
        self._sound.close()
        self._sound = None

    def _release(self) -> None:
        super()._release()
        if self._sound is not None:
            self._sound.close()


class GifWriter(_StreamWriter):
    """Animated GIF that loops forever: one palette of 256 colors, chosen from its first frames, and ordered dithering.

    GIF delays are multiples of 10 ms, and players slow down below two of them: frame rates above 50 are thinned out.
    """

    def __init__(self, path: StrPath, width: int, height: int, fps: float) -> None:
        super().__init__(path, width, height, fps)
        self._held: list[Rgb] | None = []  # frames buffered to choose the palette; None: already chosen
        self._last_centisecond = -2
        options = {"loop": "0", "final_delay": str(max(2, round(100 / self._rate)))}
        with write_errors(self.path):
            file = {"format": "gif", "container_options": options}
            self._start(file, {"codec_name": "gif", "rate": 100}, "pal8", Fraction(1, 100))

    def _append(self, frame: Rgb, mark: MarkFrame | None) -> None:
        if self._held is None:
            self._encode(frame, self.num_frames)
            return
        self._held.append(frame.copy())
        if len(self._held) >= min(_GIF_PALETTE_FRAMES, 1 + _GIF_PALETTE_BYTES // frame.nbytes):
            self._choose_palette()

    def _choose_palette(self) -> None:
        held, self._held = self._held or [], None
        self._graph = av.filter.Graph()
        at = {"format": "bgra", "time_base": Fraction(1, 100)}
        self._source = self._graph.add_buffer(width=self.width, height=self.height, **at)
        colors = self._graph.add_buffer(width=16, height=16, **at)
        dither = self._graph.add("paletteuse", "dither=bayer:bayer_scale=4")
        self._sink = self._graph.add("buffersink")
        self._source.link_to(dither)
        colors.link_to(dither, 0, 1)
        dither.link_to(self._sink)
        self._graph.configure()
        colors.push(self._picture(palette_of(held).reshape(16, 16, 3), 0))
        colors.push(None)
        for index, frame in enumerate(held):
            self._encode(frame, index)

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
    """Animated WebP that loops forever. Compressed frames are held in memory until the end; pictures are not."""

    max_side_px = 16383  # limit of the format

    def __init__(
        self, path: StrPath, width: int, height: int, fps: float, *, quality: int = 18, alpha: bool = False
    ) -> None:
        super().__init__(path, width, height, fps, alpha=alpha)
        assert 0 <= quality <= 51, f"quality {quality}"
        # 0 -> 100, 18 -> 90, 51 -> 20 on WebP's scale: similar to x264's quality for the same number.
        options = {"quality": str(round(100 - 80 * (quality / 51) ** 2)), "compression_level": "2", "lossless": "0"}
        with write_errors(self.path):
            file = {"format": "webp", "container_options": {"loop": "0"}}
            stream = {"codec_name": "libwebp_anim", "rate": self._rate, "options": options}
            self._start(file, stream, "bgra", Fraction(1, 1000))

    def _append(self, frame: Rgb, mark: MarkFrame | None) -> None:
        order = cv2.COLOR_RGBA2BGRA if self.num_channels == 4 else cv2.COLOR_RGB2BGRA
        picture = av.VideoFrame.from_ndarray(cv2.cvtColor(frame, order), "bgra")
        picture.pts, picture.time_base = round(self.num_frames * 1000 / self._rate), Fraction(1, 1000)
        self._container.mux(self._stream.encode(picture))


class FramesWriter(Writer):
    """A numbered picture per frame, starting at 0: lossless PNG or WebP, or JPEG.

    `path` is a folder (created if missing; 00000.png and so on) or a pattern such as frames/%05d.webp.
    """

    def __init__(self, path: StrPath, width: int, height: int, fps: float, *, alpha: bool = False) -> None:
        super().__init__(path, width, height, fps, alpha=alpha)
        self._pattern = self.path if "%" in self.path.name else self.path / "%05d.png"
        if not FRAMES_PATTERN.fullmatch(self._pattern.name) or self._pattern.suffix.lower() not in IMAGE_SUFFIXES:
            raise MediaError(f"{self.path}: use a folder or a pattern such as frames/%05d.webp.")
        if self._pattern.suffix.lower() == ".webp":
            check_size(self.path, width, height, WebpWriter.max_side_px)
        with write_errors(self.path):
            self._pattern.parent.mkdir(parents=True, exist_ok=True)

    def _append(self, frame: Rgb, mark: MarkFrame | None) -> None:
        path = self._pattern.with_name(self._pattern.name % self.num_frames)
        # exact: keep the colors of transparent pixels, which carry the watermark, too.
        webp = {"lossless": True, "quality": 20, "method": 1, "exact": True}
        save_image(path, frame, {"compress_level": 1}, webp)


def picture_frame(rgb: Rgb) -> Any:
    """Convert uint8 RGB [H, W, 3] to a PyAV frame without a timestamp, for streams that are not files."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
