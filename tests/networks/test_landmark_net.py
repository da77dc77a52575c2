"""The landmark detector in torch against OpenVINO with the same file."""

import tempfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from mimik.face import landmarks as face
from mimik.face.landmarks import LANDMARKER_VIEW_PX, landmarker_view
from mimik.face.openvino_core import inference_core
from mimik.networks import landmark_net
from mimik.networks.landmark_net import LandmarkNet


@pytest.fixture(scope="module")
def net():
    return LandmarkNet()


def test_points_are_those_of_openvino(net):
    views = np.random.default_rng(0).uniform(0, 1, (2, LANDMARKER_VIEW_PX, LANDMARKER_VIEW_PX, 3)).astype(np.float32)
    with face.landmarker_bundle() as bundle, tempfile.TemporaryDirectory() as folder:
        model = inference_core().read_model(bundle.extract(landmark_net._NAME, folder))
        model.reshape(views.shape)
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        expected = inference_core().compile_model(model, "CPU", config)(views)[0].reshape(2, -1, 3)
    with torch.no_grad():
        found = net(torch.from_numpy(views).permute(0, 3, 1, 2)).numpy()
    assert np.abs(expected).max() > 100
    assert np.abs(found - expected).max() < 1e-3


def test_it_finds_what_the_landmarker_finds(net, landmarker, portrait, portrait_face):
    image = torch.from_numpy(portrait.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    view = torch.from_numpy(landmarker_view(portrait_face.points))[None].float()
    with torch.no_grad():
        found = net.find(image, view)[0, :, :2].numpy()
    matrix = view[0].numpy()
    placed = (found - 0.5) @ matrix[:, :2].T + matrix[:, 2]
    followed = landmarker.follow(portrait, portrait_face)
    assert np.abs(placed - followed.points[:, :2]).max() < 0.001 * portrait_face.width_px


def test_gradient_reaches_the_picture_and_the_network_is_frozen(net):
    image = torch.rand(1, 3, 64, 64).mul(2).sub(1).requires_grad_()
    view = torch.tensor([[[0.25, 0.0, 0.125], [0.0, 0.25, 0.125]]])
    net.find(image, view).sum().backward()
    assert image.grad.abs().sum() > 0
    assert list(net.parameters()) == [] and net.state_dict() == {}
