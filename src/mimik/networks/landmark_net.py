"""The landmark detector's mesh network in torch: differentiable landmarks of synthesized faces.

This is Google's MediaPipe face mesh, converted from OpenVINO's representation of the file that face.Landmarker uses.
face.Landmarker itself runs OpenVINO, which is several times as fast but has no gradients.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn

from mimik.face.landmarks import LANDMARKER_VIEW_PX, NUM_POINTS, landmarker_bundle
from mimik.face.openvino_core import inference_core, openvino
from mimik.networks.features import sampled

_NAME = "face_landmarks_detector.tflite"


def _convolution(options: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    (top, left), (bottom, right) = options["pads_begin"], options["pads_end"]
    groups = x.shape[1] if weight.ndim == 5 else 1  # [G, 1, 1, H, W] of depthwise ones
    x = F.pad(x, (left, right, top, bottom)) if top + left + bottom + right else x
    return F.conv2d(x, weight.flatten(0, weight.ndim - 4), bias.flatten(), options["strides"], groups=groups)


def _padded(options: dict[str, Any], x: Tensor, before: Tensor, after: Tensor, value: Tensor) -> Tensor:
    sides = zip(before.flip(0).tolist(), after.flip(0).tolist(), strict=True)
    return F.pad(x, [size for side in sides for size in side], value=float(value))


# OpenVINO's operations in torch, by name; the first argument are their attributes.
_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "Convert": lambda _, x: x.float(),
    "Convolution": _convolution,
    "GroupConvolution": _convolution,
    "MaxPool": lambda options, x: F.max_pool2d(x, options["kernel"], options["strides"]),
    "PRelu": lambda _, x, slope: F.prelu(x, slope.flatten()),
    "Pad": _padded,
    "Reshape": lambda _, x, shape: x.reshape([n or x.shape[i] for i, n in enumerate(shape.tolist())]),  # 0: as it is
    "Transpose": lambda _, x, order: x.permute(order.tolist()),
    "Unsqueeze": lambda _, x, axes: functools.reduce(Tensor.unsqueeze, axes.tolist(), x),
}

_SHAPING = ("Pad", "Reshape", "Transpose", "Unsqueeze")


@dataclass
class _Step:
    """One operation, and the names of its inputs and its output."""

    kind: str
    options: dict[str, Any]
    inputs: list[str]
    output: str


class LandmarkNet(nn.Module):
    """Maps views of faces to their points; frozen, differentiable."""

    def __init__(self) -> None:
        super().__init__()
        with landmarker_bundle() as bundle, tempfile.TemporaryDirectory() as folder:
            model = inference_core().read_model(bundle.extract(_NAME, folder))
        points = model.output(0).get_node().input_value(0)
        constants: dict[str, Tensor] = {}
        self._steps: list[_Step] = []
        for node in openvino().Model([points], model.get_parameters(), "points").get_ordered_ops():
            kind, name = node.get_type_name(), node.get_name()
            inputs = [value.get_node().get_name() for value in node.input_values()]
            if kind == "Constant":
                constants[name] = torch.from_numpy(node.data.copy())
            elif kind == "Parameter":
                self._input = name
            elif inputs and constants.keys() >= set(inputs):
                constants[name] = _OPERATIONS[kind]({}, *(constants[one] for one in inputs))
            elif kind == "Add" and inputs[1] in constants:  # a convolution's bias
                self._steps[-1].inputs.append(inputs[1])
                self._steps[-1].output = name
            elif kind != "Result":
                self._steps.append(_Step(kind, node.get_attributes(), inputs, name))
        # Keep shapes and the like on the CPU: reading them from a GPU would synchronize each time.
        shaping = {one for step in self._steps if step.kind in _SHAPING for one in step.inputs} & constants.keys()
        self._shapes = {name: constants[name] for name in shaping}
        for name in ({one for step in self._steps for one in step.inputs} & constants.keys()) - shaping:
            value = constants[name]
            value = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value.contiguous()
            self.register_buffer(name, value, persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """Args: views: [B, 3, 256, 256] RGB in 0..1. Returns: [B, 478, 3] points in pixels of the view."""
        values = {**self._shapes, self._input: views.permute(0, 2, 3, 1)}
        for step in self._steps:
            known = (values[one] if one in values else self.get_buffer(one) for one in step.inputs)
            values[step.output] = _OPERATIONS[step.kind](step.options, *known)
        return values[self._steps[-1].output].float().reshape(-1, NUM_POINTS, 3)

    def find(self, images: Tensor, transforms: Tensor) -> Tensor:
        """Points of faces in pictures, given their positions; equal to those of face.Landmarker.

        Args:
            images: [B, 3, H, W] in [-1, 1].
            transforms: [B, 2, 3] of face.landmarker_view, for the pictures' pixels.

        Returns:
            [B, 478, 3] in pixels of the view, which is 1.5 times as wide as the face and 256 px.
        """
        return self((sampled(images, transforms, LANDMARKER_VIEW_PX, "zeros") + 1) / 2)
