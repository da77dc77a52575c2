"""Rendering with trained networks, at the photo's own resolution.

The texture form takes a window around the face (config.image_px) and predicts a flow correction, a residual
(config.frame_px) and a mask. The corrected flow is applied to the photo at its own resolution, so warped pixels keep
their detail. The mask is smooth and is upsampled. Detail finer than the window is kept also where the residual is
added, unless the residual is large there. The paper's form synthesizes the whole window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.arrays import ramp, smoothstep
from mimik.config import NetworkConfig
from mimik.face.landmark_images import landmark_image, mouth_interior
from mimik.face.landmarks import Array, Image
from mimik.files import asset
from mimik.inference.runtime import Network
from mimik.inference.windows import (
    clip_window,
    network_window,
    photo_windows,
    reduced,
    to_network_size,
    to_planes,
    window_around,
)
from mimik.pipeline import run_in_thread
from mimik.rendering.crop import Crop
from mimik.rendering.field import GRID
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.layers.canvas import Box, Canvas, Overlay
from mimik.rendering.painter import Painter
from mimik.rendering.painters import NO_NETWORK, SHADE_PX, PicturePainter, Prepared

BUNDLED_MODEL = asset("texture.safetensors")
DEFAULT_MODEL = "texture" if BUNDLED_MODEL.exists() else "geometry"
FEATURE_CORNERS = (33, 263, 61, 291)  # points: outer corners of eyes and mouth
RIM = 0.06  # window sides: distance from the border over which the prediction fades to 0
REDRAWN = 20.0, 48.0  # residual, gray levels, over which the weight of the photo's fine detail falls from 1 to 0
# Limit of brightening, by the distance from the middle of eyes and mouth in window sides: none within `begins`, `most`
# gray levels beyond `ends`. Without it, the network draws skin over the hair of turning heads.
BRIGHTENED = {"begins": 0.2, "ends": 0.27, "most": 16.0}
MAX_BRIGHTER = 0.15  # of a layer's light, that the residual adds inside the mouth
_STRIP = 64  # rows composited at a time, so that they fit into the processor's cache
_STILL_PX = 0.02  # corrections smaller than this do not move an overlay
_GATE = 0.002, 0.01  # largest displacement of a point, window sides, over which the gate rises from 0 to 1


def embed_photos(network: Network, pictures: Sequence[Image], points: Sequence[Array]) -> Array:
    """e_hat [N] of a person.

    Args:
        network: of any form.
        pictures: uint8 RGB [H, W, 3] each.
        points: [478, 3] face points in each.
    """
    x, y, _ = photo_windows(network.config, pictures, points)
    return network.embed(to_planes(to_network_size(x, network.config)), to_planes(y))


class GeometryPainter(PicturePainter):
    """The warped photo with its layers, without a network."""

    def __init__(self, picture: Image, warper: Warper, **options: Any) -> None:
        """Args: as in painter.Painter."""
        self._painter = Painter(picture, warper, **options)

    def prepare(self, flow: Flow, target: NDArray[Any], outputs: Any = None, share: float = 1.0) -> Prepared:
        return Prepared(flow, target, self._painter.overlays(flow))

    def finish(self, prepared: Prepared) -> Image:
        return self._painter.paint(prepared.flow, prepared.overlays)

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        """See PicturePainter."""
        return self._painter.moved_matte


def painter_of(
    generator: PersonalizedGenerator | None, picture: Image, points: Array, warper: Warper, **options: Any
) -> PicturePainter:
    """A painter for one picture; generator: None for "geometry". The others: as in PersonalizedGenerator.painter."""
    if generator is None:
        return GeometryPainter(picture, warper, **options)
    return generator.painter(picture, points, warper, **options)


class PersonalizedGenerator:
    """The generator compiled with the psi_hat of one person; a factory of painters for pictures of that person."""

    def __init__(self, network: Network, psi_hat: Array | Callable[[], Array]) -> None:
        """Start to compile the generator with psi_hat in a thread; the first painter waits for it."""
        self.config = network.config
        self._generator = run_in_thread(lambda: network.generator(psi_hat() if callable(psi_hat) else psi_hat))

    @classmethod
    def of_photos(cls, network: Network, pictures: Sequence[Image], points: Sequence[Array]) -> PersonalizedGenerator:
        """The person in photos, without fine-tuning: psi_hat = P e_hat. Arguments as in embed_photos."""
        return cls(network, lambda: network.project(embed_photos(network, pictures, points)))

    def ready(self) -> PersonalizedGenerator:
        """Wait for the compilation. Raises ModelError if it failed."""
        self._generator.result()
        return self

    def painter(
        self,
        picture: Image,
        points: Array,
        warper: Warper,
        *,
        is_reused: bool = False,
        matte: NDArray[np.uint8] | None = None,
        shown: Box | None = None,
    ) -> PicturePainter:
        """A painter for one picture.

        Args:
            picture: uint8 RGB [H, W, 3].
            points: [478, 3] face points in it.
            warper: of picture and points.
            is_reused: whether many frames are painted; see painter.Painter.
            matte: [H, W], warped with the picture.
            shown: as in painter.Painter; not for the paper's form.
        """
        if self.config.form == "paper":
            still = None if matte is None else Canvas.of(matte, warper.crop).part(matte)
            return PaperPainter(picture, points, self.config, self._generator.result(), still)
        generator = self._generator.result()
        return TexturePainter(
            picture, points, warper, self.config, generator, is_reused=is_reused, matte=matte, shown=shown
        )


class PaperPainter(PicturePainter):
    """Synthesizes the whole window, as in the paper, and blends it into the picture with a soft border."""

    def __init__(
        self,
        picture: Image,
        points: Array,
        config: NetworkConfig,
        generator: Callable[..., list[Array]],
        matte: NDArray[np.uint8] | None = None,
    ) -> None:
        """See TexturePainter; matte: of the canvas, the part of the picture that a warp would change."""
        self._picture, self._generator, self._matte = picture, generator, matte
        self._px, self._style = config.image_px, config.landmarks
        self._window = clip_window(points)
        self._keep = 1 - _window_fade(self._px)

    def prepare(self, flow: Flow, target: NDArray[Any], outputs: Any = None, share: float = 1.0) -> Prepared:
        """Synthesize the window; only the target is used."""
        (x_hat,) = self._generator(*self.network_inputs(target))
        refined = (x_hat[0].transpose(1, 2, 0) * 127.5 + 128).clip(0, 255).astype(np.uint8)
        return Prepared(flow, target, prediction=refined)

    def finish(self, prepared: Prepared) -> Image:
        image = self._picture.copy()
        _blend(image, prepared.prediction, self._keep, self._window)
        return image

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        """See PicturePainter; the matte is static, because only the face moves."""
        assert self._matte is not None, "no matte was given"
        return self._matte

    def network_inputs(self, target: NDArray[Any]) -> list[Array]:
        """The network's inputs for a frame: y [1, 3, image_px, image_px]."""
        px = self._px
        y = landmark_image(self._window.to_unit(target) * px, px, px, style=self._style)
        return [to_planes(y[None])]


class Prediction(NamedTuple):
    """The network's prediction over its window; px is config.image_px. It is zero at the border.

    Attributes:
        correction: [px / 2, px / 2, 2] flow correction, in units of the window's side.
        warped: uint8 RGB [frame_px, frame_px, 3], the photo warped by the corrected flow.
        refined: warped plus residual.
        keep: [px / 2, px / 2] 0..1, weight of the warped photo.
        residual: [3, frame_px, frame_px] in units of 127.5 gray levels.
        interior: uint8 [frame_px, frame_px], 255 inside the mouth, where the residual has no fine detail.
        outputs: of the network, from which all this is computed.
    """

    correction: Array
    warped: Image
    refined: Image
    keep: Array
    residual: Array
    interior: Image
    outputs: Sequence[Array] = ()


class TexturePainter(PicturePainter):
    """Warps one picture like painter.Painter, and adds the network's prediction."""

    def __init__(
        self,
        picture: Image,
        points: Array,
        warper: Warper,
        config: NetworkConfig,
        generator: Callable[..., list[Array]],
        *,
        is_reused: bool = False,
        matte: NDArray[np.uint8] | None = None,
        shown: Box | None = None,
    ) -> None:
        """Cheap, since nothing is compiled: a painter can be made for each frame of a video.

        Args:
            picture: uint8 RGB [H, W, 3], the photo.
            points: [478, 3] face points in it.
            warper: of picture and points.
            config: of the network; its form is "texture".
            generator: Network.generator of the person.
            is_reused: whether many frames are painted; see painter.Painter.
            matte: [H, W], warped with the picture.
            shown: as in painter.Painter.
        """
        self._config, self._points = config, points
        self._warper = warper
        self._painter = Painter(picture, warper, is_reused=is_reused, matte=matte, shown=shown)
        window, self._scale = network_window(points, config)
        self._side = window.side
        self._small_painter = self._painter
        if self._scale < 1:
            small = None if matte is None else reduced(matte, self._scale)
            self._small_painter = Painter(
                reduced(picture, self._scale), warper, self._scale, is_reused=is_reused, matte=small
            )
        self._generator = generator
        self._fade = _window_fade(config.image_px // 2)
        self._places = _grid(config.frame_px, config.frame_px)

    def prepare(self, flow: Flow, target: NDArray[Any], outputs: Any = None, share: float = 1.0) -> Prepared:
        """Draw the layers once for network and frame; run the network, or use given outputs in this face's window."""
        overlays = self._painter.overlays(flow)
        gate = self.gate(target) * np.float32(share)
        if not gate or outputs == NO_NETWORK:
            return Prepared(flow, target, overlays)
        window = window_around(target, self._side)
        prediction = self.predict(flow, target, window, gate, overlays, outputs)
        moved = (followed(overlay, prediction.correction, self._painter.canvas, window) for overlay in overlays)
        flow = corrected(flow, prediction.correction, self._warper.crop, window)
        return Prepared(flow, target, tuple(moved), prediction, prediction.outputs)

    def finish(self, prepared: Prepared) -> Image:
        image = self._painter.paint(prepared.flow, prepared.overlays)
        prediction = prepared.prediction
        if prediction is None:
            return image
        window = window_around(prepared.target - self._painter.shown.corner, self._side)
        _blend_under_detail(image, prediction, window)
        return image

    @property
    def moved_matte(self) -> NDArray[np.uint8]:
        """See PicturePainter."""
        return self._painter.moved_matte

    def predict(
        self,
        flow: Flow,
        target: NDArray[Any],
        window: Crop,
        gate: np.float32,
        overlays: Sequence[Overlay] | None = None,
        outputs: Sequence[Array] | None = None,
    ) -> Prediction:
        """The network's prediction for a frame.

        Args:
            flow, target: as in prepare.
            window: of the frame; the network's input.
            gate: 0..1, weight of the prediction.
            overlays: of the flow over the picture; None: drawn here.
            outputs: of the network for another frame; None: run it.
        """
        frame_px = self._config.frame_px
        if outputs is None:
            seen, inputs = self.network_inputs(flow, target, window, overlays)
            outputs = self._generator(*inputs)
        else:
            seen = self._window_of(flow, window, overlays)
        correction, (residual,), mask = outputs
        if self._painter.is_gray:
            residual = np.broadcast_to(residual.mean(0), residual.shape)
        inside = mouth_interior(window.to_unit(target) * frame_px, frame_px, frame_px)
        residual = shaded_only(residual, inside, seen)
        fade = self._fade * gate
        far = far_from_features(window.to_unit(target), fade.shape[0])
        drawn = fade * share_drawn(residual, far)
        moves = fade * still_inside(inside, fade.shape[0])
        offset = correction[0].transpose(1, 2, 0) * moves[..., None]
        places = cv2.resize(offset * np.float32(frame_px), (frame_px, frame_px), interpolation=cv2.INTER_LINEAR)
        cv2.add(places, self._places, dst=places)
        warped = cv2.remap(seen, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        refined = cv2.addWeighted(warped, 1, cv2.merge(list(residual)), 127.5, 0, dtype=cv2.CV_8U)
        return Prediction(offset, warped, refined, 1 - (1 - mask[0, 0]) * drawn, residual, inside, outputs)

    def network_inputs(
        self, flow: Flow, target: NDArray[Any], window: Crop, overlays: Sequence[Overlay] | None = None
    ) -> tuple[Image, list[Array]]:
        """The network's inputs for a frame. Arguments as in predict.

        Returns:
            The window of the warped photo, uint8 RGB [frame_px, frame_px, 3]; and the arguments of the function that
            Network.generator returns.
        """
        px = self._config.image_px
        seen = self._window_of(flow, window, overlays)
        y = landmark_image(window.to_unit(target) * px, px, px, style=self._config.landmarks)
        read = to_network_size(seen[None], self._config)
        geometry = flow.maps(self._warper.crop, window, px // 2)[None]
        return seen, [to_planes(y[None]), to_planes(read), geometry]

    def _window_of(self, flow: Flow, window: Crop, overlays: Sequence[Overlay] | None) -> Image:
        """The window of the warped photo; see network_inputs."""
        if overlays is None:
            overlays = self._painter.overlays(flow)
        canvas, small = self._painter.canvas, self._small_painter.canvas
        smaller = [overlay.reduced(self._scale, canvas, small) for overlay in overlays]
        return self._small_painter.window(flow, smaller, window.scaled(self._scale), self._config.frame_px)

    def gate(self, target: NDArray[Any]) -> np.float32:
        """0..1 weight of the prediction; 0 if no point moves, because the photo is then already correct."""
        distance = np.linalg.norm(target[:, :2] - self._points[:, :2], axis=1).max() / self._side
        return np.float32(ramp(distance, *_GATE))


def shaded_only(residual: Array, interior: Image, seen: Image | None = None) -> Array:
    """networks.generators.shade_only of one frame.

    Args:
        residual: [3, px, px].
        interior: uint8 [px, px].
        seen: uint8 RGB [px, px, 3], the picture that it is added to: inside the mouth it adds no more than MAX_BRIGHTER
            of what that has there, or bright teeth would glow and a dark cavity be gray. None: as it is.
    """
    left, top, width, height = cv2.boundingRect(interior)
    if not width:
        return residual
    # Whole cells and one more around them, so that the interpolation is that of the whole frame.
    px, k = interior.shape[0], SHADE_PX
    rows, columns = (
        slice(max(start // k - 1, 0) * k, min(-(-stop // k) + 1, px // k) * k)
        for start, stop in ((top, top + height), (left, left + width))
    )
    part = np.ascontiguousarray(residual[:, rows, columns].transpose(1, 2, 0))
    size = part.shape[1] // k, part.shape[0] // k
    coarse = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    if seen is not None:
        light = cv2.resize(seen[rows, columns], size, interpolation=cv2.INTER_AREA)
        coarse = np.minimum(coarse, light * np.float32(MAX_BRIGHTER / 127.5))
    coarse = cv2.resize(coarse, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    share = interior[rows, columns, None] * np.float32(1 / 255)
    out = residual.copy()
    out[:, rows, columns] = (part + share * (coarse - part)).transpose(2, 0, 1)
    return out


def still_inside(interior: Image, cells: int) -> Array:
    """[cells, cells] factor of a flow correction: 0 in an open mouth, because teeth must not bend (D18)."""
    return 1 - cv2.resize(interior, (cells, cells), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _window_fade(px: int) -> Array:
    """[px, px] 1 inside, fading smoothly to 0 at the border."""
    at = (np.arange(px, dtype=np.float32) + 0.5) / px
    from_border = np.minimum(at, 1 - at)
    return smoothstep(np.minimum(from_border[:, None], from_border), 0, RIM)


def far_from_features(points: NDArray[Any], cells: int) -> Array:
    """[cells, cells] 0 around eyes and mouth, 1 on hair and ears; see BRIGHTENED.

    Args: points: [478, 2 or 3] face points in the window, in its sides.
    """
    middle = points[list(FEATURE_CORNERS), :2].mean(0).astype(np.float32)
    x, y = ((np.arange(cells, dtype=np.float32) + 0.5) / cells - m for m in middle)
    return np.asarray(smoothstep(np.hypot(x, y[:, None]), BRIGHTENED["begins"], BRIGHTENED["ends"]), np.float32)


def share_drawn(residual: Array, far: Array) -> Array:
    """[cells, cells] 0..1 factor of the residual's weight, which limits brightening as described at BRIGHTENED.

    Args:
        residual: [3, n, n] in units of 127.5 gray levels; n is a multiple of cells.
        far: result of far_from_features.
    """
    brighter = cv2.resize(residual.mean(0), far.shape, interpolation=cv2.INTER_AREA) * np.float32(127.5)
    return np.asarray(1 - far * (1 - BRIGHTENED["most"] / np.maximum(brighter, BRIGHTENED["most"])), np.float32)


def corrected(flow: Flow, correction: Array, crop: Crop, window: Crop) -> Flow:
    """Compose a flow with a correction: pixel p of the frame is the uncorrected frame's at p + correction(p).

    The eyes' contours are not changed.

    Args:
        flow: over crop.
        correction: [n, n, 2] over window, in its sides, 0 at its border.
        crop, window: in the same pixels.
    """
    k = window.side / crop.side
    left, top = (window.left - crop.left) / crop.side, (window.top - crop.top) / crop.side

    def shifted(offset: Array, first: tuple[int, int], fine: int) -> Array:
        """Corrected offset [h, w, 2], on cells of the grid from `first` (x, y) on, refined by fine."""
        step = correction.shape[0] / (GRID * fine * k)
        height, width = offset.shape[:2]
        # Only cells inside the window are corrected.
        (x0, x1), (y0, y1) = (
            (
                min(max(int(edge * GRID * fine) - start * fine - 1, 0), most),
                min(max(int((edge + k) * GRID * fine) - start * fine + 2, 0), most),
            )
            for start, edge, most in zip(first, (left, top), (width, height), strict=True)
        )
        if x1 <= x0 or y1 <= y0:
            return offset
        # Centers of the cells in pixels of the correction.
        x, y = (
            ((start * fine + cell + 0.5) / (GRID * fine) - edge) / k * correction.shape[0] - 0.5
            for start, cell, edge in zip(first, (x0, y0), (left, top), strict=True)
        )
        matrix = np.array([[step, 0, x], [0, step, y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        moved_by = cv2.warpAffine(correction, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        moved_by *= np.float32(k)
        at = moved_by * np.float32(GRID * fine)
        at += _grid(width, height)[y0:y1, x0:x1]
        out = offset.copy()
        out[y0:y1, x0:x1] = cv2.remap(offset, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) + moved_by
        return out

    def with_pixels(line: Array) -> Array:
        """Points [N, 2] of the lips, moved by the correction below them."""
        at = ((line - [left, top]) / k * correction.shape[0] - 0.5).astype(np.float32)
        moved_by = cv2.remap(correction, at[:, None], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[:, 0]
        return line - moved_by * np.float32(k)

    details = tuple(
        replace(
            d,
            offset=shifted(
                d.offset, (d.columns.start, d.rows.start), d.offset.shape[0] // (d.rows.stop - d.rows.start)
            ),
        )
        for d in flow.details
    )
    mouth = flow.mouth
    if mouth is not None:
        mouth = replace(mouth, upper=with_pixels(mouth.upper), lower=with_pixels(mouth.lower))
    mirror = flow.mirror
    if mirror is not None:
        mirror = replace(mirror, offset=shifted(mirror.offset, (mirror.columns.start, mirror.rows.start), 1))
    return replace(flow, offset=shifted(flow.offset, (0, 0), 1), details=details, mouth=mouth, mirror=mirror)


@functools.lru_cache(maxsize=16)
def _grid(width: int, height: int) -> Array:
    """[height, width, 2] x and y of each pixel; cached, so do not modify it."""
    return np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)


def followed(overlay: Overlay, correction: Array, canvas: Canvas, window: Crop) -> Overlay:
    """An overlay of a frame, warped by the flow correction like the pixels below it.

    Args:
        overlay: over the canvas.
        correction: [n, n, 2] over window, in its sides, 0 at its border.
        canvas, window: in the same pixels.
    """
    n = correction.shape[0]
    k = n / window.side
    corner = np.array([canvas.left - window.left, canvas.top - window.top]) + 0.5
    (x0, y0), (x1, y1) = (
        ((at + corner) * k - 0.5 + more).astype(int).clip(0, n) for at, more in ((overlay.low, -1), (overlay.high, 2))
    )
    most = float(np.abs(correction[y0:y1, x0:x1]).max(initial=0)) * window.side
    if most < _STILL_PX:
        return overlay
    reach = int(most) + 2
    low, high = (overlay.low - reach).clip(0), np.minimum(overlay.high + reach, canvas.size)
    x, y = (low + corner) * k - 0.5
    width, height = (int(edge) for edge in high - low)
    places = cv2.warpAffine(
        correction,
        np.array([[k, 0, x], [0, k, y]]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    places *= np.float32(window.side)
    places += (low - overlay.low).astype(np.float32)
    places[..., 0] += np.arange(width, dtype=np.float32)
    places[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    moved = cv2.remap(overlay.pixels, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    return Overlay(low, moved)


def _blend(image: Image, refined: Image, keep: Array, window: Crop) -> None:
    """Blend the refined window into the image, in place, with weight 1 - keep."""
    part, square = _part(image, window)
    size = part.shape[1::-1]
    if not part.size:
        return
    wide = cv2.cvtColor(refined, cv2.COLOR_RGB2RGBA)  # four channels take less than half the time of three in OpenCV
    over, weight = (_square_at(what, square, size) for what in (wide, keep))
    over = cv2.cvtColor(over, cv2.COLOR_RGBA2RGB)
    part[...] = cv2.blendLinear(np.ascontiguousarray(part), over, weight, 1 - weight)


def _blend_under_detail(image: Image, prediction: Prediction, window: Crop) -> None:
    """As _blend, but keep detail of the image that is finer than the network's window.

    A pixel is keep * image + (1 - keep) * (refined + detail * (image - warped)), where refined, detail and warped are
    upsampled. With detail 1 it is the image plus the residual, with detail 0 the result of _blend. Inside the mouth,
    detail is 1: single teeth are finer than the network's window.
    """
    part, square = _part(image, window)
    if not part.size:
        return
    px = prediction.refined.shape[0]
    keep, detail = (
        cv2.resize(of, (px, px), interpolation=cv2.INTER_LINEAR)
        for of in (prediction.keep, detail_kept(prediction.residual, prediction.keep.shape[0]))
    )
    detail = np.maximum(detail, prediction.interior * np.float32(1 / 255))
    # Linear in the image: share * image + rest. Plane by plane: NumPy is slow where the last axis is short.
    drawn = 1 - keep
    colors = zip(cv2.split(prediction.refined), cv2.split(prediction.warped), strict=True)
    both = cv2.merge([*(drawn * (refined - detail * warped) for refined, warped in colors), keep + drawn * detail])
    for top in range(0, part.shape[0], _STRIP):
        strip = part[top : top + _STRIP]
        enlarged = _square_at(both, replace(square, top=square.top - top), strip.shape[1::-1])
        share = cv2.extractChannel(enlarged, 3)
        kept = cv2.multiply(strip, cv2.merge([share] * 3), dtype=cv2.CV_32F)
        strip[...] = cv2.add(kept, cv2.cvtColor(enlarged, cv2.COLOR_RGBA2RGB), dtype=cv2.CV_8U)


def detail_kept(residual: Array, cells: int) -> Array:
    """Weight of the photo's fine detail: low where the residual nearby is large.

    Otherwise, the detail of a lip would show through teeth, and the edge of an opening that the residual moves would
    appear twice.

    Args:
        residual: [3, n, n] in units of 127.5 gray levels.
        cells: side of the result in cells, a divisor of n.

    Returns:
        [cells, cells] 0..1, smooth.
    """
    k = residual.shape[-1] // cells
    # Largest residual in a cell and its neighbors.
    most = cv2.dilate(np.abs(residual).max(0), np.ones((3 * k, 3 * k)))[k // 2 :: k, k // 2 :: k]
    return 1 - smoothstep(cv2.GaussianBlur(most, (5, 5), 0) * np.float32(127.5), *REDRAWN)


def _part(image: Image, window: Crop) -> tuple[Image, Crop]:
    """The part of the image inside the window, as a view, possibly empty; and the window in pixels of that part."""
    height, width = image.shape[:2]
    low = np.maximum(np.floor([window.left, window.top]).astype(int), 0)
    high = np.minimum(np.ceil([window.left + window.side, window.top + window.side]).astype(int), [width, height])
    high = np.maximum(high, low)
    return image[low[1] : high[1], low[0] : high[0]], Crop(window.left - low[0], window.top - low[1], window.side)


def _square_at(what: NDArray[Any], square: Crop, size: tuple[int, ...]) -> NDArray[Any]:
    """A picture of the square, resampled to this width and height."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(what, square.matrix(what.shape[0]), size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
