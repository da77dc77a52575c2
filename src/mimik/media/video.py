"""Public names for reading and writing media: `video.read_image`, `video.read_frames`, `video.open_writer`.

Outside this folder, a picture is uint8 RGB [H, W, 3], upright. A video is an iterator of such pictures at a constant
rate, whose first picture is at time 0. Only this folder opens media. Every failure caused by a file is a MediaError
with a one-sentence message.
"""

from __future__ import annotations

# ruff: noqa: F401  names for other folders
from mimik.media.clips import encode_clip, read_clip
from mimik.media.containers import MAX_FPS, MIN_FPS, Rgb
from mimik.media.formats import (
    CONTAINERS,
    IMAGE_SUFFIXES,
    OUTPUT_FORMATS,
    OutputKind,
    StrPath,
    holds_sound,
    keeps_alpha,
    output_kind,
)
from mimik.media.pictures import MAX_MEGAPIXELS, FileKind, kind, read_image, write_image
from mimik.media.reading import VideoInfo, decode_frames, probe, read_frames, video_frame
from mimik.media.writing import VideoWriter, Writer, open_writer, picture_frame
