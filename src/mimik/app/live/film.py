"""A recorded call with a video file as the camera."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from mimik.animation.avatar import Avatar
from mimik.animation.report import Report
from mimik.app.live.call import Call
from mimik.app.live.controls import Controls
from mimik.app.live.recording import check_recording
from mimik.config import AnimateConfig, InputError, NoFaceError, counted
from mimik.face.landmarks import Image
from mimik.media import video
from mimik.pipeline import Progress, prefetch, silent
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Ingredient
from mimik.provenance.sealing import seal


def film(
    avatar: Avatar,
    camera: Path,
    out: Path,
    *,
    config: AnimateConfig | None = None,
    controls: Controls | None = None,
    force: bool = False,
    credentials: Credentials | None = None,
    progress: Progress = silent,
) -> Report:
    """Record a call with a video file as the camera, frame by frame: the live pipeline without camera and browser.

    Args:
        camera: a video; its sound is added.
        out: as in Recording.
        config, controls: as in Call.
        force: replace an existing file.
        credentials: signing key and certificate; None: this computer's own.

    Raises:
        InputError: if an argument is invalid, or the video shows no face; nothing is written then.
    """
    check_recording(out, force=force, inputs=[camera, *([avatar.photo] if avatar.photo else [])])
    if video.kind(camera) != "video":
        raise InputError(f"--camera {camera}: is a picture; use a video.")
    info = video.probe(camera)
    call = Call(avatar, config, controls)
    report = Report(
        str(out), str(avatar.photo or avatar.name), camera.name, call.config.model or avatar.model, *call.size, info.fps
    )
    total = None if info.duration_s is None else round(info.duration_s * info.fps)
    start = time.perf_counter()
    claim = call.claim(out.name, Ingredient.from_file("driver", camera))

    def shown() -> Generator[Image]:
        read = ((frame, number / info.fps) for number, frame in enumerate(video.read_frames(camera, fps=info.fps)))
        with closing(prefetch(read)) as frames, closing(call.every(frames)) as every:
            for one in every:
                report.num_frames += 1
                report.num_lost += one.face is None
                progress("animate", report.num_frames, total)
                yield one.labeled
        if report.num_lost == report.num_frames:
            raise NoFaceError(
                f"--camera {camera.name}: no face was found in it ({counted(report.num_frames, 'frame')}); use a video "
                "that shows one face from the front or half side most of the time."
            )

    sound = camera if info.has_audio else None
    with (
        seal(out, claim, credentials=credentials, force=force) as draft,
        draft.open_writer(*call.size, info.fps, audio_from=sound) as writer,
        closing(shown()) as images,
    ):
        for image in images:
            writer.write(image)
    report.has_audio = sound is not None
    report.seconds = round(time.perf_counter() - start, 3)
    report.ms_per_frame = call.clock.ms_per_frame(report.num_frames)
    return report
