"""mimik edit, faces and export: what is made of a photo or a model."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mimik.animation.sliders import SLIDERS, Edit
from mimik.app.cli.console import app, console, errors, example, guarded
from mimik.app.cli.options import (
    Certificate,
    Consent,
    Force,
    Key,
    Label,
    Model,
    PhotoFace,
    Size,
    Teeth,
    View,
    check_picture_file,
    decimal_number,
    extra,
    parse_size,
    read_credentials,
)
from mimik.app.cli.progress import Display, working
from mimik.config import AnimateConfig
from mimik.media import formats
from mimik.provenance.outputs import check_output


def _slider(name: str) -> Any:
    low, high, hint = SLIDERS[name]
    return typer.Option(parser=decimal_number, metavar="X", help=f"From {low:g} to {high:g}; {hint}.")


@app.command("edit", epilog=example("mimik edit"))
@guarded
def edit_command(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="A photo of the person, a video of it, or an .avatar file.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="OUT", help="The picture to write: .png, .jpg or .webp.", show_default=False
        ),
    ],
    smile: Annotated[float, _slider("smile")] = 0.0,
    mouth: Annotated[float, _slider("mouth")] = 0.0,
    blink: Annotated[float, _slider("blink")] = 0.0,
    brows: Annotated[float, _slider("brows")] = 0.0,
    gaze_x: Annotated[float, _slider("gaze_x")] = 0.0,
    gaze_y: Annotated[float, _slider("gaze_y")] = 0.0,
    yaw: Annotated[float, _slider("yaw")] = 0.0,
    pitch: Annotated[float, _slider("pitch")] = 0.0,
    roll: Annotated[float, _slider("roll")] = 0.0,
    model: Model = None,
    size: Size = "native",
    frame: View = "full",
    face: PhotoFace = None,
    teeth: Teeth = None,
    label: Label = False,
    consent: Consent = None,
    force: Force = False,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Change a photo's expression, gaze and pose by numbers: a signed picture."""
    changes = Edit(
        smile=smile,
        mouth=mouth,
        blink=blink,
        brows=brows,
        gaze_x=gaze_x,
        gaze_y=gaze_y,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
    )
    config = AnimateConfig(
        model=model, size=parse_size(size), frame=frame, face=face, teeth=teeth, label=label, consent=consent
    )
    credentials = read_credentials(certificate, key)
    formats.check_file(photo)
    check_output(out, force=force, inputs=[photo])
    from mimik.animation.avatar import edit_photo

    with working(f"editing {photo.name}"):
        made = edit_photo(photo, out, changes, config=config, force=force, credentials=credentials)
    for note in made.notes:
        errors.print(f"note: {escape(note)}", soft_wrap=True)
    console.print(
        f"{escape(str(out))}: {made.width}x{made.height}. Signed: mimik verify {escape(shlex.quote(str(out)))}",
        soft_wrap=True,
    )


@app.command("faces", epilog=example("mimik faces"))
@guarded
def faces_command(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A picture.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="Write the picture with the faces drawn in: .png, .jpg or .webp.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Which faces a picture shows, numbered for --face."""
    if out is not None:
        check_picture_file(out)
        check_output(out, force=force, inputs=[photo])
    formats.check_file(photo)
    from mimik.face.landmark_images import annotate
    from mimik.face.landmarks import Landmarker, choose_face, head_pose
    from mimik.face.orientation import doubt, find_faces
    from mimik.media import video
    from mimik.provenance.manifests import Claim, Ingredient
    from mimik.provenance.sealing import seal

    picture = video.read_image(photo)
    height, width = picture.shape[:2]
    with working(f"looking for faces in {photo.name}"):
        found = find_faces(Landmarker(), picture, thorough=True)
    if not found:
        choose_face(found, None, photo.name, (width, height))
    table = Table("face", "left", "top", "width", "height", "turned to", "sure")
    for number, face in enumerate(found, start=1):
        left, top, right, bottom = face.box
        yaw, pitch, roll = head_pose(face.points).degrees
        turned = f"{abs(yaw):.0f}° {'right' if yaw > 0 else 'left'}, {abs(pitch):.0f}° {'down' if pitch > 0 else 'up'}"
        row = [str(number), *(f"{v:.0f}" for v in (left, top, right - left, bottom - top))]
        table.add_row(*row, f"{turned}, tilted {roll:.0f}°", f"{100 * face.score:.0f} %")
    console.print(table)
    for number, face in enumerate(found, start=1):
        if note := doubt(face, f"{photo.name}, number {number},"):
            errors.print(f"note: {escape(note)}", soft_wrap=True)
    if out is not None:
        claim = Claim(out.name, "none", (Ingredient.from_file("photo", photo),))
        with seal(out, claim, force=force) as draft:
            draft.write_image(annotate(picture, found))
        console.print(f"{escape(str(out))}: written.", soft_wrap=True)


@app.command("export", epilog=example("mimik export"))
@guarded
def export_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|AVATAR",
            help="texture, a .safetensors file of `mimik train`, or an .avatar file of `mimik learn`.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="A new folder for the files.", show_default=False)
    ],
    file_format: Annotated[str, typer.Option("--format", metavar="NAME", help="onnx.")] = "onnx",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="fp32; fp16, half as large; int8, a quarter, and coarser.")
    ] = "fp32",
    photo: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTO",
            help="The person, for a model: built into the graph. Without one the embedder is exported too.",
            show_default=False,
        ),
    ] = None,
    face: PhotoFace = None,
    motions: Annotated[
        list[str] | None,
        typer.Option(
            "--motion",
            metavar="MOTION",
            help="A bundled motion or a .motion file, put on the person, for examples/browser; may be given again.",
            show_default=False,
        ),
    ] = None,
    size: Size = "512",
    force: Force = False,
) -> None:
    """Write a model or a person as a static ONNX graph for phones, games and browsers, with what its host has to do."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for train
    with extra("export", "export"):
        from mimik.app import export

    config = export.ExportConfig(
        format=file_format,
        precision=precision,
        photo=photo,
        face=face,
        motions=tuple(motions or ()),
        size=parse_size(size),
    )
    with Display("frames").shown() as steps:
        made = export.export(what, out, config, force=force, progress=steps)
    for note in made.notes:
        errors.print(f"note: {escape(note)}", soft_wrap=True)
    for graph in made.graphs:
        size = f"{len(graph.data) / 1e6:.1f} MB, {graph.multiply_adds / 1e9:.3g} G multiply-adds, {graph.precision}"
        table = Table("output", "off by at most", "in the mean", "of a span of", title=f"{graph.file}: {size}")
        for name, found in graph.parity.items():
            table.add_row(name, *(f"{value:.2g}" for value in (found.largest, found.mean, found.span)))
        console.print(table)
    moved = "".join(f", {escape(name)} ({count / 1e6:.1f} MB)" for name, count in made.motions)
    console.print(
        f"{escape(str(out))}: {', '.join(graph.file for graph in made.graphs)}{moved}. What it draws is synthetic; "
        f"whoever shows it has to mark it. How, and what else a host does: {escape(str(out / export.RECORD_NAME))}",
        soft_wrap=True,
    )
