"""mimik live and mimik web."""

from __future__ import annotations

import shlex
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from mimik.app.cli.console import app, console, errors, example, guarded
from mimik.app.cli.options import (
    Certificate,
    Consent,
    Device,
    Force,
    Key,
    Model,
    Motions,
    PhotoFace,
    Regions,
    Size,
    Smooth,
    Strength,
    Teeth,
    View,
    decimal_number,
    parse_size,
    read_credentials,
    whole_number,
)
from mimik.app.cli.progress import Display, working
from mimik.config import AnimateConfig, InputError, parse_regions
from mimik.media import formats

if TYPE_CHECKING:
    from mimik.app import page


@app.command("live", epilog=example("mimik live"))
@guarded
def live_command(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="A photo of the person, or an .avatar file of `mimik learn`.")
    ],
    camera: Annotated[
        Path | None,
        typer.Option(
            metavar="VIDEO",
            help="Take this video for the camera and write --record, without a page.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Record what is shown: a .mp4, .m4v or .mov file.", show_default=False),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Take no camera but what another program sends: lines of blendshapes and head poses to "
            "udp://127.0.0.1:PORT, or a face tracker: livelink://HOST, ifacialmocap://HOST, vmc://HOST or "
            "openseeface://HOST, where HOST 0.0.0.0 listens to the network.",
            show_default=False,
        ),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Take no camera but speak this sound file, or with - the 16-bit mono PCM that a program pipes in.",
            show_default=False,
        ),
    ] = None,
    audio_rate: Annotated[
        int | None,
        typer.Option(parser=whole_number, metavar="HZ", help="Of --audio -; 16000 if not given.", show_default=False),
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Move as in a mirror.")] = False,
    label: Annotated[
        str, typer.Option(metavar="SIZE", help="Of the visible AI label: normal or small. It is always there.")
    ] = "normal",
    model: Model = None,
    device: Device = "auto",
    motion: Motions = "relative",
    regions: Regions = "all",
    strength: Strength = 1.0,
    smooth: Smooth = 0.5,
    size: Size = "512",
    frame: View = "crop",
    face: PhotoFace = None,
    teeth: Teeth = None,
    consent: Consent = None,
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Be a camera of this computer too, for other programs.")
    ] = False,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the page is served.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="0 takes any that is free.")] = 8764,
    password: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            envvar="MIMIK_PASSWORD",
            help="Needed to open the page; required unless served on localhost.",
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    force: Force = False,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Be somebody else in a video call: your camera or voice drives a photo, in a page of your own browser.

    Another page, without controls, is for OBS. Every frame carries a visible label and an invisible mark.
    """
    from mimik.app.live import controls as live_controls

    config = AnimateConfig(
        model=model,
        device=device,
        motion=motion,
        regions=parse_regions(regions),
        strength=strength,
        smooth=smooth,
        size=parse_size(size),
        frame=frame,
        face=face,
        teeth=teeth,
        consent=consent,
    )
    given = [name for name, one in (("--stream", stream), ("--camera", camera), ("--audio", audio)) if one is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other: give the one that shall drive the person.")
    if audio is None and audio_rate is not None:
        raise InputError(f"--audio-rate {audio_rate}: give --audio - too.")
    if audio is not None and record is not None:
        raise InputError(
            f"--record {record}: calls are recorded without sound; `mimik animate PHOTO SPEECH -o OUT.mp4` writes a "
            "video that speaks."
        )
    controls = live_controls.Controls(mirror=mirror, regions=config.regions, strength=strength, label=label)
    formats.check_file(photo)
    if camera is not None:
        formats.check_file(camera)
    from mimik.animation.avatar import Avatar
    from mimik.app.live import call as calls
    from mimik.app.live import film, recording, talker
    from mimik.media import video
    from mimik.motion.drivers.trackers.address import is_tracker, parse_tracker
    from mimik.motion.drivers.udp import Receiver, parse_address

    tracker = parse_tracker(stream) if stream is not None and is_tracker(stream) else None
    source = None if stream is None or tracker else parse_address(stream)
    credentials = read_credentials(certificate, key)
    if record is not None:
        recording.check_recording(record, force=force, inputs=[photo, *([camera] if camera else [])])
    if camera is not None:
        if record is None:
            raise InputError(f"--camera {camera}: give --record OUT.mp4 too, or leave it out to use your own camera.")
        if virtual_camera:
            raise InputError("--virtual-camera goes with your own camera; leave --camera out.")
        if video.kind(camera) != "video":
            raise InputError(f"--camera {camera}: is a picture; give a video.")
        with working(f"reading {photo.name}"):
            avatar = Avatar.from_photos([photo], face=config.face)
        with Display("frames").shown() as bars:
            made = film.film(
                avatar,
                camera,
                record,
                config=config,
                controls=controls,
                force=force,
                credentials=credentials,
                progress=bars,
            )
        sound = ", with sound" if made.has_audio else ""
        console.print(
            f"{escape(made.out)}: {made.num_frames} frames of {made.width}x{made.height} at {made.fps:g}/s{sound}, in "
            f"{made.seconds:.1f} s ({made.num_frames / made.seconds:.0f} frames a second). Signed: mimik verify "
            f"{escape(shlex.quote(made.out))}",
            soft_wrap=True,
        )
        return
    from mimik.app import guard, page, puppet

    guard.check_host(host, password)
    page.needed()
    blocks = None if audio is None else talker.open_sound(audio, audio_rate)
    receiver = Receiver.of_tracker(tracker) if tracker else Receiver(*source) if source else None
    with working(f"reading {photo.name}"):
        avatar = Avatar.from_photos([photo], face=config.face)
        call: calls.Call
        if receiver:
            call = puppet.Puppet(avatar, receiver, config, controls)
        elif blocks is not None:
            call = talker.Talker(avatar, blocks, config, controls)
        else:
            call = calls.Call(avatar, config, controls)

    has_no_camera = receiver is not None or blocks is not None

    def ready(served: page.Page) -> None:
        if receiver:
            console.print(f"Send to:  {escape(receiver.address)}", soft_wrap=True)
        if has_no_camera:
            console.print(f"See it:   {escape(served.obs_address)}", soft_wrap=True)
        else:
            console.print(f"The call: {escape(served.address)}", soft_wrap=True)
            console.print(f"For OBS:  {escape(served.obs_address)}", soft_wrap=True)
        console.print("Ctrl-C ends it.", soft_wrap=True)
        if open_page:
            webbrowser.open_new_tab(served.obs_address if has_no_camera else served.address)

    outlets = recording.Outlets(call, record, force=force, credentials=credentials, virtual_camera=virtual_camera)
    try:
        with call, outlets:
            page.serve(call, host=host, port=port, password=password, credentials=credentials, ready=ready)
    except KeyboardInterrupt:
        console.print("The call has ended.")
    if receiver and (receiver.mailbox.num_wrong or receiver.mailbox.num_late):
        box = receiver.mailbox
        errors.print(f"note: {box.num_wrong} lines could not be used, {box.num_late} came too late", soft_wrap=True)
    if record is not None and outlets.num_recorded:
        console.print(f"{escape(str(record))}: recorded. Signed: mimik verify {escape(shlex.quote(str(record)))}")


@app.command("web", epilog=example("mimik web"))
@guarded
def web_command(
    model: Model = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the app is served.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="0 takes any that is free.")] = 8765,
    password: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            envvar="MIMIK_PASSWORD",
            help="Required to use the app, with any user name; required unless it is served on localhost.",
        ),
    ] = None,
    max_mb: Annotated[int, typer.Option(parser=whole_number, metavar="MB", help="Size of an upload, at most.")] = 200,
    max_seconds: Annotated[
        float, typer.Option(parser=decimal_number, metavar="S", help="Length of a driving video, at most.")
    ] = 120.0,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the app in the browser, or serve it to programs only.")
    ] = True,
) -> None:
    """Animate, learn, edit and verify in the browser, and over HTTP from other programs (docs/web.md)."""
    from mimik.app import web

    limits = web.Limits(upload_mb=max_mb, seconds=max_seconds)

    def ready(address: str) -> None:
        console.print(f"The app: {escape(address)}", soft_wrap=True)
        console.print("Ctrl-C ends it.", soft_wrap=True)
        if open_page:
            webbrowser.open_new_tab(address)

    with working("starting the app"):
        web.needed()
    try:
        web.serve(host=host, port=port, password=password, model=model, limits=limits, ready=ready)
    except KeyboardInterrupt:
        console.print("The app has ended; what its visitors left is removed.")
