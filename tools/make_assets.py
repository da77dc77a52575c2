"""Generate the bundled data files from landmark tracks of talking videos.

    python tools/make_assets.py basis VIDEOS... -o src/mimik/assets/expression_basis.npz
    python tools/make_assets.py motion VIDEO START_S END_S NAME -o src/mimik/assets/motions
    python tools/make_assets.py head TRACKS... -o src/mimik/assets/head_motion.npz
    python tools/make_assets.py matte selfie_segmentation.tflite -o src/mimik/assets/selfie_segmentation.zip
    python tools/make_assets.py mesh src/mimik/assets/face_landmarker.task -o src/mimik/assets/canonical_face.npz

`matte` converts MediaPipe's network from the wheel of mediapipe 0.10.21 into OpenVINO's format. `mesh` extracts
MediaPipe's canonical face from the landmarker's file. Only landmarks, blendshapes and poses of the videos are used; the
output contains no pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mimik.face import openvino_core
from mimik.face.landmarks import SKULL, Face, Landmarker, fit_similarity
from mimik.face.tracker import Tracker
from mimik.media import mel, video
from mimik.motion.expression import pose_terms
from mimik.motion.extraction import stream_motion
from mimik.motion.files import Motion
from mimik.motion.frames import Reference, rotation_matrix, rotation_vector
from mimik.motion.generation import head
from mimik.motion.neutral import find_neutral

RIDGE = 10.0  # best of 1, 10 and 50 on the last fifth of the clips
MIN_FRAMES = 40
MOTION_FPS = 25.0
EASE_S = 0.4


def track(path: Path, landmarker: Landmarker) -> list[Face | None]:
    tracker = Tracker(landmarker)
    return [tracker.track(frame) for frame in video.read_frames(path)]


def clip_rows(found: list[Face], reference: Reference) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(offset [1434], blendshape changes and pose-term changes [57]) of every second frame."""
    rest = pose_terms(reference.rotation)
    for frame in found[::2]:
        pose = fit_similarity(reference.shape[SKULL], frame.points[SKULL])
        offset = pose.invert(frame.points) - reference.shape
        terms = pose_terms(pose.rotation) - rest
        yield offset.ravel(), np.concatenate([frame.blendshapes - reference.blendshapes, terms])


def fit_basis(videos: list[Path], out: Path) -> None:
    landmarker = Landmarker()
    gram, moment, num_rows = 0.0, 0.0, 0
    neutral, shapes, pitch = [], [], []
    for path in videos:
        found = [frame for frame in track(path, landmarker) if frame is not None]
        if len(found) < MIN_FRAMES:
            continue
        reference = find_neutral(found)
        neutral.append(reference.blendshapes)
        shapes.append(reference.shape)
        pitch.append(rotation_vector(reference.rotation)[0])
        offsets, causes = (np.array(rows) for rows in zip(*clip_rows(found, reference), strict=True))
        gram, moment = gram + causes.T @ causes, moment + causes.T @ offsets
        num_rows += len(causes)
        print(f"{path.name}: {len(causes)} rows, {num_rows} in all")
    solution = np.linalg.solve(gram + RIDGE * np.eye(57), moment).reshape(57, 478, 3).astype(np.float16)
    np.savez_compressed(
        out,
        by_blendshape=solution[:52],
        by_pose=solution[52:],
        neutral=np.mean(neutral, axis=0).astype(np.float16),
        shape=np.mean(shapes, axis=0).astype(np.float32),
        neutral_pitch=np.float32(np.mean(pitch)),
    )


def cut_motion(path: Path, start_s: float, end_s: float, name: str, folder: Path) -> None:
    """Extract one motion: neutral of the whole clip, lightly smoothed, eased in and out so that it loops."""
    fps = video.probe(path).fps
    take(track(path, Landmarker()), fps, start_s, end_s, name).save(folder / f"{name}.motion")


def take(found: list[Face | None], fps: float, start_s: float, end_s: float, name: str) -> Motion:
    """A part of a clip as a looping motion: neutral of the whole clip, eased in and out, at MOTION_FPS."""
    reference, motion_frames = stream_motion(found, fps, smooth=0.3, lookahead_s=1e9)
    every = list(motion_frames)[round(start_s * fps) : round(end_s * fps)]
    ease = max(1, round(EASE_S * fps))
    weight = np.minimum(np.arange(len(every)), np.arange(len(every))[::-1]).clip(0, ease) / ease
    eased = [g.scaled(w * w * (3 - 2 * w)) for g, w in zip(every, weight, strict=True)]
    # Ease the blendshapes too, so that the curves of `motion show` loop like the points.
    rest = reference.blendshapes
    eased = [
        replace(g, blendshapes=rest + w * w * (3 - 2 * w) * (g.blendshapes - rest))
        for g, w in zip(eased, weight, strict=True)
    ]
    return Motion.of_frames(name, fps, replace(reference, note=""), eased).at_rate(MOTION_FPS)


HEAD_CUTOFF_HZ = 4.0  # higher frequencies are landmark noise
HEAD_LIMITS = {"degrees": 13.0, "degrees a second": 95.0, "cm": 2.4, "log zoom": 0.05}
HEAD_SPEED = 4.0, 19.0  # accepted median speed, degrees per second: excludes still heads and shaken cameras
HEAD_S = 330.0  # total length


def low_pass(x: np.ndarray, fps: float) -> np.ndarray:
    """[T, N] low-pass filtered at HEAD_CUTOFF_HZ by a symmetric Gaussian."""
    sigma = fps / (2 * np.pi * HEAD_CUTOFF_HZ)
    taps = np.exp(-0.5 * (np.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2) / sigma) ** 2)
    padded = np.pad(x, ((len(taps) // 2,) * 2, (0, 0)), mode="edge")
    return np.stack([np.convolve(padded[:, i], taps / taps.sum(), "valid") for i in range(x.shape[1])], 1)


def head_piece(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Pose [T, head.POSE] and loudness [T] of a clip of `mimik voice tracks`; None if it is unsuitable."""
    with np.load(path) as z:
        fps, seen, samples = float(z["fps"]), z["seen"], z["sound"].astype(np.float32) / 32768
        turn, place, scale = (z[name].astype(np.float64) for name in ("turn", "place", "scale"))
    if not seen.all() or len(seen) < 4.5 * fps or fps < 20 or len(samples) < mel.RATE_HZ:
        return None
    _, loudness = mel.log_mel(samples)
    if np.quantile(loudness, 0.95) < -45:
        return None
    rotations = np.array([rotation_matrix(vector) for vector in turn])
    u, _, vt = np.linalg.svd(rotations.mean(0))
    about = np.array([rotation_vector(r @ (u @ vt).T) for r in rotations])
    shift = (place - np.median(place, 0)) / np.median(scale) * [1, 1, 0]
    pose = low_pass(np.concatenate([about, shift, np.log(scale / np.median(scale))[:, None]], 1), fps)
    pose -= pose.mean(0)
    at = np.arange(int(len(pose) / fps * head.LIBRARY_HZ)) / head.LIBRARY_HZ
    pose = np.stack([np.interp(at, np.arange(len(pose)) / fps, column) for column in pose.T], 1)
    speed = np.degrees(np.linalg.norm(np.diff(pose[:, :3], axis=0), axis=1)) * head.LIBRARY_HZ
    largest = np.degrees(np.abs(pose[:, :3]).max()), speed.max(), np.abs(pose[:, 3:6]).max(), np.abs(pose[:, 6]).max()
    if any(a > b for a, b in zip(largest, HEAD_LIMITS.values(), strict=True)):
        return None
    if not HEAD_SPEED[0] <= np.median(speed) <= HEAD_SPEED[1]:
        return None
    above = loudness - mel.Level(mel.speech_level(loudness[:800]))(loudness)
    heard = np.interp(at, np.arange(len(above)) / 100 + 0.0125, np.convolve(above, np.ones(5) / 5, "same"))
    return pose, heard


def collect_heads(tracks: list[Path], out: Path) -> None:
    pieces, total_s = [], 0.0
    for path in sorted(tracks, key=lambda path: hash_of(path.stem)):
        piece = head_piece(path)
        if piece is None or total_s >= HEAD_S:
            continue
        pieces.append(piece)
        total_s += len(piece[0]) / head.LIBRARY_HZ
    lengths = np.array([len(pose) for pose, _ in pieces], np.int32)
    pose, heard = (np.concatenate(column).astype(np.float16) for column in zip(*pieces, strict=True))
    np.savez_compressed(out, pose=pose, loudness_db=heard, lengths=lengths)
    print(f"{len(pieces)} pieces, {total_s:.0f} s, {out.stat().st_size} bytes")


def hash_of(name: str) -> str:
    """Sort key that is independent of the clips' origin."""
    return hashlib.sha256(name.encode()).hexdigest()


def convert_matte(path: Path, out: Path) -> None:
    """The network in OpenVINO's format, with the last layer rebuilt because it is not a standard TFLite operation."""
    openvino = openvino_core.openvino()
    from openvino import opset13 as op
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework("tflite")
    model = frontend.convert_partially(frontend.load(str(path)))
    last = model.outputs[0].get_node()
    while last.get_type_name() != "TFFrameworkNode":  # Convolution2DTransposeBias
        last = last.input_value(0).get_node()

    def value(number: int) -> np.ndarray:
        constant = openvino.Model([last.input_value(number)], [])
        return openvino_core.inference_core().compile_model(constant, "CPU")([])[0].astype(np.float32)

    kernel, bias = value(1), value(2)  # [1, 2, 2, 16], [1]
    planes = op.transpose(last.input_value(0), np.array([0, 3, 1, 2]))
    drawn = op.convolution_backprop_data(planes, op.constant(kernel.transpose(3, 0, 1, 2)), strides=[2, 2])
    alpha = op.sigmoid(op.add(drawn, op.constant(bias.reshape(1, 1, 1, 1))))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        whole = openvino.Model([alpha], model.get_parameters(), path.stem)
        openvino.save_model(whole, f"{folder}/model.xml", compress_to_fp16=True)
        for name in ("model.xml", "model.bin"):
            file.write(f"{folder}/{name}", name)


def protobuf_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) pairs of a protobuf message; nested messages and fixed32 are bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = 4 if key & 7 == 5 else varint()
            yield key >> 3, data[at : at + size]
            at += size


def convert_mesh(bundle: Path, out: Path) -> None:
    """Vertices [468, 3] in the axes of face.Pose, and triangles [898, 3], of the canonical face."""
    with zipfile.ZipFile(bundle) as file:
        metadata = file.read("geometry_pipeline_metadata_landmarks.binarypb")
    mesh = [field for number, value in protobuf_fields(metadata) if number == 1 for field in protobuf_fields(value)]
    numbers = np.frombuffer(b"".join(value for field, value in mesh if field == 3), "<f4").reshape(-1, 5)
    triangles = np.array([value for field, value in mesh if field == 4], np.int32).reshape(-1, 3)
    np.savez_compressed(out, vertices=numbers[:, :3] * np.float32([1, -1, -1]), triangles=triangles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    basis = commands.add_parser("basis")
    basis.add_argument("videos", type=Path, nargs="+")
    basis.add_argument("-o", dest="out", type=Path, required=True)
    cut = commands.add_parser("motion")
    cut.add_argument("video", type=Path)
    cut.add_argument("start_s", type=float)
    cut.add_argument("end_s", type=float)
    cut.add_argument("name")
    cut.add_argument("-o", dest="out", type=Path, required=True)
    heads = commands.add_parser("head")
    heads.add_argument("tracks", type=Path, nargs="+")
    heads.add_argument("-o", dest="out", type=Path, required=True)
    matte = commands.add_parser("matte")
    matte.add_argument("tflite", type=Path)
    matte.add_argument("-o", dest="out", type=Path, required=True)
    mesh = commands.add_parser("mesh")
    mesh.add_argument("bundle", type=Path)
    mesh.add_argument("-o", dest="out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "basis":
        fit_basis(arguments.videos, arguments.out)
    elif arguments.command == "head":
        collect_heads(arguments.tracks, arguments.out)
    elif arguments.command == "matte":
        convert_matte(arguments.tflite, arguments.out)
    elif arguments.command == "mesh":
        convert_mesh(arguments.bundle, arguments.out)
    else:
        cut_motion(arguments.video, arguments.start_s, arguments.end_s, arguments.name, arguments.out)


if __name__ == "__main__":
    main()
