"""Inpainting of the background behind a person.

Each pixel of the hole is a copy of another pixel of the photo. Its shift is one at which the neighborhoods of both
pixels agree: shifts along rows, columns and diagonals continue straight lines, and peaks of the autocorrelation
continue textures (after He and Sun 2012, "Statistics of Patch Offsets for Image Completion"). Shifts are chosen at low
resolution, from the edge of the hole inward. Pixels are then copied at full resolution, so the result is as sharp as
the photo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import smoothstep
from mimik.face.landmarks import Array, Image
from mimik.pipeline import run_in_thread

_COARSE_PX = 112  # longer side at which shifts are chosen
_PATCH = 9  # side of the compared neighborhoods, pixels at that size
_JOINT = 7  # side of the squares over which the cost of a shift is averaged, pixels at that size
_WORST = 0.3  # upper bound of the squared color difference, colors in 0..1
_PRIOR = 0.1  # weight of the squared difference between a copy's color and the smooth filling
_GOES_ON = 0.6  # factor of the cost of a shift that continues the adjacent filling
# Squared difference, and share of the local variance, at which a copy is blended half with the smooth filling.
_DEAR = 0.01, 1.0
_SUM = np.ones((1, 3))
_RING = 3  # pixels at that size that are filled per iteration
_AROUND_RING = np.ones((2 * _RING + 1, 2 * _RING + 1), np.uint8)
_PEAKS = 96  # largest number of peaks of the autocorrelation
_FAR = 2e-4  # cost of a shift's length in picture widths, relative to the squared color difference
_FADES = 0.25  # of the reach: width over which copies fade into the smooth filling
_MOST_TONE = 40 / 255  # largest difference between two copies, colors in 0..1, that is spread over both
_TONE_REACH = 12.0  # pixels at _FINE_PX over which it is spread
_ROUNDED_PX = 1.5  # sigma over which the outlines of pieces are rounded, pixels at _FINE_PX
_TONE_STEPS = 24  # of the conjugate gradient method
_GRAIN_PX = 2.0  # sigma of the Gaussian that separates grain
_GRAIN_WINDOW = 9, 9  # pixels over which its variance is measured
_SHAPE = 4.0  # variance relative to the median, from which on detail is a shape
_MOST_GRAIN = 20.0  # gray levels: more is not grain
_FINE_PX = 336  # longer side at which shifts are refined


def fill(picture: Image, hole: NDArray[np.bool_], reach: float, plain: Array | None = None) -> Image:
    """The picture with its hole inpainted.

    Args:
        picture: uint8 RGB [H, W, 3].
        hole: [H, W] mask.
        reach: pixels from the hole's edge up to which the filling has detail; further inside it is smooth.
        plain: [H, W] 0..1, weight of the smooth filling where the surroundings are plain; None: 0.

    Returns:
        uint8 RGB [H, W, 3], unchanged outside the hole.
    """
    if not hole.any() or hole.mean() > 0.95:
        return picture.copy()
    smoothing = run_in_thread(lambda: _smooth_fill(picture, hole))
    shifts, is_known, tone = _shifts(picture, hole, reach)
    smooth = smoothing.result()
    out = _copied(np.where(hole[..., None], np.rint(smooth).astype(np.uint8), picture), shifts, tone, smooth)
    # Copies have full weight at the hole's edge; fading them there would leave a rim without detail.
    weight = cv2.GaussianBlur(np.where(hole, is_known, np.float32(1)), (0, 0), max(reach / 12, 0.6))
    # They fade toward the smooth filling.
    to_smooth = cv2.distanceTransform((~hole | (is_known > 0)).astype(np.uint8), cv2.DIST_L2, 3)
    weight *= smoothstep(to_smooth, 0, max(_FADES * reach, 1))
    if plain is not None:
        weight = weight * (1 - plain)
    out = smooth + weight[..., None] * (out - smooth)
    if plain is not None:
        # Deeper inside, nothing is shown.
        near_edge = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3) < reach
        if (plain[hole & near_edge] > 0).any():
            out += ((1 - weight) * plain)[..., None] * _grain(picture, hole)
    return np.where(hole[..., None], np.rint(out.clip(0, 255)).astype(np.uint8), picture)


def _grain(picture: Image, hole: NDArray[np.bool_]) -> Array:
    """[H, W, 3] the grain of the surroundings, reflected into the hole at its edge; 0 elsewhere."""
    known = (~hole).astype(np.float32)
    shown = picture * known[..., None]
    share = cv2.GaussianBlur(known, (0, 0), _GRAIN_PX)[..., None]
    fine = (picture - cv2.GaussianBlur(shown, (0, 0), _GRAIN_PX) / np.maximum(share, 1e-3)) * known[..., None]
    # Shapes are not grain: their local variance is several times the usual one.
    around = cv2.blur((fine * fine).mean(-1), _GRAIN_WINDOW) / np.maximum(cv2.blur(known, _GRAIN_WINDOW), 1e-3)
    usual = max(float(np.median(around[~hole])), 1e-3)
    fine *= ((around < _SHAPE * usual) & (np.abs(fine).max(-1) < _MOST_GRAIN))[..., None]
    _, labels = cv2.distanceTransformWithLabels(
        hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    places = np.zeros((int(labels.max()) + 1, 2), np.float32)  # x and y of the known pixel with each label
    y, x = np.nonzero(~hole)
    places[labels[y, x]] = np.stack([x, y], -1)
    here = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in hole.shape[::-1])), -1)
    reflected = cv2.remap(fine, 2 * places[labels] - here, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(reflected * hole[..., None], np.float32)


def _smooth_fill(picture: Image, hole: NDArray[np.bool_]) -> Array:
    """[H, W, 3] smooth filling (Telea 2004), computed at a small size."""
    colors, small, _ = _reduced(picture, hole, _FINE_PX)
    filled = cv2.inpaint(np.rint(colors * 255).astype(np.uint8), small.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    soft = cv2.GaussianBlur(filled, (0, 0), 4.0)
    filled[small] = soft[small]
    return np.asarray(cv2.resize(filled, hole.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32))


def _tone(colors: Array, hole: NDArray[np.bool_], shifts: Array, where: NDArray[np.bool_]) -> Array:
    """What is added to the copies so that no step remains where two of them meet, or at the edge of the hole.

    A screened Poisson equation (Perez et al. 2003, "Poisson Image Editing"): the steps between neighboring pixels that
    neither copy shows are spread over both.

    Args:
        colors: [h, w, 3] known colors, 0..1.
        hole: [h, w] mask.
        shifts: [h, w, 2] of each pixel's copy.
        where: [h, w] mask of the copies.

    Returns:
        [h, w, 3] in units of the colors, 0 outside the copies.
    """
    out = np.zeros_like(colors)
    if not where.any():
        return out
    rows, columns = (slice(max(int(at.min()) - 1, 0), int(at.max()) + 2) for at in np.nonzero(where))
    part = rows, columns
    at = np.where(where[..., None], shifts, 0)[part].astype(int)
    at += np.stack(np.meshgrid(*(np.arange(n)[one] for n, one in zip(hole.shape[::-1], part[::-1], strict=True))), -1)
    at = at.clip(0, np.array(hole.shape[::-1]) - 1)
    is_copy, usable = where[part], ~hole[at[..., 1], at[..., 0]]
    # Beyond the picture, nothing is known.
    wide = cv2.copyMakeBorder(colors, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    known = cv2.copyMakeBorder((~hole).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    height, width = is_copy.shape
    total, wanted = np.zeros(is_copy.shape, np.float32), np.zeros((*is_copy.shape, 3), np.float32)
    joints = []
    for by in ((1, 0), (0, 1)):
        first, second = np.s_[: height - by[1], : width - by[0]], np.s_[by[1] :, by[0] :]
        # The step from the first to the second pixel, as the copy of each continues it, minus the one between them.
        here, there = at[first] + 1, at[second] + 1
        steps, valid = [], []
        for start, end, shown in ((here, here + by, is_copy[first]), (there - by, there, is_copy[second])):
            start, end = (wide.shape[1] * one[..., 1] + one[..., 0] for one in (start, end))
            steps.append(wide.reshape(-1, 3)[end] - wide.reshape(-1, 3)[start])
            valid.append((known.ravel()[start] * known.ravel()[end] * shown).astype(np.float32))
        joined = (valid[0] + valid[1] > 0) & usable[first] & usable[second]
        between = colors[there[..., 1] - 1, there[..., 0] - 1] - colors[here[..., 1] - 1, here[..., 0] - 1]
        continued = steps[0] * valid[0][..., None] + steps[1] * valid[1][..., None]
        step = continued / np.maximum(valid[0] + valid[1], 1)[..., None] - between
        step = _MOST_TONE * np.tanh(step / np.float32(_MOST_TONE)) * joined[..., None]
        total[first] += joined
        total[second] += joined
        wanted[first] -= step
        wanted[second] += step
        joints.append((joined & is_copy[first] & is_copy[second]).astype(np.float32))
    planes = np.ascontiguousarray((wanted * is_copy[..., None]).transpose(2, 0, 1))
    out[part] = _solved(planes, total + np.float32(_TONE_REACH**-2), *joints).transpose(1, 2, 0)
    return out


def _solved(residual: Array, diagonal: Array, across: Array, down: Array) -> Array:
    """[C, h, w] solution of a linear system on a grid, by conjugate gradients.

    Args:
        residual: [C, h, w] right side; changed.
        diagonal: [h, w] of the matrix.
        across, down: [h, w - 1], [h - 1, w] negated entries between neighbors in a row, in a column.
    """
    solution = np.zeros_like(residual)
    direction = residual / diagonal
    length = float(np.vdot(residual, direction))
    for _ in range(_TONE_STEPS):
        if length < 1e-6:
            break
        change = direction * diagonal
        change[:, :, :-1] -= across * direction[:, :, 1:]
        change[:, :, 1:] -= across * direction[:, :, :-1]
        change[:, :-1] -= down * direction[:, 1:]
        change[:, 1:] -= down * direction[:, :-1]
        by = np.float32(length / float(np.vdot(direction, change)))
        solution += by * direction
        residual -= by * change
        scaled = residual / diagonal
        before, length = length, float(np.vdot(residual, scaled))
        direction = scaled + np.float32(length / before) * direction
    return solution


def _enlarged(shifts: Array, filled: NDArray[np.bool_], hole: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Shifts and filled pixels at the size of a larger hole, with smooth outlines.

    Args:
        shifts: [h, w, 2], 0 where pixels are known.
        filled: [h, w] mask, known pixels included.
        hole: [H, W] mask.

    Returns:
        [H, W, 2] shifts in pixels at that size, 0 outside the hole; [H, W] whether a pixel of the hole is filled.
    """
    size = hole.shape[1::-1]
    ratio = np.array(size) / np.array(filled.shape[1::-1])
    known = (~hole).astype(np.float32)
    most, covered = (np.zeros(hole.shape, np.float32) for _ in range(2))
    out = np.zeros((*hole.shape, 2), np.float32)
    margin = ratio + np.ceil(6 * _ROUNDED_PX)
    mask = np.zeros(filled.shape, np.float32)
    for piece in _pieces(shifts, filled):
        mask[piece] = 1
        share = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
        mask[piece] = 0
        # Only around the piece.
        low, high = (np.array([places(piece[1]), places(piece[0])]) for places in (np.min, np.max))
        left, top = np.floor(low * ratio - margin).astype(int).clip(0)
        right, bottom = np.ceil((high + 1) * ratio + margin).astype(int)
        part = np.s_[top:bottom, left:right]
        share = cv2.GaussianBlur(np.ascontiguousarray(share[part]), (0, 0), _ROUNDED_PX)
        covered[part] += share
        shift = np.rint(shifts[piece[0][0], piece[1][0]] * ratio)
        if shift.any():  # copies come from known pixels
            share *= _shifted(known, *shift.astype(int).tolist())[part]
            better = (share > most[part]) & hole[part]
            most[part][better] = share[better]
            out[part][better] = shift
    return out, (covered > 0.5) & (most > 0)


def _reduced(picture: Image, hole: NDArray[np.bool_], longer: int) -> tuple[Array, NDArray[np.bool_], float]:
    """Colors in 0..1 and hole, reduced to a longer side of at most `longer` px; and the scale."""
    k = min(1.0, longer / max(hole.shape))
    size = max(round(hole.shape[1] * k), 1), max(round(hole.shape[0] * k), 1)
    small = cv2.resize(hole.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 0
    known = (~hole).astype(np.float32)
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)[..., None]
    colors = cv2.resize(picture * known[..., None], size, interpolation=cv2.INTER_AREA)
    return (colors / np.maximum(weight, 1e-3) / 255).astype(np.float32), small, k


def _shifts(picture: Image, hole: NDArray[np.bool_], reach: float) -> tuple[Array, Array, Array]:
    """[H, W, 2] shift of each pixel's copy, in pixels; [H, W] 0..1, goodness of fit; [H, W, 3] tone, 0..255."""
    colors, small, k = _reduced(picture, hole, _COARSE_PX)
    rough = np.rint(colors.clip(0, 1) * 255).astype(np.uint8)
    expected = cv2.inpaint(rough, small.astype(np.uint8), 3, cv2.INPAINT_TELEA) / np.float32(255)
    chosen, filled, fit = _grown(colors, small, _candidates(colors, small), expected, reach * k)
    fine, fine_hole, _ = _reduced(picture, hole, _FINE_PX)
    size = fine_hole.shape[1::-1]
    chosen, filled = _enlarged(chosen, filled | ~small, fine_hole)
    chosen = _exact(fine, fine_hole, chosen, filled)
    tone = _tone(fine, fine_hole, chosen, filled)
    scale = np.array(hole.shape[::-1]) / np.array(size)
    size = hole.shape[1::-1]
    shifts = np.rint(cv2.resize(chosen, size, interpolation=cv2.INTER_NEAREST) * scale.astype(np.float32))
    fit = cv2.resize(cv2.GaussianBlur(fit, (0, 0), 1.5), size, interpolation=cv2.INTER_LINEAR)
    return (
        shifts,
        fit * ((cv2.resize(filled.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0) & hole),
        _within_pieces(tone * 255, chosen, size),
    )


def _within_pieces(tone: Array, chosen: Array, size: Sequence[int]) -> Array:
    """[H, W, 3] a tone [h, w, 3], enlarged to size (W, H): interpolated between pixels with the same shift only.

    Across the outline of a copy it jumps like the copies themselves; interpolated there, it would draw a line.
    """
    out = cv2.resize(tone, tuple(size), interpolation=cv2.INTER_LINEAR)
    around = np.ones((3, 3), np.uint8)
    is_outline = (cv2.dilate(chosen, around) != cv2.erode(chosen, around)).any(-1).astype(np.uint8)
    rows, columns = np.nonzero(cv2.resize(is_outline, tuple(size), interpolation=cv2.INTER_NEAREST))
    here = cv2.resize(chosen, tuple(size), interpolation=cv2.INTER_NEAREST)[rows, columns]
    y, x = (
        (at + 0.5) * most / n - 0.5 for at, most, n in zip((rows, columns), tone.shape[:2], size[::-1], strict=True)
    )
    total, weights = np.zeros((len(rows), 3), np.float32), np.zeros(len(rows), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            row, column = np.floor(y).astype(int) + down, np.floor(x).astype(int) + right
            weight = ((1 - np.abs(y - row)) * (1 - np.abs(x - column))).astype(np.float32)
            at = row.clip(0, tone.shape[0] - 1), column.clip(0, tone.shape[1] - 1)
            weight *= (chosen[at] == here).all(-1)
            total += weight[:, None] * tone[at]
            weights += weight
    out[rows, columns] = total / np.maximum(weights, 1e-3)[:, None]
    return np.asarray(out, np.float32)


def _candidates(colors: Array, hole: NDArray[np.bool_]) -> NDArray[np.int_]:
    """[N, 2] candidate shifts in x and y."""
    height, width = hole.shape
    far = max(height, width)
    near = np.concatenate([np.arange(2, 24), np.arange(24, round(0.8 * far), 3)])
    zero = np.zeros_like(near)
    lines = [(near, zero), (-near, zero), (zero, near), (zero, -near)]
    step = near[::4]
    lines += [(x * step, y * step) for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    # Autocorrelation of the detail, excluding the hole.
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
    """Choose shifts for the hole from its edge inward, up to reach pixels.

    Returns:
        [h, w, 2] float32 shift of each pixel, 0 where it is known or was not filled; [h, w] whether it was filled;
        [h, w] 0..1, goodness of fit.
    """
    image, known = colors.copy(), (~hole).astype(np.float32)
    price = np.zeros(hole.shape, np.float32)
    labels, used = np.full(hole.shape, -1, np.int16), np.zeros(len(candidates), bool)
    pure = cv2.erode(known, np.ones((5, 5)), borderType=cv2.BORDER_REPLICATE)
    done = known.copy()
    # Pad the picture: copies from the padding are not allowed.
    pad = int(np.abs(candidates).max())
    wide, is_pure = (cv2.copyMakeBorder(plane, pad, pad, pad, pad, cv2.BORDER_CONSTANT) for plane in (colors, pure))
    is_pure = is_pure > 0
    apart = np.empty(
        (len(candidates), *hole.shape), np.float32
    )  # squared differences of filled pixels to their copies; else 0
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

        # Cost of each candidate [N] at each pixel of the ring [n].
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
        # Update the differences for the next ring's neighborhoods.
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
    """[N, n] flat indices of the pixels at N shifts from n places, in a padded picture of this width."""
    return np.asarray((rows + pad) * width + columns + pad + (shifts @ np.array([1, width]))[:, None])


def _squared(off: Array) -> Array:
    """[.., 3] -> [..], sum of squares."""
    return np.asarray(cv2.transform((off * off).reshape(-1, 1, 3), _SUM).reshape(off.shape[:-1]))


def _blurred(planes: Sequence[Array], where: NDArray[np.bool_]) -> Array:
    """[N, n] means over squares of _PATCH pixels, of N planes [h, w], at the n places of a mask [h, w]."""
    at = np.flatnonzero(where)
    return np.stack([cv2.blur(plane, (_PATCH, _PATCH)).ravel().take(at) for plane in planes])


def _spread_over(costs: Array, ring: NDArray[np.bool_]) -> Array:
    """Costs [N, n] at the n places of a ring [h, w], averaged over squares of _JOINT pixels within the ring."""
    at, plane = np.flatnonzero(ring), np.zeros(ring.shape, np.float32)
    total = cv2.blur(ring.astype(np.float32), (_JOINT, _JOINT)).ravel()[at] + np.float32(1e-6)
    out = np.empty_like(costs)
    for cost, mean in zip(costs, out, strict=True):
        plane.ravel()[at] = cost
        cv2.blur(plane, (_JOINT, _JOINT)).ravel().take(at, out=mean)
    return out / total


def _agreed(candidates: NDArray[np.int_], labels: NDArray[Any], pure: Array) -> NDArray[Any]:
    """Majority filter of the labels: each pixel takes the most frequent valid label of its neighborhood.

    Args:
        candidates: [N, 2] shifts.
        labels: [h, w] indices of candidates; -1: not filled.
        pure: [h, w] above 0 where copying from is allowed.
    """
    most, out = np.zeros(labels.shape, np.float32), labels.copy()
    for number in np.unique(labels[labels >= 0]):
        share = cv2.blur((labels == number).astype(np.float32), (_JOINT, _JOINT))
        better = (share > most) & (labels >= 0) & (_shifted(pure, *candidates[number].tolist()) > 0)
        most[better] = share[better]
        out[better] = number
    return out


def _exact(colors: Array, hole: NDArray[np.bool_], chosen: Array, where: NDArray[np.bool_]) -> Array:
    """The shifts [h, w, 2], each refined by up to two pixels so that the copy fits the known pixels at its edge.

    Pixels of the same shift are refined together, so a copied piece stays intact.
    """
    out = chosen.copy()
    known = ~hole
    height, width = hole.shape
    edge = known & (cv2.dilate(hole.astype(np.uint8), np.ones((7, 7))) > 0)
    steps = np.arange(-2, 3)
    moves = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    for piece in _pieces(chosen, where):
        # Known pixels adjacent to the piece.
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
        if not len(by):  # every refined copy extends beyond the picture
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
    """For each distinct shift, rows and columns of the pixels of a mask [h, w] that have it; chosen: [h, w, 2]."""
    places = np.nonzero(where)
    numbers = np.unique(chosen[places] @ np.array([10000, 1]), return_inverse=True)[1]
    order = np.argsort(numbers, kind="stable")
    for piece in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if len(piece):
            yield places[0][piece], places[1][piece]


def _copied(picture: Image, shifts: Array, tone: Array, otherwise: Array) -> Array:
    """[H, W, 3] the pixels at the shifts plus the tone, blended over a few pixels where two pieces meet."""
    height, width = picture.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    step = max(1, round(max(height, width) / _FINE_PX))
    total = np.zeros(picture.shape, np.float32)
    weights = np.zeros((height, width, 1), np.float32)
    for ax, ay in ((0, 0), (-step, 0), (step, 0), (0, -step), (0, step)):
        near = _shifted(shifts, ax, ay)
        copy = cv2.remap(picture, x + near[..., 0], y + near[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        weight = (near != 0).any(-1, keepdims=True).astype(np.float32)
        total += (copy + _shifted(tone, ax, ay)) * weight
        weights += weight
    return np.where(weights > 0, total / np.maximum(weights, 1), otherwise)
