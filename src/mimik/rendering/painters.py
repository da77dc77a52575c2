"""What draws the frames of one picture."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mimik.face.landmarks import Image
from mimik.rendering.flow import Flow
from mimik.rendering.layers.canvas import Overlay

SHADE_PX = 8  # pixels of a frame: inside a mouth the residual has no detail finer than this


@dataclass(frozen=True)
class Prepared:
    """A frame of which everything is made but the pixels of the picture, that are composited last.

    Attributes:
        flow: as it is applied.
        target: [478, 3] where the face's points are.
        overlays: laid over the warped picture.
        prediction: what a network makes of the frame, for the painter that asked it; None: nothing.
    """

    flow: Flow
    target: NDArray[Any]
    overlays: tuple[Overlay, ...] = ()
    prediction: Any = None


class PicturePainter(Protocol):
    """Makes new frames of one picture, in two steps. Several threads may do so, each with frames of its own."""

    @abstractmethod
    def prepare(self, flow: Flow, target: NDArray[Any]) -> Prepared:
        """The first step: layers and network, for the face's points at target [478, 3], to which the flow leads."""

    @abstractmethod
    def finish(self, prepared: Prepared) -> Image:
        """The second step: the picture, uint8 RGB [H, W, 3]."""

    def paint(self, flow: Flow, target: NDArray[Any]) -> Image:
        """Both steps; arguments as prepare takes them."""
        return self.finish(self.prepare(flow, target))

    @property
    @abstractmethod
    def moved_matte(self) -> NDArray[np.uint8]:
        """The moved part of the picture's matte, as in the frame that this thread finished last."""
