"""mimik live and mimik web."""

from __future__ import annotations

import gc
import threading
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimik.animation.options import check_model
from mimik.app.cli.console import command, print_line, print_notes, print_report, verify_hint
from mimik.app.cli.options import Force, OnlyFields, Signing, local_credentials, parse_integer
from mimik.app.cli.progress import Display, working
from mimik.app.guard import check_host
from mimik.app.live.controls import AUTO, LIVE_SIZE, Controls
from mimik.app.serving import STUDIO_PORT, Serving
from mimik.app.web.sessions import Limits
from mimik.config import AnimateConfig, InputError, counted
from mimik.media import formats
from mimik.motion.kinds import check_person

if TYPE_CHECKING:
    from mimik.app.live.recording import Outlets
    from mimik.motion.drivers.udp import Receiver


@command("live")
def live_command(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="A photo of the person, or an .avatar file of `mimik learn`.")
    ],
    *,
    camera: Annotated[
        Path | None,
        typer.Option(metavar="VIDEO", help="Use this video as camera and write --record, without a page."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Record what is shown: a .mp4, .m4v or .mov file.")
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Instead of a camera, use data from another program: lines of blendshapes and head poses to "
            "udp://127.0.0.1:PORT, or a face tracker: livelink://HOST, ifacialmocap://HOST, vmc://HOST or "
            "openseeface://HOST, where HOST 0.0.0.0 listens to the network.",
        ),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Instead of a camera, speak this sound file, or - for 16-bit mono PCM from standard input.",
        ),
    ] = None,
    audio_rate: Annotated[
        int | None, typer.Option(parser=parse_integer, metavar="HZ", help="Sample rate of --audio -; 16000 if omitted.")
    ] = None,
    controls: Annotated[Controls, OnlyFields("mirror label quality")],
    config: Annotated[
        AnimateConfig,
        OnlyFields(
            "model device motion regions strength smooth size frame scene face teeth consent",
            size=LIVE_SIZE,
            frame="crop",
        ),
    ],
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Also provide the picture as a virtual camera.")
    ] = False,
    serving: Serving,
    force: Force = False,
    signing: Signing,
) -> None:
    """Be somebody else in a video call: your camera or voice drives a photo, in a page of your own browser.

    Another page, without controls, is for OBS. Every frame carries a visible label and an invisible watermark.
    """
    given = [name for name, one in (("--stream", stream), ("--camera", camera), ("--audio", audio)) if one is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are mutually exclusive; pass the one that drives the person.")
    if audio is None and audio_rate is not None:
        raise InputError(f"--audio-rate {audio_rate}: also pass --audio -.")
    if audio is not None and record is not None:
        raise InputError(
            f"--record {record}: calls are recorded without sound; `mimik animate PHOTO SPEECH -o OUT.mp4` writes a "
            "video that speaks."
        )
    if camera is not None and controls.quality != AUTO:
        raise InputError(f"--quality {controls.quality}: with --camera, all frames have full quality; omit it.")
    check_person(photo)
    formats.check_input(photo)
    if camera is not None:
        formats.check_input(camera)
    check_model(config.model)
    from mimik.app.live import recording
    from mimik.motion.drivers.trackers.address import is_tracker, parse_tracker
    from mimik.motion.drivers.udp import Receiver, parse_address

    listen: Callable[[], Receiver] | None = None
    if stream is not None and is_tracker(stream):
        listen = partial(Receiver.of_tracker, parse_tracker(stream))
    elif stream is not None:
        listen = partial(Receiver, *parse_address(stream))
    controls = replace(controls, regions=config.regions, strength=config.strength)
    outlets = recording.Outlets(record, virtual_camera, force, signing.credentials)
    if record is not None:
        recording.check_recording(record, force=force, inputs=[photo, *([camera] if camera else [])])
    if camera is not None:
        _render_to_file(photo, camera, config, controls, outlets)
    else:
        _call(photo, listen, (audio, audio_rate), config, controls, serving, outlets)


def _render_to_file(photo: Path, camera: Path, config: AnimateConfig, controls: Controls, to: Outlets) -> None:
    """Run a call with a video file as the camera."""
    from mimik.animation.avatar import Avatar
    from mimik.app.live import film
    from mimik.media import video

    if to.record is None:
        raise InputError(f"--camera {camera}: also pass --record OUT.mp4, or omit --camera to use your own camera.")
    if to.virtual_camera:
        raise InputError("--virtual-camera works with your own camera; omit --camera.")
    if video.kind(camera) != "video":
        raise InputError(f"--camera {camera}: is a picture; use a video.")
    with working(f"reading {photo.name}"):
        avatar = Avatar.from_photos([photo], face=config.face)
    with Display("frames").shown() as bars:
        how = film.film(
            avatar, camera, to.record, config=config, controls=controls, force=to.force, credentials=to.credentials,
            progress=bars,
        )  # fmt: skip
    print_report(how)


def _call(
    photo: Path,
    listen: Callable[[], Receiver] | None,
    sound: tuple[str | None, int | None],
    config: AnimateConfig,
    controls: Controls,
    serving: Serving,
    to: Outlets,
) -> None:
    """Serve the page of a call until it ends.

    Args: listen: opens the receiver of an external driver, instead of a camera; sound: arguments of open_audio.
    """
    from mimik.animation.avatar import Avatar
    from mimik.app import page, puppet
    from mimik.app.live import call as calls
    from mimik.app.live import talker

    page.check_page(serving)
    blocks = None if sound[0] is None else talker.open_audio(sound[0], sound[1])
    receiver = listen() if listen else None
    with working(f"reading {photo.name}"):
        avatar = Avatar.from_photos([photo], face=config.face)
        call: calls.Call
        if receiver:
            call = puppet.Puppet(avatar, receiver, config, controls)
        elif blocks is not None:
            call = talker.Talker(avatar, blocks, config, controls)
        else:
            call = calls.Call(avatar, config, controls)

    recorded = None
    try:
        with call, to.of(call) as recorded, page.served_page(call, serving, credentials=to.credentials) as served:
            has_camera = receiver is None and blocks is None
            if receiver:
                print_line(f"Send to:  {receiver.address}")
            elif has_camera:
                print_line(f"The call: {served.address}")
            print_line(f"{'For OBS:' if has_camera else 'See it:':9} {served.obs_address}")
            print_line("Press Ctrl-C to end it.")
            if serving.open_page:
                webbrowser.open_new_tab(served.address if has_camera else served.obs_address)
            page.wait(call)
    except KeyboardInterrupt:
        print_line("The call has ended.")
    if receiver and (receiver.mailbox.num_invalid or receiver.mailbox.num_late):
        box = receiver.mailbox
        print_notes(f"{counted(box.num_invalid, 'invalid line')}; {box.num_late} arrived too late")
    if len(call.num_frames) > 1:
        total = call.num_frames.total()
        parts = ", ".join(f"{one.value} {100 * num / total:.0f} %" for one, num in call.num_frames.most_common())
        print_line(f"Quality of the frames: {parts} (docs/live.md).")
    if recorded is not None and recorded.num_frames:
        print_line(f"{to.record}: recorded. {verify_hint(recorded.path)}")


@command("web")
def web_command(
    *,
    config: Annotated[AnimateConfig, OnlyFields("model")],
    serving: Annotated[Serving, OnlyFields(port=STUDIO_PORT)],
    limits: Annotated[Limits, OnlyFields("upload_mb seconds")],
) -> None:
    """Animate, learn, edit and verify in the browser, and over HTTP from other programs (docs/web.md)."""
    check_model(config.model)
    check_host(serving.host, serving.password)
    from mimik.app.web.server import served_studio

    local_credentials()
    try:
        with ExitStack() as app:
            with working("starting the app"):
                address = app.enter_context(served_studio(serving, model=config.model, limits=limits))
            print_line(f"The app: {address}")
            print_line("Press Ctrl-C to end it.")
            if serving.open_page:
                webbrowser.open_new_tab(address)
            threading.Event().wait()
    except KeyboardInterrupt:
        print_line("The app has ended; uploads and results of its visitors are removed.")
        gc.freeze()  # at exit, Python would search gradio's objects for garbage for a part of a second
