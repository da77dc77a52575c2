"""What the host of an export has to know, as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from mimik.app.export.networks import LICENSE, NOTICE
from mimik.app.export.settings import EXPORT_FORMAT, OPSET, Graph
from mimik.app.export.source import ExportSource
from mimik.config import VERSION, NetworkConfig
from mimik.face.landmark_images import landmark_lines
from mimik.face.landmarks import NUM_POINTS
from mimik.inference.synthesis import BRIGHTENED, FEATURE_CORNERS, MAX_BRIGHTER, REDRAWN, RIM, SHOULDERS
from mimik.provenance.manifests import SOURCE_TYPE
from mimik.rendering.crop import WINDOW_SCALE
from mimik.rendering.field import GRID
from mimik.rendering.flow import NUM_GEOMETRY
from mimik.rendering.painters import SHADE_PX

_INPUTS = {
    "y": "landmark image: lines on black (see landmarks), RGB, 0..255 / 127.5 - 1",
    "warped": "window of the photo, moved by the landmark flow, RGB, 0..255 / 127.5 - 1; half as wide as what is drawn",
    "geometry": "how it was moved, over the window: x and y of the flow, 1 is a tenth of the window's side; 1 where "
    "the photo does not show the surface; logarithm, base 4, of photo area for target area, cut to -1..1",
    "psi_hat": "the person: the embedder's output; of several photos its mean",
    "x": "window of a photo of the person, RGB, 0..255 / 127.5 - 1",
}
_RANGES = {"geometry": None, "psi_hat": None, "correction": [-0.1, 0.1], "residual": [-2, 2], "mask": [0, 1]}
_RESULTS = {
    "x_hat": "the synthesized window, RGB, -1..1",
    "correction": "x and y, in sides of the window: pixel p of the moved one is the warped one's at p + correction(p)",
    "residual": "what is added to the moved window: the drawn picture, RGB in units of 127.5",
    "mask": "how much of the moved photo is kept; the rest is the drawn picture",
    "psi_hat": "the person, as the generator takes it",
}
_HOST = {
    "paper": [
        "Find the face's 478 points in the photo, and where they are to go in this frame.",
        "The window is a square around the photo's face; it does not move. Draw the landmark image of the frame's "
        "points in it, landmarks.image_px wide.",
        "Run the generator.",
        "Lay x_hat over the photo's window; within rim of the window's side from its border fade it out (smoothstep).",
        "Mark the frame as synthetic.",
    ],
    "texture": [
        "Find the face's 478 points in the photo, and where they are to go in this frame.",
        "Compute the landmark flow over the crop: for each place of a frame, where in the photo it comes from. Inside "
        "the boxes of details, between the centers of their outer cells, the finer flow replaces it. Inside those of "
        "mirror there is a second source: `lit` at the place that mirror's x and y lead to.",
        "What moves is `moving`, whose alpha is the person's share of a pixel; it moves with it. The second source "
        "adds `added` = weight * (s + own * (alpha - s)), where s = opacity * moving's alpha at its place; alpha then "
        "is alpha * (1 - weight) + added, and added of it is the second source. Over it lie layers: a pixel is what it "
        "was times 1 - A, plus their color.",
        "The window is a square around the frame's face, window.side wide. Draw the landmark image in it; sample "
        "`reduced` through the flow in it, frame_px wide, with its layers, seen_layers, and without regard to alpha; "
        "halve that for the input `warped`; fill in `geometry`.",
        "Run the generator. If person.grey, a residual is the mean of its three channels.",
        "Inside the mouth, by the soft mask interior, 0..1, the residual loses detail finer than shade_px: it is the "
        "mean of each square of that many pixels, at most max_brighter * the mean of what the network saw there / "
        "127.5, enlarged linearly. The correction is 0 there: it is multiplied with "
        "1 - interior's mean over each of its cells.",
        "fade = smoothstep(distance to the window's border / (rim of its side)) * gate, times 1 - smoothstep(v from "
        "shoulders.top - rim to shoulders.top + rim) * smoothstep(r from shoulders.begins to 1), where u and v are "
        "0..1 across and down the window, and r is the length of (u - 0.5) / shoulders.x and max(v - shoulders.top, "
        "0) / shoulders.y. correction *= fade; keep = 1 - (1 - mask) * fade * (1 - far * (1 - most / max(b, most))), "
        "where b is 127.5 times the residual's mean over a cell of mask, most is brightened.most, and far = "
        "smoothstep(distance to the mean of the points with the numbers brightened.points, in sides of the window, "
        "from brightened.begins to brightened.ends). Enlarge correction, keep and residual linearly.",
        "detail, over mask's cells: "
        "127.5 times the largest |residual| of a cell's pixels and its neighbors', blurred by 1 4 6 4 1 both ways; "
        "detail = 1 - smoothstep of that from redrawn[0] to redrawn[1], enlarged linearly, and at least interior.",
        "For each pixel p of the frame, at the photo's own size: q = p + correction(p); moved = what moves at q + "
        "flow(q), with the layers at q. below = what the network saw at q, frame_px wide; drawn = below + 127.5 * "
        "residual(p), cut to 0..255. The person is keep * moved + (1 - keep) * (drawn + detail * (moved - below)).",
        "The pixel is alpha * person + (1 - alpha) * plate, and that times `shown`, plus the photo times 1 - shown: "
        "where nothing moves the frame is the photo.",
        "Mark the frame as synthetic.",
    ],
}


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
        "inputs": _ports(model.graph.input, _INPUTS),
        "outputs": _ports(model.graph.output, _RESULTS),
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
    """export.json. Args: person: as person.person_files describes it; motions: likewise motion_data.motion_file."""
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
        "host": _HOST[form],
    }
    if form == "texture":
        record |= {"grid": GRID, "num_geometry": NUM_GEOMETRY, "window_in_face_heights": WINDOW_SCALE}
        record |= {"redrawn": REDRAWN, "shade_px": SHADE_PX, "max_brighter": MAX_BRIGHTER, "shoulders": SHOULDERS}
        numbers = [record["landmarks"]["points"].index(point) for point in FEATURE_CORNERS]
        record["brightened"] = {**BRIGHTENED, "points": numbers}
    if person is not None:
        record |= {"person": person, "motions": motions}
    return record
