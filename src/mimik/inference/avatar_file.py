"""The file that `mimik learn` writes: PERSON.avatar.

It contains the fine-tuned generator, psi', the photo to animate with its landmarks, names and hashes of all photos, the
faces of further photos if they help, a preview, and the training record. Reading it does not need torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from mimik.config import ModelError, Preset
from mimik.face.landmarks import BLENDSHAPES, NUM_POINTS, Face, Image
from mimik.inference.runtime import Network
from mimik.inference.synthesis import PersonalizedGenerator
from mimik.inference.windows import clip_window
from mimik.motion.neutral import find_neutral
from mimik.networks.preset_json import preset_from_json, preset_to_json
from mimik.networks.release import read_tensors
from mimik.rendering.layers.teeth import TeethSet

AVATAR_FORMAT = "mimik avatar 1"
PREVIEW_PX = 128
_ABOUT = frozenset({"format", "preset", "record", "sources", "score", "sha256"})
_FACE_SHAPES = {"photo.points": (NUM_POINTS, 3), "photo.blendshapes": (len(BLENDSHAPES),)}
_PICTURES = ("photo.png", "preview.png")
_PSI = "psi"
_TEETH = {"teeth.tones": np.uint8, "teeth.bounds": np.float32, "teeth.edges": np.float32, "teeth.skin": np.float32}
_TEETH_NAME = "own"
_OTHERS = re.compile(r"other\.\d+\.(png|points|blendshapes)")


@dataclass(frozen=True)
class SourceFile:
    """A photo or video that an avatar was trained on.

    Attributes:
        name: without its folder.
        sha256: 64 hexadecimal digits.
        format: media type, such as "image/jpeg".
    """

    name: str
    sha256: str
    format: str

    def __post_init__(self) -> None:
        if not self.name or re.search(r"[/\\]", self.name) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"source {self.name!r} has no plain name or no SHA-256")

    @classmethod
    def of(cls, path: Path) -> SourceFile:
        """Hashes a file."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path.name, digest, mimetypes.guess_type(path.name)[0] or "application/octet-stream")


@dataclass(frozen=True)
class AvatarFile:
    """The content of an .avatar file.

    Attributes:
        preset: networks and losses of the fine-tuned model.
        record: training record: steps, seconds, curve, initial model.
        tensors: of the fine-tuned generator, float16, by names such as "G.down.0.conv1.bias".
        psi: [2 * features of all AdaIN layers] float32, psi'.
        picture: uint8 RGB [H, W, 3], the photo to animate.
        face: in the picture.
        sources: all training files.
        teeth: of the photo that shows most of them; None if no photo shows them clearly.
        others: further photos, cropped to the face, with which each frame's face is averaged.
    """

    preset: Preset
    record: dict[str, Any]
    tensors: Mapping[str, NDArray[Any]]
    psi: NDArray[np.float32]
    picture: Image
    face: Face
    sources: tuple[SourceFile, ...]
    teeth: TeethSet | None = None
    others: tuple[tuple[Image, Face], ...] = ()

    @property
    def model(self) -> str:
        """Name of the model in reports and manifests."""
        return f"{self.preset.networks.form}, {'from scratch' if self.record.get('from_scratch') else 'fine-tuned'}"

    @functools.cached_property
    def generator(self) -> PersonalizedGenerator:
        """The generator of the person. Raises ModelError if the generator's parts do not fit each other."""
        try:
            # One thread: the pipeline's stages already use all cores.
            return PersonalizedGenerator(Network(self.preset.networks, self.tensors, num_threads=1), self.psi).ready()
        except (RuntimeError, ValueError) as error:
            why = error if isinstance(error, ModelError) else "its generator's parts do not fit each other"
            raise ModelError(f"this avatar cannot be used ({why}); run `mimik learn` again.") from None

    def pack(self) -> bytes:
        """Serialize to the file's content; the inverse of read_avatar."""
        preview = clip_window(self.face.points).cut(self.picture, PREVIEW_PX)
        tensors: dict[str, NDArray[Any]] = {
            **{name: np.ascontiguousarray(value, np.float16) for name, value in self.tensors.items()},
            _PSI: np.ascontiguousarray(self.psi, np.float32),
            "preview.png": encoded_png(preview),
        }
        if self.teeth is not None:
            for name, kind in _TEETH.items():
                tensors[name] = np.ascontiguousarray(getattr(self.teeth, name.removeprefix("teeth.")), kind)
        others = {f"other.{number}": other for number, other in enumerate(self.others)}
        for name, (picture, face) in {"photo": (self.picture, self.face), **others}.items():
            tensors[f"{name}.png"] = encoded_png(picture)
            tensors[f"{name}.points"] = np.ascontiguousarray(face.points, np.float32)
            tensors[f"{name}.blendshapes"] = np.ascontiguousarray(face.blendshapes, np.float32)
        about = {
            "format": AVATAR_FORMAT,
            "preset": preset_to_json(self.preset),
            "record": json.dumps(self.record),
            "sources": json.dumps([asdict(source) for source in self.sources]),
            "score": repr(float(self.face.score)),
        }
        return safetensors.numpy.save(tensors, metadata=about | {"sha256": _digest(tensors, about)})


def most_neutral_face(found: Sequence[Face]) -> int:
    """Index of the face closest to the person's neutral face."""
    if len(found) == 1:
        return 0
    neutral = find_neutral(found).blendshapes
    return int(np.argmin([np.abs(face.blendshapes - neutral).sum() for face in found]))


def read_avatar(path: Path) -> AvatarFile:
    """Read a file that `mimik learn` wrote.

    Raises ModelError if it does not exist, is damaged, or is another kind of file.
    """
    try:
        return _avatar_of(*read_tensors(path, AVATAR_FORMAT))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; use an avatar that `mimik learn` wrote.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, cv2.error, RecursionError) as error:
        why = str(error).strip().split("\n")[0].rstrip(".")
        raise ModelError(f"{path}: is damaged or not an avatar ({why}); run `mimik learn` again.") from None


def _avatar_of(about: dict[str, str], tensors: dict[str, NDArray[Any]]) -> AvatarFile:
    if unknown := sorted(about.keys() ^ _ABOUT):
        raise ModelError(f"its header has an unexpected or missing field {unknown[0]!r}")
    if about.pop("sha256") != _digest(tensors, about):
        raise ModelError("its content does not match its hash")
    generator = {name: value for name, value in tensors.items() if name.startswith("G.")}
    has_teeth = not _TEETH.keys().isdisjoint(tensors)  # files of 0.1 have none
    count = sum(_OTHERS.fullmatch(name) is not None for name in tensors) // 3
    others = {f"other.{n}.{part}" for n in range(count) for part in ("png", "points", "blendshapes")}
    known = {*generator, *_FACE_SHAPES, *_PICTURES, _PSI, *others, *(_TEETH if has_teeth else ())}
    if unknown := sorted(tensors.keys() ^ known):
        raise ModelError(f"{unknown[0]} is missing or unexpected")
    for name, value in tensors.items():
        is_picture = name.endswith(".png")
        kind = np.uint8 if is_picture else np.float16 if name in generator else _TEETH.get(name, np.float32)
        shape = _FACE_SHAPES.get(re.sub(r"^other\.\d+", "photo", name), value.shape)
        if value.dtype != kind or value.shape != shape:
            raise ModelError(f"{name} is {value.dtype} {list(value.shape)}")
        if not np.isfinite(value).all():
            raise ModelError(f"{name} has values that are not finite")
    psi = tensors[_PSI]
    if psi.ndim != 1:
        raise ModelError("its face or psi' is invalid")
    record = json.loads(about["record"])
    if not isinstance(record, dict):
        raise ModelError("its record is not a JSON object")
    photo, *more = (_photo(tensors, f"other.{n}" if n >= 0 else "photo", about) for n in range(-1, count))
    return AvatarFile(
        preset_from_json(about["preset"]),
        record,
        generator,
        psi,
        *photo,
        tuple(SourceFile(**source) for source in json.loads(about["sources"])),
        _teeth_of_tensors(tensors) if has_teeth else None,
        tuple(more),
    )


def _photo(tensors: Mapping[str, NDArray[Any]], name: str, about: Mapping[str, str]) -> tuple[Image, Face]:
    picture, points = cv2.imdecode(tensors[f"{name}.png"], cv2.IMREAD_COLOR_RGB), tensors[f"{name}.points"]
    if picture is None:
        raise ModelError(f"its {name} cannot be decoded")
    if np.ptp(points[:, :2], axis=0).min() < 1:
        raise ModelError("its face or psi' is invalid")
    return picture, Face(points, tensors[f"{name}.blendshapes"], float(about["score"]))


def _teeth_of_tensors(tensors: Mapping[str, NDArray[Any]]) -> TeethSet:
    tones, bounds, edges, skin = (tensors[name] for name in _TEETH)
    is_one = tones.ndim == 3 and tones.shape[2:] == skin.shape == (3,) and min(tones.shape) > 0
    if not is_one or bounds.ndim != 1 or edges.ndim != 1 or len(bounds) != len(edges) + 1 or len(edges) % 2:
        raise ModelError("its teeth are invalid")
    return TeethSet(_TEETH_NAME, tones, bounds, edges, skin)


def encoded_png(picture: Image) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3] or RGBA [H, W, 4] -> content of a PNG file, uint8 [N]."""
    order = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    done, data = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(picture), order))
    assert done
    return data.ravel()


def _digest(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, str]) -> str:
    """SHA-256 of the whole content, independent of the order of tensors in the file."""
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
