"""metrics.py: every metric against a calculation by hand, a slow reference, or its value for a known change."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from torch import nn

from conftest import turned
from mimik.config import ModelError
from mimik.evaluation import metrics
from mimik.evaluation.metrics import MEASURED_REGIONS, METRICS, region_mask
from mimik.face import landmarks as faces
from mimik.face.landmarks import Face, Image

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def pictures() -> tuple[Image, Image]:
    """Two pictures with shared structure, and two of noise; [2, 40, 48, 3] each."""
    smooth = cv2.GaussianBlur(RNG.integers(0, 256, (40, 48, 3), np.uint8), (0, 0), 3)
    near = np.clip(smooth.astype(int) + RNG.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    noise = RNG.integers(0, 256, (2, 40, 48, 3), np.uint8)
    return np.stack([smooth, noise[0]]), np.stack([near, noise[1]])


def moving(face: Face, num_frames: int = 24) -> np.ndarray:
    """[T, 478, 3] a face that turns and nods irregularly."""
    steps = np.random.default_rng(3).normal(0, 1, (2, num_frames))
    return np.stack([turned(face.points, yaw, pitch) for yaw, pitch in 4 * steps.T])


# Pictures.


def test_l1_and_psnr_by_hand() -> None:
    x = np.zeros((2, 4, 4, 3), np.uint8)
    x_hat = x.copy()
    x_hat[0] += 10
    x_hat[1, 0, 0, 0] = 48
    assert metrics.l1(x, x_hat).tolist() == [10, 1]
    np.testing.assert_allclose(metrics.psnr_db(x, x_hat), [20 * math.log10(25.5), 10 * math.log10(255**2 / 48)])
    assert metrics.psnr_db(x, x).tolist() == [100, 100]


def test_ssim_is_that_of_scikit_image(pictures: tuple[Image, Image]) -> None:
    reference = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    options = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "sigma": 1.5}
    expected = [
        reference.structural_similarity(a, b, use_sample_covariance=False, **options)
        for a, b in zip(*pictures, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim_gauss11(*pictures), expected, atol=1e-9)
    assert expected[0] > 0.3 > 0.1 > expected[1]
    np.testing.assert_allclose(metrics.ssim_gauss11(pictures[0], pictures[0]), 1)


def test_regions_hold_what_they_are_named_after(small_face: Face, small_portrait: Image) -> None:
    points, side = small_face.points, small_portrait.shape[:2]
    mouth, eyes, face = (region_mask(points, *MEASURED_REGIONS[name], side) for name in ("mouth", "eyes", "face"))
    x, y = points[:, 0].astype(int), points[:, 1].astype(int)
    assert mouth[y[faces.LIPS], x[faces.LIPS]].all()
    assert not mouth[y[faces.EYES], x[faces.EYES]].any()
    assert eyes[y[faces.EYES + faces.IRISES], x[faces.EYES + faces.IRISES]].all()
    assert not (eyes & mouth).any()
    assert 0.9 < face[mouth | eyes].mean() <= 1
    assert 0.02 < mouth.sum() / face.sum() < 0.25


def test_l1_of_a_region_sees_that_region_only(small_face: Face, small_portrait: Image) -> None:
    mask = region_mask(small_face.points, *MEASURED_REGIONS["mouth"], small_portrait.shape[:2])
    changed = small_portrait // 2
    inside, outside = changed.copy(), changed.copy()
    inside[mask] += 7
    outside[~mask] += 7
    x = np.stack([changed, changed])
    assert metrics.masked_l1(x, np.stack([inside, outside]), [mask, mask]).tolist() == [7, 0]
    assert np.isnan(metrics.masked_l1(x[:1], x[:1], [np.zeros_like(mask)])).all()


def test_sharpness_is_the_variance_of_the_laplacian(small_face: Face, small_portrait: Image) -> None:
    mask = region_mask(small_face.points, *MEASURED_REGIONS["face"], small_portrait.shape[:2])
    gray = cv2.cvtColor(small_portrait, cv2.COLOR_RGB2GRAY).astype(int)
    padded = np.pad(gray, 1, mode="reflect")
    slow = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray
    sharp, blurred = metrics.sharpness(
        np.stack([small_portrait, cv2.GaussianBlur(small_portrait, (0, 0), 1.5)]), [mask, mask]
    )
    assert sharp == pytest.approx(slow[mask].var())
    assert blurred < 0.2 * sharp


# Landmarks.


def test_akd_of_a_shift(small_face: Face) -> None:
    points = np.stack([small_face.points] * 3)
    found = points + np.array([3, 4, 100], np.float32)  # depth has no effect
    found[2] = np.nan
    akd = metrics.akd68_percent(points, found)
    apart = np.linalg.norm(small_face.points[33] - small_face.points[263])
    np.testing.assert_allclose(akd[:2], 500 / apart, rtol=1e-4)
    assert np.isnan(akd[2])
    np.testing.assert_allclose(metrics.akd68_percent(points * 2, found * 2)[:2], akd[:2], rtol=1e-4)


def test_gaze_error_of_a_moved_iris(small_face: Face) -> None:
    points = np.stack([small_face.points] * 2).astype(np.float64)
    found = points.copy()
    width = np.linalg.norm(points[0, 33] - points[0, 133])
    axis = (points[0, 133] - points[0, 33])[:2]
    found[:, faces.RIGHT_IRIS, :2] += 0.1 * width * axis / np.linalg.norm(axis)
    assert metrics.gaze_error_percent(points, found)[0] == pytest.approx(5)  # 10 % in one of two eyes
    points[1, faces.RIGHT_EYE_UPPER] = points[1, faces.RIGHT_EYE_LOWER]  # closed: no gaze
    assert metrics.gaze_error_percent(points, found)[1] == pytest.approx(0, abs=1e-9)
    moved = (
        found @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) * 3 + 50
    )  # position, size and roll of the head have no effect
    assert metrics.gaze_error_percent(points[:1], moved[:1])[0] == pytest.approx(5)


def test_correlation() -> None:
    driver, result = RNG.normal(size=(20, 4)), RNG.normal(size=(20, 4))
    driver[:, 3] *= 0.001  # does not move
    result[:, 2] = 0.25  # still
    expected = [np.corrcoef(driver[:, i], result[:, i])[0, 1] for i in (0, 1)]
    assert metrics.correlation(driver, result, 0.1) == pytest.approx(sum(expected) / 3)
    assert metrics.correlation(driver, 3 * driver - 1, 0.1) == pytest.approx(1)
    assert metrics.correlation(driver, -driver, 0.1) == pytest.approx(-1)
    gap = result.copy()
    gap[4] = np.nan
    rows = np.arange(20) != 4
    assert metrics.correlation(driver, gap, 0.1) == pytest.approx(metrics.correlation(driver[rows], result[rows], 0.1))
    assert math.isnan(metrics.correlation(driver * 1e-3, result, 0.1))
    assert math.isnan(metrics.correlation(driver[:2], result[:2], 0.1))


def test_pose_correlation_knows_the_turn_of_the_head(small_face: Face) -> None:
    points = moving(small_face)
    assert metrics.pose_correlation(points, points * 2 + 30) == pytest.approx(1)
    assert metrics.pose_correlation(points, np.stack([points[0]] * len(points))) == 0


def test_blendshape_correlation_leaves_the_neutral_one_out() -> None:
    driver = RNG.random((10, 52))
    result = driver.copy()
    result[:, 0] = RNG.random(10)
    assert metrics.blendshape_correlation(driver, result) == pytest.approx(1)


def test_jitter_of_known_motions(small_face: Face) -> None:
    driver = moving(small_face)
    assert metrics.jitter(driver, driver) == (0, 1)
    assert metrics.jitter(driver, driver * 3 + 10) == pytest.approx(
        (0, 1), abs=1e-6
    )  # the size of the face has no effect
    assert metrics.jitter(driver, np.stack([driver[0]] * len(driver))) == (1, 0)
    twice = driver[0] + 2 * (driver - driver[0])
    _, ratio = metrics.jitter(driver, twice)
    size = metrics.outer_eye_distance(driver), metrics.outer_eye_distance(twice)
    assert ratio == pytest.approx(2 * np.median(size[0]) / np.median(size[1]), rel=1e-6)
    # constant speed has no acceleration
    steady = driver[0] + np.arange(len(driver))[:, None, None] * np.array([2.0, 1, 0])
    assert metrics.jitter(driver, steady)[1] == pytest.approx(0, abs=1e-6)
    lost = driver.copy()
    lost[5] = np.nan
    assert metrics.jitter(driver, lost) == (0, 1)
    assert all(map(math.isnan, metrics.jitter(driver, np.full_like(driver, np.nan))))
    assert all(map(math.isnan, metrics.jitter(driver[:2], driver[:2])))


# Networks.


def test_cosine_of_unit_vectors_is_the_euclidean_distance() -> None:
    a, b = RNG.normal(size=(2, 5, 128))
    a, b = a / np.linalg.norm(a, axis=1, keepdims=True), b / np.linalg.norm(b, axis=1, keepdims=True)
    np.testing.assert_allclose(metrics.cosine(3 * a, b), 1 - np.linalg.norm(a - b, axis=1) ** 2 / 2)
    assert np.isnan(metrics.cosine(np.full((1, 4), np.nan), np.ones((1, 4)))).all()


def with_moments(mean: np.ndarray, covariance: np.ndarray, num: int) -> np.ndarray:
    """[num, C] samples with exactly this mean and covariance."""
    x = RNG.normal(size=(num, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_two_gaussians() -> None:
    # Sum over directions of (m - m')^2 + (s - s')^2.
    a = with_moments(np.array([0.0, 1, 2]), np.diag([1.0, 4, 9]), 50)
    b = with_moments(np.array([2.0, 1, 1]), np.diag([9.0, 4, 1]), 80)
    assert metrics.frechet_distance(a, b) == pytest.approx(4 + 1 + 4 + 4)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_that_of_the_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is not installed")
    a, b = RNG.normal(size=(60, 8)), RNG.normal(size=(40, 8)) @ RNG.normal(size=(8, 8)) + 1
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    slow = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(slow)


def test_frechet_distance_of_fewer_rows_than_features() -> None:
    a, b = RNG.normal(size=(5, 3)), RNG.normal(size=(6, 3))
    wide = np.linalg.qr(RNG.normal(size=(40, 3)))[0].T  # the same Gaussians in 40 dimensions
    assert metrics.frechet_distance(a @ wide, b @ wide) == pytest.approx(metrics.frechet_distance(a, b))
    with pytest.raises(ValueError, match="two rows or more"):
        metrics.frechet_distance(a[:1], b)


def test_lpips_is_its_formula() -> None:
    """Against the network built from torch.nn; with the published weights it equaled the package lpips 0.1.4."""
    torch.manual_seed(0)
    widths, names = (64, 192, 384, 256, 256), (0, 3, 6, 8, 10)
    alexnet = nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )
    linear = [torch.rand(1, width, 1, 1) for width in widths]
    weights = {f"features.{name}": value for name, value in alexnet.state_dict().items()}
    weights |= {f"lin{i}.model.1.weight": value for i, value in enumerate(linear)}
    lpips = metrics.LpipsAlex.__new__(metrics.LpipsAlex)
    nn.Module.__init__(lpips)
    lpips.load(weights)

    x, y = torch.rand(2, 2, 3, 64, 80) * 2 - 1
    expected = torch.zeros(2)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    with torch.no_grad():
        a, b = ((one - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for one in (x, y))
        for number, layer in enumerate(alexnet):
            a, b = layer(a), layer(b)
            if number - 1 in names:
                apart = (nn.functional.normalize(a, eps=1e-10) - nn.functional.normalize(b, eps=1e-10)) ** 2
                expected += (apart * linear[names.index(number - 1)]).sum(1).mean((1, 2))
    torch.testing.assert_close(lpips(x, y), expected, rtol=1e-4, atol=1e-6)
    assert lpips(x, x).tolist() == [0, 0]


def test_missing_lpips_weights_are_reported_with_instructions(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"contains no alexnet-owt-7be5be79.pth; .*download.pytorch.org"):
        metrics.LpipsAlex(tmp_path)
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"something else")
    with pytest.raises(ModelError, match="is damaged or a different file"):
        metrics.LpipsAlex(tmp_path)


# Over clips.


def test_bootstrap_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = metrics.bootstrap_interval(values, num_samples=4000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert metrics.bootstrap_interval(np.append(values, np.nan), num_samples=4000) == (low, high)
    assert metrics.bootstrap_interval(np.full(5, 2.5)) == (2.5, 2.5)
    assert all(map(math.isnan, metrics.bootstrap_interval(np.array([1.0]))))


def test_share_better() -> None:
    nan = math.nan
    assert metrics.share_better(METRICS["l1"], [1, 2, 3, 4], [2, 1, 3, 5]) == 2.5 / 4
    assert metrics.share_better(METRICS["csim_dlib"], [1, 0.5], [0.5, 0.2]) == 1
    assert metrics.share_better(METRICS["jitter_ratio"], [0.9, 2.0, 0.0], [1.2, 0.6, 3.0]) == pytest.approx(1 / 3)
    assert metrics.share_better(METRICS["l1"], [1, nan, nan], [nan, 1, nan]) == 0.5
    assert math.isnan(metrics.share_better(METRICS["l1"], [nan], [nan]))


def test_every_metric_has_a_recipe() -> None:
    assert all(metric.recipe and metric.better in ("lower", "higher", "one") for metric in METRICS.values())
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
