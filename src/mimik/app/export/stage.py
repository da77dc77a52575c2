"""Model inputs for one source image of a person under a motion."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.animation.avatar import Avatar
from mimik.app.export.networks import Array, GraphInputs
from mimik.config import AnimateConfig, NetworkConfig
from mimik.face.landmarks import NUM_POINTS, Image
from mimik.inference.synthesis import PaperPainter, TexturePainter
from mimik.inference.windows import (
    clip_window,
    network_window,
    photo_windows,
    reduced,
    to_network_size,
    to_planes,
    window_around,
)
from mimik.motion.files import Motion
from mimik.motion.kinds import bundled_motions
from mimik.motion.smoothing import smoothed
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Flow
from mimik.rendering.layers.canvas import Overlay
from mimik.rendering.mirror import matched_light
from mimik.rendering.painter import Painter
from mimik.rendering.scene.background import Scene, shown
from mimik.rendering.scene.neck import Neck

SHADING_CELLS = 32  # along a side of the exported shading, which is smooth
_CALIBRATION = ("talk", "laugh", "look-around", "surprise")  # bundled motions


class Stage:
    """Model inputs for one source image of a person under a motion.

    Attributes:
        picture: the photo, uint8 RGB [H, W, 3].
        scene: the photo's foreground, matte and plate; None: the photo is warped as a whole.
        moving: the image to warp, uint8 RGB [H, W, 3]: the foreground colors, or the photo.
        matte: uint8 [H, W] of the person; None without a scene.
        warper: of the photo.
        reduced: `moving` scaled by `scale`, from which the network's window is sampled.
        window: network window in the photo.
        is_gray: whether the photo is black and white.
    """

    def __init__(self, avatar: Avatar, config: NetworkConfig, size: int | None) -> None:
        """Args: avatar: the person; config: of the model; size: longer side in pixels, None: the photo's own."""
        scene = "warp" if config.form == "paper" else "auto"  # the paper's form moves only the face
        portrait = avatar.source_frame(AnimateConfig(model="geometry", size=size, scene=scene))
        self.config, self.picture, self.face = config, portrait.picture, portrait.face
        self._portrait = portrait
        self.scene: Scene | None = None if isinstance(portrait.scene, str) else portrait.scene
        self.moving, self.matte = self.picture, None
        if self.scene is not None:
            self.moving, self.matte = self.scene.front, self.scene.matte
        points = portrait.face.points
        self._neck = None if self.scene is None else Neck(self.scene.front, self.scene.alpha, points)
        self.warper = portrait.photo_warper
        self._paper = PaperPainter(self.picture, points, config, _never)
        self._texture = TexturePainter(self.moving, points, self.warper, config, _never)
        self.window, self.scale = network_window(points, config)
        self.reduced = reduced(self.moving, self.scale)
        self._paints = Painter(self.moving, self.warper)
        self._with_matte = None if self.matte is None else Painter(self.moving, self.warper, matte=self.matte)
        self.is_gray = self._paints.is_gray
        self._paints_reduced = Painter(self.reduced, self.warper, self.scale)

    @functools.cached_property
    def lit(self) -> Image:
        """`moving`, relit so that one side of the face can replace the other, uint8 RGB [H, W, 3]."""
        points = self.warper.crop.from_unit(self.warper.source[:NUM_POINTS])
        return matched_light(self.moving, points, self.warper.facing[:NUM_POINTS])

    def shown(self, target: NDArray[Any]) -> float:
        """0..1: blend weight of the scene in a frame; the rest is the photo."""
        return 1.0 if self.scene is None else shown(target, self.face.points, self.warper.crop)

    def targets(self, motion: Motion, at: Sequence[int] | None = None) -> Iterator[NDArray[Any]]:
        """Yield the target face points, [478, 3] per frame, as in `mimik animate`.

        Args:
            motion: the driving motion.
            at: frame numbers to yield, in order; None: all.
        """
        retarget = self._portrait.retarget(motion.reference)
        for number, motion_frame in enumerate(smoothed(motion.frames(), motion.fps, AnimateConfig().smooth)):
            if at is None or number in at:
                yield retarget(motion_frame)

    def window_at(self, target: NDArray[Any]) -> Crop:
        """The network's window of a frame."""
        return clip_window(self.face.points) if self.config.form == "paper" else window_around(target, self.window.side)

    def sample(self, target: NDArray[Any]) -> GraphInputs:
        """Generator inputs for a frame, without psi_hat."""
        if self.config.form == "paper":
            return dict(zip(("y",), self._paper.network_inputs(target), strict=True))
        _, inputs = self._texture.network_inputs(self.warper.flow(target), target, self.window_at(target))
        return dict(zip(("y", "warped", "geometry"), inputs, strict=True))

    def gate(self, target: NDArray[Any]) -> float:
        """0..1: weight of the network's prediction."""
        return 1.0 if self.config.form == "paper" else float(self._texture.gate(target))

    def shading(self, flow: Flow) -> Array:
        """Logarithm of the gain of Shading, averaged over squares of cells: [SHADING_CELLS, SHADING_CELLS]."""
        gain = self._paints.gain(flow)
        if gain is None:
            return np.zeros((SHADING_CELLS, SHADING_CELLS), np.float32)
        size = SHADING_CELLS, SHADING_CELLS
        return np.asarray(cv2.resize(np.log(gain), size, interpolation=cv2.INTER_AREA), np.float32)

    def layers(self, flow: Flow) -> NDArray[np.uint8]:
        """The layers drawn over the warped photo: inside of the mouth, eyes, closing lips.

        Premultiplied alpha: a pixel is multiplied by 1 - A, then the color is added.

        Returns:
            RGBA, [H, W, 4].
        """
        return _over_anything(self._paints, self.moving, flow, self._paints.overlays(flow))

    def ears(self, flow: Flow) -> NDArray[np.uint8]:
        """Share of the matte that is removed from a frame, because an ear is hidden: [H, W], 255 is all."""
        removed = np.zeros(self.picture.shape[:2], np.uint8)
        if self._with_matte is not None and flow.ears:
            kept = np.full(self._with_matte.canvas.size[::-1], 255, np.uint8)
            self._with_matte.remove_ears(kept, flow, np.zeros(2, int))
            self._with_matte.canvas.part(removed)[...] = 255 - kept
        return removed

    def necks(self, target: NDArray[Any]) -> list[tuple[tuple[int, int, int, int], NDArray[np.uint8]]]:
        """The neck behind the head, at most two parts: left, top, width and height; RGBA, premultiplied, [4, h, w]."""
        if self._neck is None:
            return []
        canvas = self._paints.canvas
        found = []
        for (rows, columns), color, share in self._neck.layers(
            target, np.array([canvas.left, canvas.top]), canvas.size[::-1]
        ):
            box = (
                canvas.left + int(columns.start),
                canvas.top + int(rows.start),
                int(columns.stop - columns.start),
                int(rows.stop - rows.start),
            )
            part = np.dstack([color * share, 255 * share]).round().astype(np.uint8)
            found.append((box, np.ascontiguousarray(part.transpose(2, 0, 1))))
        return found

    def layers_in(self, window: Crop, flow: Flow) -> NDArray[np.uint8]:
        """The same layers in the network's window, [frame_px, frame_px, 4]."""
        canvas, smaller = self._paints.canvas, self._paints_reduced.canvas
        overlays = [overlay.reduced(self.scale, canvas, smaller) for overlay in self._paints.overlays(flow)]
        painted = _over_anything(self._paints_reduced, self.reduced, flow, overlays)
        return window.scaled(self.scale).cut(painted, self.config.frame_px)


def _over_anything(painter: Painter, picture: Image, flow: Flow, overlays: Sequence[Overlay]) -> NDArray[np.uint8]:
    """Layers of a painter, RGBA [H, W, 4], from results over black and white, in which they are linear."""
    over_black, over_white = np.zeros_like(picture), np.full_like(picture, 255)
    for image in (over_black, over_white):
        painter.complete(image, flow, overlays)
    through = over_white.astype(np.int16) - over_black
    return np.dstack([over_black, (255 - through.mean(-1)).round().clip(0, 255).astype(np.uint8)])


def _never(*_inputs: Array) -> list[Array]:
    raise AssertionError("an exported model's painters draw nothing")


def embedded(config: NetworkConfig, picture: Image, points: NDArray[Any]) -> tuple[Array, Array]:
    """x and y of a photo as inputs of E, [1, 3, image_px, image_px] each."""
    x, y, _ = photo_windows(config, [picture], [points])
    return to_planes(to_network_size(x, config)), to_planes(y)


def calibration_frames(stage: Stage, count: int) -> list[GraphInputs]:
    """Generator inputs for evenly spaced frames of the bundled motions, interleaved by motion."""
    each = -(-count // len(_CALIBRATION))
    by_motion = []
    for name in _CALIBRATION:
        motion = Motion.load(bundled_motions()[name])
        at = np.linspace(0, len(motion) - 1, each + 1)[1:].round().astype(int).tolist()
        by_motion.append([stage.sample(target) for target in stage.targets(motion, at)])
    return [sample for group in zip(*by_motion, strict=True) for sample in group][:count]


def moved_photos(stage: Stage, count: int) -> list[GraphInputs]:
    """Embedder inputs for pictures of the person with several expressions."""
    motion = Motion.load(bundled_motions()[_CALIBRATION[0]])
    painter = Painter(stage.picture, stage.warper)
    found = []
    for target in stage.targets(motion, np.linspace(0, len(motion) - 1, count).round().astype(int).tolist()):
        x, y = embedded(stage.config, painter.paint(stage.warper.flow(target)), target)
        found.append({"x": x, "y": y})
    return found
