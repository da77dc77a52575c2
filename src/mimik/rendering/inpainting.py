"""What stands behind a person, continued from the photo's own surroundings.

Every pixel of the hole is a copy of another one, from a shift of the photo at which their neighborhoods agree: shifts
along rows, columns and diagonals continue straight lines, the peaks of the photo's autocorrelation continue textures
(after He and Sun 2012, "Statistics of Patch Offsets for Image Completion"). The hole is filled from its edge inwards,
small at first; the photo's own pixels are then copied, so that the result is as sharp as the photo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Array, Image
from mimik.pipeline import begun

_COARSE_PX = 112  # longer side at which shifts are chosen
_PATCH = 9  # pixels of that size: side of the neighborhoods that have to agree
_JOINT = 7  # pixels of that size: side of the squares within which a shift has to suit all pixels
_WORST = 0.3  # squared difference of colors, from which on it is as bad as any
_PRIOR = 0.1  # of the squared difference of a copy's color to that of the smooth filling
_GOES_ON = 0.6  # of its cost has a shift that goes on where the filling before it ended
_DEAR = 0.01, 1.0  # a copy counts half against the smooth filling if it is off by this, and this share of the variance
_SUM = np.ones((1, 3))
_RING = 3  # pixels of that size that are filled before the next ones are looked at
_AROUND_RING = np.ones((2 * _RING + 1, 2 * _RING + 1), np.uint8)
_PEAKS = 96  # of the autocorrelation
_FAR = 2e-4  # cost of a shift's length in widths of the picture, against the squared difference of colors in 0..1
_MOST_TONE = 8.0  # of 255: by more the tone of a copy is not changed
_FINE_PX = 336  # longer side at which the shifts are made exact


def fill(picture: Image, hole: NDArray[np.bool_], reach: float, plain: Array | None = None) -> Image:
    """The picture with its hole filled.

    Args:
        picture: uint8 RGB [H, W, 3].
        hole: [H, W].
        reach: pixels from the hole's edge up to which the filling has detail; further inside it is smooth.
        plain: [H, W] 0..1, where the filling is smooth because its surroundings are; None: nowhere.

    Returns:
        uint8 RGB [H, W, 3]; outside the hole the picture itself.
    """
    if not hole.any() or hole.mean() > 0.95:
        return picture.copy()
    smoothing = begun(lambda: _smooth_fill(picture, hole))
    shifts, is_known = _shifts(picture, hole, reach)
    smooth = smoothing.result()
    out = _copied(np.where(hole[..., None], np.rint(smooth).astype(np.uint8), picture), shifts, smooth)
    out += _tone(out, smooth, is_known > 0, reach)
    # Beside the picture itself the copies are whole: faded there, they would leave a rim without detail.
    weight = cv2.GaussianBlur(np.where(hole, is_known, np.float32(1)), (0, 0), max(reach / 12, 0.6)) * (is_known > 0)
    if plain is not None:
        weight = weight * (1 - plain)
    out = smooth + weight[..., None] * (out - smooth)
    return np.where(hole[..., None], np.rint(out.clip(0, 255)).astype(np.uint8), picture)


def _smooth_fill(picture: Image, hole: NDArray[np.bool_]) -> Array:
    """[H, W, 3] the hole without detail (Telea 2004), made at a small size."""
    colors, small, _ = _reduced(picture, hole, _FINE_PX)
    filled = cv2.inpaint(np.rint(colors * 255).astype(np.uint8), small.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    soft = cv2.GaussianBlur(filled, (0, 0), 4.0)
    filled[small] = soft[small]
    return np.asarray(cv2.resize(filled, hole.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32))


def _tone(copy: Array, smooth: Array, where: NDArray[np.bool_], reach: float) -> Array:
    """What a copy, taken from where it is lighter or darker, needs to have the tone of its new surroundings."""
    k = min(1.0, _FINE_PX / max(where.shape))
    size = max(round(where.shape[1] * k), 1), max(round(where.shape[0] * k), 1)
    weight = cv2.resize(where.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    off = cv2.resize((smooth - copy) * where[..., None], size, interpolation=cv2.INTER_AREA)
    sigma = max(reach * k / 8, 1.0)
    total = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
    tone = cv2.GaussianBlur(off, (0, 0), sigma) / np.maximum(total, 1e-3)
    tone = cv2.resize(tone, where.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(_MOST_TONE * np.tanh(tone / _MOST_TONE))


def _reduced(picture: Image, hole: NDArray[np.bool_], longer: int) -> tuple[Array, NDArray[np.bool_], float]:
    """Colors in 0..1 and hole at a size of at most `longer` px, and how much smaller that is."""
    k = min(1.0, longer / max(hole.shape))
    size = max(round(hole.shape[1] * k), 1), max(round(hole.shape[0] * k), 1)
    small = cv2.resize(hole.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 0
    known = (~hole).astype(np.float32)
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)[..., None]
    colors = cv2.resize(picture * known[..., None], size, interpolation=cv2.INTER_AREA)
    return (colors / np.maximum(weight, 1e-3) / 255).astype(np.float32), small, k


def _shifts(picture: Image, hole: NDArray[np.bool_], reach: float) -> tuple[Array, Array]:
    """[H, W, 2] where each pixel's copy lies, less its own place, in pixels; and [H, W] 0..1 how well it fits."""
    colors, small, k = _reduced(picture, hole, _COARSE_PX)
    rough = np.rint(colors.clip(0, 1) * 255).astype(np.uint8)
    expected = cv2.inpaint(rough, small.astype(np.uint8), 3, cv2.INPAINT_TELEA) / np.float32(255)
    chosen, filled, fit = _grown(colors, small, _candidates(colors, small), expected, reach * k)
    fine, fine_hole, _ = _reduced(picture, hole, _FINE_PX)
    size = fine_hole.shape[1::-1]
    ratio = np.array(size) / np.array(small.shape[1::-1])
    chosen = cv2.resize(chosen, size, interpolation=cv2.INTER_NEAREST) * ratio.astype(np.float32)
    filled = cv2.resize(filled.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    chosen = _exact(fine, fine_hole, np.rint(chosen), filled & fine_hole)
    scale = np.array(hole.shape[::-1]) / np.array(size)
    size = hole.shape[1::-1]
    shifts = np.rint(cv2.resize(chosen, size, interpolation=cv2.INTER_NEAREST) * scale.astype(np.float32))
    fit = cv2.resize(cv2.GaussianBlur(fit, (0, 0), 1.5), size, interpolation=cv2.INTER_LINEAR)
    return shifts, fit * ((cv2.resize(filled.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0) & hole)


def _candidates(colors: Array, hole: NDArray[np.bool_]) -> NDArray[np.int_]:
    """[N, 2] shifts in x and y that are tried."""
    height, width = hole.shape
    far = max(height, width)
    near = np.concatenate([np.arange(2, 24), np.arange(24, round(0.8 * far), 3)])
    zero = np.zeros_like(near)
    lines = [(near, zero), (-near, zero), (zero, near), (zero, -near)]
    step = near[::4]
    lines += [(x * step, y * step) for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    # The autocorrelation of what varies, without the hole.
    gray = colors.mean(-1)
    known = (~hole).astype(np.float32)
    blurred = cv2.GaussianBlur(gray * known, (0, 0), 4) / np.maximum(cv2.GaussianBlur(known, (0, 0), 4), 1e-3)
    detail = (gray - blurred) * known
    shape = 2 * height, 2 * width
    power, overlap = (np.fft.irfft2(np.abs(np.fft.rfft2(x, shape)) ** 2, shape) for x in (detail, known))
    score = np.fft.fftshift(power / np.maximum(overlap, 0.05 * known.size)).astype(np.float32)
    peak = score >= cv2.dilate(score, np.ones((3, 3)))
    y, x = np.nonzero(peak)
    order = np.argsort(-score[y, x])[: _PEAKS + 1]
    lines.append((x[order] - width, y[order] - height))
    every = np.concatenate([np.stack(line, 1) for line in lines])
    return np.unique(every[np.abs(every).max(1) >= 2], axis=0)


def _shifted(plane: NDArray[Any], dx: int, dy: int) -> NDArray[Any]:
    """plane at (x + dx, y + dy); 0 outside."""
    matrix = np.array([[1.0, 0, -dx], [0, 1, -dy]])
    return cv2.warpAffine(plane, matrix, plane.shape[1::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


def _grown(
    colors: Array, hole: NDArray[np.bool_], candidates: NDArray[np.int_], expected: Array, reach: float
) -> tuple[Array, NDArray[np.bool_], Array]:
    """Fills the hole from its edge inwards, up to reach pixels.

    Returns:
        [h, w, 2] float32 the shift of each pixel, 0 where it is known or was not filled; [h, w] whether it was filled;
        [h, w] 0..1 how well it fits.
    """
    image, known = colors.copy(), (~hole).astype(np.float32)
    price = np.zeros(hole.shape, np.float32)
    labels, used = np.full(hole.shape, -1, np.int16), np.zeros(len(candidates), bool)
    pure = cv2.erode(known, np.ones((5, 5)), borderType=cv2.BORDER_REPLICATE)
    done = known.copy()
    # Around the picture nothing: a copy from there is black, and not allowed.
    pad = int(np.abs(candidates).max())
    wide, is_pure = (cv2.copyMakeBorder(plane, pad, pad, pad, pad, cv2.BORDER_CONSTANT) for plane in (colors, pure))
    is_pure = is_pure > 0
    apart = np.empty((len(candidates), *hole.shape), np.float32)  # of filled pixels and their copies; else 0
    height, width = hole.shape
    for plane, (x, y) in zip(apart, (candidates + pad).tolist(), strict=True):
        np.multiply(_squared(cv2.subtract(colors, wide[y : y + height, x : x + width])), known, out=plane)
    length = (_FAR * np.sqrt((candidates**2).sum(1)) / max(hole.shape)).astype(np.float32)[:, None]
    for _ in range(int(np.ceil(reach / _RING))):
        ring = (cv2.dilate(done, _AROUND_RING) > 0) & (done == 0)
        if not ring.any():
            break
        x, y, width, height = cv2.boundingRect(ring.astype(np.uint8))
        part = np.s_[max(y - _PATCH, 0) : y + height + _PATCH, max(x - _PATCH, 0) : x + width + _PATCH]
        rows, columns = np.nonzero(ring)
        here, weight = image[part], done[part]
        total = cv2.blur(weight, (_PATCH, _PATCH)) + np.float32(1e-4)
        mean = cv2.blur(here * weight[..., None], (_PATCH, _PATCH)) / total[..., None]
        square = cv2.transform(cv2.blur(here * here * weight[..., None], (_PATCH, _PATCH)), _SUM) / total
        variance = (square - (mean * mean).sum(-1)).clip(0)[ring[part]]

        # Of each candidate [N] at each place of the ring [n].
        at = _places(rows, columns, candidates, pad, wide.shape[1])
        valid = is_pure.ravel().take(at)
        tried = np.flatnonzero(valid.any(1))
        if not len(tried):
            break
        at, valid = at[tried], valid[tried]
        sources = wide.reshape(-1, 3).take(at, axis=0)
        raw = np.minimum(_blurred([apart[one][part] for one in tried], ring[part]) / total[ring[part]], _WORST)
        cost = raw + np.float32(_PRIOR) * _squared(expected[rows, columns] - sources)
        for number in np.flatnonzero(used[tried]):
            is_same = (labels[part] == tried[number]).astype(np.uint8)
            cost[number, cv2.dilate(is_same, _AROUND_RING)[ring[part]] > 0] *= np.float32(_GOES_ON)
        cost[~valid] = _WORST
        cost = _spread_over(cost, ring[part]) + length[tried]
        cost[~valid] = np.inf
        best = cost.argmin(0)
        found = np.flatnonzero(valid.any(0))
        allowed = np.float32(_DEAR[0]) + np.float32(_DEAR[1]) * variance[found]
        rows, columns, best = rows[found], columns[found], best[found]
        price[rows, columns] = raw[best, found] / allowed
        image[rows, columns] = sources[best, found]
        best = tried[best]
        labels[rows, columns] = best
        used[best] = True
        done[rows, columns] = 1
        # Copies of what is filled: the next ring's neighborhoods.
        sources = wide.reshape(-1, 3).take(_places(rows, columns, candidates, pad, wide.shape[1]), axis=0)
        at = rows * hole.shape[1] + columns
        for plane, values in zip(apart, _squared(image[rows, columns] - sources), strict=True):
            plane.ravel()[at] = values
    filled = labels >= 0
    chosen = np.where(filled[..., None], candidates[_agreed(candidates, labels, pure)], 0).astype(np.float32)
    return chosen, filled, (1.5 - price).clip(0, 1)


def _places(
    rows: NDArray[np.intp], columns: NDArray[np.intp], shifts: NDArray[np.int_], pad: int, width: int
) -> NDArray[Any]:
    """[N, n] numbers of the pixels at N shifts from n places, in a picture that is padded to this width."""
    return np.asarray((rows + pad) * width + columns + pad + (shifts @ np.array([1, width]))[:, None])


def _squared(off: Array) -> Array:
    """[.., 3] -> [..] the sum of the squares."""
    return np.asarray(cv2.transform((off * off).reshape(-1, 1, 3), _SUM).reshape(off.shape[:-1]))


def _blurred(planes: Sequence[Array], where: NDArray[np.bool_]) -> Array:
    """Means over squares of _PATCH pixels, of planes [h, w] each, at n places [h, w] -> [N, n]."""
    at = np.flatnonzero(where)
    return np.stack([cv2.blur(plane, (_PATCH, _PATCH)).ravel().take(at) for plane in planes])


def _spread_over(costs: Array, ring: NDArray[np.bool_]) -> Array:
    """Each cost [N, n] at the n places of a ring [h, w], as the mean over those within a square of _JOINT pixels."""
    at, plane = np.flatnonzero(ring), np.zeros(ring.shape, np.float32)
    total = cv2.blur(ring.astype(np.float32), (_JOINT, _JOINT)).ravel()[at] + np.float32(1e-6)
    out = np.empty_like(costs)
    for cost, mean in zip(costs, out, strict=True):
        plane.ravel()[at] = cost
        cv2.blur(plane, (_JOINT, _JOINT)).ravel().take(at, out=mean)
    return out / total


def _agreed(candidates: NDArray[np.int_], labels: NDArray[Any], pure: Array) -> NDArray[Any]:
    """The labels without specks: of each pixel the one that most of its neighbors have, and that it can have.

    Args:
        candidates: [N, 2] shifts.
        labels: [h, w] numbers of candidates; -1: not filled.
        pure: [h, w] above 0 where may be copied from.
    """
    most, out = np.zeros(labels.shape, np.float32), labels.copy()
    for number in np.unique(labels[labels >= 0]):
        share = cv2.blur((labels == number).astype(np.float32), (_JOINT, _JOINT))
        better = (share > most) & (labels >= 0) & (_shifted(pure, *candidates[number].tolist()) > 0)
        most[better] = share[better]
        out[better] = number
    return out


def _exact(colors: Array, hole: NDArray[np.bool_], chosen: Array, where: NDArray[np.bool_]) -> Array:
    """The shifts [h, w, 2], each moved by up to two pixels to where its edge fits what it continues.

    Pixels of one shift move together: the piece that they copy stays whole.
    """
    out = chosen.copy()
    known = ~hole
    height, width = hole.shape
    edge = known & (cv2.dilate(hole.astype(np.uint8), np.ones((7, 7))) > 0)
    steps = np.arange(-2, 3)
    moves = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    for piece in _pieces(chosen, where):
        # The known pixels beside the piece, and those of its copy.
        part = tuple(slice(max(int(at.min()) - 3, 0), int(at.max()) + 4) for at in piece)
        corner = part[0].start, part[1].start
        own = np.zeros(edge[part].shape, np.uint8)
        own[piece[0] - corner[0], piece[1] - corner[1]] = 1
        beside = (cv2.dilate(own, np.ones((7, 7))) > 0) & edge[part]
        rows, columns = (at + first for at, first in zip(np.nonzero(beside), corner, strict=True))
        if len(rows) < 4:
            continue
        shift = chosen[piece[0][0], piece[1][0]].astype(int)
        by = shift + moves
        low, high = by + np.array([columns.min(), rows.min()]), by + np.array([columns.max(), rows.max()])
        by = by[((low >= 0) & (high < [width, height])).all(1)]
        if not len(by):  # the copy lies partly beyond the picture, however it is moved
            continue
        y, x = rows + by[:, 1:], columns + by[:, :1]  # [M, n]
        valid = known[y, x]
        apart = _squared(colors[rows, columns] - colors[y, x]) * valid
        cost = apart.sum(1) / np.maximum(valid.sum(1), 1) * (1 + 0.01 * np.abs(by - shift).sum(1))
        cost[valid.mean(1) < 0.7] = np.inf
        if np.isfinite(cost).any():
            out[piece] = by[cost.argmin()]
    return out


def _pieces(chosen: Array, where: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of the pixels [h, w] that have the same shift [h, w, 2], shift by shift."""
    places = np.nonzero(where)
    numbers = np.unique(chosen[places] @ np.array([10000, 1]), return_inverse=True)[1]
    order = np.argsort(numbers, kind="stable")
    for piece in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if len(piece):
            yield places[0][piece], places[1][piece]


def _copied(picture: Image, shifts: Array, otherwise: Array) -> Array:
    """[H, W, 3] the pixels at the shifts; where two pieces meet, both, mixed over a few pixels."""
    height, width = picture.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    step = max(1, round(max(height, width) / _FINE_PX))
    total = np.zeros(picture.shape, np.float32)
    weights = np.zeros((height, width, 1), np.float32)
    for ax, ay in ((0, 0), (-step, 0), (step, 0), (0, -step), (0, step)):
        near = _shifted(shifts, ax, ay)
        copy = cv2.remap(picture, x + near[..., 0], y + near[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        weight = (near != 0).any(-1, keepdims=True).astype(np.float32)
        total += copy * weight
        weights += weight
    return np.where(weights > 0, total / np.maximum(weights, 1), otherwise)
