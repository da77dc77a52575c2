"""Complete motions and their .motion files."""

from __future__ import annotations

import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimik.config import InputError
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES
from mimik.motion.expression import Float
from mimik.motion.frames import EYELIDS_TOUCH, MotionFrame, Reference
from mimik.motion.kinds import bundled_motions


@dataclass(frozen=True)
class Motion:
    """A driver as a sequence of motion frames; stored in .motion files.

    Attributes:
        name: for messages.
        fps: frames per second.
        reference: the driver's neutral reference.
        turn: [T, 3], shift: [T, 3], zoom: [T], offset: [T, 478, 3], blendshapes: [T, 52], seen: [T] as in MotionFrame.
    """

    name: str
    fps: float
    reference: Reference
    turn: Float
    shift: Float
    zoom: Float
    offset: Float
    blendshapes: Float
    seen: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.zoom)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self) / self.fps

    @classmethod
    def of_frames(cls, name: str, fps: float, reference: Reference, motion_frames: Iterable[MotionFrame]) -> Motion:
        """A motion from its frames, in order; the rest as in the attributes."""
        every = list(motion_frames)
        parts = {field.name: np.array([getattr(one, field.name) for one in every]) for field in fields(MotionFrame)}
        return cls(name, fps, reference, **parts)

    def frames(self) -> Iterator[MotionFrame]:
        """The motion frames, in order."""
        for i in range(len(self)):
            yield MotionFrame(
                self.turn[i],
                self.shift[i],
                float(self.zoom[i]),
                self.offset[i],
                self.blendshapes[i],
                bool(self.seen[i]),
            )

    def at_rate(self, fps: float) -> Motion:
        """The motion at another frame rate, interpolated linearly."""
        if abs(fps - self.fps) < 1e-6 or len(self) < 2:
            return replace(self, fps=fps) if len(self) < 2 else self
        at = np.arange(round(self.duration_s * fps)) * (self.fps / fps)
        i = np.minimum(at.astype(int), len(self) - 2)
        t = np.clip(at - i, 0, 1)

        def mix(x: Float) -> Float:
            w = t.reshape(-1, *[1] * (x.ndim - 1))
            return x[i] * (1 - w) + x[i + 1] * w

        names = ("turn", "shift", "zoom", "offset", "blendshapes")
        mixed: dict[str, Any] = {name: mix(getattr(self, name)) for name in names}
        return replace(self, fps=fps, seen=self.seen[i], **mixed)

    def save(self, path: Path) -> None:
        """Write a .motion file: a zip of NumPy arrays, a few kilobytes per second.

        The offsets are stored as PCA coefficients of the clip, with as many components as keep 99.9 % of all
        coordinates within _FILE_TOLERANCE_CM.
        """
        flat = self.offset.reshape(len(self), -1)
        _, size, directions = np.linalg.svd(flat, full_matrices=False)
        rank = 1
        while (
            rank < len(size)
            and np.percentile(np.abs(flat - (flat @ directions[:rank].T) @ directions[:rank]), 99.9)
            > _FILE_TOLERANCE_CM
        ):
            rank += max(1, rank // 8)
        directions = directions[:rank]
        pose = np.concatenate([self.turn, self.shift, self.zoom[:, None]], 1)
        header = {"format": _FILE_FORMAT, "version": 1, "name": self.name, "fps": self.fps}
        arrays = {
            "shape": self.reference.shape.astype(np.float32),
            "rotation": self.reference.rotation.astype(np.float32),
            "neutral": self.reference.blendshapes.astype(np.float16),
            "pose": pose.astype(np.float32),
            "directions": directions.astype(np.float16),
            "amounts": (flat @ directions.T).astype(np.float16),
            "blendshapes": np.round(self.blendshapes * 255).clip(0, 255).astype(np.uint8),
            "seen": self.seen,
            "lasting": self.reference.lasting.astype(np.float16),
            "eyelids": np.array(self.reference.eyelids_touch, np.float32),
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
            file.writestr("header.json", json.dumps(header))
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.save(buffer, np.ascontiguousarray(array.T))
                file.writestr(f"{name}.npy", buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Motion:
        """Read a .motion file. Raises InputError if it is damaged, of a newer version, or another kind of file."""
        try:
            with zipfile.ZipFile(path) as file:
                header = json.loads(_read_member(file, "header.json"))
                if header.get("format") != _FILE_FORMAT or header.get("version") != 1:
                    raise InputError(
                        f"{path} is a motion file of another version ({header.get('version')}); extract it again with "
                        "this version: mimik motion extract VIDEO -o X.motion."
                    )
                # Older files lack these.
                missing = {"lasting": np.zeros(len(BLENDSHAPES)), "eyelids": np.full(2, EYELIDS_TOUCH)}
                a = {
                    name: np.load(io.BytesIO(_read_member(file, f"{name}.npy")), allow_pickle=False).T
                    for name in _ARRAYS
                    if name not in missing or f"{name}.npy" in file.namelist()
                }
            a = missing | a
            num_frames, rank = len(a["pose"]), len(a["directions"])
            shapes = {
                "shape": (faces.NUM_POINTS, 3),
                "rotation": (3, 3),
                "neutral": (len(BLENDSHAPES),),
                "pose": (num_frames, 7),
                "directions": (rank, faces.NUM_POINTS * 3),
                "amounts": (num_frames, rank),
                "blendshapes": (num_frames, len(BLENDSHAPES)),
                "seen": (num_frames,),
                "lasting": (len(BLENDSHAPES),),
                "eyelids": (2,),
            }
            if not 0 < num_frames <= _MAX_FILE_FRAMES or any(a[name].shape != shape for name, shape in shapes.items()):
                raise ValueError("wrong shape")
            a = {name: array.astype(np.float64) for name, array in a.items()}
            motion = cls(
                str(header["name"]),
                float(header["fps"]),
                Reference(
                    a["shape"],
                    a["rotation"],
                    a["neutral"],
                    a["lasting"],
                    (float(a["eyelids"][0]), float(a["eyelids"][1])),
                ),
                turn=a["pose"][:, :3],
                shift=a["pose"][:, 3:6],
                zoom=a["pose"][:, 6],
                offset=(a["amounts"] @ a["directions"]).reshape(num_frames, faces.NUM_POINTS, 3),
                blendshapes=a["blendshapes"] / 255,
                seen=a["seen"].astype(bool),
            )
            finite = all(np.isfinite(array).all() for array in a.values()) and np.isfinite(motion.offset).all()
            upright = np.allclose(a["rotation"] @ a["rotation"].T, np.eye(3), atol=1e-3)
            shut = ((a["eyelids"] >= 0) & (a["eyelids"] < 0.9)).all()
            if not (finite and upright and shut and 0 < motion.fps <= 1000):
                raise ValueError("out of range")
        except InputError:
            raise
        except (
            *(zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError),
            *(LookupError, TypeError, AttributeError, ValueError, NotImplementedError, RuntimeError),
            *(ArithmeticError, MemoryError),
        ) as error:
            raise _not_a_motion(path) from error
        return motion


def _read_member(file: zipfile.ZipFile, name: str) -> bytes:
    """Read one file of the zip with a size limit, against zip bombs."""
    if file.getinfo(name).file_size > _MAX_MEMBER_BYTES:
        raise ValueError(f"{name} is too large")
    return file.read(name)


def _not_a_motion(path: Path) -> InputError:
    return InputError(
        f"{path} is not a readable motion file; use one that `mimik motion extract VIDEO -o X.motion` wrote, or the "
        f"name of a bundled one: {', '.join(bundled_motions())}."
    )


_FILE_FORMAT = "mimik motion"
_ARRAYS = ("shape", "rotation", "neutral", "pose", "directions", "amounts", "blendshapes", "seen", "lasting", "eyelids")
_FILE_TOLERANCE_CM = 0.06
_MAX_FILE_FRAMES = 200_000  # two hours: 2 GB once unpacked
_MAX_MEMBER_BYTES = 64 << 20
