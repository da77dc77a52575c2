"""One picture of a person as a model sees it, under a motion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.animation.avatar import Avatar
from mimik.app.export.networks import Array, GraphInputs
from mimik.config import AnimateConfig, NetworkConfig
from mimik.face.landmarks import Image
from mimik.inference.synthesis import (
    PaperPainter,
    TexturePainter,
    clip_window,
    network_window,
    photo_windows,
    reduced,
    to_network_size,
    to_planes,
    window_around,
)
from mimik.motion.bundled import bundled_motions
from mimik.motion.files import Motion
from mimik.motion.smoothing import smoothed
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.painter import Painter

_CALIBRATION = ("talk", "laugh", "look-around", "surprise")  # bundled motions
_SHADES = 225, 255  # grey levels that are lighter than lids can be painted


class Stage:
    """One picture of a person as a model sees it, under a motion."""

    def __init__(self, avatar: Avatar, config: NetworkConfig, size: int | None) -> None:
        """Args: avatar: the person; config: of the model; size: pixels of the longer side, None is the photo's own."""
        portrait = avatar.source_frame(AnimateConfig(model="geometry", size=size, scene="warp"))
        self.config, self.picture, self.face = config, portrait.picture, portrait.face
        self._portrait = portrait
        points = portrait.face.points
        self.warper = Warper(points, *portrait.size)
        self._paper = PaperPainter(self.picture, points, config, _never)
        self._texture = TexturePainter(self.picture, points, self.warper, config, _never)
        self.window, self.scale = network_window(points, config)
        self.reduced = reduced(self.picture, self.scale)
        self._paints = Painter(self.reduced, self.warper, self.scale)

    def targets(self, motion: Motion, at: Sequence[int] | None = None) -> Iterator[NDArray[Any]]:
        """Where the face's points go, [478, 3] for each frame, as `mimik animate` would have it.

        Args:
            motion: what moves them.
            at: only these frames, in order; None: all.
        """
        retarget = self._portrait.retarget(motion.reference)
        for number, motion_frame in enumerate(smoothed(motion.frames(), motion.fps, AnimateConfig().smooth)):
            if at is None or number in at:
                yield retarget(motion_frame)

    def window_at(self, target: NDArray[Any]) -> Crop:
        """What the network sees of the frame."""
        return clip_window(self.face.points) if self.config.form == "paper" else window_around(target, self.window.side)

    def flow(self, target: NDArray[Any]) -> Flow:
        """The flow of a frame as a page applies it: the photo as the only source."""
        return replace(self.warper.flow(target), mirror=None)

    def sample(self, target: NDArray[Any]) -> GraphInputs:
        """The generator's inputs for a frame, without psi_hat."""
        if self.config.form == "paper":
            return dict(zip(("y",), self._paper.network_inputs(target), strict=True))
        _, inputs = self._texture.network_inputs(self.flow(target), target, self.window_at(target))
        return dict(zip(("y", "warped", "geometry"), inputs, strict=True))

    def gate(self, target: NDArray[Any]) -> float:
        """0..1: how much the network's answer counts."""
        return 1.0 if self.config.form == "paper" else float(self._texture.gate(target))

    def painted(self, flow: Flow, window: Crop) -> NDArray[np.uint8]:
        """What is painted over the warped photo, as the network sees it: RGBA.

        A pixel is what it was times 1 - A, and the colour is added to that. A is told by two shades of what is below.

        Returns:
            [frame_px, frame_px, 4].
        """

        def seen(image: Image, painting: Flow | None) -> NDArray[np.float32]:
            if painting is not None:
                self._paints.complete(image, painting)
            return window.scaled(self.scale).cut(image, self.config.frame_px).astype(np.float32)

        low, high = (seen(np.full_like(self.reduced, shade), flow) for shade in _SHADES)
        opaque = 1 - ((high - low).mean(-1, keepdims=True) / (_SHADES[1] - _SHADES[0])).clip(0, 1)
        bare = self._paints.carry(self.reduced, flow)
        before, after = seen(bare, None), seen(bare.copy(), flow)
        alpha = (255 * opaque).round()
        colours = (after - before * (1 - alpha / 255)).round().clip(0, 255)
        return np.concatenate([colours, alpha], -1).astype(np.uint8)


def _never(*_inputs: Array) -> list[Array]:
    raise AssertionError("an exported model's painters draw nothing")


def embedded(config: NetworkConfig, picture: Image, points: NDArray[Any]) -> tuple[Array, Array]:
    """x and y of a photo, as E reads them, [1, 3, image_px, image_px] each."""
    x, y, _ = photo_windows(config, [picture], [points])
    return to_planes(to_network_size(x, config)), to_planes(y)


def calibration_frames(stage: Stage, count: int) -> list[GraphInputs]:
    """The generator's inputs for frames of the bundled motions, evenly spaced; those of one motion are not together."""
    each = -(-count // len(_CALIBRATION))
    by_motion = []
    for name in _CALIBRATION:
        motion = Motion.load(bundled_motions()[name])
        at = np.linspace(0, len(motion) - 1, each + 1)[1:].round().astype(int).tolist()
        by_motion.append([stage.sample(target) for target in stage.targets(motion, at)])
    return [sample for group in zip(*by_motion, strict=True) for sample in group][:count]


def moved_photos(stage: Stage, count: int) -> list[GraphInputs]:
    """The embedder's inputs for pictures of the person with several expressions."""
    motion = Motion.load(bundled_motions()[_CALIBRATION[0]])
    painter = Painter(stage.picture, stage.warper)
    found = []
    for target in stage.targets(motion, np.linspace(0, len(motion) - 1, count).round().astype(int).tolist()):
        x, y = embedded(stage.config, painter.paint(stage.warper.flow(target)), target)
        found.append({"x": x, "y": y})
    return found
