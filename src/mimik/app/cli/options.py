"""Options that several commands share, and what is made of their text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimik.config import MODELS, TEETH, InputError, install_command
from mimik.files import replaced
from mimik.media.formats import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from mimik.provenance.credentials import Credentials


def whole_number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer") from None
    if abs(number) > 10**9:
        raise typer.BadParameter(f"{text!r} is far too large")
    return number


def decimal_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


@contextmanager
def extra(command: str, name: str) -> Iterator[None]:
    """What is imported in it comes with an extra of the package.

    Raises:
        InputError: if it is not installed; how to.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{command} needs {error.name}, which is not installed: {install_command(name)}.") from None


def parse_size(text: str) -> int | None:
    if text == "native":
        return None
    try:
        return whole_number(text)
    except typer.BadParameter as error:
        raise InputError(f"--size: {error.message}; give 'native' or the pixels of the longer side.") from None


def read_credentials(certificate: Path | None, key: Path | None) -> Credentials | None:
    if (certificate is None) != (key is None):
        raise InputError("--certificate and --key go together: give both, or neither for this computer's own.")
    if certificate is None or key is None:
        return None
    from mimik.provenance.credentials import Credentials

    return Credentials.from_files(certificate, key)


def write_json(path: Path, text: str) -> None:
    with replaced(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def check_picture_file(out: Path) -> None:
    if out.suffix.lower() not in IMAGE_SUFFIXES or "%" in out.name:
        raise InputError(f"-o {out}: give a file ending in {', '.join(IMAGE_SUFFIXES)}.")


def parse_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which generator: texture; geometry, which warps the photo without a network; or a .safetensors file "
        "that `mimik train` wrote. An avatar brings its own.",
        show_default="the avatar's own, or " + MODELS[0],
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Where the networks run: auto (a GPU if torch finds one), cpu or cuda, which needs torch."
    ),
]
Motions = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help="relative: the driver's change is put on the photo. absolute: the driver's own pose is taken.",
    ),
]
Regions = Annotated[str, typer.Option(metavar="LIST", help="What moves: all, or some of pose,lips,eyes,brows,gaze.")]
Strength = Annotated[
    float, typer.Option(metavar="X", parser=decimal_number, help="How strongly the driver moves the person, 0 to 3.")
]
Neutral = Annotated[
    float | None,
    typer.Option(
        metavar="TIME",
        parser=decimal_number,
        help="Seconds into a driving video at which its face is neutral; found automatically if left out.",
        show_default=False,
    ),
]
Teeth = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Teeth where no photo shows the person's: {', '.join(TEETH)}; chosen by the light if left out.",
        show_default=False,
    ),
]
Smooth = Annotated[
    float,
    typer.Option(
        metavar="X", parser=decimal_number, help="Temporal smoothing, 0 (off) to 1 (smoothest, adds latency)."
    ),
]
Size = Annotated[
    str, typer.Option(metavar="PX", help="Pixels of the longer side, 64 to 4096; native: those of the photo.")
]
View = Annotated[str, typer.Option(metavar="VIEW", help="full: the whole photo. crop: a square around the head.")]
PhotoFace = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        parser=whole_number,
        help="Which face of PHOTO, as `mimik faces` numbers them; the widest if left out.",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="What is seen behind the person: none (transparent: a .webm, .mov or .webp file, or PNG frames), blur, a "
        "colour such as white or #00ff00, or a picture.",
        show_default="the photo's own",
    ),
]
Label = Annotated[bool, typer.Option("--label", help='Burn a small visible "AI" into the lower right corner.')]
Consent = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What you state about the consent of the person shown, in the signed manifest for all to read.",
        show_default=False,
    ),
]
Certificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Sign with this PEM certificate chain, not this computer's own.")
]
Key = Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")]
