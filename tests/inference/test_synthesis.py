"""synthesis.py: network outputs for a small window are applied to the photo at full resolution, in the right place."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from conftest import turned
from mimik.config import PRESETS
from mimik.face.landmark_images import mouth_interior
from mimik.face.landmarks import Array, Face, Image
from mimik.inference.synthesis import (
    GeometryPainter,
    PaperPainter,
    Prediction,
    TexturePainter,
    _blend,
    _blend_under_detail,
    corrected,
    detail_kept,
    far_from_features,
    shaded_only,
    share_drawn,
    still_inside,
)
from mimik.inference.windows import clip_window, photo_windows, reduced, to_network_size, to_planes, window_around
from mimik.rendering.crop import Crop
from mimik.rendering.field import GRID
from mimik.rendering.flow import Flow, Warper
from mimik.rendering.painter import Painter
from mimik.rendering.painters import NO_NETWORK

CONFIG = PRESETS["texture"].networks
PX = CONFIG.image_px


@pytest.fixture(scope="module")
def warper(portrait_face: Face) -> Warper:
    return Warper(portrait_face.points, 512, 512)


@pytest.fixture(scope="module")
def target(portrait_face: Face) -> Array:
    return turned(portrait_face.points, 10, 4, 0)


@pytest.fixture(scope="module")
def flow(warper: Warper, target: Array) -> Flow:
    return warper.flow(target)


def answering(
    correction: tuple[float, float] = (0, 0), change: float = 0, mask: float = 1
) -> Callable[..., list[Array]]:
    """A network with constant outputs; correction in sides of the window, change in -2..2."""

    def generator(y: Array, warped: Array, geometry: Array) -> list[Array]:
        assert y.shape == warped.shape == (1, 3, PX, PX) and geometry.shape == (1, 4, PX // 2, PX // 2)
        assert -1 <= warped.min() < warped.max() <= 1
        half = PX // 2, PX // 2
        move = np.zeros((1, 2, *half), np.float32) + np.array(correction, np.float32)[:, None, None]
        return [move, np.full((1, 3, 2 * PX, 2 * PX), change, np.float32), np.full((1, 1, *half), mask, np.float32)]

    return generator


def painted(portrait: Image, face: Face, warper: Warper, flow: Flow, target: Array, **prediction) -> Image:
    return TexturePainter(portrait, face.points, warper, CONFIG, answering(**prediction)).paint(flow, target)


def test_outputs_of_a_frame_before_replace_the_network(portrait, portrait_face, warper, flow, target) -> None:
    """They lie in the window around the face: constant outputs give each frame what its own would."""
    made = 0

    def generator(*inputs: Array) -> list[Array]:
        nonlocal made
        made += 1
        return answering(correction=(0.01, -0.005), change=0.2, mask=0.3)(*inputs)

    painter = TexturePainter(portrait, portrait_face.points, warper, CONFIG, generator)
    before = turned(portrait_face.points, -6, 2, 0)
    outputs = painter.prepare(warper.flow(before), before).outputs
    assert made == 1
    kept = painter.finish(painter.prepare(flow, target, outputs))
    assert made == 1
    np.testing.assert_array_equal(kept, painter.paint(flow, target))
    assert made == 2
    without = painter.prepare(flow, target, NO_NETWORK)
    np.testing.assert_array_equal(painter.finish(without), GeometryPainter(portrait, warper).paint(flow, target))
    assert made == 2 and without.outputs is None


def test_the_prediction_has_the_weight_that_the_frame_gives_it(portrait, portrait_face, warper, flow, target) -> None:
    """No weight is the geometry, and a residual's change is proportional to the weight."""
    painter = TexturePainter(portrait, portrait_face.points, warper, CONFIG, answering(change=0.1, mask=0.5))
    plain = GeometryPainter(portrait, warper).paint(flow, target).astype(int)
    none, half, full = (painter.finish(painter.prepare(flow, target, None, share)) for share in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(none, plain)
    assert np.abs(full - plain).max() > 4
    assert np.abs((full - plain) - 2 * (half - plain)).max() <= 3


def test_a_network_that_changes_nothing_leaves_the_geometry(portrait, portrait_face, warper, flow, target) -> None:
    plain = Painter(portrait, warper).paint(flow)
    made = painted(portrait, portrait_face, warper, flow, target)
    assert np.abs(made.astype(int) - plain).max() <= 1


def test_a_correction_moves_the_warped_photo(portrait, portrait_face, warper, flow, target) -> None:
    """Pixel p equals the uncorrected frame's at p + correction: around eyes and mouth."""
    window = window_around(target, window_around(portrait_face.points).side)
    shift = 6 / window.side, -4 / window.side
    made = painted(portrait, portrait_face, warper, flow, target, correction=shift)
    plain = Painter(portrait, warper).paint(flow)
    y, x = np.indices((512, 512), np.float32)
    expected = cv2.remap(plain, x + 6, y - 4, cv2.INTER_LINEAR)
    middle, reach = target[[33, 263, 61, 291], :2].mean(0), 0.1 * window.side
    low, high = np.ceil(middle - reach).astype(int), np.floor(middle + reach).astype(int)
    inside = slice(low[1], high[1]), slice(low[0], high[0])
    apart = np.abs(made[inside].astype(int) - expected[inside])
    assert apart.mean() < 2.0 < np.abs(made[inside].astype(int) - plain[inside]).mean()
    cell = warper.crop.side / GRID  # offsets are interpolated between cells
    y, x = np.indices((512, 512)) + 0.5
    beyond = np.maximum(np.abs(x - window.left - window.side / 2), np.abs(y - window.top - window.side / 2))
    outside = beyond > window.side / 2 + 2 * cell
    assert outside.sum() > 1000
    assert np.abs(made[outside].astype(int) - plain[outside]).max() <= 1


def test_what_is_drawn_lies_where_the_mask_does_not_keep(portrait, portrait_face, warper, flow, target) -> None:
    plain = Painter(portrait, warper).paint(flow)
    made = painted(portrait, portrait_face, warper, flow, target, change=-2, mask=0)  # black in the whole window
    window = window_around(target, window_around(portrait_face.points).side)
    x, y = (target[4, :2]).astype(int)
    assert made[y, x].max() <= 2
    half = painted(portrait, portrait_face, warper, flow, target, change=-2, mask=0.5)
    np.testing.assert_allclose(half[y, x], plain[y, x] / 2, atol=2)
    dark = (made.max(-1) < 3) & (plain.max(-1) > 30)
    rows, columns = np.nonzero(dark)
    assert rows.min() >= window.top and columns.min() >= window.left
    assert rows.max() <= window.top + window.side and columns.max() <= window.left + window.side
    # The window's border fades: no seam.
    step = np.abs(np.diff(made.astype(int), axis=1)).max(-1)
    plain_step = np.abs(np.diff(plain.astype(int), axis=1)).max(-1)
    column = max(int(window.left) + 1, 1)
    if column < 500:
        assert (step - plain_step)[:, column - 1 : column + 1].max() < 20


def test_far_from_eyes_and_mouth_little_is_brightened(portrait_face: Face) -> None:
    """By hand: brightening by 32 gray levels is halved there; 16, any darkening, and the middle are unchanged."""
    points = window_around(portrait_face.points).to_unit(portrait_face.points)
    middle = points[[33, 263, 61, 291], :2].mean(0)
    for levels, far in ((32.0, 0.5), (16.0, 1.0), (-50.0, 1.0)):
        share = share_drawn(np.full((3, PX, PX), levels / 127.5, np.float32), far_from_features(points, PX // 2))
        assert share.shape == (PX // 2, PX // 2)
        x, y = (middle * PX / 2).astype(int)
        assert share[y, x] == 1
        assert share[y, 0] == pytest.approx(far) == share[0, x]


def test_hair_and_shoulders_follow_the_flow_correction(portrait_face, portrait, warper, flow, target) -> None:
    window = window_around(target)
    painter = TexturePainter(portrait, portrait_face.points, warper, CONFIG, answering(correction=(0.01, 0)))
    offset = painter.predict(flow, target, window, np.float32(1)).correction[..., 0]
    n = offset.shape[0]
    low, high = n // 10, n - n // 10
    for beside in (offset[low, low:high], offset[high, low:high], offset[low:high, low], offset[low:high, high]):
        np.testing.assert_allclose(beside, 0.01, rtol=0.01)


def test_what_is_drawn_into_a_black_and_white_photo_is_gray(portrait, portrait_face, warper, flow, target) -> None:
    def generator(*inputs: Array) -> list[Array]:
        move, change, mask = answering(mask=0)(*inputs)
        return [move, change + np.array([-0.3, -0.1, 0.1], np.float32)[:, None, None], mask]

    def made(picture: Image) -> Image:
        return TexturePainter(picture, portrait_face.points, warper, CONFIG, generator).paint(flow, target).astype(int)

    gray = np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    x, y = target[4, :2].astype(int)
    assert np.ptp(made(gray), axis=2).max() <= 1
    assert made(gray)[y, x, 0] - Painter(gray, warper).paint(flow)[y, x, 0] == pytest.approx(-12.75, abs=4)  # the mean
    assert made(portrait)[y, x, 0] - Painter(portrait, warper).paint(flow)[y, x, 0] == pytest.approx(-38.25, abs=4)


class Large:
    """The portrait at 2.5 times the size, with grain above the network's resolution, slightly turned."""

    def __init__(self, portrait: Image, face: Face) -> None:
        soft = cv2.resize(portrait, (1280, 1280), interpolation=cv2.INTER_CUBIC) // 2 + 64  # nothing is clipped
        grain = np.random.default_rng(0).normal(0, 10, (1280, 1280, 1))
        self.photo = (soft + grain).round().astype(np.uint8)
        self.points = face.points * np.float32(2.5)
        self.warper = Warper(self.points, 1280, 1280)
        self.target = turned(self.points, 10, 4, 0)
        self.flow = self.warper.flow(self.target)
        self.plain = Painter(self.photo, self.warper).paint(self.flow)
        self.window = window_around(self.target, window_around(self.points).side)
        x, y = self.target[205, :2].astype(int)
        self.cheek = slice(y - 40, y + 40), slice(x - 40, x + 40)

    def painter(self, change: float) -> TexturePainter:
        """Painter with a network that ignores the photo."""
        generator = answering(change=change / 127.5, mask=0)
        return TexturePainter(self.photo, self.points, self.warper, CONFIG, generator)

    def painted(self, change: float) -> Image:
        return self.painter(change).paint(self.flow, self.target)

    def without_detail(self, change: float) -> Image:
        """Only the network's output over the photo, as in a photo of the network's resolution."""
        prediction = self.painter(change).predict(self.flow, self.target, self.window, np.float32(1))
        image = self.plain.copy()
        _blend(image, prediction.refined, prediction.keep, self.window)
        return image


@pytest.fixture(scope="module")
def large(portrait: Image, portrait_face: Face) -> Large:
    return Large(portrait, portrait_face)


def test_a_change_of_nothing_leaves_a_large_photo(large: Large) -> None:
    assert (large.painted(0) == large.plain).all()


def test_a_small_change_is_added_to_a_large_photo(large: Large) -> None:
    """Its grain is kept: the network's output alone would lose it."""

    def grain(image: Image) -> float:
        gray = image[large.cheek].mean(-1, dtype=np.float32)
        return float((gray - cv2.GaussianBlur(gray, (0, 0), 2)).std())

    made = large.painted(12)
    np.testing.assert_allclose(made[large.cheek], large.plain[large.cheek].astype(int) + 12, atol=1)
    assert 0.99 < grain(made) / grain(large.plain) < 1.01
    assert grain(large.without_detail(12)) < 0.6 * grain(large.plain)


@pytest.mark.parametrize("change", [-50, 60])
def test_where_much_changes_the_drawing_is_taken(large: Large, change: float) -> None:
    made = large.painted(change)
    assert np.abs(made.astype(int) - large.plain)[large.cheek].mean() > 40
    apart = np.abs(made.astype(int) - large.without_detail(change))
    mouth = cv2.dilate(mouth_interior(large.target, 1280, 1280), np.ones((61, 61), np.uint8)) > 0  # detail is kept here
    apart[mouth] = 0
    assert apart[large.cheek].max() <= 1
    # at the window's rim, where the upsampled product differs from the product of upsampled factors
    assert apart.max() <= 5


def test_a_photo_of_the_networks_own_resolution_is_interpolated_once(
    portrait, portrait_face, warper, flow, target
) -> None:
    """The residual is added to the warped photo, not to the network's input, which is resampled twice."""
    painter = TexturePainter(portrait, portrait_face.points, warper, CONFIG, answering(change=0, mask=0))
    window = window_around(target, window_around(portrait_face.points).side)
    prediction = painter.predict(flow, target, window, np.float32(1))
    expected = Painter(portrait, warper).paint(corrected(flow, prediction.correction, warper.crop, window))
    assert (painter.paint(flow, target) == expected).all()
    soft = expected.copy()
    _blend(soft, prediction.refined, prediction.keep, window)
    assert (soft != expected).any()


@pytest.mark.parametrize("corner", [(20.3, 30.7), (-60.0, 40.2), (150.0, -35.5)], ids=["inside", "left", "above"])
def test_detail_over_a_drawing_follows_the_formula(corner: tuple[float, float]) -> None:
    """Against a floating-point reference that upsamples each picture separately."""
    random = np.random.default_rng(1)
    keep = cv2.GaussianBlur(random.random((16, 16)).astype(np.float32), (0, 0), 1)
    change = np.broadcast_to(np.linspace(0, 0.5, 64, dtype=np.float32), (3, 64, 64))  # to 64 gray levels on the right
    moved, drawn = (cv2.resize(random.integers(0, 256, (8, 8, 3), np.uint8), (64, 64)) for _ in range(2))
    image = random.integers(0, 256, (190, 260, 3), np.uint8)
    made, window = image.copy(), Crop(*corner, 140.5)
    shut = np.zeros(moved.shape[:2], np.uint8)
    _blend_under_detail(made, Prediction(np.empty(0), moved, drawn, keep, change, shut), window)
    detail = detail_kept(change, 16)
    assert detail.min() < 0.1 and detail.max() > 0.9
    y, x = (np.indices((190, 260)) + 0.5).astype(np.float32)

    def over(picture: np.ndarray) -> np.ndarray:
        k = picture.shape[0] / window.side
        at = (x - window.left) * k - 0.5, (y - window.top) * k - 0.5
        found = cv2.remap(
            picture.astype(np.float32), *map(np.float32, at), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return found.reshape(*found.shape[:2], -1)

    kept, stays = over(keep), over(detail)
    expected = kept * image + (1 - kept) * (over(drawn) + stays * (image - over(moved)))
    inside = (np.abs(x - window.left - 70.25) < 70) & (np.abs(y - window.top - 70.25) < 70)
    assert inside.sum() > 5000
    apart = np.abs(made - expected.clip(0, 255))
    assert apart[inside].max() < 6 and apart[inside].mean() < 0.7
    outside = (np.abs(x - window.left - 70.25) > 72) | (np.abs(y - window.top - 70.25) > 72)
    assert (made[outside] == image[outside]).all()


def test_detail_stays_where_little_changes_close_by() -> None:
    def of_all(levels: float) -> np.ndarray:
        return detail_kept(np.full((3, 256, 256), levels / 127.5, np.float32), 64)

    for levels, kept in ((0, 1), (-20, 1), (34, 0.5), (48, 0), (-200, 0)):
        np.testing.assert_allclose(of_all(levels), np.full((64, 64), kept), atol=1e-5)
    spot = np.zeros((3, 256, 256), np.float32)
    spot[1, 130, 101] = -100 / 127.5  # in cell 25 across, 32 down
    found = detail_kept(spot, 64)
    assert (found[31:34, 24:27] < 0.05).all()
    far = np.ones((64, 64), bool)
    far[29:36, 22:29] = False
    assert (found[far] == 1).all()


def test_a_photo_that_is_not_moved_is_left_as_it_is(portrait: Image, portrait_face: Face, warper: Warper) -> None:
    points = portrait_face.points
    side = window_around(points).side

    def black(moved: float) -> Image:
        """Output of a network that draws black, with the face moved by a fraction of the window's side."""
        target = points + np.float32([moved * side, 0, 0])
        return painted(portrait, portrait_face, warper, warper.flow(target), target, change=-2, mask=0)

    assert (black(0.0) == portrait).all()
    y, x = points[4, 1].astype(int), points[4, 0].astype(int)
    assert black(0.02)[y, x].max() <= 2
    assert 0.3 < black(0.006)[y, x].mean() / portrait[y, x].mean() < 0.7  # half way


def test_a_correction_of_zero_leaves_the_flow(flow: Flow, warper: Warper, target: Array) -> None:
    same = corrected(flow, np.zeros((PX // 2, PX // 2, 2), np.float32), warper.crop, window_around(target))
    np.testing.assert_allclose(same.offset, flow.offset, atol=1e-6)
    for ours, theirs in zip(same.details, flow.details, strict=True):
        np.testing.assert_allclose(ours.offset, theirs.offset, atol=1e-6)


def test_a_constant_correction_is_the_composition_of_both(flow: Flow, warper: Warper, target: Array) -> None:
    crop, window = warper.crop, warper.crop  # the same square, so that cells and correction are comparable by hand
    cells = 5  # of the grid
    moved = corrected(flow, np.full((64, 64, 2), cells / GRID, np.float32), crop, window)
    inner = slice(20, 100)
    later = slice(20 + cells, 100 + cells)
    np.testing.assert_allclose(moved.offset[inner, inner], flow.offset[later, later] + cells / GRID, atol=1e-5)


def test_a_smaller_picture_shows_the_same_places() -> None:
    y, x = np.mgrid[:200, :300]
    picture = np.stack([x * 0.8, y * 0.8, x * 0], -1).astype(np.uint8)
    half = reduced(picture, 0.5)
    assert half.shape == (100, 150, 3)
    # Pixel 40 of the half covers 80 and 81 of the whole: 80.5, times 0.8.
    np.testing.assert_allclose(half[50, 40, :2], [80.5 * 0.8, 100.5 * 0.8], atol=1.0)
    assert reduced(picture, 1.0) is picture


@pytest.mark.parametrize("form", ["paper", "texture"])
def test_photos_are_seen_as_prepared_clips_show_them(portrait: Image, portrait_face: Face, form: str) -> None:
    config = PRESETS["debug" if form == "paper" else "texture"].networks
    px, frame_px = config.image_px, config.frame_px
    larger = cv2.resize(portrait, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    x, y, points = photo_windows(config, [portrait, larger], [portrait_face.points, portrait_face.points * 2])
    assert x.shape == (2, frame_px, frame_px, 3) and y.shape == (2, px, px, 3) and points.shape == (2, 478, 3)
    assert to_network_size(x, config).shape == y.shape
    np.testing.assert_allclose(points[0], points[1], atol=0.05)  # independent of the resolution
    assert np.abs(x[0].astype(int) - x[1]).mean() < 3
    square = clip_window(portrait_face.points) if form == "paper" else window_around(portrait_face.points)
    np.testing.assert_allclose(points[0], square.to_unit(portrait_face.points) * px, atol=1e-3)


def test_to_planes() -> None:
    planes = to_planes(np.array([[[[0, 127.5, 255]]]]))
    assert planes.shape == (1, 3, 1, 1) and planes.ravel().tolist() == [-1, 0, 1]


def test_the_papers_form_lays_its_picture_over_the_face(portrait: Image, portrait_face: Face, flow, target) -> None:
    config = PRESETS["debug"].networks
    white = np.ones((1, 3, config.image_px, config.image_px), np.float32)
    made = PaperPainter(portrait, portrait_face.points, config, lambda y: [white]).paint(flow, target)
    x, y = portrait_face.points[4, :2].astype(int)
    assert (made[y, x] == 255).all()
    assert portrait[y, x].max() < 255


def test_inside_a_mouth_the_residual_only_shades() -> None:
    rng = np.random.default_rng(0)
    residual = rng.normal(size=(3, 64, 64)).astype(np.float32)
    interior = np.zeros((64, 64), np.uint8)
    assert shaded_only(residual, interior) is residual
    interior[16:48, 8:56] = 255
    shaded = shaded_only(residual, interior)
    outside = interior == 0
    assert (shaded[:, outside] == residual[:, outside]).all()
    # For white noise, a mean over 8 x 8 pixels has 1/8 of the deviation, and bilinear interpolation has at most this.
    assert shaded[:, 16:48, 8:56].std() < 1.2 / 8
    constant = np.full((3, 64, 64), 0.3, np.float32)
    np.testing.assert_allclose(shaded_only(constant, interior), constant, atol=1e-6)


def test_inside_a_mouth_nothing_glows() -> None:
    interior = np.zeros((64, 64), np.uint8)
    interior[16:48, 16:48] = 255
    seen = np.full((64, 64, 3), 200, np.uint8)
    seen[:, :32] = 20  # a dark cavity beside bright teeth
    for levels, teeth, cavity in ((60, 30, 3), (10, 10, 3), (-40, -40, -40)):  # at most 0.15 of the existing value
        residual = np.full((3, 64, 64), levels / 127.5, np.float32)
        made = 127.5 * shaded_only(residual, interior, seen)
        np.testing.assert_allclose(made[:, 16:48, 40:48], teeth, atol=1e-3)
        np.testing.assert_allclose(made[:, 16:48, 16:24], cavity, atol=1e-3)
        np.testing.assert_allclose(made[:, :16], levels, atol=1e-3)


def test_inside_a_mouth_nothing_is_corrected() -> None:
    interior = np.zeros((64, 64), np.uint8)
    interior[16:48, 8:56] = 255
    weight = still_inside(interior, 16)
    assert (weight[4:12, 2:14] == 0).all()
    assert weight.sum() == 16 * 16 - 8 * 12


def test_shading_is_that_of_training() -> None:
    torch = pytest.importorskip("torch")
    from mimik.networks.generators import shade_only

    rng = np.random.default_rng(1)
    residual = rng.normal(size=(3, 64, 64)).astype(np.float32)
    interior = np.zeros((64, 64), np.uint8)
    interior[20:41, 13:50] = rng.integers(0, 256, (21, 37))
    share = torch.from_numpy(interior)[None, None].float() / 255
    theirs = shade_only(torch.from_numpy(residual)[None], share)[0].numpy()
    np.testing.assert_allclose(shaded_only(residual, interior), theirs, atol=1e-5)


def test_inside_a_mouth_all_of_the_images_detail_stays() -> None:
    """For any residual: teeth finer than the network's resolution are not blurred."""
    random = np.random.default_rng(2)
    image = random.integers(100, 156, (200, 200, 3), np.uint8)
    made, window = image.copy(), Crop(0, 0, 200)
    warped, refined = np.full((64, 64, 3), 128, np.uint8), np.full((64, 64, 3), 188, np.uint8)
    residual = np.full((3, 64, 64), 60 / 127.5, np.float32)  # elsewhere this residual suppresses detail
    interior = np.zeros((64, 64), np.uint8)
    interior[:, 32:] = 255
    _blend_under_detail(
        made, Prediction(np.empty(0), warped, refined, np.zeros((16, 16), np.float32), residual, interior), window
    )
    inside, outside = made[20:180, 120:180].astype(int), made[20:180, 20:80].astype(int)
    np.testing.assert_allclose(inside, image[20:180, 120:180].astype(int) + 60, atol=2)
    assert outside.std() < 3 < image[20:180, 20:80].std()
