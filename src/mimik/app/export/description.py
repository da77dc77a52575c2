"""Content of export.json: the information that the host of an exported model needs."""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from mimik.animation.source_frame import APERTURES, MOST_OPENED
from mimik.app.export.networks import LICENSE, NOTICE
from mimik.app.export.settings import EXPORT_FORMAT, OPSET, Graph
from mimik.app.export.source import ExportSource
from mimik.config import VERSION, NetworkConfig
from mimik.face.landmark_images import landmark_lines
from mimik.face.landmarks import NUM_POINTS
from mimik.files import asset
from mimik.inference.synthesis import (
    BRIGHTENED,
    FEATURE_CORNERS,
    MAX_BRIGHTER,
    REDRAWN,
    RIM,
)
from mimik.provenance.manifests import SOURCE_TYPE
from mimik.rendering.crop import WINDOW_SCALE
from mimik.rendering.field import GRID
from mimik.rendering.flow import NUM_GEOMETRY
from mimik.rendering.painters import SHADE_PX

_WORDS = tomllib.loads(asset("export_host.toml").read_text(encoding="utf-8"))
_RANGES = {"geometry": None, "psi_hat": None, "correction": [-0.1, 0.1], "residual": [-2, 2], "mask": [0, 1]}


def _ports(values: Any, words: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": value.name,
            "type": "float32",
            "shape": [size.dim_value for size in value.type.tensor_type.shape.dim],
            "range": _RANGES.get(value.name, [-1, 1]),
            "what": words[value.name],
        }
        for value in values
    ]


def _graph_record(graph: Graph) -> dict[str, Any]:
    model = onnx.load_from_string(graph.data)
    return {
        "file": graph.file,
        "sha256": hashlib.sha256(graph.data).hexdigest(),
        "bytes": len(graph.data),
        "precision": graph.precision,
        "opset": OPSET,
        "multiply_adds": graph.multiply_adds,
        "parameters": graph.parameters,
        "inputs": _ports(model.graph.input, _WORDS["inputs"]),
        "outputs": _ports(model.graph.output, _WORDS["outputs"]),
        "parity_with_torch": {name: dataclasses.asdict(found) for name, found in graph.parity.items()},
    }


def _landmarks(config: NetworkConfig) -> dict[str, Any]:
    lines = landmark_lines(config.landmarks)
    drawn = sorted({point for index, _, _ in lines for point in index})
    place = {point: number for number, point in enumerate(drawn)}
    smooth = config.landmarks == "smooth"
    return {
        "style": config.landmarks,
        "image_px": config.image_px,
        "line": "1 px wide, anti-aliased" if smooth else "2 px wide, not anti-aliased",
        "points": drawn,
        "of": f"the {NUM_POINTS} points of MediaPipe's Face Landmarker",
        "lines": [
            {"points": [place[point] for point in index], "color": list(color), "closed": closed}
            for index, color, closed in lines
        ],
    }


def describe(
    source: ExportSource, graphs: Sequence[Graph], person: Mapping[str, Any] | None, motions: list[Any]
) -> dict[str, Any]:
    """Content of export.json. Args: person: record of person.person_files; motions: of motion_data.motion_file."""
    config, form = source.config, source.config.form
    record: dict[str, Any] = {
        "format": EXPORT_FORMAT,
        "notice": NOTICE,
        "digital_source_type": SOURCE_TYPE,
        "program": {"name": "mimik", "version": VERSION},
        "model": {"name": source.name, "form": form, "license": LICENSE[source.research_only], "card": "MODEL_CARD.md"},
        "graphs": {graph.name: _graph_record(graph) for graph in graphs},
        "landmarks": _landmarks(config),
        "frame_px": config.frame_px,
        "rim": RIM,
        "host": _WORDS["host"][form],
    }
    if form == "texture":
        record |= {"grid": GRID, "num_geometry": NUM_GEOMETRY, "window_in_face_heights": WINDOW_SCALE}
        record |= {"redrawn": REDRAWN, "shade_px": SHADE_PX, "max_brighter": MAX_BRIGHTER}
        numbers = {point: number for number, point in enumerate(record["landmarks"]["points"])}
        record |= {"brightened": {**BRIGHTENED, "points": [numbers[point] for point in FEATURE_CORNERS]}}
        pairs = [[numbers[point] for point in pair] for pair in APERTURES.tolist()]
        record |= {"held": {"apertures": pairs, "most_opened": MOST_OPENED}}
    if person is not None:
        record |= {"person": person, "motions": motions}
    return record
