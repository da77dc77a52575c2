"""A source image prepared for animation: its view, warper and painter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mimik.animation.source_image import SourceImage
from mimik.config import BLUR, AnimateConfig, InputError, Quality
from mimik.face.landmarks import Array, Face, Image, head_pose
from mimik.inference.synthesis import PersonalizedGenerator, painter_of
from mimik.inference.windows import window_around
from mimik.media import video
from mimik.motion.frames import Reference
from mimik.motion.retargeting import Retarget
from mimik.pipeline import NUM_AT_ONCE, QUEUE_FRAMES, Clock, prefetch, run_in_thread
from mimik.rendering.crop import Crop
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.layers.canvas import Box, Canvas
from mimik.rendering.layers.teeth import TeethSet
from mimik.rendering.painters import NO_NETWORK, PicturePainter, Prepared
from mimik.rendering.scene import matte
from mimik.rendering.scene.background import EdgeLimit, LayeredPainter, Scene, before, decompose_photo
from mimik.rendering.scene.neck import Neck
from mimik.rendering.several import SharedPainter

Moved = TypeVar("Moved")
MAX_VIDEO_SIDE = 4096  # larger videos need an H.264 level that few players support
_CROP_SHOWN = 0.8  # share of the flow's square that --frame crop shows: its border does not move
_AROUND_SCALE = 3.6  # side of the square around it that may move into it, as Crop.around's scale
_SMALL = 0.75  # sides of the frames of Quality.SMALL
APERTURES = np.array([(13, 14), (159, 145), (386, 374)])  # points: inner lips, lids
MOST_OPENED = 0.015  # change of an aperture, sides of the network's window, that the outputs before do not fit


class SourceFrame:
    """A source image prepared for animation, with view, warper and painter; used by videos, calls and edits."""

    def __init__(
        self,
        image: SourceImage,
        config: AnimateConfig,
        generator: PersonalizedGenerator | None,
        backdrop: Image | str | None = None,
        *,
        limit_side: bool = False,
        teeth: Callable[[], TeethSet | None] = lambda: None,
        others: Sequence[SourceImage] = (),
    ) -> None:
        """Args:
        image: of the person.
        config: view, size, and options of retargeting.
        generator: of the person; None for "geometry".
        backdrop: replacement background, from read_backdrop.
        limit_side: for a video: even sides, and no more pixels than common players support.
        teeth: returns the teeth to use if the image does not show any; None: chosen from the shipped sets.
        others: further photos of the person, with which each frame's face is averaged; see rendering.several.
        """
        self._other_images = others
        self._config, self._generator, self._backdrop, self._teeth = config, generator, backdrop, teeth
        height, width = image.picture.shape[:2]
        self.image = image
        self.view = View.of(width, height, image.face, config, MAX_VIDEO_SIDE if limit_side else None)
        # What is outside the view may move into it, and tells the person from the background.
        is_whole = image.is_video or (generator is not None and generator.config.form == "paper")
        self._around, self._shown = (self.view, None) if is_whole else self.view.around(width, height, image.face)
        self._corner = 0 if self._shown is None else self._shown.corner
        self._face_around = self._around.move(image.face)
        self.face = replace(self._face_around, points=self._face_around.points - np.float32(self._corner))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.view.width, self.view.height

    @property
    def qualities(self) -> tuple[Quality, ...]:
        """Those that differ for this person and model."""
        if self._generator is None or self._generator.config.form == "paper":
            return Quality.FULL, Quality.SMALL
        return tuple(Quality)

    @property
    def note(self) -> str | None:
        """A note for the user about the size."""
        return self.view.note

    @functools.cached_property
    def picture(self) -> Image:
        """The photo in this view, uint8 RGB [H, W, 3]."""
        picture = self._picture_around
        return picture if self._shown is None else np.ascontiguousarray(self._shown.part(picture))

    @functools.cached_property
    def _picture_around(self) -> Image:
        """The photo in this view and around it."""
        return self._around.apply(self.image.picture)

    @functools.cached_property
    def scene(self) -> Scene | str:
        """The photo decomposed into a still background and the person; or the reason why it is not."""
        if self.image.is_video:
            return "belongs to a video"
        if self._config.scene == "warp":
            return "was requested by --scene warp"
        if self._generator is not None and self._generator.config.form == "paper":
            return "is painted by this model"
        return decompose_photo(self._picture_around, self._face_around.points)

    @functools.cached_property
    def photo_warper(self) -> Warper:
        """The warper of the photo and what is around the view."""
        if isinstance(self.scene, str):
            return self.warper(self._face_around)
        return self.scene.warper(self._face_around.points, self._teeth())

    def warper(self, face: Face) -> Warper:
        """The warper of a frame of the person's video; face: in it."""
        return Warper(face.points, self._around.width, self._around.height, teeth=self._teeth())

    @functools.cached_property
    def _painter(self) -> PicturePainter:
        if not self._other_images:
            return self._first_painter
        faces = [self.image.face, *(other.face for other in self._other_images)]
        return SharedPainter(self._first_painter, self._others, [face.points for face in faces], self._corner)

    @functools.cached_property
    def _first_painter(self) -> PicturePainter:
        scene, face = self.scene, self._face_around
        if isinstance(scene, str):
            return self.painter(self._picture_around, face, self.photo_warper, is_reused=True)
        if self._backdrop is not None:
            return self._backdrop_painter(self._picture_around, scene.alpha, face, self.photo_warper, is_reused=True)
        painter = self._plain_painter(scene.front, face, self.photo_warper, is_reused=True, matte=scene.matte)
        return scene.over_plate(painter, self.picture, face.points, self._shown)

    @functools.cached_property
    def _others(self) -> list[tuple[Warper, PicturePainter]]:
        """Warpers and painters of the further photos, aligned to the face of the main photo."""
        found = []
        own = head_pose(self._face_around.points)
        size = self._around.width, self._around.height
        for other in self._other_images:
            pose = head_pose(other.face.points)
            k = own.scale / pose.scale
            shift = own.translation - k * pose.translation
            soft = other.picture if k >= 1 else cv2.GaussianBlur(other.picture, (0, 0), 0.4 / k)
            matrix = np.array([[k, 0, shift[0] + 0.5 * k - 0.5], [0, k, shift[1] + 0.5 * k - 0.5]])
            picture = cv2.warpAffine(soft, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            points = other.face.points * np.float32(k) + np.array([*shift[:2], 0], np.float32)
            face = replace(other.face, points=points)
            warper = self.warper(face)
            found.append((warper, self._plain_painter(picture, face, warper, is_reused=True)))
        return found

    def prepare(self) -> None:
        """Prepare everything that frames share, so that the first frame is not delayed."""
        _ = self.photo_warper, self._painter

    @functools.cached_property
    def _smaller(self) -> Future[SourceFrame]:
        """The source frame of Quality.SMALL, which is prepared in a thread from the first access on."""

        def make() -> SourceFrame:
            config = replace(self._config, size=round(_SMALL * max(self.size)))
            smaller = SourceFrame(
                self.image,
                config,
                self._generator,
                self._backdrop,
                limit_side=True,
                teeth=self._teeth,
                others=self._other_images,
            )
            smaller.prepare()
            return smaller

        return run_in_thread(make)

    @functools.cached_property
    def _limit(self) -> EdgeLimit | None:
        return None if isinstance(self.scene, str) else EdgeLimit(self._face_around.points, self.scene.alpha)

    @property
    def background(self) -> str | None:
        """Kind of the replacement background in a word; None for the photo's own."""
        if self._backdrop is None or isinstance(self._backdrop, str):
            return self._backdrop
        return "colour" if self._backdrop.shape[:2] == (1, 1) else "picture"

    def painter(self, picture: Image, face: Face, warper: Warper, *, is_reused: bool = False) -> PicturePainter:
        """A painter for another picture of the same size, such as a frame of the person's video.

        Args: is_reused: whether many frames are painted; see rendering.painter.Painter.
        """
        if self._backdrop is None:
            return self._plain_painter(picture, face, warper, is_reused=is_reused)
        alpha = matte.person_matte(picture, face.points)
        return self._backdrop_painter(picture, alpha, face, warper, is_reused=is_reused)

    def _backdrop_painter(
        self, picture: Image, alpha: Array, face: Face, warper: Warper, *, is_reused: bool
    ) -> PicturePainter:
        behind: Image | None = None
        box = self._shown or Box.of(picture)
        if isinstance(self._backdrop, np.ndarray):
            behind = matte.covering(self._backdrop, *self.size)
        elif self._backdrop == BLUR:
            behind = matte.blurred(box.part(picture), box.part(alpha))
        canvas = Canvas.of(picture, warper.crop)
        front = before(picture, alpha, canvas, behind, box)
        painter = self._plain_painter(front, face, warper, is_reused=is_reused, matte=matte.in_bytes(alpha))
        neck = Neck(front, alpha, face.points), box
        return LayeredPainter(painter, box.part(alpha), canvas.within(box), behind, neck=neck)

    def _plain_painter(
        self, picture: Image, face: Face, warper: Warper, *, is_reused: bool, matte: NDArray[np.uint8] | None = None
    ) -> PicturePainter:
        options: dict[str, Any] = {"is_reused": is_reused, "matte": matte, "shown": self._shown}
        return painter_of(self._generator, picture, face.points, warper, **options)

    def retarget(
        self,
        reference: Reference,
        *,
        regions: Sequence[str] | None = None,
        strength: float | None = None,
        exact: bool = False,
    ) -> Retarget:
        """The retargeting from a driver with this neutral reference to the person.

        Args: regions, strength: None: those of the config; exact: as in Retarget.
        """
        config = self._config
        return Retarget(
            self.face,
            reference,
            mode=config.motion,
            regions=config.regions if regions is None else regions,
            strength=config.strength if strength is None else strength,
            exact=exact,
            limit=None if self._limit is None else self._limited,
        )

    def _limited(self, points: NDArray[Any]) -> NDArray[Any]:
        """Face points [478, 3] in pixels of the view, shifted back to where EdgeLimit permits."""
        assert self._limit is not None
        return self._limit(points + self._corner) - self._corner

    def flow(self, points: NDArray[Any]) -> Flow:
        """The flow to face points [478, 3], in pixels of the view."""
        return self.photo_warper.flow(points + self._corner)

    def paint(self, flow: Flow, points: NDArray[Any]) -> Image:
        """The frame with face points [478, 3], uint8 RGB [H, W, 3]."""
        return self.finish(self.prepared(flow, points))

    def prepared(self, flow: Flow, points: NDArray[Any], outputs: Any = None, share: float = 1.0) -> Prepared:
        """The first step of painting a frame: layers and network; outputs, share: as in PicturePainter.prepare."""
        return self._painter.prepare(flow, points + self._corner, outputs, share)

    def finish(self, prepared: Prepared) -> Image:
        """The second step: composite the picture."""
        return self._painter.finish(prepared)

    def _fits(self, points: NDArray[Any], later: NDArray[Any]) -> bool:
        """Whether the network's outputs for face points [478, 3] fit later ones: lips and lids are about as open."""
        opened = [np.linalg.norm(p[APERTURES[:, 0], :2] - p[APERTURES[:, 1], :2], axis=1) for p in (points, later)]
        return bool(np.abs(opened[1] - opened[0]).max() < MOST_OPENED * window_around(self.face.points).side)

    def images(
        self,
        moves: Generator[tuple[Moved, NDArray[Any] | None]],
        clock: Clock,
        *,
        ahead: int = QUEUE_FRAMES,
        quality: Callable[[Moved], Quality] = lambda _: Quality.FULL,
        share: Callable[[Moved], float] = lambda _: 1.0,
    ) -> Generator[tuple[Moved, Image]]:
        """Render a stream in order; several frames are rendered concurrently in threads.

        Args:
            moves: pairs of any object, which is returned with its frame, and the face points [478, 3]; None: the photo.
                If consecutive items have the identical array, the frame is rendered once.
            clock: for the stages "flow", "predict" and "paint".
            ahead: largest number of frames that are queued or being rendered, besides the one being returned.
            quality: of an item's frame; WARP is used instead of SMALL until the smaller photo is prepared.
            share: of the network's prediction in an item's frame, 0..1.
        """

        def frame(
            points: NDArray[Any], how: Quality, weight: float, kept: Future[Any] | None, own: Future[Any]
        ) -> Image:
            outputs = None
            try:
                source = self
                if how is Quality.SMALL:
                    source = self._smaller.result()
                    points = points * (source.size[0] / self.size[0])
                with clock("flow"):
                    flow = source.flow(points)
                if how in (Quality.WARP, Quality.SMALL):
                    outputs = NO_NETWORK
                elif kept is not None:
                    outputs = kept.result()
                with clock("predict"):
                    prepared = source.prepared(flow, points, outputs, weight)
                    outputs = prepared.outputs
            finally:
                own.set_result(outputs)  # also after an error, because another thread waits for it
            with clock("paint"):
                return source.finish(prepared)

        def submitted(pool: ThreadPoolExecutor) -> Generator[tuple[Moved, Future[Image] | None]]:
            making: Future[Image] | None = None
            held = None
            before: tuple[Future[Any], NDArray[Any]] | None = None  # outputs and points of the last run of the network
            with closing(moves):
                for what, points in moves:
                    if points is None:
                        making = before = None
                    elif points is not held:
                        how, own = quality(what), Future[Any]()
                        if how is Quality.SMALL and not self._smaller.done():
                            how = Quality.WARP
                        kept = None
                        if how is Quality.HALF and before is not None and self._fits(before[1], points):
                            kept = before[0]
                        making = pool.submit(frame, points, how, share(what), kept, own)
                        runs = kept is None and how in (Quality.FULL, Quality.HALF)
                        before = (own, points) if runs else None
                    held = points
                    yield what, making

        with ThreadPoolExecutor(min(NUM_AT_ONCE, ahead + 1)) as pool:
            try:
                with closing(prefetch(submitted(pool), ahead)) as every:
                    for what, making in every:
                        yield what, self.picture if making is None else making.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def read_backdrop(image: SourceImage, background: str | None) -> Image | str | None:
    """The replacement background; see matte.backdrop. None: the photo's own background.

    Raises InputError if the background cannot be used, or not with this image.
    """
    if background is None:
        return None
    if image.is_video:
        raise InputError(
            f"--background {background}: {image.name} is a video, and --background works on photos only; use "
            "a photo, or omit --background."
        )
    return matte.backdrop(background, video.read_image)


@dataclass(frozen=True)
class View:
    """A view of the photo: a rectangle in photo pixels, and the width and height to which it is resized."""

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    note: str | None = None

    @classmethod
    def of(cls, width: int, height: int, face: Face, config: AnimateConfig, max_side: int | None) -> View:
        left, top, right, bottom = 0, 0, width, height
        if config.frame == "crop":
            crop = Crop.around(face.points)
            side = min(round(crop.side * _CROP_SHOWN), width, height)
            middle = np.array([crop.left, crop.top]) + crop.side / 2
            left, top = (int(np.clip(m - side / 2, 0, n - side)) for m, n in zip(middle, (width, height), strict=True))
            right, bottom = left + side, top + side
        shown = right - left, bottom - top
        longer = config.size or max(shown)
        note = None
        if max_side is not None and longer > max_side:
            note = f"the video's longer side is {max_side} px instead of {longer}: many players do not support more"
            longer = max_side
        k = longer / max(shown)
        # Chroma subsampling needs even sizes.
        step = 1 if max_side is None else 2
        new_width, new_height = (max(step, round(n * k) // step * step) for n in shown)
        return cls(left, top, right, bottom, new_width, new_height, note)

    def around(self, width: int, height: int, face: Face) -> tuple[View, Box | None]:
        """A larger view of the same scale, as far as the photo reaches, and the box of this view in it.

        Args: width, height: of the photo; face: in it.
        """
        crop = Crop.around(face.points, _AROUND_SCALE)
        low = np.floor([crop.left, crop.top]).astype(int)
        high = np.ceil([crop.left + crop.side, crop.top + crop.side]).astype(int)
        left, top = np.minimum(low.clip(0), [self.left, self.top]).tolist()
        right, bottom = np.maximum(np.minimum(high, [width, height]), [self.right, self.bottom]).tolist()
        if (left, top, right, bottom) == (self.left, self.top, self.right, self.bottom):
            return self, None
        k = self._scale
        wide = View(left, top, right, bottom, round((right - left) * k), round((bottom - top) * k))
        x = min(round((self.left - left) * wide._scale), wide.width - self.width)
        y = min(round((self.top - top) * wide._scale), wide.height - self.height)
        return wide, Box(x, y, self.width, self.height)

    @property
    def _scale(self) -> float:
        """Pixels of the view per pixel of the photo."""
        k = self.width / (self.right - self.left)
        return 1.0 if abs(k - 1) < 2 / self.width else k  # cropped to even sizes, not scaled

    def apply(self, picture: Image) -> Image:
        part = picture[self.top : self.bottom, self.left : self.right]
        if part.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(part)
        if 0 <= part.shape[0] - self.height <= 1 and 0 <= part.shape[1] - self.width <= 1:
            return np.ascontiguousarray(part[: self.height, : self.width])
        smaller = self.width < part.shape[1]
        return cv2.resize(part, (self.width, self.height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)

    def move(self, face: Face) -> Face:
        """The face in pixels of the view."""
        k = self._scale
        points = (face.points - np.array([self.left, self.top, 0], np.float32)) * np.float32(k)
        return replace(face, points=points)
