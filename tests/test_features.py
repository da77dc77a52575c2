"""Identity network, against an embedding made by an independent port (cosine 0.9996 to dlib's own)."""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install 'mimik[train]'")

from mimik.features import CHIP_PX, EMBEDDING_DIM, FaceNet, face_chip

ORACLE = np.load(Path(__file__).parent / "data/dlib_eileen_collins.npz")


@pytest.fixture(scope="module")
def net():
    return FaceNet()


def test_embedding_equals_the_oracle(net):
    chip = torch.from_numpy(ORACLE["chip"]).permute(2, 0, 1)[None].float()
    assert np.abs(net(chip).numpy()[0] - ORACLE["embedding"]).max() < 1e-4


def test_gradient_reaches_the_picture_and_the_network_is_frozen(net):
    chip = torch.rand(1, 3, CHIP_PX, CHIP_PX).mul(255).requires_grad_()
    net(chip).sum().backward()
    assert chip.grad.abs().sum() > 0
    assert list(net.parameters()) == []


def test_chip_puts_the_eyes_where_dlib_has_them(portrait, portrait_face):
    mark = np.zeros_like(portrait)
    for corner in (33, 263):
        cv2.circle(mark, tuple(int(v) for v in portrait_face.points[corner, :2]), 3, (255, 255, 255), -1)
    y, x = np.nonzero(face_chip(mark, portrait_face.points)[..., 0] > 64)
    right, left = x[x < CHIP_PX / 2].mean(), x[x > CHIP_PX / 2].mean()
    # 0.12 and 0.86 of dlib's shape, with its margin of a quarter on each side.
    assert right == pytest.approx((0.25 + 0.1206) / 1.5 * CHIP_PX, abs=4)
    assert left == pytest.approx((0.25 + 0.8596) / 1.5 * CHIP_PX, abs=4)
    assert y.mean() == pytest.approx((0.25 + 0.2136) / 1.5 * CHIP_PX, abs=4)


def test_one_person_stays_near_under_size_light_and_tilt(net, portrait, portrait_face):
    height, width = portrait.shape[:2]
    images, points = [portrait], [portrait_face.points[:, :2]]
    images.append(cv2.resize(portrait, (2 * width, 2 * height)))
    points.append(points[0] * 2)
    images.append((portrait * 0.7).astype(np.uint8))
    points.append(points[0])
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 1.0)
    images.append(cv2.warpAffine(portrait, turn, (width, height)))
    points.append(points[0] @ turn[:, :2].T + turn[:, 2])
    embeddings = net.embed_faces(images, points)
    assert embeddings.shape == (4, EMBEDDING_DIM)
    assert np.linalg.norm(embeddings[1:] - embeddings[0], axis=1).max() < 0.35


def test_no_faces_give_no_embeddings(net):
    assert net.embed_faces([], []).shape == (0, EMBEDDING_DIM)
