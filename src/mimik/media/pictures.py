"""Reading and writing of still pictures: uint8 RGB [H, W, 3], upright, sRGB."""

from __future__ import annotations

import functools
import io
import logging
import struct
import warnings
import zlib
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from mimik.config import MediaError
from mimik.media.containers import Rgb, open_container, reason_of, refuse_heif, video_stream, write_errors
from mimik.media.formats import IMAGE_SUFFIXES, StrPath, check_input

log = logging.getLogger(__name__)

FileKind = Literal["image", "video"]
MAX_MEGAPIXELS = 100  # of one picture; checked before decoding
MIN_SIDE_PX, MAX_SIDE_PX = 16, 16384  # sides of a written picture or video; the upper bound is that of x264
pillow_heif.register_heif_opener()  # the format of phone photos
# Formats that Pillow may try. Excluded: those that run other programs (EPS), that only identify files (MPEG, GRIB,
# HDF5) or that accept almost any bytes (TGA).
_USUAL_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM")  # their plugins are loaded by Image.preinit
_PICTURE_FORMATS = (
    *_USUAL_FORMATS,
    *("WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000", "ICO", "ICNS", "PCX", "PSD", "QOI", "SGI", "DDS"),
)
_ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")  # several pages of a TIFF or an MPO are not an animation
# Exceptions that Pillow's decoders raise on damaged files; found by flipping bytes.
PICTURE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, AssertionError, EOFError, LookupError),
    *(ArithmeticError, struct.error, zlib.error, Image.DecompressionBombError),
)


def kind(path: StrPath) -> FileKind:
    """Whether a file is a still picture or a video, determined by its content.

    An animated GIF, WebP, PNG or AVIF is a video; a multi-page TIFF is a picture.

    Raises:
        MediaError: if the file is missing, a folder, empty, sound only, or of an unsupported format.
    """
    return "image" if identify(Path(path)) == "still" else "video"


def identify(path: Path) -> Literal["still", "animation", "container"]:
    check_input(path)
    try:
        with open_picture(path) as image:
            return "animation" if _is_animated(image) else "still"
    except UnidentifiedImageError:
        pass
    refuse_heif(path)
    with closing(open_container(path)) as container:
        video_stream(container, path)
    return "container"


def read_image(path: StrPath) -> Rgb:
    """Read one picture, upright, in sRGB; of an animation, the first frame.

    The EXIF orientation is applied, embedded color profiles are converted to sRGB, transparency is composited on white,
    16-bit and float pictures are scaled to 0..255.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        MediaError: if the file is not a picture, is damaged, or is larger than MAX_MEGAPIXELS (checked before
            decoding).
    """
    path = Path(path)
    check_input(path)
    try:
        with open_picture(path) as image, warnings.catch_warnings(action="ignore"):
            check_megapixels(path, image.width, image.height)
            image.load()
            return _upright(to_rgb(image), image)
    except UnidentifiedImageError as error:
        if identify(path) == "container":
            raise MediaError(f"{path} is a video; use a picture (JPEG, PNG, WebP, TIFF).") from error
        raise
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError(f"{path} does not fit into memory; use a smaller picture.") from error
    except PICTURE_ERRORS as error:
        raise MediaError(f"{path} is damaged or incomplete ({reason_of(error)}); use an intact JPEG or PNG.") from error


@functools.cache
def _load_plugins() -> None:
    """Load the plugins for _PICTURE_FORMATS; Pillow would load all plugins for the first unknown format."""
    for name in ("WebP", "Tiff", "Avif", "Jpeg2K", "Ico", "Icns", "Pcx", "Psd", "Qoi", "Sgi", "Dds"):
        with suppress(ImportError):
            import_module(f"PIL.{name}ImagePlugin")


def open_picture(path: Path) -> Image.Image:
    """Open a picture; reads only its header.

    Raises:
        UnidentifiedImageError: if the file is not a picture.
        MediaError: if the picture has a damaged header or an impossible size.
    """
    Image.preinit()
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's own limit is lower, and only warns
            with suppress(UnidentifiedImageError):
                return Image.open(path, formats=_USUAL_FORMATS)
            _load_plugins()
            return Image.open(path, formats=_PICTURE_FORMATS)
    except UnidentifiedImageError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path} has more than {MAX_MEGAPIXELS} megapixels; use a smaller picture.") from error
    except PICTURE_ERRORS as error:
        raise MediaError(f"{path} has a damaged header ({reason_of(error)}); use an intact JPEG or PNG.") from error


def check_megapixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise MediaError(
            f"{path} has {width * height / 1e6:.0f} megapixels ({width}x{height}); "
            f"use a picture of at most {MAX_MEGAPIXELS} megapixels."
        )


def _is_animated(image: Image.Image) -> bool:
    try:
        return image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False)
    except PICTURE_ERRORS:  # no intact second frame
        return False


def to_rgb(image: Image.Image) -> Rgb:
    """Convert a loaded Pillow image of any mode to uint8 RGB [H, W, 3] in sRGB, composited on white."""
    if image.mode == "F" or image.mode.startswith("I"):
        gray = _to_8_bit(np.asarray(image))
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)

    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        image_rgb = _to_srgb(rgba.convert("RGB"), image.info.get("icc_profile"))
    else:
        image_rgb = _to_srgb(image, image.info.get("icc_profile"))
    rgb = np.array(image_rgb)
    return rgb if alpha is None else on_white(rgb, alpha)


def in_memory(picture: Any) -> Rgb:
    """Convert a picture in memory to uint8 RGB [H, W, 3], upright, composited on white.

    Args:
        picture: a Pillow image, or a uint8 array: [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] gray.

    Raises:
        MediaError: if it is neither.
    """
    accepted = "use a path, a Pillow image, or a uint8 RGB array [H, W, 3]"
    if isinstance(picture, Image.Image):
        check_megapixels(Path("the image"), picture.width, picture.height)
        return _upright(to_rgb(picture), picture)
    if not isinstance(picture, np.ndarray):
        raise MediaError(f"{type(picture).__name__} is not a picture; {accepted}.")
    described = f"an array {picture.dtype} {list(picture.shape)}"
    if picture.dtype != np.uint8:
        raise MediaError(f"{described} is not a picture: its values must be uint8, 0 to 255; {accepted}.")
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    if picture.ndim != 3 or picture.shape[2] not in (3, 4) or min(picture.shape[:2]) < 1:
        raise MediaError(f"{described} is not a picture; {accepted}.")
    if picture.shape[2] == 4:
        return on_white(picture[..., :3], picture[..., 3])
    return np.ascontiguousarray(picture)


def _to_8_bit(gray: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert [H, W] 16- or 32-bit integers or floats to uint8; white is set by the type, else by the data."""
    if gray.dtype == np.uint16:
        return np.rint(gray / np.float32(257)).astype(np.uint8)
    values = np.nan_to_num(gray.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(values.max())
    whites = (1.0, 255.0, 65535.0) if gray.dtype.kind == "f" else (255.0, 65535.0)
    white = next((white for white in whites if peak <= white), peak)
    return np.rint(np.clip(values / white, 0.0, 1.0) * 255).astype(np.uint8)


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert to mode RGB in sRGB; uses the embedded profile if it is usable."""
    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if image.mode in ("P", "PA", "1", "YCbCr", "HSV", "LA", "La", "RGBX"):
        image = image.convert("RGB")
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = profile.profile.xcolor_space.strip()
            if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space) == image.mode:
                converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
                assert converted is not None
                return converted
        except (ImageCms.PyCMSError, *PICTURE_ERRORS) as error:
            log.warning("unusable color profile ignored (%s)", reason_of(error))
    return image.convert("RGB")


def on_white(rgb: Rgb, alpha: NDArray[np.uint8]) -> Rgb:
    """Composite rgb [H, W, 3] on white; alpha [H, W] is straight."""
    weight = alpha.astype(np.float32)[..., None] / 255
    return np.rint(rgb * weight + 255 * (1 - weight)).astype(np.uint8)


def _upright(rgb: Rgb, image: Image.Image) -> Rgb:
    """Apply the remaining EXIF orientation (Pillow applies that of a TIFF while loading)."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except PICTURE_ERRORS:
        orientation = 1
    # (transpose, mirror x, mirror y); EXIF 2.32, Sec. 4.6.4, tag 274.
    turns = {2: (False, True, False), 3: (False, True, True), 4: (False, False, True), 5: (True, False, False)}
    turns |= {6: (True, True, False), 7: (True, True, True), 8: (True, False, True)}
    return Turn(*turns[orientation])(rgb) if orientation in turns else rgb


@dataclass(frozen=True)
class Turn:
    """Rotation of a stored picture for display: transpose, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, rgb: Rgb) -> Rgb:
        if self.transpose:
            rgb = cv2.transpose(rgb)
        if self.mirror_x or self.mirror_y:
            rgb = cv2.flip(rgb, -1 if self.mirror_x and self.mirror_y else int(self.mirror_x))
        return rgb

    @property
    def degrees(self) -> int:
        """Clockwise rotation; for a mirrored picture, the nearest rotation."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0


def write_image(path: StrPath, rgb: Rgb) -> None:
    """Write uint8 RGB [H, W, 3] as .png (lossless), .jpg/.jpeg (quality 95, full chroma) or .webp (quality 95).

    .png and .webp also take RGBA [H, W, 4].

    Raises:
        MediaError: if the suffix is not one of these, the size is impossible or the file cannot be written.
    """
    path = Path(path)
    assert rgb.dtype == np.uint8 and rgb.ndim == 3, "rgb must be uint8 [H, W, 3]"
    assert rgb.shape[2] == 3 or (rgb.shape[2] == 4 and path.suffix.lower() in (".png", ".webp")), (
        f"{path}, {rgb.shape[2]} channels"
    )
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise MediaError(f"{path}: pictures are written as {', '.join(IMAGE_SUFFIXES)}; choose one of these.")
    check_size(path, rgb.shape[1], rgb.shape[0])
    save_image(path, rgb, {"compress_level": 6}, {"quality": 95})


def save_image(path: Path, rgb: Rgb, png: dict[str, Any], webp: dict[str, Any]) -> None:
    options = {".png": ("PNG", png), ".webp": ("WEBP", webp)}
    name, settings = options.get(path.suffix.lower(), ("JPEG", {"quality": 95, "subsampling": 0}))
    with write_errors(path):
        Image.fromarray(np.ascontiguousarray(rgb)).save(path, name, **settings)


def check_size(path: Path, width: int, height: int, max_side_px: int = MAX_SIDE_PX) -> None:
    if not (MIN_SIDE_PX <= width <= max_side_px and MIN_SIDE_PX <= height <= max_side_px):
        raise MediaError(
            f"{path} would be {width}x{height} pixels; each side must be {MIN_SIDE_PX} to {max_side_px}, "
            "choose another size."
        )
