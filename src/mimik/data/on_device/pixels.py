"""Batched image operations in torch, on any device: the equivalents of the OpenCV calls of data.episodes.

Every function processes a batch without a loop over items. tests/data/on_device compares each with OpenCV's result.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimik.arrays import Array
from mimik.face import landmarks as faces
from mimik.face.landmark_images import SOFT_EDGE, feature_margins, landmark_lines, mouth_openings

_AT_A_TIME = 1 << 24  # pixels that are sampled at once
_LOG_SCALE = 1 << 12  # fixed-point scale of logarithms, because integer sums do not depend on the order
_OPAQUE = 1 - 1e-5
_PROFILE = 0.562  # of OpenCV's antialiased lines: twice the variance across the line, in px^2, and
_REACH_PX = 1.52  # largest distance from the line
_TWICE = 2  # number of times that lines are drawn over each other
_HALF_PX = 1.0  # half width of lines that are 2 px thick, and
_ROUNDED_PX = 0.5  # half width added by rounding of the outline
_DIRECTIONS = 64  # number of directions that bound a convex hull


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor; float64 becomes float32. The copy to a GPU is asynchronous."""
    tensor = torch.from_numpy(np.ascontiguousarray(array, np.float32 if array.dtype == np.float64 else None))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def window_places(windows: Tensor, to_frames: Tensor, px: int, sides: Tensor | None = None) -> Tensor:
    """Positions of the pixels of windows in the frames before augmentation, from the corner: [N, px, px, 2].

    Args:
        windows: [N, 3] left, top, side in pixels of the augmented frames.
        to_frames: [N, 2, 3] positions in augmented frames -> in frames (Change.to_frames).
        px: side of the windows.
        sides: [N] of the frames in pixels; beyond it, the border of the augmented frames is replicated.
    """
    at = (torch.arange(px, device=windows.device) + 0.5) / px
    x, y = (windows[:, axis, None] + windows[:, 2:] * at for axis in (0, 1))  # [N, px]
    if sides is not None:
        last = sides[:, None] - 0.5
        x, y = x.clamp(min=0.5).minimum(last), y.clamp(min=0.5).minimum(last)
    m = to_frames[..., None, None]
    return torch.stack([m[:, i, 0] * x[:, None] + m[:, i, 1] * y[..., None] + m[:, i, 2] for i in (0, 1)], -1)


def read_linearly(memory: Tensor, starts: Tensor, sides: Tensor, places: Tensor, *, mirrored: bool = False) -> Tensor:
    """Bilinear sampling of square pictures of different sizes: [N, H, W, C] float32.

    Args:
        memory: [P, C] pixels of all pictures, each row by row.
        starts, sides: [N] first pixel of each picture, and its width.
        places: [N, H, W, 2] x and y from the corner, in pixels.
        mirrored: border mode: reflected (OpenCV's BORDER_REFLECT_101), else replicated.
    """
    step = max(_AT_A_TIME // (places.shape[1] * places.shape[2]), 1)
    if len(places) > step:
        parts = zip(*(part.split(step) for part in (starts, sides, places)), strict=True)
        return torch.cat([read_linearly(memory, *part, mirrored=mirrored) for part in parts])
    last = (sides - 1).view(-1, 1, 1, 1)
    at = places - 0.5
    if mirrored:
        at = last - ((at % (2 * last)) - last).abs()
    at = at.clamp(min=0).minimum(last)
    first = at.floor().minimum(last - 1).clamp(min=0)
    x, y = (at - first).unsqueeze(-2).unbind(-1)  # [N, H, W, 1]
    column, row = first.long().unbind(-1)
    width = sides.long().view(-1, 1, 1)
    corner = starts.view(-1, 1, 1) + row * width + column
    down, right = width * (width > 1), (width > 1).long()

    def read(index: Tensor) -> Tensor:
        return memory.index_select(0, index.flatten()).view(*index.shape, -1).float()

    top = torch.lerp(read(corner), read(corner + right), x)
    return torch.lerp(top, torch.lerp(read(corner + down), read(corner + down + right), x), y)


def recolored(images: Tensor, color: Tensor, curve: Tensor) -> Tensor:
    """Apply a Change's color [N, 3, 3] and curve [N, 256] to frames [N, H, W, 3] 0..255: uint8 [N, 3, H, W]."""
    mixed = torch.einsum("nhwc,ndc->ndhw", images, color).round().clamp(0, 255)
    return curve.gather(1, mixed.flatten(1).long()).view(mixed.shape)


def _patches(low: NDArray[Any], high: NDArray[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels x, y of squares at boxes [.., 2] to [.., 2], all as large as the largest: float32 [.., side * side]."""
    low = np.floor(low)
    side = int((np.ceil(high) - low).max()) + 1
    start = to_device(low.astype(np.float32), device)
    at = torch.arange(side, device=device)
    x = (start[..., 0, None] + at.repeat(side)).contiguous()
    return x, start[..., 1, None] + at.repeat_interleave(side)


def _laid(values: Tensor, x: Tensor, y: Tensor, px: int, reduce: str) -> Tensor:
    """Scatter values [N, .., M] to pixels x, y of pictures px wide: [N, px * px]; pixels outside are ignored."""
    inside = (x >= 0) & (y >= 0) & (x < px) & (y < px)
    index = torch.where(inside, y * px + x, px * px).long()
    out = torch.zeros(len(values), px * px + 1, dtype=values.dtype, device=values.device)
    out.scatter_reduce_(1, index.flatten(1), values.flatten(1), reduce)
    return out[:, : px * px]


class _Lines(NamedTuple):
    """The line segments of a style."""

    first: NDArray[np.intp]  # [S] points at which the segments begin
    last: NDArray[np.intp]  # [S] and end
    line: NDArray[np.intp]  # [S] line of the segment
    colors: Array  # [L, 3]


@functools.cache
def _lines_of_style(style: str) -> _Lines:
    first, last, line = list[int](), list[int](), list[int]()
    lines = landmark_lines(style)
    for number, (index, _, closed) in enumerate(lines):
        first += index if closed else index[:-1]
        last += [*index[1:], index[0]] if closed else index[1:]
        line += [number] * (len(index) - (not closed))
    return _Lines(np.array(first), np.array(last), np.array(line), np.array([c for _, c, _ in lines], np.float32))


def landmark_images(points: Array, px: int, style: str, device: torch.device) -> Tensor:
    """Batched face.landmark_images.landmark_image: uint8 [N, 3, px, px]; points: [N, 478, 2+]."""
    lines = _lines_of_style(style)
    smooth = style == "smooth"
    flat = points[..., :2] - np.float32(0.5)
    flat = np.round(flat * 16) / 16 if smooth else np.floor(points[..., :2])
    a, b = flat[:, lines.first], flat[:, lines.last]  # [N, S, 2]
    steep = np.abs(b - a)[..., 0] <= np.abs(b - a)[..., 1]
    x, y = _patches(np.minimum(a, b) - 2, np.maximum(a, b) + 2, device)  # [N, S, M]
    # The longer axis first, with increasing coordinates.
    a, b = (np.where(steep[..., None], end[..., ::-1], end) for end in (a, b))
    back = a[..., :1] > b[..., :1]
    a, b = np.where(back, b, a), np.where(back, a, b)
    slope = (b[..., 1] - a[..., 1]) / np.maximum(b[..., 0] - a[..., 0], 1e-6)
    values = np.stack([*a.transpose(2, 0, 1), b[..., 0], slope, steep], -1).astype(np.float32)
    begin, height, end, rise, is_steep = to_device(values, device)[..., None, :].unbind(-1)
    along, across = torch.where(is_steep > 0, y, x), torch.where(is_steep > 0, x, y)
    apart = (across - height - rise * (along - begin)).abs()
    if smooth:
        ends = ((along + 1 - begin).clamp(0, 2) + (end + 1 - along).clamp(0, 2)) / 2 - 1
        cover = ends.clamp(min=0) * torch.exp(-apart.square() / _PROFILE) * ((1 + rise.square()) / 2).sqrt()
        cover = cover * (apart < _REACH_PX)
    else:
        thick = _HALF_PX * (1 + rise.square()).sqrt() + _ROUNDED_PX
        to_begin = (along - begin).abs() + (across - height).abs()
        to_end = (along - end).abs() + (across - height - rise * (end - begin)).abs()
        # Perpendicular ends, with the neighbors of the end pixels.
        reach = (along - begin) + rise * (across - height)
        length = (end - begin) * (1 + rise.square())
        cover = (((apart <= thick) & (reach >= 0) & (reach <= length)) | (to_begin.minimum(to_end) <= 1)).float()
    loss = (-torch.log1p(-cover.clamp(max=_OPAQUE)) * (_TWICE * _LOG_SCALE)).round().int()
    image = torch.zeros(len(points), 3, px * px, device=device)
    colors = to_device(lines.colors, device)[..., None]  # [L, 3, 1]
    for number, color in enumerate(colors):
        some = to_device(np.flatnonzero(lines.line == number), device)
        through = torch.exp(-_laid(loss[:, some], x[:, some], y[:, some], px, "sum") / _LOG_SCALE)[:, None]
        image = image * through + (1 - through) * color
    return image.round().byte().view(-1, 3, px, px)


def feature_masks(points: Array, px: int, device: torch.device) -> Tensor:
    """Batched face.landmark_images.feature_mask: uint8 [N, 1, px, px]; points: [N, 478, 2+]."""
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    directions = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)  # [2, D]
    parts = [np.round(points[:, index, :2] - 0.5) for index in faces.DETAILED]
    margin = feature_margins(points).astype(np.float32)
    # Thickness of the line along the hull: OpenCV widens odd lines by half a pixel, and draws their outline.
    grow = np.where(margin > 1, np.floor(margin / 2 + 0.5), 0) + 0.5
    low, high = (np.stack([f(part, axis=1) for part in parts], 1) for f in (np.min, np.max))
    reach = grow[:, None, None] + 1
    x, y = _patches(low - reach, high + reach, device)  # [N, 3, M]
    support = np.stack([(part @ directions).max(1) for part in parts], 1) + grow[:, None, None]  # [N, 3, D]
    outside = torch.full_like(x, -torch.inf)
    for (dx, dy), bound in zip(directions.T.tolist(), to_device(support, device).unbind(-1), strict=True):
        outside = torch.maximum(outside, dx * x + dy * y - bound[..., None])
    return (255 * _laid((outside <= 0).byte(), x, y, px, "amax")).view(-1, 1, px, px)


def mouth_interiors(points: Array, px: int, device: torch.device) -> Tensor:
    """Batched face.landmark_images.mouth_interior: uint8 [N, 1, px, px]; points: [N, 478, 2+]."""
    outline, opening, eyes = mouth_openings(points)  # [N, 20, 2], [N], [N]
    outline = np.round((outline - 0.5) * 16).astype(np.float32) / 16
    sigma = np.maximum(SOFT_EDGE * eyes, 0.5).astype(np.float32)
    reach = (np.ceil(3 * sigma) + 2)[:, None]
    x, y = _patches(outline.min(1) - reach, outline.max(1) + reach, device)  # [N, M]
    a = to_device(outline, device)[..., None]  # [N, 20, 2, 1]
    b = a.roll(-1, 1)
    edge = b - a
    from_a = torch.stack([x, y], 1)[:, None] - a  # [N, 20, 2, M]
    t = ((from_a * edge).sum(2) / edge.square().sum(2).clamp(min=1e-9)).clamp(0, 1)
    distance = (from_a - t[:, :, None] * edge).square().sum(2).sqrt().amin(1)
    rows = y[:, None]
    crosses = (a[:, :, 1] <= rows) != (b[:, :, 1] <= rows)
    at = a[:, :, 0] + (rows - a[:, :, 1]) / torch.where(edge[:, :, 1] == 0, 1, edge[:, :, 1]) * edge[:, :, 0]
    inside = (crosses & (at > x[:, None])).sum(1) % 2
    cover = torch.maximum(inside.float(), torch.exp(-distance.square() / _PROFILE) * (distance < _REACH_PX))
    side = round(x.shape[1] ** 0.5)
    k = torch.arange(side, device=device, dtype=torch.float32)
    blur = torch.exp(-(k[:, None] - k).square() / (2 * to_device(sigma, device)[:, None, None].square()))
    blur = blur / blur[:, side // 2].sum(1)[:, None, None]
    soft = blur @ cover.view(-1, side, side) @ blur.mT
    is_open = to_device(opening >= 1, device)[:, None]
    return _laid((soft.flatten(1) * 255 * is_open).round().byte(), x, y, px, "amax").view(-1, 1, px, px)
