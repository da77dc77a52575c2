"""mimik edit, faces and export: commands on a photo or a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mimik.animation.options import check_model
from mimik.animation.sliders import SETTINGS, Edit
from mimik.app.cli.console import command, print_line, print_notes, print_table, verify_hint
from mimik.app.cli.options import Force, OnlyFields, Signing, check_picture_file, local_credentials, output
from mimik.app.cli.progress import Display, working
from mimik.app.export.settings import RECORD_NAME, ExportConfig, check_export
from mimik.config import AnimateConfig, extra
from mimik.media import formats
from mimik.motion.kinds import check_person
from mimik.provenance.outputs import check_output


@command("edit")
def edit_command(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="A photo of the person, a video of the person, or an .avatar file.")
    ],
    *,
    out: Annotated[Path, output("OUT", "The picture to write: .png, .jpg or .webp.")],
    changes: Edit,
    config: Annotated[AnimateConfig, OnlyFields(" ".join(SETTINGS))],
    force: Force = False,
    signing: Signing,
) -> None:
    """Change a photo's expression, gaze and pose by numbers and write a signed picture."""
    check_person(photo)
    formats.check_input(photo)
    from mimik.animation.avatar import edit_photo
    from mimik.animation.edit import check_changes, check_edit

    check_edit(out, force=force, inputs=[photo])
    check_changes(changes)
    check_model(config.model)
    credentials = signing.credentials

    with Display("steps", f"editing {photo.name}", bar="edit").shown() as bar:
        made = edit_photo(photo, out, changes, config=config, force=force, credentials=credentials, progress=bar)
    print_notes(*made.notes)
    print_line(f"{out}: {made.width}x{made.height}. {verify_hint(out)}")


@command("faces")
def faces_command(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A picture.")],
    out: Annotated[
        Path | None, output("OUT", "Write the picture with the faces drawn in: .png, .jpg or .webp.")
    ] = None,
    force: Force = False,
) -> None:
    """List the faces in a picture, numbered for --face."""
    check_person(photo)
    formats.check_input(photo)
    credentials = None
    if out is not None:
        check_picture_file(out)
        check_output(out, force=force, inputs=[photo])
        credentials = local_credentials()
    from mimik.face.landmark_images import annotate
    from mimik.face.landmarks import Landmarker, choose_face, head_pose
    from mimik.face.orientation import confidence_note, find_faces
    from mimik.media import video
    from mimik.provenance.manifests import Claim, Ingredient
    from mimik.provenance.sealing import seal

    picture = video.read_image(photo)
    height, width = picture.shape[:2]
    with working(f"looking for faces in {photo.name}"):
        found = find_faces(Landmarker(), picture, thorough=True)
    if not found:
        choose_face(found, None, photo.name, (width, height))
    table = Table("face", "left", "top", "width", "height", "turned to", "score")
    for number, face in enumerate(found, start=1):
        left, top, right, bottom = face.box
        yaw, pitch, roll = head_pose(face.points).degrees
        turned = f"{abs(yaw):.0f}° {'right' if yaw > 0 else 'left'}, {abs(pitch):.0f}° {'down' if pitch > 0 else 'up'}"
        row = [str(number), *(f"{v:.0f}" for v in (left, top, right - left, bottom - top))]
        table.add_row(*row, f"{turned}, tilted {roll:z.0f}°", f"{100 * face.score:.0f} %")
    print_table(table)
    doubts = (confidence_note(face, f"{photo.name}, number {number},") for number, face in enumerate(found, start=1))
    print_notes(*(one for one in doubts if one))
    if out is not None:
        claim = Claim(out.name, "none", (Ingredient.from_file("photo", photo),))
        with seal(out, claim, credentials=credentials, force=force) as draft:
            draft.write_image(annotate(picture, found))
        print_line(f"{out}: written.")


@command("export")
def export_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|AVATAR",
            help="texture, a .safetensors file of `mimik train`, or an .avatar file of `mimik learn`.",
        ),
    ],
    *,
    out: Annotated[Path, output("FOLDER", "A new folder for the files.")],
    config: ExportConfig,
    force: Force = False,
) -> None:
    """Write a model or a person as a static ONNX graph for phones, games and browsers, with a guide for its host."""
    check_export(what, out, config, force=force)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for train
    with working("loading"), extra("export", "export"):
        from mimik.app.export import exporting

    with Display("frames").shown() as steps:
        made = exporting.export(what, out, config, force=force, progress=steps)
    print_notes(*made.notes)
    for graph in made.graphs:
        size = f"{len(graph.data) / 1e6:.1f} MB, {graph.multiply_adds / 1e9:.3g} G multiply-adds, {graph.precision}"
        table = Table("output", "largest difference", "mean difference", "range", title=f"{graph.file}: {size}")
        for name, found in graph.parity.items():
            table.add_row(name, *(f"{value:.2g}" for value in (found.largest, found.mean, found.span)))
        print_table(table)
    moved = "".join(f", {name} ({count / 1e6:.1f} MB)" for name, count in made.motions)
    print_line(
        f"{out}: {', '.join(graph.file for graph in made.graphs)}{moved}. Its output is synthetic, and whoever shows "
        f"it must mark it. Instructions for the host program: {out / RECORD_NAME}"
    )
