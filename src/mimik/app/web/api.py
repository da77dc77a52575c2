"""HTTP interface: that of gradio, with named endpoints for programs; docs/web.md shows how to call them.

A file argument must have been uploaded: its path is checked, no other file of this computer is read, and no URL is
fetched.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mimik.animation.sliders import SETTINGS as EDIT_SETTINGS
from mimik.animation.sliders import SLIDERS, Edit
from mimik.app.guard import ASKED_S
from mimik.app.web import controls
from mimik.app.web.jobs import animate, animate_photos, faces, report_of, save_edited, synthesize_speech, verified
from mimik.app.web.learning import learning
from mimik.app.web.other_tabs import LEARN_SECONDS, learner_model
from mimik.app.web.parts import BROKEN, STOPPED, WORK, Shared, log
from mimik.app.web.sessions import Job, StoppedError
from mimik.config import MODELS, AnimateConfig, InputError
from mimik.motion.drivers import registry

_NEEDED = inspect.Parameter.empty
Parameter = tuple[str, Any, Any]  # name, type, default


def add_endpoints(shared: Shared) -> None:
    """Add the endpoints to the page under construction."""
    file = shared.gr.FileData
    files, maybe_file = list[file], file | None  # type: ignore[valid-type]
    run = [
        ("driver", maybe_file, None),
        ("driver_name", str | None, None),
        ("say", str | None, None),
        ("voice", str | None, None),
        ("format", str, "mp4"),
        ("side_by_side", bool, False),
        ("background_picture", maybe_file, None),
        *_setting_parameters(controls.FIELDS),
    ]
    edit = [
        ("photo", file, _NEEDED),
        *((name, float, 0.0) for name in SLIDERS),
        ("format", str, "png"),
        *_setting_parameters(EDIT_SETTINGS),
    ]
    learn = [("photos", files, _NEEDED), ("max_seconds", float, LEARN_SECONDS)]
    add = functools.partial(_add, shared)
    add("animate", _animate, [("photo", file, _NEEDED), *run], (file, maybe_file, dict))
    add("animate_all", _animate_all, [("photos", files, _NEEDED), *run], (maybe_file, list, list))
    add("learn", _learn, learn, (maybe_file, str, list))
    add("edit", _edit, edit, (file,))
    add("verify", _verify, [("file", file, _NEEDED)], (str, dict))
    add("faces", _faces, [("photo", file, _NEEDED)], (list,))
    add("motions", _motions, [], (list,), waits=False)
    add("stop", _stop, [], (str,), waits=False)


def _setting_parameters(names: typing.Iterable[str]) -> list[Parameter]:
    """Fields of AnimateConfig as parameters with their defaults."""
    out: list[Parameter] = []
    for name in names:
        kind, default = controls.FIELDS[name], controls.DEFAULTS[name]
        if typing.get_origin(kind) is tuple:
            kind, default = list[str], list(default)
        out.append((name, kind, default))
    return out


def _add(
    shared: Shared,
    name: str,
    function: Callable[[_Call], Any],
    parameters: Sequence[Parameter],
    returns: tuple[Any, ...],
    *,
    waits: bool = True,
) -> None:
    """Add an endpoint for a function, whose docstring becomes its description.

    Args: returns: types; waits: whether it uses the queue of long jobs.
    """
    gr = shared.gr
    names = [name for name, _, _ in parameters]

    def endpoint(request: Any, *values: Any) -> Any:
        with _reported(gr):
            # A call of the queue begins here, after its wait.
            job = shared.session(request).begin(getattr(request.request, "scope", {}).get(ASKED_S) if waits else None)
            return function(_Call(shared, job, dict(zip(names, values, strict=True)), gr.Progress()))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    # gradio reads names, types and defaults from the signature; defaults may precede parameters without one.
    signature = [
        inspect.Parameter("request", kind, annotation=gr.Request),
        *(inspect.Parameter(one, kind, default=default, annotation=type) for one, type, default in parameters),
    ]
    result = returns[0] if len(returns) == 1 else tuple[returns]  # type: ignore[valid-type]
    endpoint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        signature, return_annotation=result, __validate_parameters__=False
    )
    endpoint.__annotations__ = {"request": gr.Request, **{one: type for one, type, _ in parameters}}
    endpoint.__name__, endpoint.__doc__ = name, function.__doc__
    queue: dict[str, Any] = WORK if waits else {"queue": False}
    gr.api(endpoint, api_name=name, api_description=inspect.getdoc(function), **queue)


@contextmanager
def _reported(gr: Any) -> Iterator[None]:
    """Convert exceptions to one-sentence errors of the response."""
    try:
        yield
    except StoppedError:
        raise gr.Error(STOPPED, print_exception=False) from None
    except InputError as error:
        raise gr.Error(controls.plain(str(error), for_programs=True), print_exception=False) from None
    except Exception as error:
        log.error("an API call failed", exc_info=error)
        raise gr.Error(BROKEN, print_exception=False) from None


class _Call:
    """One call: its session and job, arguments, and progress."""

    def __init__(self, shared: Shared, job: Job, values: Mapping[str, Any], progress: Any) -> None:
        self.shared, self.job, self.values, self._progress = shared, job, values, progress

    def tell(self, share: float, doing: str) -> None:
        self._progress(share, desc=doing)

    def file(self, name: str) -> str | None:
        """Path of an uploaded file; None if none is given."""
        return self._checked(name, self.values[name])

    def files(self, name: str) -> list[str]:
        """Paths of uploaded files."""
        given = self.values[name]
        if not isinstance(given, list):
            raise InputError(f"{name}: use a list of uploaded files.")
        return [path for path in (self._checked(name, one) for one in given) if path]

    def _checked(self, name: str, given: Any) -> str | None:
        if given is None:
            return None
        path = given.get("path") if isinstance(given, dict) else given
        cache = self.shared.sessions.cache.resolve()
        if not isinstance(path, str) or "\0" in path or not (found := Path(path).resolve()).is_relative_to(cache):
            raise InputError(
                f"{name}: is not an uploaded file; upload it first, and use the path that the upload returns."
            )
        if not found.is_file():
            raise InputError(f"{name}: is no longer there; upload it again.")
        return str(found)

    def answer(self, path: Path | None) -> dict[str, Any] | None:
        """A file in the response."""
        if path is None:
            return None
        address = f"/gradio_api/file={path}"
        return {"path": str(path), "url": address, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def settings(self, names: typing.Iterable[str]) -> dict[str, Any]:
        """Values of AnimateConfig's fields. Raises InputError if one has a wrong type."""
        return {name: _typed(name, self.values[name]) for name in names}

    def run_options(self) -> dict[str, Any]:
        """Arguments of jobs.animate besides photo, driver and settings."""
        asked = {"format": self.values["format"], "beside": bool(self.values["side_by_side"])}
        return {"limits": self.shared.limits, "tell": self.tell, **asked}

    def config(self, photo: str | None = None) -> AnimateConfig:
        """All settings of a run."""
        values = self.settings(controls.FIELDS)
        picture = self.file("background_picture")
        background = controls.PICTURE if picture else values["background"]
        values["background"] = controls.background_of(background, None, picture)
        return controls.config_of(values, model=self.shared.model, photo=photo)


def _typed(name: str, value: Any) -> Any:
    """Convert a JSON value to a field's type.

    Raises InputError if it has a wrong type, or is a model that is not a name: no file of this computer is read.
    """
    kind = controls.plain_type(name)
    if value is None and controls.is_optional(name):
        return None
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(map(str, value))
    if name == "model" and value not in MODELS:
        raise InputError(f"model {value}: use one of {', '.join(MODELS)}, or omit it.")
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not kind:
        wanted = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(kind, "a list")
        raise InputError(f"{name} {value!r}: use {wanted}{', or null' if controls.is_optional(name) else ''}.")
    return value


def _driver(call: _Call) -> str:
    """The driver: an uploaded file, a synthesized text, or a bundled motion.

    Raises InputError if none is given, or more than one.
    """
    name, text, voice = (call.values[one] for one in ("driver_name", "say", "voice"))
    driver = call.file("driver")
    given = [what for what, one in (("driver", driver), ("say", text), ("driver_name", name)) if one is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} are mutually exclusive" if given else "nothing drives the photo"
        raise InputError(f"{found}; pass one of driver (an uploaded file), say (a text) and driver_name.")
    if driver:
        return driver
    if text is not None:
        return synthesize_speech(call.job, str(text), None if voice is None else str(voice))
    if name not in registry.names():
        raise InputError(f"driver_name {name}: use one of {', '.join(registry.names())}, or upload a driver.")
    return str(name)


# Functions of the endpoints; their docstrings are the descriptions.


def _animate(call: _Call) -> Any:
    """Animate a photo, a video of a person, or an .avatar file.

    Give one of driver (an uploaded file), say (a text) and driver_name (a bundled motion, or idle). Returns the signed
    file, the side-by-side video if requested, and a report. The other parameters are those of `mimik animate`.
    """
    photo = call.file("photo")
    made = animate(call.job, photo, _driver(call), call.config(photo), **call.run_options())
    return call.answer(made.out), call.answer(made.beside), report_of(made)


def _animate_all(call: _Call) -> Any:
    """Animate several photos with the same driver, given as in animate.

    Returns a .zip of all signed files, the reports, and a list of the photos that were skipped, with the reasons.
    """
    batch = animate_photos(call.job, call.files("photos"), _driver(call), call.config(), **call.run_options())
    left_out = [{"photo": name, "reason": reason} for name, reason in batch.left_out]
    return call.answer(batch.archive), [report_of(one) for one in batch.made], left_out


def _learn(call: _Call) -> Any:
    """Learn a person from photos.

    Returns the .avatar file, or null if learning improved nothing; a description of the result; and the loss curve.
    """
    seconds = call.values["max_seconds"]
    if type(seconds) not in (int, float):
        raise InputError(f"max_seconds {seconds!r}: use a number.")
    limits, model = call.shared.limits, learner_model(call.shared)
    last = None
    with closing(
        learning(call.job, call.files("photos"), limits=limits, model=model, max_seconds=float(seconds))
    ) as news:
        for last in news:
            call.tell(last.share, last.doing)
    assert last is not None
    return call.answer(last.out), last.doing, [point._asdict() for point in last.curve]


def _edit(call: _Call) -> Any:
    """Edit the expression, gaze and pose of a photo. Returns a signed picture. Parameters as in `mimik edit`."""
    photo = call.file("photo")
    values = {name: call.values[name] for name in SLIDERS}
    for name, value in values.items():
        if type(value) not in (int, float):
            raise InputError(f"{name} {value!r}: use a number.")
    settings = call.settings(EDIT_SETTINGS)
    config = controls.config_of(settings, model=call.shared.model, photo=photo)
    return call.answer(save_edited(call.job.session, photo, Edit(**values), config, format=call.values["format"]))


def _verify(call: _Call) -> Any:
    """Check where a picture or video comes from. Returns the verdict in words, and all findings."""
    return verified(call.file("file"))


def _faces(call: _Call) -> Any:
    """List the faces of a photo with their number for `face`, box in pixels, and head pose."""
    return faces(call.file("photo"))


def _motions(call: _Call) -> Any:
    """List the bundled drivers: the motions, and idle."""
    return list(registry.names())


def _stop(call: _Call) -> Any:
    """Stop all running and queued jobs of this session."""
    call.job.session.stop()
    return STOPPED
