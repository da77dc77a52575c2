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
NO_NETWORK: Any = ()  # in place of a network's outputs: a correction network is neither run nor used


@dataclass(frozen=True)
class Prepared:
    """A frame before its pixels are composited.

    Attributes:
        flow: to apply to the picture.
        target: [478, 3] face points of the frame.
        overlays: layers to composite over the warped picture.
        prediction: output of the painter's network, if it has one; read by the same painter's finish.
        outputs: what the correction network gave for this frame, for another frame's prepare; None: it was not run.
    """

    flow: Flow
    target: NDArray[Any]
    overlays: tuple[Overlay, ...] = ()
    prediction: Any = None
    outputs: Any = None


class PicturePainter(Protocol):
    """Renders frames of one picture in two steps. Safe for several threads, each with its own frames."""

    @abstractmethod
    def prepare(self, flow: Flow, target: NDArray[Any], outputs: Any = None, share: float = 1.0) -> Prepared:
        """First step: layers and network.

        Args:
            flow: of the frame.
            target: [478, 3] face points that it leads to.
            outputs: of the correction network for a frame shortly before, or NO_NETWORK; None: run the network.
            share: 0..1, weight of the correction network's prediction.
        """

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
