"""Encoding of the portrait for a page, and what is done with the page's sound."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from mimik.app.live import connections
from mimik.face.landmarks import Image, Landmarker
from mimik.media import video
from mimik.provenance.marking import Marker
from mimik.provenance.watermark import WatermarkDetector

pytest.importorskip("aiortc")


@pytest.fixture(scope="module")
def codecs() -> Any:
    connections.aiortc_needed()
    from aiortc import codecs

    return codecs


def moving(portrait: Image, number: int) -> list[Image]:
    """Frames of a marked photo that shifts."""
    marker = Marker("geometry")
    return [marker.mark(np.roll(portrait, 2 * i, axis=1)) for i in range(number)]


def sent(encoder: Any, images: list[Image]) -> tuple[list[Image], list[int]]:
    """Decoded frames, and the bytes of each, at 10 frames/s."""
    decoder, out, sizes = av.CodecContext.create("libvpx", "r"), [], []
    encoder.target_bitrate = 3_000_000
    for i, image in enumerate(images):
        frame = video.picture_frame(image)
        frame.pts, frame.time_base = 9000 * i, Fraction(1, 90_000)
        payloads, _ = encoder.encode(frame)
        data = b"".join(payload[1 if payload[0] & 0x80 == 0 else 4 :] for payload in payloads)  # picture_id: 2 bytes
        sizes.append(len(data))
        out += [one.to_ndarray(format="rgb24") for one in decoder.decode(av.Packet(data))]
    return out, sizes


def test_the_portrait_takes_fewer_bytes_and_keeps_its_mark(codecs: Any, portrait: Image) -> None:
    images = moving(portrait, 25)
    (plain, plain_sizes), (made, sizes) = (
        sent(encoder(), images) for encoder in (codecs.vpx.Vp8Encoder, codecs.Vp8Encoder)
    )
    assert len(made) == len(plain) == len(images)
    assert sum(sizes[1:]) < 0.8 * sum(plain_sizes[1:])
    original = np.vstack(images)
    assert cv2.PSNR(np.vstack(made), original) > cv2.PSNR(np.vstack(plain), original) - 0.5
    detector = WatermarkDetector()
    assert detector.read(made).payload == detector.read(images).payload


def test_a_new_size_starts_with_a_whole_picture(codecs: Any, portrait: Image) -> None:
    """A frame of another size is decoded without those before it."""
    encoder = codecs.Vp8Encoder()
    sent(encoder, moving(portrait, 2))
    (small,), _ = sent(encoder, moving(np.ascontiguousarray(portrait[::2, ::2]), 1))
    assert small.shape == (256, 256, 3)


@pytest.mark.parametrize("driver, blocks", [("camera", 0), ("microphone", 3)])
def test_sound_is_converted_only_if_it_drives(monkeypatch: pytest.MonkeyPatch, driver: str, blocks: int) -> None:
    frames, heard = iter(range(3)), []
    converted: list[int] = []

    async def recv() -> int:
        return next(frames)

    monkeypatch.setattr(connections, "samples_of", lambda _, frame: converted.append(frame))
    call = SimpleNamespace(controls=SimpleNamespace(driver=driver), add_sound=heard.append)
    asyncio.run(asyncio.wait_for(connections._receive_sound(SimpleNamespace(recv=recv), call), 10))
    assert len(converted) == len(heard) == blocks


def test_of_a_camera_frame_only_the_face_is_converted(portrait: Image, landmarker: Landmarker) -> None:
    """The call gets decoded frames, in which the face is at the same place as in their RGB."""
    from aiortc.mediastreams import MediaStreamError

    frame = video.picture_frame(portrait).reformat(format="yuv420p")
    frames, offered = iter([frame]), []

    async def recv() -> Any:
        for one in frames:
            return one
        raise MediaStreamError

    call: Any = SimpleNamespace(offer=lambda image, _: offered.append(image))
    asyncio.run(asyncio.wait_for(connections._receive_camera(SimpleNamespace(recv=recv), call), 10))
    (image,) = offered
    assert image.planes() is not None and image.shape == portrait.shape
    face = landmarker.detect(portrait)[0]
    found, expected = (landmarker.follow(one, face) for one in (image, frame.to_ndarray(format="rgb24")))
    assert found is not None and expected is not None
    assert np.abs(found.points - expected.points).max() < 0.01 * face.width_px
