"""Exports trained models for other programs: a static ONNX graph, a description for its host, and sample motions.

A graph has fixed shapes, batch 1, float32 inputs and outputs, and only common operations: convolution, instance norm,
pooling, resizing, element-wise ones. A person's psi is baked in, so that AdaIN becomes an instance norm with constants.
The texture form also requires warping and blending around its network. They are left to the host program, because a
shader does them at the photo's resolution. `export.json` and docs/phones.md specify them.

torch is the reference: every graph is compared with it, in onnxruntime, before it is written.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mimik.animation.avatar import Avatar
from mimik.app.export.description import describe
from mimik.app.export.graphs import NUM_COMPARED, make_graph
from mimik.app.export.motion_data import motion_file
from mimik.app.export.networks import LICENSE, NOTICE, OUTPUTS, Drawing, Embedding, baked
from mimik.app.export.person import person_files
from mimik.app.export.settings import RECORD_NAME, ExportConfig, Exported, Graph, check_export
from mimik.app.export.source import ExportSource
from mimik.app.export.stage import Stage, calibration_frames, moved_photos
from mimik.config import InputError
from mimik.files import asset, atomic_folder
from mimik.motion.drivers.motion_file import MotionFile
from mimik.motion.drivers.registry import open_driver
from mimik.motion.files import Motion
from mimik.pipeline import Progress, silent

_NUM_CALIBRATED = 32  # frames that calibrate the 8-bit ranges
_MAX_MOTION_FRAMES = 1500  # limit of a motion: a minute, 25 MB
PORTRAIT = asset("portraits/eileen_collins.png")


def export(what: str, out: Path, config: ExportConfig, *, force: bool = False, progress: Progress = silent) -> Exported:
    """Export a model's graphs and the data for their host into a folder.

    Args:
        what: "texture", a .safetensors file of `mimik train`, or an .avatar file of `mimik learn`.
        force: replace an earlier export.

    Raises:
        InputError: if an argument is invalid, or a graph does not match torch; nothing is written then.
    """
    check_export(what, out, config, force=force)
    motions = [_motion(name) for name in config.motions]
    progress("reading the model", 0, None)
    source = ExportSource.of(what, config)
    stage = Stage(source.avatar or Avatar.from_photos([PORTRAIT]), source.config, config.size)
    progress("making the graph", 0, None)
    graphs = make_graphs(source, stage, config.precision)

    # The person's pictures and motions.
    files = {graph.file: graph.data for graph in graphs}
    records: list[dict[str, Any]] = []
    person = None
    if source.avatar is not None:
        person, pictures = person_files(stage)
        files |= pictures
        for name, motion in motions:
            data, record = motion_file(stage, motion, partial(progress, f"motion {name}"))
            files[f"{name}.motion.gz"] = data
            records.append({"name": name, "file": f"{name}.motion.gz", "bytes": len(data)} | record)
    files[RECORD_NAME] = json.dumps(describe(source, graphs, person, records), indent=1).encode()
    with atomic_folder(out) as new:  # atomic: all files or none replace an older export
        for name, data in files.items():
            (new / name).write_bytes(data)
    notes = []
    if source.avatar is not None:
        notes.append(f"{out} holds the person's photo: do not distribute it to everyone who may have the program")
    elif graphs[0].parity["psi_hat"].apart == 0:
        notes.append("the embedding is the same for every picture, so this model uses one psi_hat for all people")
    return Exported(out, tuple(graphs), tuple((one["name"], one["bytes"]) for one in records), tuple(notes))


def make_graphs(source: ExportSource, stage: Stage, precision: str) -> list[Graph]:
    """The generator of a person; for a model without a person, the embedder and a generator with psi_hat as input."""
    about = {"notice": NOTICE, "license": LICENSE[source.research_only], "model": source.name}
    outputs = OUTPUTS[source.config.form]
    samples = calibration_frames(stage, _NUM_CALIBRATED if precision == "int8" else NUM_COMPARED)
    plain = Drawing(source.generator, source.psi)
    if source.psi is not None:
        fixed = Drawing(baked(source.generator, source.psi), source.psi)
        return [make_graph("generator", fixed, outputs, samples, precision, about=about, reference=plain)]
    assert source.networks is not None
    embedding, photos = Embedding(source.networks), moved_photos(stage, 4)
    # The embedder runs once per photo, and its sums need precision.
    digits = "fp16" if precision == "int8" else precision
    embedder = make_graph("embedder", embedding, ("psi_hat",), photos, digits, about=about)
    with torch.inference_mode():
        people = [embedding(*map(torch.from_numpy, photo.values())).numpy() for photo in photos]
    samples = [sample | {"psi_hat": people[number % len(people)]} for number, sample in enumerate(samples)]
    return [embedder, make_graph("generator", plain, outputs, samples, precision, about=about)]


def _motion(given: str) -> tuple[str, Motion]:
    """A bundled motion or a .motion file, and the stem of its output file."""
    driver = open_driver(given)
    if not isinstance(driver, MotionFile):
        raise InputError(
            f"--motion {given}: is a {driver.kind}; use a .motion file: mimik motion extract {given} -o my.motion."
        )
    if len(driver.recorded) > _MAX_MOTION_FRAMES:
        raise InputError(
            f"--motion {given}: has {len(driver.recorded)} frames; use one of at most {_MAX_MOTION_FRAMES}."
        )
    return Path(given).stem, driver.recorded
