"""The landmarker's mesh network in torch, with gradients: where it finds the points of a synthesised face.

Google's MediaPipe face mesh, read from the TensorFlow Lite file that face.Landmarker runs too. face does not use this:
OpenVINO is several times as fast, but gives no gradients.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from torch import Tensor, nn

from mimik.face.landmarks import LANDMARKER_VIEW_PX, NUM_POINTS, landmarker_bundle
from mimik.networks.features import same_padded, sampled

_NAME = "face_landmarks_detector.tflite"
# BuiltinOperator of TensorFlow Lite's schema.fbs.
_ADD, _CONV, _DEPTHWISE, _DEQUANTIZE, _LOGISTIC, _MAX_POOL, _RESHAPE, _PAD, _PRELU = 0, 3, 4, 6, 14, 17, 22, 34, 54
_TYPES = {0: np.float32, 1: np.float16, 2: np.int32}  # TensorType


class _Table:
    """A table of a FlatBuffer; a field is known by its number in the schema."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields_at = at - struct.unpack_from("<i", data, at)[0]
        self.fields_size = struct.unpack_from("<H", data, self.fields_at)[0]

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _place(self, number: int) -> int | None:
        place = 4 + 2 * number
        offset = struct.unpack_from("<H", self.data, self.fields_at + place)[0] if place < self.fields_size else 0
        return self.at + offset if offset else None

    def number(self, number: int, kind: str = "b") -> int:
        """A scalar field; 0 where it is left out. kind: as struct has it."""
        place = self._place(number)
        return 0 if place is None else int(struct.unpack_from(f"<{kind}", self.data, place)[0])

    def _vector(self, number: int) -> tuple[int, int]:
        place = self._place(number)
        if place is None:
            return 0, 0
        place += struct.unpack_from("<I", self.data, place)[0]
        return place + 4, struct.unpack_from("<I", self.data, place)[0]

    def numbers(self, number: int, kind: type = np.int32) -> Any:
        """A vector of scalars."""
        at, count = self._vector(number)
        return np.frombuffer(self.data, np.dtype(kind).newbyteorder("<"), count, at)

    def tables(self, number: int) -> list[_Table]:
        """A vector of tables."""
        at, count = self._vector(number)
        places = [at + 4 * i for i in range(count)]
        return [_Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]

    def table(self, number: int) -> _Table:
        place = self._place(number)
        assert place is not None
        return _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])


@dataclass(frozen=True)
class _Step:
    """One operation: where its inputs and its output stand, and how far and whether padded it goes over a picture."""

    code: int
    inputs: tuple[int, ...]
    output: int
    stride: int = 1
    same: bool = False
    kernel: int = 1


def _read(data: bytes) -> tuple[dict[int, Any], list[_Step], int, list[int]]:
    """Constants by tensor, as arrays of the file's axes; the operations; the input's tensor, and the outputs'."""
    model = _Table.root(data)
    codes = [max(code.number(0), code.number(3, "i")) for code in model.tables(1)]
    graph, buffers = model.tables(2)[0], model.tables(4)
    constants: dict[int, Any] = {}
    for number, tensor in enumerate(graph.tables(0)):
        kind = tensor.number(1)
        values = buffers[tensor.number(2, "I")].numbers(0, np.uint8)
        if len(values):
            constants[number] = np.frombuffer(values.tobytes(), _TYPES[kind]).reshape(tensor.numbers(0))
    steps = []
    for operator in graph.tables(3):
        code = codes[operator.number(0, "I")]
        inputs, (output,) = tuple(operator.numbers(1).tolist()), operator.numbers(2).tolist()
        if code == _DEQUANTIZE:
            constants[output] = constants[inputs[0]].astype(np.float32)
        elif code in (_CONV, _DEPTHWISE, _MAX_POOL):
            options = operator.table(4)
            kernel = options.number(3, "i") if code == _MAX_POOL else 1
            steps.append(_Step(code, inputs, output, options.number(1, "i"), options.number(0) == 0, kernel))
        else:
            steps.append(_Step(code, inputs, output))
    return constants, steps, int(graph.numbers(1)[0]), graph.numbers(2).tolist()


class LandmarkNet(nn.Module):
    """From views of faces to their points; frozen, differentiable."""

    def __init__(self) -> None:
        super().__init__()
        with landmarker_bundle() as bundle:
            constants, self._steps, self._input, (self._points, *_) = _read(bundle.read(_NAME))
        self._channels: dict[int, list[int]] = {}  # to add before and after those that are there
        for step in self._steps:
            for number in step.inputs:
                if (value := constants.get(number)) is None:
                    continue
                if step.code == _PAD:
                    self._channels[number] = value[-1].tolist()
                    continue
                tensor = torch.from_numpy(np.array(value, np.float32))
                if tensor.ndim == 4:  # O H W I, and of depthwise convolutions 1 H W O, -> O I H W
                    tensor = tensor.permute((3, 0, 1, 2) if step.code == _DEPTHWISE else (0, 3, 1, 2)).contiguous(
                        memory_format=torch.channels_last
                    )
                elif step.code == _PRELU:
                    tensor = tensor.flatten()
                self.register_buffer(f"c{number}", tensor, persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """Args: views: [B, 3, 256, 256] RGB in 0..1. Returns: [B, 478, 3] points in pixels of the view."""
        values: dict[int, Tensor] = {self._input: views}

        def get(number: int) -> Tensor:
            return values[number] if number in values else self.get_buffer(f"c{number}")

        for step in self._steps:
            if step.code == _ADD:
                out = get(step.inputs[0]) + get(step.inputs[1])
            elif step.code in (_CONV, _DEPTHWISE):
                x, weight, bias = (get(number) for number in step.inputs)
                groups = x.shape[1] if step.code == _DEPTHWISE else 1
                x = same_padded(x, weight.shape[-1], step.stride) if step.same else x
                out = F.conv2d(x, weight, bias, step.stride, groups=groups)
            elif step.code == _MAX_POOL:
                out = F.max_pool2d(get(step.inputs[0]), step.kernel, step.stride)
            elif step.code == _PRELU:
                out = F.prelu(get(step.inputs[0]), get(step.inputs[1]))
            elif step.code == _PAD:  # of channels
                out = F.pad(get(step.inputs[0]), (0, 0, 0, 0, *self._channels[step.inputs[1]]))
            else:
                assert step.code in (_RESHAPE, _LOGISTIC), f"operator {step.code}"
                continue  # of the other outputs
            values[step.output] = out
            if step.output == self._points:
                break
        return values[self._points].float().reshape(-1, NUM_POINTS, 3)

    def find(self, images: Tensor, transforms: Tensor) -> Tensor:
        """Points of faces in pictures, as face.Landmarker finds them once it knows where the face is.

        Args:
            images: [B, 3, H, W] in [-1, 1].
            transforms: [B, 2, 3] of face.landmarker_view, for the pictures' pixels.

        Returns:
            [B, 478, 3] in pixels of the view, which is 1.5 times as wide as the face and 256 px.
        """
        return self((sampled(images, transforms, LANDMARKER_VIEW_PX, "zeros") + 1) / 2)
