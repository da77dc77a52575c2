"""User errors, and validated settings. Nothing here reads a file."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import typing
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from numbers import Integral, Real
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any

VERSION = "0.2.0"


class InputError(ValueError):
    """Invalid input from the user.

    The message is one sentence for the user: what was given, what is accepted, what to do next. The command line
    prints it and exits with code 2.
    """


class MediaError(InputError):
    """A picture, a video or a sound track that cannot be read or written."""


class NoFaceError(InputError):
    """No usable face in a picture or in a whole video."""


class ModelError(InputError):
    """An unknown, unreadable or unsuitable model."""


class OptionError(InputError, TypeError):
    """An option that has no effect in this combination, or a missing one."""


# Name on the public package index; None until published, so that messages do not name somebody else's package.
PUBLISHED_AS: str | None = None


def counted(count: int, noun: str) -> str:
    """A number of things, such as "1 frame" or "2 frames"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def install_command(extra: str) -> str:
    """The command that installs an extra of pyproject.toml, for messages: `pip install '.[train]'` in a checkout."""
    where = "" if PUBLISHED_AS else " (in a checkout of mimik)"
    return f"pip install '{PUBLISHED_AS or '.'}[{extra}]'{where}"


@contextmanager
def extra(what: str, name: str) -> Iterator[None]:
    """Context for imports from an extra: raises InputError with the install command if they fail.

    Args: what: the feature that needs them; name: of the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{what} needs {error.name}, which is not installed: {install_command(name)}.") from None


def data_folder() -> Path:
    """Folder of this user's keys and weights: $MIMIK_DATA, or the system's user data folder.

    Raises InputError if neither is known.
    """
    if given := os.environ.get("MIMIK_DATA"):
        return Path(given)
    try:
        import platformdirs  # may be missing on a machine that only trains

        return Path(platformdirs.user_data_dir("mimik", appauthor=False))
    except (ImportError, RuntimeError) as error:  # no HOME, and the user is unknown to the system
        raise InputError("no user data folder for keys and weights is known; set MIMIK_DATA to a folder.") from error


REGIONS = ("pose", "lips", "eyes", "brows", "gaze")
MODELS = ("texture", "geometry")  # the default first
DEVICES = ("auto", "cpu", "cuda")  # of networks; auto: a GPU if torch finds one
MODEL_SUFFIX = ".safetensors"
AVATAR_SUFFIX = ".avatar"
MOTION_MODES = ("relative", "absolute")
FRAMES = ("full", "crop")
SCENES = ("auto", "warp")  # auto: still background plate if the matte is reliable; warp: the photo is warped as a whole
DRIVE_BY = ("picture", "sound")  # for a driver that has both
MAX_SECONDS = 36_000.0  # for a driver without an end
TEETH = ("ada", "bea", "cleo", "dora", "ella", "fay", "gia", "hana", "ida", "jon", "karl", "leo", "max")  # shipped sets
TRANSPARENT, BLUR = "none", "blur"  # backgrounds
CONSENT_LETTERS = 500  # largest length of a statement


def parse_regions(text: str) -> tuple[str, ...]:
    """Parse `all` or a comma-separated list of REGIONS; the result is in the order of REGIONS.

    Raises InputError on an unknown or empty list.
    """
    if text.strip() == "all":
        return REGIONS
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in REGIONS]
    if unknown or not names:
        what = f"no such region: {unknown[0]!r}" if unknown else "no region given"
        accepted = f"use all, or any of {', '.join(REGIONS)}, separated by commas"
        raise InputError(f"--regions {text.strip() or repr(text)}: {what}; {accepted}.")
    return tuple(name for name in REGIONS if name in names)


def check_number(option: str, value: float, low: float, high: float, hint: str, kind: type = Real) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or not low <= value <= high:
        what = "a number" if kind is Real else "an integer"
        raise InputError(f"{option} {value}: use {what} from {low:.10g} to {high:.10g} ({hint}).")


def _choice(option: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise InputError(f"{option} {value}: use one of {', '.join(choices)}.")


class Quality(Enum):
    """How much is computed for a frame, from most to least."""

    FULL = "full"
    HALF = "half"  # the network runs for every second frame; its outputs are used for the one after, too
    WARP = "warp"  # no network
    SMALL = "small"  # no network, and a smaller picture


@dataclass(frozen=True)
class Option:
    """Declaration of a command-line option and web control; attached to a settings field with Annotated.

    Attributes:
        help: for the command line and the web app; if empty, generated from range and hint.
        metavar: placeholder of the value in the help; None: the type.
        flag: on the command line; if empty, generated from the field's name.
        env: environment variable that also sets it.
        range: smallest and largest allowed number.
        hint: meaning of the number, for the out-of-range message.
        choices: allowed values.
        read, written: parser of the command-line text, and formatter of the default.
        label, empty: label of the web control, and its placeholder if empty.
    """

    help: str = ""
    metavar: str | None = None
    flag: str = ""
    env: str | None = None
    range: tuple[float, float] | None = None
    hint: str = ""
    choices: Collection[str] = ()
    read: Callable[[str], Any] | None = None
    written: Callable[[Any], str] = str
    label: str = ""
    empty: str = "automatic"
    types: tuple[Any, ...] = ()  # of the field, set by options_of


@functools.cache
def options_of(kind: Any) -> dict[str, Option]:
    """The options of a settings dataclass by field name; fields without an Option are omitted."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        for option in (one for one in typing.get_args(hint) if isinstance(one, Option)):
            low, high = option.range or (0, 0)
            plain = typing.get_args(hint)[0]
            found[name] = dataclasses.replace(
                option,
                help=option.help or f"From {low:g} to {high:g}; {option.hint}.",
                flag=option.flag or f"--{name.replace('_', '-')}",
                label=option.label or name.replace("_", " ").capitalize(),
                types=typing.get_args(plain) if isinstance(plain, UnionType) else (plain,),
            )
    return found


def check_options(settings: Any) -> None:
    """Raises InputError if the type or value of a field is not allowed; numbers of numpy become Python's."""
    kind: Any = type(settings)
    for name, option in options_of(kind).items():
        value = getattr(settings, name)
        if value is None and (NoneType in option.types or not option.range):
            continue
        if option.choices:
            _choice(option.flag, value, option.choices)
        elif option.range:
            check_number(option.flag, value, *option.range, option.hint, Real if float in option.types else Integral)
            object.__setattr__(settings, name, value if isinstance(value, int) else option.types[0](value))
        elif str in option.types and not isinstance(value, str | PurePath):
            raise InputError(f"{option.flag} {value!r}: use a text.")


def read_size(text: str) -> int | None:
    """Parse --size: pixels, or None for `native`. Raises InputError on anything else."""
    try:
        return None if text == "native" else int(text)
    except ValueError:
        raise InputError(
            f"--size: {text!r} is not an integer; use 'native' or the number of pixels of the longer side."
        ) from None


_FACE_NUM = {"metavar": "N", "range": (1, 99), "hint": "1 is the largest face; `mimik faces PHOTO` shows the numbers"}
PHOTO_FACE = Option(
    "Which face, as `mimik faces` numbers them; the widest if omitted.",
    label="Face of the photo",
    empty="the widest",
    **_FACE_NUM,  # type: ignore[arg-type]
)
DEVICE = Option(
    "Where the networks run: auto (a GPU if torch finds one), cpu or cuda, which needs torch.", "NAME", choices=DEVICES
)
SIZE = Option(
    "Pixels of the longer side, 64 to 4096; native: those of the photo.",
    "PX",
    range=(64, 4096),
    hint="pixels of the longer side, or 'native'",
    read=read_size,
    written=lambda px: "native" if px is None else str(px),
    label="Size",
    empty="as the photo",
)


def _regions(names: tuple[str, ...]) -> str:
    return "all" if names == REGIONS else ",".join(names)


@dataclass(frozen=True, kw_only=True)
class AnimateConfig:
    """Settings of one `mimik animate` run; None means automatic, or the value of photo or driver."""

    drive_by: Annotated[
        str, Option("Which part of a video drives: picture or sound.", "WHAT", choices=DRIVE_BY, label="What drives")
    ] = "picture"
    seconds: Annotated[
        float | None,
        Option(
            "Seconds of the driver to use, from its start; for idle and trackers 10 if omitted.",
            "S",
            range=(0.1, MAX_SECONDS),
            hint="the length of the result",
            label="Length, seconds",
            empty="all of the driver",
        ),
    ] = None
    seed: Annotated[
        int,
        Option(
            "Random seed of the motion that sound and idle generate.",
            "N",
            range=(0, 2**32 - 1),
            hint="equal seeds give equal motion",
        ),
    ] = 0
    model: Annotated[
        str | None,
        Option(
            "Which generator: texture; geometry, which warps the photo without a network; or a .safetensors file that "
            f"`mimik train` wrote. An avatar brings its own; otherwise {MODELS[0]} if omitted.",
            "NAME",
            label="Generator",
        ),
    ] = None
    device: Annotated[str, DEVICE] = "auto"
    motion: Annotated[
        str,
        Option(
            "relative: the driver's changes are applied to the photo. absolute: the driver's own pose is used.",
            "MODE",
            choices=MOTION_MODES,
            label="Head pose",
        ),
    ] = "relative"
    regions: Annotated[
        tuple[str, ...],
        Option(
            "What moves: all, or some of pose,lips,eyes,brows,gaze.",
            "LIST",
            read=parse_regions,
            written=_regions,
            label="What moves",
        ),
    ] = REGIONS
    strength: Annotated[
        float,
        Option(
            "Multiplies the driver's motion, 0 to 3.",
            "X",
            range=(0, 3),
            hint="1 is the driver's own strength",
        ),
    ] = 1.0
    smooth: Annotated[
        float,
        Option(
            "Temporal smoothing, 0 (off) to 1 (smoothest, adds latency).",
            "X",
            range=(0, 1),
            hint="0 is off",
            label="Smoothing",
        ),
    ] = 0.5
    size: Annotated[int | None, SIZE] = None
    frame: Annotated[
        str,
        Option("full: the whole photo. crop: a square around the head.", "VIEW", choices=FRAMES, label="View"),
    ] = "full"
    scene: Annotated[
        str,
        Option(
            "auto: the background stands still behind the head, if they can be separated. warp: the background moves "
            "with the head.",
            "HOW",
            choices=SCENES,
            label="Scene",
        ),
    ] = "auto"
    face: Annotated[int | None, PHOTO_FACE] = None
    driver_face: Annotated[
        int | None,
        Option(
            "Which face of DRIVER; the widest if omitted.",
            label="Face of the driver",
            empty="the widest",
            **_FACE_NUM,
        ),
    ] = None
    neutral: Annotated[
        float | None,
        Option(
            "Time in seconds at which the face of a driving video is neutral; found automatically if omitted.",
            "TIME",
            range=(0, 86400),
            hint="seconds from the driver's beginning",
            label="Neutral face of the driver",
            empty="found, region by region",
        ),
    ] = None
    fps: Annotated[
        float | None,
        Option(
            "Frames per second, 1 to 120; the driver's own if omitted.",
            "X",
            range=(1, 120),
            hint="frames per second; omit it for the driver's own",
            label="Frames per second",
            empty="the driver's own",
        ),
    ] = None
    quality: Annotated[
        int,
        Option(
            "Constant rate factor of x264, 0 (best) to 51; 18 looks lossless.",
            "N",
            range=(0, 51),
            hint="smaller is better; 18 looks lossless",
        ),
    ] = 18
    audio: Annotated[bool, Option("Keep the driver's sound.", label="Keep the driver's sound")] = True
    teeth: Annotated[
        str | None,
        Option(
            f"Teeth to use if no photo shows the person's: {', '.join(TEETH)}; chosen by the lighting if omitted.",
            "NAME",
            choices=TEETH,
        ),
    ] = None
    background: Annotated[
        str | None,
        Option(
            "What to show behind the person: none (transparent: a .webm, .mov or .webp file, or PNG frames), blur, a "
            "color such as white or #00ff00, or a picture; the photo's own if omitted.",
            "WHAT",
        ),
    ] = None
    label: Annotated[
        bool,
        Option('Burn a small "AI" label into the lower right corner.', label='Burn a small visible "AI" into a corner'),
    ] = False
    consent: Annotated[
        str | None,
        Option(
            "Your statement about the consent of the person shown; it is public in the signed manifest.",
            "TEXT",
            label="Consent of the person shown",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.size == "native":
            object.__setattr__(self, "size", None)
        check_options(self)
        if self.model is not None and self.model not in MODELS and not self.model.lower().endswith(MODEL_SUFFIX):
            raise ModelError(
                f"--model {self.model}: no such model; use {' or '.join(MODELS)}, or a {MODEL_SUFFIX} file that "
                "`mimik train` wrote."
            )
        if not isinstance(self.regions, Collection) or not self.regions or any(n not in REGIONS for n in self.regions):
            raise InputError(f"--regions {self.regions}: use any of {', '.join(REGIONS)}.")
        if self.device == "cuda" and self.model == "geometry":
            raise InputError("--device cuda: --model geometry has no network to run on a GPU; omit one of them.")
        text = self.consent
        if text is not None and not (text.strip() and text.isprintable() and len(text) <= CONSENT_LETTERS):
            raise InputError(
                f"--consent of {counted(len(text), 'character')}; use one line of 1 to {CONSENT_LETTERS}, such "
                "as: She agreed in writing on 3 May."
            )


# The method: networks, losses and training. Sources of the numbers: "v1" and "v2" are the two versions of the paper,
# "code" is the authors' later code. docs/paper.md lists them and the deviations D1, D2, ..

FORMS = ("paper", "texture")
VARIANTS = ("ft", "ff")  # ft: with L_MCH, then fine-tuned; ff: without L_MCH, not fine-tuned
CONTENT_NETWORKS = ("vgg19", "vggface", "efficientnet_lite0")  # of networks.features
LANDMARK_STYLES = ("paper", "full", "smooth")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of E, P, G and D. Channels are (after the first block, maximum)."""

    form: str = "paper"  # one of FORMS; the form of G, while E, P and D are the same for both
    image_px: int = 256  # side of the networks' input; paper
    embedder_channels: tuple[int, int] = (64, 512)  # paper
    generator_channels: tuple[int, int] = (64, 512)  # paper
    discriminator_channels: tuple[int, int] = (64, 512)  # paper
    embedding_dim: int = 512  # N; paper
    attention: bool = True  # paper; D1
    landmarks: str = "paper"  # one of LANDMARK_STYLES

    def __post_init__(self) -> None:
        _choice("form", self.form, FORMS)
        _choice("landmarks", self.landmarks, LANDMARK_STYLES)

    @property
    def frame_px(self) -> int:
        """Side of G's output frames: the texture form composites them at twice the size of its input (D14)."""
        return 2 * self.image_px if self.form == "texture" else self.image_px


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms of L_CNT + L_ADV + L_MCH."""

    content: dict[str, float]  # L_CNT: weight of each network, by its name in CONTENT_NETWORKS
    adversarial: float = 1.0  # paper
    feature_matching: float = 10.0  # v1, v2 and code
    feature_matching_over: str = "mean"  # one of losses.OVER_LAYERS; D2
    match: float = 10.0  # v2; D3
    identity: float = 0.0  # distance of x and x_hat in the identity network; the paper has VGGFace in L_CNT (D16)
    landmarks: float = 0.0  # distance of the detected landmarks of x and x_hat; not in the paper (D17)
    pixel: float = 0.0  # L1 of x_hat, with more weight on eyes and mouth; not in the paper
    synthesized: float = 0.0  # the same L1 for the synthesized image of `texture`, before blending
    drawn: float = 0.0  # mean of 1 - m in `texture`: synthesized pixels lose the photo's detail
    correction: float = 0.0  # mean square of the flow correction of `texture`, in pixels


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How meta-learning runs."""

    variant: str = "ft"  # one of VARIANTS
    num_sources: int = 8  # K; paper
    target: str = "uniform"  # one of episodes.TARGETS
    scene: str = "warp"  # one of SCENES: whether the background of the warped frames of `texture` is still
    stills_share: float | None = None  # share of stills in an epoch; None: each is used once
    batch_size: int = 48  # episodes of all processes together; code
    lr_generator: float = 5e-5  # of E, P and G; paper
    lr_embedder: float | None = None  # of E and P; None: lr_generator
    lr_discriminator: float = 2e-4  # paper
    betas: tuple[float, float] = (0.0, 0.999)  # of Adam; code (0), PyTorch
    eps: float = 1e-5  # of Adam; code
    num_discriminator_updates: int = 2  # per update of E, P and G; paper
    adversarial_from: int = 0  # step from which D is trained and L_ADV is used
    clip_norm: float = 10.0  # of the gradient of E, P and G, and of D's
    ema: float = 0.999  # of E, P and G; code
    num_epochs: int = 75  # an epoch is one episode of every clip; 75 for ft, 150 for ff in the paper
    num_steps: int | None = None  # overrides num_epochs

    def __post_init__(self) -> None:
        _choice("variant", self.variant, VARIANTS)
        _choice("scene", self.scene, SCENES)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that decides what is trained, and how."""

    networks: NetworkConfig
    losses: LossWeights
    train: TrainConfig


# Small and fast on a CPU, for tests and smoke runs; the loss weights are this project's.
_DEBUG = Preset(
    networks=NetworkConfig(
        image_px=64,
        embedder_channels=(8, 64),
        generator_channels=(8, 64),
        discriminator_channels=(8, 64),
        embedding_dim=64,
        attention=False,
    ),
    losses=LossWeights(
        content={"efficientnet_lite0": 1.0}, adversarial=0.1, feature_matching=1.0, match=0.1, pixel=10.0
    ),
    train=TrainConfig(
        num_sources=2,
        batch_size=8,
        lr_generator=1e-3,
        lr_discriminator=5e-4,
        betas=(0.5, 0.999),
        adversarial_from=1000,  # earlier, D separates real and fake at once and gives G no useful gradient
        ema=0.99,
        num_steps=3000,
    ),
)

PRESETS: dict[str, Preset] = {
    "paper_v1": Preset(
        networks=NetworkConfig(),
        losses=LossWeights(content={"vgg19": 1e-2, "vggface": 2e-3}, match=80.0),  # v1
        train=TrainConfig(),
    ),
    "paper_v2": Preset(
        networks=NetworkConfig(),
        losses=LossWeights(content={"vgg19": 1.5e-1, "vggface": 2.5e-2}),  # v2
        train=TrainConfig(),
    ),
    "authors_code": Preset(
        networks=NetworkConfig(attention=False),
        losses=LossWeights(content={"vgg19": 1e-2, "vggface": 2e-3}, match=1e-2),  # code
        train=TrainConfig(num_discriminator_updates=1),  # code
    ),
    "debug": _DEBUG,
    # Twice as wide, trained for longer; few-shot results in docs/paper.md.
    "paper_small": dataclasses.replace(
        _DEBUG,
        networks=dataclasses.replace(
            _DEBUG.networks,
            embedder_channels=(16, 128),
            generator_channels=(16, 128),
            discriminator_channels=(16, 128),
            embedding_dim=128,
        ),
        train=dataclasses.replace(_DEBUG.train, ema=0.999, num_steps=12000),
    ),
    # The shipped model: takes the warped photo and corrects it. Sizes and weights were tuned on two CPU cores.
    "texture": Preset(
        networks=NetworkConfig(
            form="texture",
            image_px=128,
            embedder_channels=(8, 128),
            generator_channels=(32, 128),
            discriminator_channels=(16, 128),
            embedding_dim=128,
            attention=False,
            landmarks="smooth",
        ),
        losses=LossWeights(
            content={"efficientnet_lite0": 1.0},
            adversarial=2.0,
            identity=2.0,
            landmarks=0.1,
            feature_matching=10.0,
            match=0.01,  # at 0.1 the embedding collapsed to 0
            pixel=5.0,
            synthesized=2.5,
            drawn=0.1,
            correction=0.01,
        ),
        train=TrainConfig(
            num_sources=2,
            target="far",
            batch_size=8,
            lr_generator=1e-3,
            lr_embedder=5e-5,  # at higher rates the embedding collapses before G learns to use it
            lr_discriminator=5e-4,
            betas=(0.5, 0.999),
            ema=0.999,
            eps=1e-8,  # at 1e-5, eps dominates the small gradients of D
            scene="auto",
            stills_share=0.25,
            num_steps=30000,
        ),
    ),
}
