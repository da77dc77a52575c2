"""mimik motion extract, list and show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mimik.app.cli.console import command, print_line, print_notes, print_table
from mimik.app.cli.options import Force, OnlyFields, check_picture_file, local_credentials, output
from mimik.app.cli.progress import Display
from mimik.config import AnimateConfig, InputError, counted
from mimik.files import atomic_write, check_file
from mimik.media import formats
from mimik.motion.kinds import bundled_motions
from mimik.provenance.outputs import check_output

_STREAM_SUFFIX = ".jsonl"
_CSV_SUFFIX = ".csv"


@command("motion extract")
def motion_extract(
    driver: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video of a face.")],
    *,
    out: Annotated[
        Path,
        output(
            "OUT",
            "The .motion file to write; or, for other programs, a .jsonl file of blendshapes and head poses, or a .csv "
            "file in the format of Live Link Face, for Blender and Unreal.",
        ),
    ],
    config: Annotated[AnimateConfig, OnlyFields("face neutral fps")],
    force: Force = False,
) -> None:
    """Write a video's motion as a .motion file: numbers only, a few kilobytes a second.

    A .jsonl or .csv file holds less of it, but other programs can read it.
    """
    if out.suffix.lower() not in (".motion", _STREAM_SUFFIX, _CSV_SUFFIX):
        raise InputError(f"-o {out}: a motion file ends in .motion, {_STREAM_SUFFIX} or {_CSV_SUFFIX}.")
    check_file("-o", out, force=force, others=[driver])
    formats.check_input(driver)
    from mimik.motion.drivers.registry import open_driver
    from mimik.motion.drivers.stream_file import stream_lines
    from mimik.motion.drivers.trackers.live_link import csv_lines
    from mimik.motion.drivers.video import extract_motion

    with Display("frames").shown() as bars:
        opened = open_driver(driver, config.fps)
        motion = extract_motion(opened, face=config.face, neutral_s=config.neutral, progress=bars)
    with atomic_write(out) as draft:
        if out.suffix.lower() in (_STREAM_SUFFIX, _CSV_SUFFIX):
            with draft.open("w", encoding="utf-8") as file:
                file.writelines((csv_lines if out.suffix.lower() == _CSV_SUFFIX else stream_lines)(motion))
        else:
            motion.save(draft)
    rate = out.stat().st_size / 1024 / max(motion.duration_s, 1e-6)
    print_line(
        f"{out}: {counted(len(motion), 'frame')}, {motion.duration_s:.1f} s, {out.stat().st_size / 1024:.0f} kB "
        f"({rate:.1f} kB a second)."
    )
    if opened.sound is not None:
        print_notes(f"{out.name} holds motion only; the sound stays in {driver.name}")
    if motion.reference.note:
        print_notes(motion.reference.note)


@command("motion list")
def motion_list() -> None:
    """The motions that come with the program."""
    from mimik.motion.files import Motion

    table = Table("name", "seconds", "frames per second")
    for name, path in bundled_motions().items():
        motion = Motion.load(path)
        table.add_row(name, f"{motion.duration_s:.1f}", f"{motion.fps:g}")
    print_table(table)


@command("motion show")
def motion_show(
    motion: Annotated[str, typer.Argument(metavar="MOTION", help="A .motion file, or the name of a bundled motion.")],
    out: Annotated[Path | None, output("OUT", "The picture: .png, .jpg or .webp; MOTION.png if omitted.")] = None,
    force: Force = False,
) -> None:
    """A picture of a motion: the face drawn at even steps, over curves of what it does."""
    path = bundled_motions().get(motion, Path(motion))
    if not path.is_file():
        raise InputError(f"{motion}: no such motion; use a .motion file or one of {', '.join(bundled_motions())}.")
    picture = out or Path(f"{path.stem}.png")  # not the name stored in the file, because the file is untrusted
    check_picture_file(picture)
    check_output(picture, force=force, inputs=[path])
    credentials = local_credentials()
    from mimik.motion.files import Motion
    from mimik.motion.motion_sheet import motion_sheet
    from mimik.provenance.manifests import Claim, Ingredient
    from mimik.provenance.sealing import seal

    loaded = Motion.load(path)
    name = f"bundled {motion}" if motion in bundled_motions() else path.name
    claim = Claim(picture.name, "none", (Ingredient.from_file("driver", path, name=name),))
    with seal(picture, claim, credentials=credentials, force=force) as draft:
        draft.write_image(motion_sheet(loaded))
    print_line(f"{picture}: written.")
