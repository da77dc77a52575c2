"""One photo with another expression, gaze or pose, by numbers instead of a driver."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mimik.animation.avatar import Avatar
from mimik.config import AnimateConfig, InputError, check_number
from mimik.face import landmarks as faces
from mimik.face.landmarks import BLENDSHAPES, Image, canonical_mesh, mirror_order
from mimik.motion.gestures import (
    Float,
    Gesture,
    Reference,
    expression_basis,
    region_weights,
    rotation_matrix,
    rotation_vector,
    still,
)
from mimik.provenance.credentials import Credentials
from mimik.provenance.manifests import Claim
from mimik.provenance.sealing import check_output, seal


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is changed in a photo; zero everywhere leaves it as it is. Every message names the option it is about."""

    smile: float = 0.0  # -1 (corners down) .. 1
    mouth: float = 0.0  # 0 .. 1 open
    blink: float = 0.0  # -1 (wide) .. 1 shut
    brows: float = 0.0  # -1 (down) .. 1 raised
    gaze_x: float = 0.0  # -1 .. 1, to the picture's right
    gaze_y: float = 0.0  # -1 .. 1, down
    yaw: float = 0.0  # degrees, to the picture's right
    pitch: float = 0.0  # degrees, down
    roll: float = 0.0  # degrees, clockwise

    def __post_init__(self) -> None:
        for one in fields(self):
            low, high, hint = SLIDERS[one.name]
            check_number(f"--{one.name.replace('_', '-')}", getattr(self, one.name), low, high, hint)


PICTURES = (".png", ".jpg", ".jpeg", ".webp")

# Lowest, highest, and what they mean.
SLIDERS: dict[str, tuple[float, float, str]] = {
    "smile": (-1, 1, "-1 lets the corners of the mouth hang, 1 is a broad smile"),
    "mouth": (0, 1, "1 is wide open"),
    "blink": (-1, 1, "1 shuts the eyes, -1 opens them wide"),
    "brows": (-1, 1, "1 raises the brows, -1 lowers them"),
    "gaze_x": (-1, 1, "1 looks to the picture's right, -1 to its left"),
    "gaze_y": (-1, 1, "1 looks down, -1 up"),
    "yaw": (-30, 30, "degrees; turns the head to the picture's right"),
    "pitch": (-20, 20, "degrees; nods down"),
    "roll": (-30, 30, "degrees; tilts the head clockwise"),
}

# Blendshapes at 1 of the slider, and the region that may move: what the basis says of other regions is chance.
_SHAPES: dict[str, tuple[dict[str, float], str]] = {
    "smile": ({"mouthSmile": 0.85, "mouthUpperUp": 0.15}, "lips"),
    "mouth": ({"jawOpen": 0.55}, "lips"),
    "brows": ({"browInnerUp": 0.7, "browOuterUp": 0.9}, "brows"),
}
_GAZE_CM = np.array([0.45, 0.3])  # how far an iris moves; an eye is 3 cm wide
_LID_FOLLOWS = 0.55  # of the iris' way up or down
_UPPER_LID = 0.85  # of a closing eye's way is the upper lid's
_WIDE = 0.35  # of the eye's opening is added by --blink -1


def gesture_of(edit: Edit, shape: Float) -> Gesture:
    """What a face of this shape does when it is edited.

    Args:
        edit: the changes.
        shape: [478, 3] centimetres, the person's face in its own frame.
    """
    offset = np.zeros_like(shape)
    mesh = canonical_mesh().vertices
    weights = region_weights()
    scale = float(np.linalg.norm(shape[61] - shape[291]) / np.linalg.norm(mesh[61] - mesh[291]))
    for name, (shapes, region) in _SHAPES.items():
        amount = getattr(edit, name)
        movement = _symmetric(shapes)
        if amount < 0:
            # Corners that hang do not come together, and brows have less way down than up.
            movement = movement * ([0.0, 0.6, 0.0] if name == "smile" else 0.6)
        offset += amount * scale * movement * weights[region][:, None]

    # Gaze: the irises, and the lids with them when it rises or falls.
    eye_cm = np.mean([np.linalg.norm(shape[a] - shape[b]) for a, b in ((33, 133), (362, 263))])
    gaze = np.array([edit.gaze_x, edit.gaze_y]) * _GAZE_CM * (eye_cm / 3)
    offset[faces.IRISES, :2] += gaze
    for upper, lower in (
        (faces.RIGHT_EYE_UPPER, faces.RIGHT_EYE_LOWER),
        (faces.LEFT_EYE_UPPER, faces.LEFT_EYE_LOWER),
    ):
        arch = np.sin(np.linspace(0, np.pi, len(upper)))[:, None]
        offset[upper, 1:2] += _LID_FOLLOWS * gaze[1] * arch
        offset[lower, 1:2] += 0.3 * _LID_FOLLOWS * gaze[1] * arch
        opening = (shape[lower] + offset[lower]) - (shape[upper] + offset[upper])
        closed = edit.blink if edit.blink > 0 else edit.blink * _WIDE
        offset[upper] += _UPPER_LID * closed * opening
        offset[lower] -= (1 - _UPPER_LID) * closed * opening

    # x to the right, y down, z away: a positive turn about x lifts the chin, about y takes the nose to the left.
    turn = np.eye(3)
    for axis, degrees in ((0, edit.pitch), (1, -edit.yaw), (2, edit.roll)):
        turn = rotation_matrix(np.radians(degrees) * np.eye(3)[axis]) @ turn
    neutral = still()
    return Gesture(rotation_vector(turn), neutral.shift, 0.0, offset, neutral.blendshapes)


def _symmetric(shapes: dict[str, float]) -> Float:
    """[478, 3] the basis' movement for blendshapes of both sides, mean of it and its mirror image."""
    values = np.zeros(len(BLENDSHAPES))
    for name, value in shapes.items():
        for side in ("", "Left", "Right"):
            if name + side in BLENDSHAPES:
                values[BLENDSHAPES.index(name + side)] = value
    movement = expression_basis().expression(values)
    return (movement + movement[mirror_order()[0]] * [-1, 1, 1]) / 2


class Editor:
    """A person whose photo answers to sliders."""

    def __init__(self, avatar: Avatar, config: AnimateConfig | None = None) -> None:
        """Args: avatar: the person; config: model, view and size; what it says of drivers is not used."""
        self._avatar, self._config = avatar, config or AnimateConfig()
        self._portrait = avatar.source_frame(self._config)
        pose = faces.head_pose(self._portrait.face.points)
        self._shape = pose.invert(self._portrait.face.points)
        reference = Reference(self._shape, pose.rotation, self._portrait.face.blendshapes.astype(np.float64))
        self._retarget = self._portrait.retarget(reference)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self._portrait.size

    def points(self, edit: Edit) -> Float:
        """Where the face's points go, [478, 3] pixels of the picture."""
        return self._retarget(gesture_of(edit, self._shape))

    def __call__(self, edit: Edit) -> Image:
        """The edited photo, uint8 RGB [H, W, 3]; neither signed nor marked: see write_sealed and provenance.Marker."""
        if edit == Edit():
            return self._portrait.picture.copy()
        points = self.points(edit)
        return self._portrait.paint(self._portrait.flow(points), points)

    def write_sealed(
        self, out: Path, edit: Edit, *, force: bool = False, credentials: Credentials | None = None
    ) -> None:
        """Writes an edited photo, sealed.

        Args:
            out: .png, .jpg, .jpeg or .webp.
            edit: the changes.
            force: replace what is there.
            credentials: who signs; this computer's own when None.

        Raises:
            InputError: if it cannot be written; nothing is left then.
        """
        settings: dict[str, Any] = {name: value for name, value in asdict(edit).items() if value}
        model = Path(self._config.model or self._avatar.model).name
        claim = Claim(
            out.name,
            model,
            self._avatar.ingredients(),
            settings,
            label=self._config.label,
            consent=self._config.consent,
        )
        with seal(out, claim, credentials=credentials, force=force) as draft:
            draft.write_image(self(edit))


def edit_photo(
    photo: str | Path,
    out: str | Path,
    edit: Edit,
    *,
    config: AnimateConfig | None = None,
    force: bool = False,
    credentials: Credentials | None = None,
) -> tuple[int, int]:
    """Edits a photo and writes a sealed picture.

    Args:
        photo: a picture, a video of the person, or an .avatar file.
        out, edit, force, credentials: as Editor.write_sealed takes them.
        config: model, view, size and which face.

    Returns:
        Width and height of the picture.

    Raises:
        InputError: if anything given cannot be used; nothing is written then.
    """
    config, path = config or AnimateConfig(), Path(out)
    if path.suffix.lower() not in PICTURES or "%" in path.name:
        raise InputError(f"-o {out}: an edit makes one picture; give a file ending in {', '.join(PICTURES)}.")
    check_output(path, force=force, inputs=[Path(photo)])
    editor = Editor(Avatar.from_photos([photo], face=config.face), config)
    editor.write_sealed(path, edit, force=force, credentials=credentials)
    return editor.size
