"""The invisible watermark of every frame; robust to re-encoding, scaling and cropping.

Spread spectrum (Cox, Kilian, Leighton, Shamoon, "Secure spread spectrum watermarking for multimedia", IEEE Trans. Image
Processing 6(12), 1997): a weak pseudo-random pattern is added to the luma of a frame and detected by correlation.

Pattern. The plane is tiled with square cells, 120 x 120 of them per period. Each cell carries one chip, +1 or -1,
derived from the key. Every block of 15 x 15 cells contains each of the 180 bits of the codeword once, and 45 known
cells, which are equal in all files and locate the pattern. Their order is keyed and differs between blocks, so that any
part of a frame contains all bits equally often. A cell is 2.4 pixels wide if the shorter side of the frame is 256
pixels, and grows with the square root of that side. This is small enough to avoid the low frequencies, where the energy
of pictures is, and large enough to survive scaling to half the size. The pattern is smooth and free of low frequencies.

Strength. The pattern is weaker on flat and dark parts of a frame and stronger in texture. The PSNR of a frame never
falls below 40 dB. In pictures, which need not survive a video codec, flat parts get half the strength, because the
pattern would be visible there. The pattern is the same in all frames of a file: codecs store a static pattern at little
cost, and a reader can average frames.

Payload. 44 bits (format version, model, file id), a CRC of 16 bits, and a tail-biting convolutional code of rate 1/3
and constraint length 9, decoded by the Viterbi algorithm on soft values (Viterbi 1967; generators 557, 663, 711 octal:
Larsen 1973).

Reading. Frames are averaged, high-pass filtered, divided by their local deviation, clipped, and whitened in the
frequency domain, which raises the mark above the picture. Cropping and scaling change the cell width in pixels and the
offset of the pattern. All widths are tried. For each width, one Fourier transform of the frame folded to one period
tests all offsets, mirrored ones included.

False positives. Correlations of an unmarked frame are normally distributed with deviation 1 (measured by the tests).
About 400 widths times 115,200 offsets, mirrored ones included, are tried, and for each width 9 offsets near the corner
of the frame, where the mark of an uncropped file starts. Each of the two groups gets half of the permitted error
probability. If the best of a group's n correlations is z deviations, the probability that any of them reaches z by
chance is at most n Q(z). The probability of a matching CRC, which is read from other cells, is 2^-16. A reading is
reported only if 2 n Q(z) 2^-16 is below MAX_FALSE_POSITIVE.

The default key is public, so that everybody can read the mark; everybody can therefore also write or remove it. Files
marked with a private key are readable only by its owner, until somebody collects enough of them to estimate the known
cells.
"""

from __future__ import annotations

import hashlib
import math
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array, Image

PUBLIC_KEY = b"mimik watermark 1"
FORMAT_VERSION = 1
MAX_FALSE_POSITIVE = 1e-6  # of one reading

_VERSION_BITS, _MODEL_BITS, _ID_BITS, _CRC_BITS = 4, 8, 32, 16
_PAYLOAD_BITS = _VERSION_BITS + _MODEL_BITS + _ID_BITS
_WORD_BITS = _PAYLOAD_BITS + _CRC_BITS

_GENERATORS = (0o557, 0o663, 0o711)
_MEMORY = 8  # bits of the encoder's state
_CODE_BITS = _WORD_BITS * len(_GENERATORS)

_LIMITED = 219 / 255  # luma levels in a video file per level of brightness

_BLOCK = 15  # side of a block in cells; _BLOCK**2 - _CODE_BITS cells are known to the reader
_PERIOD = 8 * _BLOCK  # period of the pattern in cells

_GRID = 2 * _PERIOD  # the reader samples each cell twice along each side
_MIN_CELLS, _MAX_CELLS = 40.0, 300.0  # along the shorter side; fewer cells yield no normal distribution
_MIN_PITCH = 1.1  # pixels; narrower cells cannot be resolved
_STEP_CELLS = 0.7  # step between tried widths; this error shifts the pattern by a third of a cell at the border
_CLEAR_CHANCE = 1e-6  # probability below which a candidate is decoded before other widths are tried
_REFINEMENTS = (1.0, 1.0, 0.5, 0.25)  # fractions of a step to try on both sides, in this order
_NUM_WIDTHS = 6  # number of candidate widths that are refined and decoded
_AT_ORIGIN = (-1, 0, 1)  # samples of the reader's grid around the offset of an uncropped frame
_MAX_SIDE = 800  # pixels; frames whose shorter side is at least twice this are reduced before reading
_MAX_FRAMES = 64  # more frames add little to the average


@dataclass(frozen=True)
class Payload:
    """Payload of the watermark."""

    model: int  # 0..255, number of the model
    file_id: int  # 0..2**32 - 1, random for each file
    version: int = FORMAT_VERSION  # 0..15, version of the payload's format

    def __post_init__(self) -> None:
        for name, bits in (("version", _VERSION_BITS), ("model", _MODEL_BITS), ("file_id", _ID_BITS)):
            value = getattr(self, name)
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{name} {value}: use a number from 0 to {(1 << bits) - 1}")

    def to_int(self) -> int:
        return (self.version << _MODEL_BITS | self.model) << _ID_BITS | self.file_id

    @classmethod
    def from_int(cls, value: int) -> Payload:
        rest, file_id = divmod(value, 1 << _ID_BITS)
        version, model = divmod(rest, 1 << _MODEL_BITS)
        return cls(model, file_id, version)


@dataclass(frozen=True)
class Reading:
    """Result of reading a watermark."""

    payload: Payload | None  # None if there is no mark, or too little of it
    score: float  # deviations of the best candidate; about 5.5 in an unmarked picture
    false_positive: float = 1.0  # upper bound of the probability of such a reading in an unmarked file
    pitch: float | None = None  # pixels per cell in the input; None without a payload
    mirrored: bool = False  # whether the frames were mirrored left to right


# ---------------------------------------------------------------------------------------------------------------------
# Bits: payload, CRC, code.


def encode(payload: Payload) -> NDArray[np.int64]:
    """The codeword, [_CODE_BITS] of 0 and 1."""
    word = payload.to_int() << _CRC_BITS | _crc(payload.to_int())
    bits = np.array([word >> i & 1 for i in reversed(range(_WORD_BITS))])
    # Tail-biting: the encoder starts in its final state, so the bits before the first are the last ones.
    window = np.stack([np.roll(bits, delay) for delay in range(_MEMORY + 1)], axis=1)
    taps = np.array([[g >> (_MEMORY - delay) & 1 for g in _GENERATORS] for delay in range(_MEMORY + 1)])
    return (window @ taps % 2).ravel()


def decode(soft: NDArray[np.floating]) -> Payload | None:
    """The most likely payload, or None if its CRC does not match.

    Args: soft: [_CODE_BITS] positive if a codeword bit is likely 0, negative if it is likely 1; any scale.
    """
    word = 0
    for bit in _viterbi(np.asarray(soft, np.float32).reshape(_WORD_BITS, len(_GENERATORS))):
        word = word << 1 | int(bit)
    value, crc = divmod(word, 1 << _CRC_BITS)
    return Payload.from_int(value) if _crc(value) == crc else None


def _crc(value: int) -> int:
    return zlib.crc32(value.to_bytes((_PAYLOAD_BITS + 7) // 8, "big")) & ((1 << _CRC_BITS) - 1)


@lru_cache(maxsize=1)
def _trellis() -> tuple[NDArray[np.int64], Array]:
    """Predecessors of each state, [S, 2], and the encoder's output per transition, [S, 2, 3]: +1 for 0, -1 for 1.

    A state holds the last bits, the newest in the highest position.
    """
    state = np.arange(1 << _MEMORY)
    before = ((state << 1) & (len(state) - 1))[:, None] | np.arange(2)
    register = ((state >> (_MEMORY - 1)) << _MEMORY)[:, None] | before
    sent = [[[1 - 2 * ((r & g).bit_count() & 1) for g in _GENERATORS] for r in pair] for pair in register.tolist()]
    return before, np.array(sent, np.float32)


def _viterbi(soft: Array) -> list[int]:
    """The most likely bits, decoded from the second of three rounds over the soft values.

    The first round finds the initial state of the tail-biting code; the last lets the paths merge.
    """
    before, sent = _trellis()
    score = np.zeros(len(before), np.float32)
    choices = []
    for _ in range(3):
        for step in soft:
            arriving = score[before] + sent @ step
            choice = arriving[:, 1] > arriving[:, 0]
            score = np.where(choice, arriving[:, 1], arriving[:, 0])
            choices.append(choice)
    state, bits = int(score.argmax()), []
    for choice in reversed(choices[len(soft) :]):
        bits.append(state >> (_MEMORY - 1))
        state = int(before[state, int(choice[state])])
    return bits[::-1][: len(soft)]


# ---------------------------------------------------------------------------------------------------------------------
# Pattern.


@dataclass(frozen=True)
class _Layout:
    """Keyed arrangement of the pattern."""

    role: NDArray[np.int64]  # [_PERIOD, _PERIOD] index of a cell's codeword bit; known cells: _CODE_BITS and above
    chip: Array  # [_PERIOD, _PERIOD] +1 or -1
    # Conjugate transforms of the known cells on the reader's grid: original, and mirrored.
    known: tuple[NDArray[np.complex64], NDArray[np.complex64]]


@lru_cache(maxsize=4)
def _layout(key: bytes) -> _Layout:
    # Derived from a hash instead of numpy's generators, whose streams may change between versions.
    cells, blocks = _PERIOD**2, (_PERIOD // _BLOCK) ** 2
    order = np.frombuffer(hashlib.shake_256(b"order" + key).digest(8 * cells), "<u8").reshape(blocks, -1)
    places = order.argsort(axis=1, kind="stable").reshape(_PERIOD // _BLOCK, _PERIOD // _BLOCK, _BLOCK, _BLOCK)
    role = places.transpose(0, 2, 1, 3).reshape(_PERIOD, _PERIOD)
    signs = np.unpackbits(np.frombuffer(hashlib.shake_256(b"chips" + key).digest(cells // 8), np.uint8))
    chip = (1 - 2 * signs.astype(np.float32)).reshape(_PERIOD, _PERIOD)
    grid = np.zeros((_GRID, _GRID), np.float32)
    grid[::2, ::2] = np.where(role >= _CODE_BITS, chip, 0)
    known, mirrored = (np.fft.rfft2(one).conj().astype(np.complex64) for one in (grid, grid[:, ::-1]))
    return _Layout(role, chip, (known, mirrored))


def _cells(payload: Payload, key: bytes) -> Array:
    """[_PERIOD, _PERIOD] pattern of +1 and -1."""
    layout = _layout(key)
    known = np.ones(_BLOCK**2 - _CODE_BITS)
    return np.concatenate([1 - 2 * encode(payload), known]).astype(np.float32)[layout.role] * layout.chip


def pitch_of(height: int, width: int) -> float:
    """Pixels per cell for marking a frame of this size."""
    return 2.4 * math.sqrt(max(1.0, min(height, width) / 256))


class WatermarkEmbedder:
    """Marks the frames of one file. Stateless between frames, so that threads may share it."""

    _MAX_RMS = 2.5  # RMS limit over a frame, in levels; keeps the PSNR, with rounding, above 40.1 dB
    _MAX_LEVELS = 4.0
    _TEXTURE = 0.4  # levels of mark per level of texture deviation; more in pictures, to offset their flat parts
    _PICTURE_TEXTURE = 0.5
    _PICTURE_FLAT = 0.45  # strength on flat parts, relative to that of videos
    _ACTIVITY_STEP = 4  # pixels; texture is measured on a reduced frame
    _BAND_PX = 1 << 18  # pixels per band of rows, so that intermediate results fit into the cache
    _STEPS = 32  # quantization of the mark's strength, per level

    def __init__(
        self, height: int, width: int, payload: Payload, *, key: bytes = PUBLIC_KEY, is_video: bool = True
    ) -> None:
        """Args:
        height, width: of the frames, in pixels.
        is_video: whether a video codec follows, which weakens the mark; otherwise a picture or a GIF.
        """
        self.height, self.width = height, width
        pitch = pitch_of(height, width)
        self._texture = self._TEXTURE if is_video else self._PICTURE_TEXTURE
        # Large frames have enough cells for a mark that is invisible on flat skin.
        flat = 1.8 * (256 / max(256, min(height, width))) ** 1.3
        self._flat = max(0.7, flat if is_video else self._PICTURE_FLAT * flat)
        border = 2
        repeats = [math.ceil((math.ceil(side / pitch) + 2 * border) / _PERIOD) for side in (height, width)]
        cells = np.roll(np.tile(_cells(payload, key), repeats), border, (0, 1))
        shift = pitch / 2 - 0.5 - border * pitch  # of the first cell's center
        place = np.array([[pitch, 0, shift], [0, pitch, shift]])
        pattern = cv2.warpAffine(cells, place, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        pattern -= cv2.GaussianBlur(pattern, (0, 0), pitch)
        pattern /= np.sqrt(np.mean(pattern**2))
        # Its absolute value as bytes, which multiply in half the time of wider types; and 255 where it lightens.
        self._top = float(np.abs(pattern).max())
        self._pattern = cv2.convertScaleAbs(pattern, alpha=255 / self._top)
        self._lightens = cv2.compare(pattern, 0.0, cv2.CMP_GT)

    def embed(self, frame: Image) -> Image:
        """A marked copy of uint8 RGB [H, W, 3]. Raises ValueError if the frame has another size."""
        if frame.shape != (self.height, self.width, 3):
            raise ValueError(f"frame of shape {frame.shape}: this embedder marks {self.width} x {self.height} RGB")
        marked = np.empty_like(frame)
        for rows, lighter, darker in self._changes(self._reduced(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)), 1.0):
            lighter, darker = (cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB) for plane in (lighter, darker))
            cv2.subtract(cv2.add(frame[rows], lighter), darker, dst=marked[rows])
        return marked

    def embed_luma(self, luma: NDArray[np.uint8]) -> None:
        """Mark the luma plane of a frame in place; equivalent to embed, but faster.

        Args: luma: uint8 [H, W], 16 is black and 235 white; a last column or row that codecs drop may be missing.
        """
        height, width = luma.shape
        assert 0 <= self.height - height <= 1 and 0 <= self.width - width <= 1, luma.shape
        small = (self._reduced(luma) - np.float32(16)) * np.float32(1 / _LIMITED)
        for rows, lighter, darker in self._changes(small, _LIMITED):
            part = luma[rows]
            if not len(part):
                break
            part[...] = cv2.subtract(cv2.add(part, lighter[: len(part), :width]), darker[: len(part), :width])

    def _reduced(self, luma: NDArray[np.uint8]) -> Array:
        size = max(1, self.width // self._ACTIVITY_STEP), max(1, self.height // self._ACTIVITY_STEP)
        return cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)

    def _changes(self, small: Array, k: float) -> Iterator[tuple[slice, NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield bands of rows, and the levels by which they become lighter and darker, [rows, W].

        Args: small: luma of a reduced frame, 0..255; k: levels of the plane per level of brightness.
        """
        levels = cv2.convertScaleAbs(self._strength(small), alpha=self._STEPS)
        strength = cv2.resize(levels, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        k *= self._top / (255 * self._STEPS)
        band = max(self._BAND_PX // self.width, 1)
        for top in range(0, self.height, band):
            rows = slice(top, top + band)
            change = cv2.multiply(strength[rows], self._pattern[rows], scale=k)
            lighter = cv2.bitwise_and(change, self._lightens[rows])
            yield rows, lighter, cv2.subtract(change, lighter)

    def _strength(self, small: Array) -> Array:
        """Strength of the mark in levels, for a reduced frame's luma."""
        activity = cv2.blur(cv2.absdiff(small, cv2.blur(small, (3, 3))), (3, 3))
        # Use the local minimum: a flat surface beside an edge does not mask the mark.
        activity = cv2.erode(activity, np.ones((3, 3)))
        strength = np.minimum(self._flat + self._texture * activity, self._MAX_LEVELS)
        strength *= np.minimum(0.4 + small / 64, 1)  # black parts do not mask the mark
        return strength * min(1.0, self._MAX_RMS / math.sqrt(float(np.mean(strength**2))))


# ---------------------------------------------------------------------------------------------------------------------
# Reading.


class WatermarkDetector:
    """Reads marks of one key. Stateless between files, so that threads may share it."""

    def __init__(self, key: bytes = PUBLIC_KEY) -> None:
        self._layout = _layout(key)

    def read(self, frames: Iterable[Image], *, own_size: bool = False) -> Reading:
        """Read the mark of some frames jointly.

        Args:
            frames: uint8 RGB [H, W, 3], at least one, all of the same size and crop; frames after the first 64 are not
                read. Pass 20 to 60 frames spread over a video.
            own_size: whether the frames are known to have the size in which they were marked; then the hundreds of
                other widths are not tried.

        Raises:
            ValueError: if there is no frame, or the sizes differ.
        """
        luma = _mean_luma(frames)
        # Reduce very large frames: all trials would take minutes, and the mark remains readable.
        factor = max(1, min(luma.shape) // _MAX_SIDE)
        pitches = [pitch / factor for pitch in _pitches(*luma.shape)][: 1 if own_size else None]
        if factor > 1:
            height, width = (side // factor * factor for side in luma.shape)
            luma = cv2.resize(luma[:height, :width], (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        # Count every trial: the widths, and the refinements of each candidate.
        num_trials = len(pitches) + (2 * len(_REFINEMENTS) + 3) * _NUM_WIDTHS
        places: list[_Alignment] = []
        for pitch in pitches:
            places.append(self._best_alignment(luma, pitch))
            if places[-1].chance < _CLEAR_CHANCE and (found := self._search(luma, places[-1], num_trials, factor)):
                return found
        places.sort()
        for place in places[:_NUM_WIDTHS]:
            if found := self._search(luma, place, num_trials, factor):
                return found
        return Reading(None, places[0].score if places else 0.0)

    def _search(self, luma: Array, place: _Alignment, num_trials: int, factor: int) -> Reading | None:
        """The reading at or near a candidate: refine pitch and sampling, then decode the trials."""
        side = min(luma.shape)
        tried = [place]
        for part in _REFINEMENTS:
            cells = side / min(tried).pitch
            tried += [self._best_alignment(luma, side / (cells + sign * part * _STEP_CELLS)) for sign in (-1, 1)]
        pitch = min(tried).pitch
        tried += [self._best_alignment(luma, pitch, shift) for shift in ((0, 0), (0, 0.5), (0.5, 0))]
        for place in sorted(tried):
            chance = max(place.chance * num_trials * 2.0**-_CRC_BITS, sys.float_info.min)
            if chance >= MAX_FALSE_POSITIVE:
                break
            if payload := decode(self._soft_bits(luma, place)):
                return Reading(payload, place.score, chance, factor * place.pitch, place.mirrored)
        return None

    def _best_alignment(self, luma: Array, pitch: float, shift: tuple[float, float] = (0.5, 0.5)) -> _Alignment:
        found = _matched(luma, pitch, shift)
        places = []
        for mirrored, known in enumerate(self._layout.known):
            correlation = np.fft.irfft2(found * known, s=(_GRID, _GRID))
            correlation /= max(float(correlation.std()), 1e-30)  # a uniform frame has deviation 0
            where = [(correlation, 2 * correlation.size)]
            if not mirrored:
                # Most files are not cropped. With half of the error probability for the few offsets at the corner, 4.3
                # deviations suffice there, compared with 6.1 elsewhere.
                origin = np.full_like(correlation, -np.inf)
                origin[np.ix_(_AT_ORIGIN, _AT_ORIGIN)] = correlation[np.ix_(_AT_ORIGIN, _AT_ORIGIN)]
                where.append((origin, len(_AT_ORIGIN) ** 2))
            for scores, positions in where:
                peak = int(scores.argmax())
                chance = 2 * positions * _normal_tail(float(scores.flat[peak]))
                top, left = divmod(peak, _GRID)
                places.append(_Alignment(chance, -float(scores.flat[peak]), pitch, shift, top, left, bool(mirrored)))
        return min(places)

    def _soft_bits(self, luma: Array, place: _Alignment) -> NDArray[np.float64]:
        """[_CODE_BITS] soft values of the codeword's bits."""
        grid = np.fft.irfft2(_matched(luma, place.pitch, place.shift), s=(_GRID, _GRID))
        grid = np.roll(grid, (-place.top, -place.left), (0, 1))
        if place.mirrored:
            grid = grid[:, ::-1]
        chips = grid[::2, ::2] * self._layout.chip
        return np.bincount(self._layout.role.ravel(), chips.ravel())[:_CODE_BITS].astype(np.float64)


@dataclass(frozen=True, order=True)
class _Alignment:
    """A candidate position of the pattern; the smallest is the most likely."""

    chance: float  # expected number of positions of one pitch that are as good in an unmarked frame
    negative_score: float  # deviations, negated
    pitch: float  # pixels per cell
    shift: tuple[float, float]  # of the reader's grid relative to the frame, in samples down and right
    top: int  # offset of the pattern on the reader's grid
    left: int  # likewise
    mirrored: bool  # whether the frame is mirrored left to right

    @property
    def score(self) -> float:
        return -self.negative_score


def _mean_luma(frames: Iterable[Image]) -> Array:
    """[H, W] mean luma of the first _MAX_FRAMES frames."""
    total, num_frames = None, 0
    for frame in frames:
        luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if total is None:
            total = np.zeros(luma.shape, np.float32)
        if luma.shape != total.shape:
            raise ValueError(f"frames of {total.shape} and {luma.shape} pixels: use frames of one size")
        cv2.accumulate(luma, total)
        num_frames += 1
        if num_frames == _MAX_FRAMES:
            break
    if total is None:
        raise ValueError("no frame was given; use one or more")
    return np.divide(total, num_frames, dtype=np.float32)


def _pitches(height: int, width: int) -> list[float]:
    """Cell widths to try: first that of an unscaled frame, then in order of distance from it."""
    side, own = min(height, width), pitch_of(height, width)
    pitches = (side / np.arange(_MIN_CELLS, min(_MAX_CELLS, side / _MIN_PITCH), _STEP_CELLS)).tolist()
    if side / own >= _MIN_CELLS:
        pitches.append(own)
    return sorted(pitches, key=lambda pitch: abs(math.log(pitch / own)))


def _matched(luma: Array, pitch: float, shift: tuple[float, float]) -> NDArray[np.complex64]:
    """Transform of the frame, two samples per cell, folded to one period, whitened and matched to a cell."""
    height, width = luma.shape
    size = max(1, round(2 * width / pitch)), max(1, round(2 * height / pitch))
    enlarge = size[0] > width
    small = cv2.resize(luma, size, interpolation=cv2.INTER_CUBIC if enlarge else cv2.INTER_AREA)
    small -= cv2.GaussianBlur(small, (0, 0), 1.3)
    # Edges and texture would outweigh the mark; 0.5 is the variance of coding noise on flat parts.
    small /= np.sqrt(cv2.GaussianBlur(small * small, (0, 0), 1.5) + 0.5)
    np.clip(small, -1.5, 1.5, out=small)
    rows, columns = (-(-side // _GRID) for side in small.shape)
    padding = rows * _GRID - small.shape[0], columns * _GRID - small.shape[1]
    folded = np.pad(small, ((0, padding[0]), (0, padding[1]))).reshape(rows, _GRID, columns, _GRID).sum((0, 2))
    spectrum = np.fft.rfft2(folded)
    power: Array = cv2.blur(np.square(np.abs(spectrum)).astype(np.float32), (9, 9))
    whitening = np.float32(1) / np.sqrt(power + np.float32(1e-6 * power.mean() + 1e-12))
    return (spectrum * whitening * _cell_response(shift)).astype(np.complex64, copy=False)


@lru_cache(maxsize=4)
def _cell_response(shift: tuple[float, float]) -> NDArray[np.complex64]:
    """Transform of a band-pass that matches a cell, shifted back by a shift in samples."""
    spot = np.zeros((_GRID, _GRID), np.float32)
    spot[_PERIOD, _PERIOD] = 1
    band = cv2.GaussianBlur(spot, (0, 0), 1.0) - cv2.GaussianBlur(spot, (0, 0), 1.7)
    response = np.fft.rfft2(np.roll(band, (_PERIOD, _PERIOD), (0, 1)))
    down, right = np.fft.fftfreq(_GRID)[:, None], np.fft.rfftfreq(_GRID)[None]
    return (response * np.exp(2j * np.pi * (down * shift[0] + right * shift[1]))).astype(np.complex64)


def _normal_tail(z: float) -> float:
    """Q(z): probability that a normal variable exceeds z deviations."""
    return 0.5 * math.erfc(z / math.sqrt(2))
