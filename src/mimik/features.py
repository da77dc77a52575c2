"""Frozen networks that look at faces: identity.

Imports torch, so it belongs to training, preparation and evaluation; animating needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from mimik.face import Image, fit_similarity

CHIP_PX = 150
EMBEDDING_DIM = 128

# dlib's aligned chip: where the eyes' corners and the bottom of the nose lie, 0..1, before its margin of a quarter.
_CHIP_POINTS = [263, 362, 33, 133, 2]
_CHIP_PLACES = np.array(
    [
        (0.8595674595992, 0.2134981538014),
        (0.6460604764104, 0.2289674387677),
        (0.1205750620789, 0.2137274526848),
        (0.3340850613712, 0.2290642403242),
        (0.4901123135679, 0.6277975316475),
    ]
)
_CHIP_MARGIN = 0.25


def face_chip(image: Image, points: NDArray[Any]) -> Image:
    """The face, upright and in the place where the identity network expects it.

    Args:
        image: uint8 RGB [H, W, 3].
        points: [478, 2 or 3] of the face, in pixels.

    Returns:
        uint8 RGB [150, 150, 3].
    """
    flat = np.zeros((len(_CHIP_POINTS), 1))
    places = (_CHIP_MARGIN + _CHIP_PLACES) / (1 + 2 * _CHIP_MARGIN) * CHIP_PX
    to_image = fit_similarity(np.hstack([places, flat]), np.hstack([points[_CHIP_POINTS, :2], flat]))
    linear = to_image.scale * to_image.rotation[:2, :2]
    shift = to_image.translation[:2] + linear @ [0.5, 0.5] - 0.5
    if to_image.scale > 1.5:  # average before sampling, against aliasing
        width, height = (max(1, round(n / to_image.scale)) for n in image.shape[1::-1])
        scale = np.array([width / image.shape[1], height / image.shape[0]])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        linear, shift = linear * scale[:, None], (shift + 0.5) * scale - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = np.column_stack([linear, shift])
    return cv2.warpAffine(image, matrix, (CHIP_PX, CHIP_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)


class FaceNet(nn.Module):
    """dlib's face recognition ResNet: 29 convolutions, 128 numbers a face; differentiable.

    Two pictures of one person are usually nearer than 0.6 (Euclidean). It tells some groups of people apart less well
    than others; say so wherever its distances are reported.
    """

    def __init__(self) -> None:
        super().__init__()
        path = str(resources.files("mimik").joinpath("assets/face_resnet.safetensors"))
        for name, value in load_file(path).items():
            self.register_buffer(name.replace(".", "_"), value.float())
        mean = torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1)
        self.register_buffer("mean", mean)

    def _conv(self, x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        get = self.get_buffer
        x = F.conv2d(x, get(f"{name}_conv_filters"), get(f"{name}_conv_bias"), stride, padding)
        return x * get(f"{name}_scale_weights").view(1, -1, 1, 1) + get(f"{name}_scale_biases").view(1, -1, 1, 1)

    def _block(self, x: Tensor, name: str) -> Tensor:
        return (self._conv(self._conv(x, f"{name}_conv1", 1, 1).relu(), f"{name}_conv2", 1, 1) + x).relu()

    def _down(self, x: Tensor, name: str) -> Tensor:
        out = self._conv(self._conv(x, f"{name}_conv1", 2, 0).relu(), f"{name}_conv2", 1, 1)
        skip = F.avg_pool2d(x, 2, 2)
        height, width = max(out.shape[2], skip.shape[2]), max(out.shape[3], skip.shape[3])
        out = F.pad(out, (0, width - out.shape[3], 0, height - out.shape[2]))
        more = out.shape[1] - skip.shape[1]
        skip = F.pad(skip, (0, width - skip.shape[3], 0, height - skip.shape[2], 0, more))
        return (out + skip).relu()

    def forward(self, chips: Tensor) -> Tensor:
        """Args: chips: [B, 3, 150, 150] RGB, 0..255, from face_chip. Returns: [B, 128]."""
        x = self._conv((chips - self.get_buffer("mean")) / 256, "conv32_down", 2, 0).relu()
        x = F.max_pool2d(x, 3, 2)
        for number in (1, 2, 3):
            x = self._block(x, f"conv32_{number}")
        for width, blocks in ((64, 3), (128, 2), (256, 2)):
            x = self._down(x, f"conv{width}_down")
            for number in range(1, blocks + 1):
                x = self._block(x, f"conv{width}_{number}")
        x = self._down(x, "conv256_down_out")
        return x.mean((2, 3)) @ self.get_buffer("fc")

    @torch.inference_mode()
    def embed_faces(self, images: Sequence[Image], points: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings of faces in pictures.

        Args:
            images: uint8 RGB [H, W, 3] each.
            points: [478, 2 or 3] of the face in each, in pixels.

        Returns:
            [N, 128] float32.
        """
        if not len(images):
            return np.zeros((0, EMBEDDING_DIM), np.float32)
        chips = np.stack([face_chip(image, p) for image, p in zip(images, points, strict=True)])
        batches = torch.from_numpy(chips).permute(0, 3, 1, 2).float().split(32)
        return torch.cat([self(batch) for batch in batches]).numpy()
