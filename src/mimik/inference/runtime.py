"""The trained networks on a CPU without torch: E, P and G of a release as OpenVINO graphs.

networks/ is the reference implementation; the tests compare every output with it. Weights are NumPy arrays, already
divided by their spectral norm. psi_hat is folded into G: AdaIN becomes an instance norm with constants.
"""

from __future__ import annotations

import functools
import platform
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.arrays import Array
from mimik.config import ModelError, NetworkConfig
from mimik.face.openvino_core import capabilities, inference_core, openvino
from mimik.networks.release import ATTENTION_DOWN, ATTENTION_UP, EPS, MAX_CORRECTION
from mimik.rendering.flow import NUM_GEOMETRY

# Standard deviations of a normalized channel at which 8-bit values are clipped: 8x8 pixels cannot exceed it.
_DEVIATIONS = 8.0


class Network:
    """E, P and G of one model."""

    def __init__(
        self, config: NetworkConfig, tensors: Mapping[str, NDArray[Any]], num_threads: int = 0, *, exact: bool = False
    ) -> None:
        """Graphs are compiled on first use.

        Args:
            config: sizes and form.
            tensors: of a release.
            num_threads: 0: OpenVINO chooses.
            exact: run G in float32. Otherwise it runs in bfloat16 if the processor supports it, in less than half the
                time and within one gray level. On other processors, most convolutions of the texture form run in 8
                bits, in two thirds of the time.
        """
        self.config = config
        self._precision = "f32" if exact else fast_precision()
        self._is_quantized = not exact and self._precision == "f32" and config.form == "texture" and has_int8()
        self._tensors, self._graph = tensors, _Graph(tensors)
        self._num_threads = num_threads

    def embed(self, x: Array, y: Array) -> Array:
        """e_hat of photos: the mean of their embeddings.

        Args:
            x, y: [T, 3, H, W] photos and their landmark images, in [-1, 1].

        Returns:
            [N].
        """
        infer = self._embedder
        each = [infer(np.concatenate([b, a])[None])[0][0] for a, b in zip(x, y, strict=True)]
        return np.stack(each).mean(0).astype(np.float32)

    def project(self, e_hat: Array) -> Array:
        """psi_hat [2 * features of all AdaIN layers] of e_hat [N]."""
        weight, bias = self._graph.weight("P.linear"), self._graph.bias("P.linear")
        return weight @ e_hat + bias

    @functools.cached_property
    def _embedder(self) -> _Compiled:
        op, graph, px = _opset(), self._graph, self.config.image_px
        seen = op.parameter([1, 6, px, px], np.float32)
        h = seen
        for number in range(1, graph.count("E.down") + 1):
            h = graph.block(h, f"E.down.{number - 1}", resample="down", first=number == 1)
            if number == ATTENTION_DOWN:
                h = graph.attention(h, "E.attention")
        out = op.reduce_sum(op.relu(h), [2, 3])
        # float32: E runs only once per photo, and the sum needs the precision.
        return _Compiled([out], [seen], self._num_threads, "f32")

    def generator(self, psi_hat: Array) -> _Compiled:
        """G of one person.

        Args:
            psi_hat: [2 * features of all AdaIN layers].

        Returns:
            A function of float32 arrays. Of the paper's form: y [1, 3, H, W] -> [x_hat]. Of the texture form: y, the
            warped photo [1, 3, H, W] and its geometry [1, NUM_GEOMETRY, H / 2, W / 2] -> what Generator.predict
            returns: correction [1, 2, H / 2, W / 2], change [1, 3, 2 H, 2 W], mask [1, 1, H / 2, W / 2].

        Raises:
            ModelError: if OpenVINO cannot run it on this processor.
        """
        try:
            return self._built(psi_hat, _Graph(self._tensors, is_quantized=self._is_quantized))
        except RuntimeError:
            # Without AVX, OpenVINO lacks kernels for some layers; express these by other layers.
            try:
                return self._built(psi_hat, _Graph(self._tensors, is_basic=True))
            except RuntimeError as error:
                why = " ".join(str(error).split())[-80:]
                raise ModelError(
                    f"OpenVINO cannot run the model on this processor ({why}); pass --model geometry, which needs no "
                    "network."
                ) from error

    def _built(self, psi_hat: Array, graph: _Graph) -> _Compiled:
        """See generator."""
        op, px = _opset(), self.config.image_px
        texture = self.config.form == "texture"
        y = op.parameter([1, 3, px, px], np.float32)
        inputs = [y]
        h = y
        if texture:
            warped = op.parameter([1, 3, px, px], np.float32)
            geometry = op.parameter([1, NUM_GEOMETRY, px // 2, px // 2], np.float32)
            inputs += [warped, geometry]
            h = op.concat([op.space_to_depth(op.concat([y, warped], 1), "depth_first", 2), geometry], 1)
        psi = _Psi(psi_hat, graph)
        seen = []
        for number in range(1, graph.count("G.down") + 1):
            h = graph.block(h, f"G.down.{number - 1}", resample="down", first=number == 1, instance=number > 1)
            if number == ATTENTION_DOWN:
                h = graph.attention(h, "G.attention_down")
            seen.append(h)
        for number in range(graph.count("G.middle")):
            h = graph.block(h, f"G.middle.{number}", psi=psi)
        for number in range(1, graph.count("G.up") + 1):
            if texture:
                h = op.add(h, graph.conv(seen[-number], f"G.across.{number - 1}"))
            h = graph.block(h, f"G.up.{number - 1}", resample="up", psi=psi)
            if number == ATTENTION_UP:
                h = graph.attention(h, "G.attention_up")
        h, top = psi.norm(h)
        h = op.relu(h)
        psi.check()
        if not texture:
            return _Compiled([op.tanh(graph.conv(h, "G.to_image"))], inputs, self._num_threads, self._precision)
        flow = graph.conv(h, "G.to_flow")
        correction = op.multiply(op.tanh(_channels(flow, 0, 2)), _constant(MAX_CORRECTION))
        fine = op.relu(op.depth_to_space(graph.conv(h, "G.to_fine", top), "depth_first", 2))
        change = op.depth_to_space(graph.conv(fine, "G.to_picture"), "depth_first", 2)
        change = op.multiply(op.tanh(op.multiply(change, _constant(0.5))), _constant(2.0))
        outputs = [correction, change, op.sigmoid(_channels(flow, 2, 3))]
        return _Compiled(outputs, inputs, self._num_threads, self._precision)


@functools.cache
def fast_precision() -> str:
    """The fastest precision on this processor: "bf16" or "f32"."""
    return "bf16" if "BF16" in capabilities() else "f32"


@functools.cache
def has_int8() -> bool:
    """Whether 8-bit inference of OpenVINO is faster on this processor: on x86."""
    return platform.machine().lower() in ("x86_64", "amd64") and "INT8" in capabilities()


def _opset() -> Any:
    return openvino().opset13


def _constant(value: Any) -> Any:
    return _opset().constant(np.asarray(value, np.float32))


def _channels(h: Any, start: int, stop: int) -> Any:
    one = np.array([1])
    return _opset().slice(h, np.array([start]), np.array([stop]), one, one)


class _Compiled:
    """A compiled graph as a function; calls from several threads are serialized."""

    def __init__(self, outputs: list[Any], inputs: list[Any], num_threads: int, precision: str) -> None:
        ov = openvino()
        model = ov.Model(outputs, inputs, "mimik")
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if num_threads:
            options["INFERENCE_NUM_THREADS"] = num_threads
        self._request = inference_core().compile_model(model, "CPU", options).create_infer_request()
        self._inputs = [self._request.get_input_tensor(number).data for number in range(len(inputs))]
        self._count = len(outputs)
        self._lock = threading.Lock()  # the infer request shares its input and output buffers

    def __call__(self, *inputs: Array) -> list[Array]:
        """Run the graph: float32 arrays in, new float32 arrays out."""
        with self._lock:
            for own, value in zip(self._inputs, inputs, strict=True):
                own[...] = value
            self._request.infer()
            return [self._request.get_output_tensor(number).data.copy() for number in range(self._count)]


class _Psi:
    """The biases and scales of the AdaIN layers, consumed in order."""

    def __init__(self, psi_hat: Array, graph: _Graph) -> None:
        self._graph = graph
        self._left = np.asarray(psi_hat, np.float32).reshape(1, -1, 1, 1)

    def norm(self, h: Any) -> tuple[Any, float]:
        """See _Graph.normed."""
        size = h.get_output_shape(0)[1]
        bias, scale, self._left = np.split(self._left, [size, 2 * size], axis=1)
        if scale.shape[1] != size:
            raise ModelError("its psi_hat is shorter than its generator needs")
        return self._graph.normed(h, bias, scale)

    def check(self) -> None:
        if self._left.size:
            raise ModelError("its psi_hat is longer than its generator needs")


def _four_places(kernel: Array) -> Array:
    """[.., 3, 3] -> [.., 4, 4]: sum of the kernel placed at each of 2x2 pixels."""
    out = np.zeros((*kernel.shape[:2], 4, 4), np.float32)
    for down in range(2):
        for right in range(2):
            out[:, :, down : down + 3, right : right + 3] += kernel
    return out


def _rounded(h: Any, low: NDArray[Any], high: NDArray[Any], levels: int) -> Any:
    """Fake quantization to a number of levels; OpenVINO replaces it by integers if the processor supports them."""
    bounds = _constant(low), _constant(high)
    return _opset().fake_quantize(h, *bounds, *bounds, levels)


def _in_8_bits(h: Any, weight: Array, outputs: int, top: float) -> tuple[Any, Any]:
    """h and a kernel, fake-quantized; outputs: the kernel's output axis; top: the largest value of h."""
    # Kernels use half of the range: without VNNI, sums of two products must fit into 16 bits.
    axes = tuple(axis for axis in range(4) if axis != outputs)
    most = 2 * np.abs(weight).max(axes, keepdims=True) + np.float32(1e-12)
    return _rounded(h, np.zeros(1), np.full(1, top), 256), _rounded(_constant(weight), -most, most, 255)


class _Graph:
    """Layers of networks/ as OpenVINO operations."""

    def __init__(
        self, tensors: Mapping[str, NDArray[Any]], *, is_basic: bool = False, is_quantized: bool = False
    ) -> None:
        """Args:
        tensors: of a release.
        is_basic: use only operations that OpenVINO supports on processors without AVX.
        is_quantized: convolutions after a norm run in 8 bits.
        """
        self._tensors, self._is_basic, self._is_quantized = tensors, is_basic, is_quantized

    def normed(self, h: Any, bias: Array, scale: Array) -> tuple[Any, float]:
        """Instance norm with biases and scales [1, C, 1, 1]; also returns the largest expected value."""
        op = _opset()
        top = float((bias + _DEVIATIONS * np.abs(scale)).max())
        if not self._is_basic:
            plain = op.mvn(h, np.array([2, 3]), True, EPS, "inside_sqrt")
            return op.add(op.multiply(plain, _constant(scale)), _constant(bias)), top
        axes = np.array([2, 3])
        mean, of_squares = (op.reduce_mean(value, axes, True) for value in (h, op.multiply(h, h)))
        variance = op.relu(op.subtract(of_squares, op.multiply(mean, mean)))
        factor = op.multiply(op.power(op.add(variance, _constant(EPS)), _constant(-0.5)), _constant(scale))
        return op.add(op.multiply(h, factor), op.subtract(_constant(bias), op.multiply(mean, factor))), top

    def _products(self, h: Any, weight: Array, stride: int, pad: int, top: float | None) -> Any:
        """A convolution; top: the largest value of h >= 0 if 8 bits suffice, else None."""
        op = _opset()
        kernel = _constant(weight)
        if self._is_quantized and top is not None and top > 0:
            h, kernel = _in_8_bits(h, weight, 0, top)
        return op.convolution(h, kernel, [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])

    def _doubled(self, h: Any) -> Any:
        """Nearest-neighbor upsampling by 2."""
        op = _opset()
        if self._is_basic:
            _, channels, height, width = h.get_output_shape(0)
            apart = op.reshape(h, np.array([1, channels, height, 1, width, 1]), False)
            tiled = op.tile(apart, np.array([1, 1, 1, 2, 1, 2]))
            return op.reshape(tiled, np.array([1, channels, 2 * height, 2 * width]), False)
        return op.interpolate(
            h,
            op.constant(np.array([2, 2], np.float32)),
            "nearest",
            "scales",
            axes=op.constant(np.array([2, 3])),
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _get(self, name: str) -> Array:
        try:
            return self._tensors[name].astype(np.float32)
        except KeyError:
            raise ModelError(f"the model lacks {name}; it is damaged or from another version.") from None

    def count(self, name: str) -> int:
        """Number of blocks in a list."""
        numbers = {key[len(name) + 1 :].split(".")[0] for key in self._tensors if key.startswith(f"{name}.")}
        return len(numbers)

    def weight(self, name: str) -> Array:
        """Weight of a convolution or linear layer, divided by its spectral norm."""
        if f"{name}.weight" in self._tensors:
            return self._get(f"{name}.weight")
        norm = f"{name}.parametrizations.weight"
        weight = self._get(f"{norm}.original")
        u, v = self._get(f"{norm}.0._u"), self._get(f"{norm}.0._v")
        sigma = np.float32(u @ weight.reshape(len(weight), -1) @ v)
        return weight / sigma

    def bias(self, name: str) -> Array:
        return self._get(f"{name}.bias")

    def conv(self, h: Any, name: str, top: float | None = None) -> Any:
        """A convolution; top: see _products."""
        weight = self.weight(name)
        return self._biased(self._products(h, weight, 1, weight.shape[2] // 2, top), name)

    def halved_conv(self, h: Any, name: str, top: float | None = None) -> Any:
        """A 3x3 convolution followed by 2x2 average pooling, as one 4x4 convolution of stride 2."""
        return self._biased(self._products(h, _four_places(self.weight(name)) / np.float32(4), 2, 1, top), name)

    def conv_of_doubled(self, h: Any, name: str, top: float | None = None) -> Any:
        """Nearest-neighbor upsampling of h by 2 and a 3x3 convolution, as one transposed convolution of stride 2.

        Args: top: see _products.
        """
        # A transposed convolution flips its kernel and has the input axis first.
        weight = _four_places(self.weight(name)[:, :, ::-1, ::-1]).transpose(1, 0, 2, 3)
        kernel = _constant(weight)
        if self._is_quantized and top is not None and top > 0:
            h, kernel = _in_8_bits(h, weight, 1, top)
        return self._biased(
            _opset().convolution_backprop_data(h, kernel, [2, 2], pads_begin=[1, 1], pads_end=[1, 1]), name
        )

    def _biased(self, h: Any, name: str) -> Any:
        if f"{name}.bias" in self._tensors:
            h = _opset().add(h, _constant(self.bias(name).reshape(1, -1, 1, 1)))
        return h

    def block(
        self,
        h: Any,
        name: str,
        *,
        resample: str = "none",
        first: bool = False,
        instance: bool = False,
        psi: _Psi | None = None,
    ) -> Any:
        """blocks.ResidualBlock."""
        op = _opset()

        def normed(h: Any, number: int) -> tuple[Any, float | None]:
            if psi is not None:
                return psi.norm(h)
            if instance:
                scale, bias = (self._get(f"{name}.norm{number}.{part}") for part in ("weight", "bias"))
                return self.normed(h, bias.reshape(1, -1, 1, 1), scale.reshape(1, -1, 1, 1))
            return h, None

        def halved(h: Any) -> Any:
            return op.avg_pool(h, [2, 2], [0, 0], [0, 0], [2, 2], False)

        skip = halved(h) if resample == "down" else h
        if self.count(f"{name}.skip"):
            skip = self.conv(skip, f"{name}.skip")
        top = None
        if not first:
            h, top = normed(h, 1)
            h = op.relu(h)
        if resample == "up":
            skip, h = self._doubled(skip), self.conv_of_doubled(h, f"{name}.conv1", top)
        else:
            h = self.conv(h, f"{name}.conv1", top)
        h, top = normed(h, 2)
        h = op.relu(h)
        last = self.halved_conv if resample == "down" else self.conv
        return op.add(skip, last(h, f"{name}.conv2", top))

    def attention(self, h: Any, name: str) -> Any:
        """blocks.SelfAttention, if the model has it."""
        if not self.count(name):
            return h
        op = _opset()
        shape = h.get_output_shape(0)

        def rows(h: Any, pooled: bool) -> Any:
            if pooled:
                h = op.max_pool(h, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
            size = h.get_shape() if hasattr(h, "get_shape") else h.get_output_shape(0)
            return op.reshape(h, np.array([1, size[1], -1]), False)  # -> [1, C, places]

        query, key, value = (
            rows(self.conv(h, f"{name}.{part}"), part != "query") for part in ("query", "key", "value")
        )
        weights = op.softmax(op.matmul(query, key, True, False), 2)  # -> [1, places, places / 4]
        read = op.matmul(value, weights, False, True)  # -> [1, C / 2, places]
        read = op.reshape(read, np.array([1, -1, shape[2], shape[3]]), False)
        gamma = _constant(self._get(f"{name}.gamma").reshape(1, 1, 1, 1))
        return op.add(h, op.multiply(gamma, self.conv(read, f"{name}.out")))
