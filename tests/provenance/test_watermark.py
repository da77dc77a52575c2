"""The invisible watermark: its code, its effect on frames, and detection after changes of the file."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import write_clip
from mimik.files import asset
from mimik.media import video
from mimik.provenance import watermark
from mimik.provenance.watermark import (
    MAX_FALSE_POSITIVE,
    Payload,
    Reading,
    WatermarkDetector,
    WatermarkEmbedder,
    decode,
    encode,
)

PORTRAIT = asset("portraits/eileen_collins.png")
PAYLOAD = Payload(model=2, file_id=0xDEADBEEF)
Image = np.ndarray


@pytest.fixture(scope="module")
def portrait() -> Image:
    return video.read_image(PORTRAIT)


def resized(picture: Image, height: int, width: int) -> Image:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def mark(frame: Image, payload: Payload = PAYLOAD, **options: Any) -> Image:
    return WatermarkEmbedder(*frame.shape[:2], payload, **options).embed(frame)


# The code.

payloads = st.builds(Payload, model=st.integers(0, 255), file_id=st.integers(0, 2**32 - 1), version=st.integers(0, 15))


@given(payloads)
def test_a_payload_is_a_number_of_44_bits_and_comes_back(payload: Payload) -> None:
    assert payload.to_int() < 1 << 44
    assert Payload.from_int(payload.to_int()) == payload


@pytest.mark.parametrize("wrong", [{"model": 256}, {"model": -1}, {"file_id": 1 << 32}, {"version": 16}])
def test_payloads_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="use a number from 0 to"):
        Payload(**{"model": 0, "file_id": 0, **wrong})


def test_the_encoder_is_the_shift_register_of_the_standard_form() -> None:
    code = encode(PAYLOAD).reshape(60, 3)
    word = PAYLOAD.to_int() << 16 | watermark._crc(PAYLOAD.to_int())
    stream = [word >> i & 1 for i in reversed(range(60))]
    register = stream[-8:][::-1]  # newest first; the initial state equals the final one
    for bit, sent in zip(stream, code, strict=True):
        window = [bit, *register]
        for generator, out in zip(("101101111", "110110011", "111001001"), sent, strict=True):  # 557, 663, 711 octal
            assert out == sum(x * int(g) for x, g in zip(window, generator, strict=True)) % 2
        register = window[:8]
    assert register == stream[-8:][::-1]


@given(payloads, st.lists(st.integers(0, 179), max_size=8, unique=True))
@settings(max_examples=30, deadline=None)
def test_any_eight_of_the_180_bits_may_be_wrong(payload: Payload, wrong: list[int]) -> None:
    soft = 1.0 - 2 * encode(payload)  # the code's free distance is 18 (Larsen 1973)
    soft[wrong] *= -1
    assert decode(soft) == payload


def test_soft_values_decode_where_hard_ones_have_a_fifth_wrong() -> None:
    rng = np.random.default_rng(0)
    soft = (1 - 2 * encode(PAYLOAD)) + 1.05 * rng.normal(size=180)
    assert np.mean((soft < 0) != encode(PAYLOAD)) > 0.15
    assert decode(soft) == PAYLOAD


def test_noise_decodes_to_nothing() -> None:
    rng = np.random.default_rng(1)
    assert all(decode(rng.normal(size=180)) is None for _ in range(50))


# The pattern.


def test_the_format_stays_as_it_is() -> None:
    """Existing files must remain readable: a change requires a new FORMAT_VERSION and reading of both."""
    cells = watermark._cells(PAYLOAD, watermark.PUBLIC_KEY).astype(np.int8)
    assert hashlib.sha256(cells.tobytes()).hexdigest()[:16] == "7b76c8b73a691304"
    assert watermark.pitch_of(512, 900) == pytest.approx(2.4 * math.sqrt(2))


def test_every_block_contains_every_bit_once_in_its_own_order() -> None:
    role = watermark._layout(b"some key").role
    blocks = role.reshape(8, 15, 8, 15).transpose(0, 2, 1, 3).reshape(64, 225)
    assert (np.sort(blocks, axis=1) == np.arange(225)).all()
    assert len({block.tobytes() for block in blocks}) == 64


def test_keys_and_payloads_give_unrelated_patterns() -> None:
    cells = [watermark._cells(payload, key) for payload in (PAYLOAD, Payload(3, 1)) for key in (b"a", b"b")]
    assert abs(np.mean(cells[0] * cells[1])) < 5 / 120
    assert np.mean(cells[0] * cells[2]) == pytest.approx(0.2, abs=0.2)  # a fifth of the cells is common to all


# The frame.


@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 384), (720, 720), (90, 160)])
def test_the_mark_is_weak_and_leaves_the_input_alone(portrait: Image, height: int, width: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for frame in (resized(portrait, height, width), noise, np.full_like(noise, 128)):
        before = frame.copy()
        marked = mark(frame)
        assert (frame == before).all()
        assert marked.shape == frame.shape and marked.dtype == np.uint8
        assert 40 <= cv2.PSNR(frame, marked) < 60
        assert (mark(frame) == marked).all()


def test_flat_and_dark_parts_are_changed_least() -> None:
    gray = np.full((512, 512, 3), 128, np.uint8)
    assert np.abs(mark(gray).astype(int) - gray).max() <= 3
    assert cv2.PSNR(gray, mark(gray)) > 48
    assert cv2.PSNR(gray * 0, mark(gray * 0)) > 52


@pytest.mark.parametrize("side", [256, 320])
def test_small_pictures_have_about_half_of_it_on_flat_parts(portrait: Image, side: int) -> None:
    """About half of the strength of large pictures; at least a third more in videos; equal in texture."""
    gray = np.full((side, side, 3), 128, np.uint8)
    changed = {is_video: mark(gray, is_video=is_video).astype(int) - gray for is_video in (True, False)}
    assert changed[False].std() < 1.1 and changed[False].std() < 0.75 * changed[True].std()
    small = resized(portrait, side, side)
    assert cv2.PSNR(small, mark(small, is_video=False)) >= 40


@pytest.mark.parametrize(("height", "width"), [(256, 256), (400, 320)])
@pytest.mark.parametrize("scale", [1, 0.75])
def test_a_small_picture_is_read_from_a_worse_copy(portrait: Image, height: int, width: int, scale: float) -> None:
    marked = mark(resized(portrait, height, width), is_video=False)
    smaller = cv2.resize(marked, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", smaller[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    assert_read(WatermarkDetector().read([cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]]))


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="marks 64 x 32 RGB"):
        WatermarkEmbedder(32, 64, PAYLOAD).embed(np.zeros((64, 32, 3), np.uint8))


def test_threads_may_share_an_embedder(portrait: Image) -> None:
    embedder = WatermarkEmbedder(512, 512, PAYLOAD)
    expected = embedder.embed(portrait)
    with ThreadPoolExecutor(4) as pool:
        assert all((one == expected).all() for one in pool.map(embedder.embed, [portrait] * 8))


def luma_of(frame: Image) -> np.ndarray:
    """BT.709 luma, limited range, as in files; not rounded."""
    return 16 + (frame @ np.array([0.2126, 0.7152, 0.0722])) * 219 / 255


@pytest.mark.parametrize(("height", "width"), [(256, 256), (513, 385)])
def test_the_marked_luma_plane_is_that_of_marked_colors(portrait: Image, height: int, width: int) -> None:
    gray = cv2.cvtColor(cv2.resize(portrait, (width, height)), cv2.COLOR_RGB2GRAY)
    frame = cv2.cvtColor(gray // 2 + 64, cv2.COLOR_GRAY2RGB)  # no clipping, and the luma that embed uses
    embedder = WatermarkEmbedder(height, width, PAYLOAD)
    even = slice(0, height // 2 * 2), slice(0, width // 2 * 2)
    padded = np.full((height, width + 7), 77, np.uint8)  # rows of a decoded frame are longer than the picture
    plane = padded[even]
    plane[...] = np.rint(luma_of(frame)[even])
    embedder.embed_luma(plane)
    off = plane - luma_of(embedder.embed(frame))[even]
    assert np.abs(off).mean() < 0.5 and np.percentile(np.abs(off), 99.5) < 2  # rounding, twice
    assert (padded[:, width:] == 77).all()
    assert np.abs(plane - np.rint(luma_of(frame)[even])).mean() > 0.5  # the mark has an effect


# Reading.


def assert_read(reading: Reading, payload: Payload = PAYLOAD) -> None:
    assert reading.payload == payload
    assert 0 < reading.false_positive < MAX_FALSE_POSITIVE


@pytest.mark.parametrize(("height", "width"), [(256, 256), (384, 300), (512, 910), (1080, 1080), (1700, 1620)])
def test_one_frame_is_enough(portrait: Image, height: int, width: int) -> None:
    payload = Payload(height % 256, height * width)
    assert_read(WatermarkDetector().read([mark(resized(portrait, height, width), payload)]), payload)


def moving(portrait: Image, num_frames: int = 8) -> Iterator[Image]:
    """The head turns slightly, the rest is still, as in output of the program."""
    for i in range(num_frames):
        move = cv2.getRotationMatrix2D((220, 150), 3 * math.sin(i), 1)
        moved = cv2.warpAffine(portrait, move, (512, 512), borderMode=cv2.BORDER_REFLECT)
        yield np.concatenate([moved[:260], portrait[260:]])


@pytest.fixture(scope="module")
def clip(portrait: Image) -> list[Image]:
    embedder = WatermarkEmbedder(512, 512, PAYLOAD)
    return [embedder.embed(frame) for frame in moving(portrait)]


def coded(frames: list[Image], folder: Path, crf: int) -> list[Image]:
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    even = (np.ascontiguousarray(frame[:height, :width]) for frame in frames)
    return list(video.read_frames(write_clip(folder / "a.mp4", even, quality=crf)))


@pytest.mark.parametrize(
    ("crf", "change"),
    [
        (28, lambda frame: frame),
        (23, lambda frame: cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
        (23, lambda frame: frame[41:399, 87:445]),
        (23, lambda frame: frame[:, ::-1]),
        (23, lambda frame: np.clip(frame * 0.7 + 30, 0, 255).astype(np.uint8)),
    ],
    ids=["crf 28", "half the size", "70 % of it", "mirrored", "less contrast"],
)
def test_it_is_read_back_from_a_changed_file(
    clip: list[Image], tmp_path: Path, crf: int, change: Callable[[Image], Image]
) -> None:
    reading = WatermarkDetector().read(coded([change(frame) for frame in clip], tmp_path, crf))
    assert_read(reading)


def test_a_reading_describes_scale_and_offset(clip: list[Image]) -> None:
    own = watermark.pitch_of(512, 512)
    plain = WatermarkDetector().read(clip[:1])
    assert (plain.pitch, plain.mirrored) == (pytest.approx(own, rel=0.01), False)
    changed = WatermarkDetector().read([cv2.resize(clip[0][:, ::-1], (700, 700))])
    assert (changed.pitch, changed.mirrored) == (pytest.approx(own * 700 / 512, rel=0.01), True)


def test_a_screenshot_with_a_page_around_it_is_read(clip: list[Image]) -> None:
    page = np.full((640, 900, 3), 245, np.uint8)
    page[101:613, 57:569] = clip[3]
    assert_read(WatermarkDetector().read([page]))


def test_only_the_key_it_was_written_with_reads_it(portrait: Image) -> None:
    frame = mark(resized(portrait, 192, 192), key=b"mine")
    assert_read(WatermarkDetector(b"mine").read([frame]))
    assert WatermarkDetector().read([frame]).payload is None


@pytest.mark.parametrize(("height", "width"), [(144, 96), (16, 16), (300, 40)])
def test_nothing_is_read_from_frames_without_a_mark(portrait: Image, height: int, width: int) -> None:
    for frame in (resized(portrait, height, width), np.zeros((height, width, 3), np.uint8)):
        reading = WatermarkDetector().read([frame])
        assert (reading.payload, reading.false_positive, reading.pitch) == (None, 1.0, None)
        assert reading.score < 7


def test_unmarked_correlations_are_normal(portrait: Image) -> None:
    """The basis of the bound on false detections: for random keys and over all positions, including the tail."""
    luma = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY).astype(np.float32)
    found = watermark._matched(luma, 3.4, (0.5, 0.5))
    maps = []
    for i in range(24):
        correlation = np.fft.irfft2(found * watermark._layout(b"key %d" % i).known[0], s=(240, 240))
        maps.append(correlation / correlation.std())
    # At one position over keys, draws are independent; 144 positions far apart.
    draws = np.array([one[::20, ::20] for one in maps])
    assert abs(draws.mean()) < 4 / math.sqrt(draws.size)
    assert draws.std() == pytest.approx(1, abs=4 / math.sqrt(2 * draws.size))
    values = np.array(maps)
    for z in (2, 3, 4):
        expected = watermark._normal_tail(z)
        assert np.mean(values > z) == pytest.approx(expected, rel=0.25), z
    assert values.max() < 6.3  # of 1.4 million; Q(6.3) is 1.5e-10


def test_the_normal_tail_is_that_of_the_tables() -> None:
    assert watermark._normal_tail(0) == 0.5
    assert watermark._normal_tail(1.959964) == pytest.approx(0.025, rel=1e-5)
    assert watermark._normal_tail(6) == pytest.approx(9.8659e-10, rel=1e-4)


def test_in_its_own_size_only_that_is_tried(portrait: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = mark(resized(portrait, 256, 256))
    assert_read(WatermarkDetector().read([frame], own_size=True))
    tried = []
    place = WatermarkDetector._best_alignment
    monkeypatch.setattr(
        WatermarkDetector,
        "_best_alignment",
        lambda self, luma, pitch, *rest: tried.append(pitch) or place(self, luma, pitch, *rest),
    )
    assert WatermarkDetector().read([resized(frame, 200, 200)], own_size=True).payload is None
    assert tried[0] == watermark.pitch_of(200, 200)
    assert len(tried) < 15  # this one, and those of its refinement


def test_only_the_first_frames_are_read() -> None:
    frames = iter([np.zeros((32, 32, 3), np.uint8)] * 100)
    WatermarkDetector().read(frames)
    assert len(list(itertools.islice(frames, 100))) == 36


def test_frames_that_cannot_be_read_together_are_refused() -> None:
    with pytest.raises(ValueError, match="no frame was given"):
        WatermarkDetector().read([])
    with pytest.raises(ValueError, match="frames of one size"):
        WatermarkDetector().read([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 34, 3), np.uint8)])


@pytest.mark.slow
def test_nothing_is_read_from_real_videos() -> None:
    corpus = Path(__file__).parents[3] / "shared" / "corpus" / "dev"
    if not corpus.is_dir():
        pytest.skip("the corpus of talking faces is not here")
    for path in sorted(corpus.glob("*.mp4")):
        with_frames = itertools.islice(video.read_frames(path, fps=5), 24)
        assert WatermarkDetector().read(with_frames).payload is None, path
