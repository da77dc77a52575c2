"""The streaming pipeline: decoding, tracking, flow, network, painting and encoding run concurrently in threads.

Stages are connected by short queues, so memory does not grow with the length of the driver. The numerical libraries
release the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from numpy.typing import NDArray

from mimik.animation.report import Report
from mimik.animation.source_frame import SourceFrame
from mimik.config import AnimateConfig, counted
from mimik.face.landmarks import Image, Landmarker
from mimik.face.tracker import Tracker
from mimik.media import video
from mimik.motion.drivers.driver import Driver, DriverSettings, DrivingMotion
from mimik.motion.drivers.video import jump_note
from mimik.motion.frames import MotionFrame, Reference
from mimik.motion.retargeting import Retarget
from mimik.motion.smoothing import relative_to_photo_pose
from mimik.pipeline import Clock, Progress, pipeline_threads, prefetch, run_in_thread, silent
from mimik.provenance.marking import MarkedWriter


class Rendering:
    """Renders the frames of one person, driven by one driver."""

    def __init__(
        self,
        source: SourceFrame,
        driver: Driver,
        config: AnimateConfig,
        report: Report,
        landmarker: Landmarker,
        progress: Progress = silent,
    ) -> None:
        """Args:
        source: the person.
        driver: opened.
        config: the options.
        report: receives counts and notes.
        landmarker: for the driver.
        progress: called with a stage, completed frames, and the total or None if unknown.
        """
        self._source, self._driver, self._config, self._report = source, driver, config, report
        self._landmarker, self._progress = landmarker, progress
        self.clock = Clock()
        if source.note:
            report.notes.append(source.note)
        self.size = report.width, report.height = source.size

    def images(self) -> Generator[Image]:
        """The animated frames, uint8 RGB [H, W, 3]."""
        # Decompose the photo while the beginning of the driver is read.
        preparing = None if self._source.image.is_video else run_in_thread(self._source.prepare)
        with self._motion(self._config.smooth) as motion, pipeline_threads():
            if preparing is not None:
                preparing.result()
            self._note_scene()
            frames = motion.frames
            if self._config.motion == "relative":
                frames = relative_to_photo_pose(frames, self._driver.fps)
            yield from self._of_photo(motion.neutral, frames)
            self._report.notes += motion.notes

    def write(self, writer: MarkedWriter) -> None:
        """Write all frames; encoding runs concurrently with rendering."""
        self._progress("animate", 0, self._driver.num_frames)
        with closing(prefetch(self.images())) as images:
            for done, image in enumerate(images, start=1):
                with self.clock("encode"):
                    writer.write(image)
                self._progress("animate", done, self._driver.num_frames)

    def still(self) -> Image:
        """The single picture that results from a photo as driver."""
        with self._motion(smooth=0) as motion:
            every = list(motion.frames)
            self._note_scene()
            self._report.notes += motion.notes
            return next(self._of_photo(motion.neutral, iter([every[len(every) // 2]])))

    def _note_scene(self) -> None:
        scene = self._source.scene
        self._report.scene = "warp" if isinstance(scene, str) else "plate"
        if isinstance(scene, str) and self._config.scene == "auto" and not self._source.image.is_video:
            self._report.notes.append(f"the background moves with the head, because it {scene}")

    def _motion(self, smooth: float) -> DrivingMotion:
        return self._driver.motion(
            DriverSettings(
                landmarker=self._landmarker,
                face=self._config.driver_face,
                neutral_s=self._config.neutral,
                smooth=smooth,
                seed=self._config.seed,
                clock=self.clock,
                progress=self._progress,
            )
        )

    def _of_photo(self, reference: Reference, motion_frames: Iterator[MotionFrame]) -> Generator[Image]:
        if self._source.image.is_video:
            yield from self._of_video(reference, motion_frames)
            return
        moves = self._targets(motion_frames, self._source.retarget(reference))
        with closing(self._source.images(moves, self.clock)) as images:
            for motion_frame, image in images:
                self._count(motion_frame)
                yield image

    def _targets(
        self, motion_frames: Iterator[MotionFrame], retarget: Retarget
    ) -> Generator[tuple[MotionFrame, NDArray[Any]]]:
        for motion_frame in motion_frames:
            with self.clock("flow"):
                points = retarget(motion_frame)
            yield motion_frame, points

    def _of_video(self, reference: Reference, motion_frames: Iterator[MotionFrame]) -> Generator[Image]:
        """Every frame of the person's video, with its motion replaced by the driver's."""
        source = self._source
        retarget = source.retarget(reference)
        tracker = Tracker(Landmarker())  # the driver is tracked concurrently in another thread
        tracker.start(source.image.face)
        num_without = 0
        assert source.image.path is not None, "a video is a file"
        frames = prefetch(self.clock.each("decode", video.read_frames(source.image.path, fps=self._driver.fps)))
        with closing(frames):
            for motion_frame, frame in zip(motion_frames, frames, strict=False):
                image = source.view.apply(frame)
                with self.clock("track"):
                    found = tracker.track(frame)
                if found is None:
                    num_without += 1
                else:
                    with self.clock("flow"):
                        face = source.view.move(found)
                        warper = source.warper(face)
                        points = retarget(motion_frame, face)
                        flow = warper.flow(points)
                    with self.clock("paint"):
                        image = source.painter(image, face, warper).paint(flow, points)
                self._count(motion_frame)
                yield image
        if note := jump_note(tracker, source.image.name):
            self._report.notes.append(note)
        if num_without:
            self._report.notes.append(
                f"{source.image.name} shows no face in {counted(num_without, 'frame')}, kept unchanged"
            )
        if self._driver.num_frames and self._report.num_frames < self._driver.num_frames - 1:
            self._report.notes.append(f"{source.image.name} is shorter than the driver, and so is the result")

    def _count(self, motion_frame: MotionFrame) -> None:
        self._report.num_frames += 1
        self._report.num_lost += not motion_frame.seen
