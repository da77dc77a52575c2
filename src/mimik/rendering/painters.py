"""The interface of what draws the frames of one picture."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Image
from mimik.rendering.flow import Flow
from mimik.rendering.layers.canvas import Overlay

SHADE_PX = 8  # frame pixels: finest detail of the residual inside a mouth


@dataclass(frozen=True)
class Prepared:
    """A frame before its pixels are composited.

    Attributes:
        flow: to apply to the picture.
        target: [478, 3] face points of the frame.
        overlays: layers to composite over the warped picture.
        prediction: output of the painter's network, if it has one; read by the same painter's finish.
    """

    flow: Flow
    target: NDArray[Any]
    overlays: tuple[Overlay, ...] = ()
    prediction: Any = None


class PicturePainter(Protocol):
    """Renders frames of one picture in two steps. Safe for several threads, each with its own frames."""

    @abstractmethod
    def prepare(self, flow: Flow, target: NDArray[Any]) -> Prepared:
        """First step: layers and network, for a flow and the face points target [478, 3] that it leads to."""

    @abstractmethod
    def finish(self, prepared: Prepared) -> Image:
        """Second step: composite the picture, uint8 RGB [H, W, 3]."""

    def paint(self, flow: Flow, target: NDArray[Any]) -> Image:
        """Both steps; arguments as in prepare."""
        return self.finish(self.prepare(flow, target))

    @property
    @abstractmethod
    def moved_matte(self) -> NDArray[np.uint8]:
        """The warped part of the picture's matte, for the frame that this thread finished last."""
