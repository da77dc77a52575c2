"""Settings of one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mimik.config import (
    AVATAR_SUFFIX,
    DEVICE,
    MODEL_SUFFIX,
    MODELS,
    PRESETS,
    InputError,
    ModelError,
    Option,
    check_options,
)
from mimik.data.index import INDEX_NAME, check_index, is_url
from mimik.data.preparation.settings import SOURCE_SUFFIXES
from mimik.files import check_folder
from mimik.inference.device import resolved_device
from mimik.media.formats import PHOTO_SUFFIXES

REPORT_MARK = "evaluation.json"  # file in every report
TRUTH = "truth"  # the real frames, measured in the same way; must be perfect
WITHOUT_NETWORK = ("copy", "geometry")
LESSONS = ("learn", "scratch")  # prefixes of MODEL: fine-tuned per clip, from its weights; from random weights


def is_learned(name: str) -> bool:
    """Whether a name of --models means fine-tuning per clip."""
    return name.partition(":")[0] in LESSONS and ":" in name


def label_of(model: str) -> str:
    """Name of a model in tables and files: of a file, without its folders."""
    if is_learned(model):
        kind, _, rest = model.partition(":")
        return f"{kind}:{label_of(rest)}"
    return Path(model).name if model.lower().endswith((MODEL_SUFFIX, AVATAR_SUFFIX)) else model


def animates(name: str) -> bool:
    """Whether a name of --models means a model that animates any photo."""
    return not is_learned(name) and (name in MODELS or name.lower().endswith(MODEL_SUFFIX))


def _listed(kind: Callable[[str], Any], wrong: str) -> Callable[[str], tuple[Any, ...]]:
    """A parser of comma-separated values. Args: wrong: the error message, with a placeholder for the text."""

    def read(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
        except ValueError:
            raise InputError(wrong.format(text)) from None

    return read


def _written(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of one `mimik evaluate` run; every error message names its option."""

    models: Annotated[
        tuple[str, ...],
        Option(
            "Models to evaluate: geometry, texture, files of `mimik train` and `mimik learn`; for comparison, copy "
            "(the photo) and truth (the real frames). learn:MODEL is fine-tuned to the photos of each clip; "
            "scratch:MODEL is trained on them from random weights.",
            "LIST",
            read=_listed(str, ""),
            written=",".join,
        ),
    ] = ("geometry", "copy", "truth")
    shots: Annotated[  # T
        tuple[int, ...],
        Option(
            "Numbers of photos per person.",
            "LIST",
            read=_listed(int, "--shots {}: use integers separated by commas, such as 1,8,32."),
            written=_written,
        ),
    ] = (1, 8, 32)  # paper
    holdout: Annotated[int, Option("Hold-out frames of a clip to reconstruct.", "N")] = 32  # paper
    size: Annotated[int, Option("Width and height of the frames.", "PX")] = 256
    limit: Annotated[int | None, Option("Clips, evenly spaced; all if omitted.", "N")] = None
    pairs: Annotated[int | None, Option("Pairs of portrait and driver, evenly spaced; all if omitted.", "N")] = None
    device: Annotated[str, DEVICE] = "auto"
    seed: Annotated[int, Option("Random seed of the choice of frames.", "N")] = 0
    learn_seconds: Annotated[
        tuple[float, ...],
        Option(
            "Times at which learn:MODEL and scratch:MODEL are measured; training ends at the last one.",
            "LIST",
            read=_listed(float, "--learn-seconds {}: use seconds separated by commas, such as 0,30."),
            written=_written,
        ),
    ] = (0, 10, 30, 60)

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) != len(self.models):
            raise InputError(f"--models {','.join(self.models)}: list one or more names, each once.")
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) != len(self.shots):
            raise InputError(f"--shots {','.join(map(str, self.shots))}: list numbers of photos, 1 or more, each once.")
        if self.holdout < 3:
            raise InputError(f"--holdout {self.holdout}: use 3 or more frames; correlations need them.")
        if not 64 <= self.size <= 2048:
            raise InputError(f"--size {self.size}: use 64 to 2048 pixels, at most the size of the clips.")
        for option, value in (("--limit", self.limit), ("--pairs", self.pairs)):
            if value is not None and value < 1:
                raise InputError(f"{option} {value}: use 1 or more, or omit it for all.")
        times = self.learn_seconds
        if not times or list(times) != sorted(set(times)) or times[0] < 0 or not 1 <= times[-1] <= 1e5:
            given = ",".join(f"{t:g}" for t in times)
            raise InputError(
                f"--learn-seconds {given}: use increasing seconds, the last 1 or more, such as 0,10,30,60."
            )
        check_options(self)
        if self.device == "cuda":
            resolved_device(self.device)


def check_model_name(name: str) -> None:
    """Raises ModelError if a name of --models means nothing, or a file that does not exist or is not a model."""
    kind, _, learned = name.partition(":") if is_learned(name) else ("", "", name)
    if learned.lower().endswith(MODEL_SUFFIX):
        from mimik.networks.release import check_release

        check_release(Path(learned))
    elif kind:
        if learned not in (PRESETS if kind == "scratch" else ("texture",)):
            there = f"a {MODEL_SUFFIX} file that `mimik train` wrote"
            there += f", or a preset: {', '.join(PRESETS)}" if kind == "scratch" else ", or texture"
            raise ModelError(f"--models {name}: no such model; after {kind}: use {there}.")
    elif name.lower().endswith(AVATAR_SUFFIX):
        if not Path(name).is_file():
            raise ModelError(f"{name}: no such file; use an avatar that `mimik learn` wrote.")
    elif name not in (*WITHOUT_NETWORK, "texture", TRUTH):
        there = ", ".join([*WITHOUT_NETWORK, "texture", TRUTH])
        raise ModelError(
            f"--models {name}: no such model; use {there}, a {MODEL_SUFFIX} or an {AVATAR_SUFFIX} file, and learn: "
            f"or scratch: before texture or a {MODEL_SUFFIX} file."
        )


def check_evaluation(data: str | Path, out: Path, config: EvaluateConfig, *, portraits: Path | None) -> None:
    """Check the files and names of an evaluation without loading networks; arguments as for evaluate().

    Raises InputError.
    """
    labels = [label_of(name) for name in config.models]
    if len(set(labels)) != len(labels):
        raise InputError(f"--models {','.join(config.models)}: two files have the same name; rename one.")
    for name in config.models:
        check_model_name(name)
    if portraits is None and config.pairs is not None:
        raise InputError(f"--pairs {config.pairs}: requires --portraits FOLDER; pass both or neither.")
    if portraits is not None:
        if not any(animates(name) for name in config.models):
            raise InputError(
                f"--portraits {portraits}: requires a model that animates, and --models lists none: "
                f"{', '.join(MODELS)}."
            )
        portraits_in(portraits)
    check_folder("-o", out, mark=REPORT_MARK, of="a report")
    if not out.parent.is_dir():
        raise InputError(f"-o {out}: the folder {out.parent} does not exist; create it first.")
    folder = Path(data)
    if is_url(str(data)) or (folder / INDEX_NAME).exists() or not folder.is_dir():
        check_index(data)
    elif not any(path.suffix.lower() in SOURCE_SUFFIXES for path in folder.rglob("*")):
        raise InputError(
            f"--data {data}: contains neither videos nor {INDEX_NAME}; use a folder of videos, or the output of "
            "`mimik prepare`."
        )


def portraits_in(folder: Path) -> list[Path]:
    """The pictures of --portraits. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"--portraits {folder}: is not a folder; use one with pictures of faces.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    if not found:
        raise InputError(f"--portraits {folder}: contains no pictures; use one with {', '.join(PHOTO_SUFFIXES)}.")
    return found
