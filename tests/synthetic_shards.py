"""Synthetic shards as from `mimik prepare`: gray frames that encode their number."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import av
import numpy as np

from mimik.data.tracks import pack_tracks
from mimik.face import landmarks as faces

SIDE = 32
LENGTHS = (40, 12, 3, 30, 45)  # frames of the clips; the third is too short for K = 8
PEOPLE = ("ada", "ada", "bob", "cleo", "dora")


def level(number: int) -> int:
    """Gray level that encodes the frame number."""
    return 20 + 5 * number


def face_points(num_frames: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """[T, 478, 3] the canonical face, slightly different in every frame."""
    vertices = faces.canonical_mesh().vertices
    whole = np.concatenate([vertices, vertices[[159] * 5 + [386] * 5]])
    whole[faces.RIGHT_IRIS[1:], :2] += [[0.5, 0], [0, -0.5], [-0.5, 0], [0, 0.5]]
    whole[faces.LEFT_IRIS[1:], :2] += [[0.5, 0], [0, -0.5], [-0.5, 0], [0, 0.5]]
    shift = np.random.default_rng(seed).normal(0, 0.05 * side, (num_frames, 1, 3))
    return (whole * (0.7 * side / 20) + side / 2 + shift).astype(np.float32)


def encoded(num_frames: int, side: int = SIDE) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        options = {"crf": "10", "g": "12", "keyint_min": "12"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            picture = np.full((side, side, 3), level(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def write_shards(folder: Path, lengths: tuple[int, ...] = LENGTHS, clips_per_shard: int = 3) -> list[dict[str, Any]]:
    """Writes shards as from `mimik prepare`; returns the lines of the index."""
    lines: list[dict[str, Any]] = []
    for number, (length, person) in enumerate(zip(lengths, PEOPLE, strict=False)):
        key, shard = f"{number:010x}_00", f"clips-{number // clips_per_shard:06d}.tar"
        rng = np.random.default_rng(number)
        pose = rng.normal(0, 10, (length, 3)).astype(np.float32)
        tracks = pack_tracks(face_points(length, seed=number), rng.random((length, 52), np.float32), pose)
        line = {
            "key": key,
            "shard": shard,
            "num_frames": length,
            "fps": 25.0,
            "size": SIDE,
            "person": person,
            "source": f"{person}/{number}.mp4",
            "source_sha256": f"{number:064x}",
            "licence": None,
            "start_s": 0.0,
            "end_s": length / 25,
            "box": [1, 2, 64.5],
            "face_px": 20.0,
            "sharpness": 1.5,
            "yaw_range": [-10.0, 12.5],
            "fingerprint": "00ff",
        }
        members = {}
        with tarfile.open(folder / shard, "a", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in (("mp4", encoded(length)), ("npz", tracks), ("json", json.dumps(line).encode())):
                entry = tarfile.TarInfo(f"{key}.{name}")
                entry.size = len(data)
                members[name] = [tar.offset + 512, len(data)]
                tar.addfile(entry, io.BytesIO(data))
        lines.append({**line, "members": members})
    write_index(folder, lines)
    return lines


def write_index(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def seen(images: np.ndarray) -> list[int]:
    """Frame numbers encoded in the pictures."""
    return [round((float(image.mean()) - 20) / 5) for image in images]
