"""instruments.py: equal pictures are measured once."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")


from conftest import Driver
from mimik.evaluation import instruments
from mimik.evaluation.instruments import Instruments
from mimik.face.landmarks import Landmarker


def test_equal_pictures_are_looked_at_once(
    driver: Driver, landmarker: Landmarker, monkeypatch: pytest.MonkeyPatch
) -> None:
    still, turned = driver.frames[0], driver.frames[driver.yaw.argmax()]
    images = np.stack([still, turned, still, still])
    assert instruments._distinct(images) == ([0, 1], [0, 1, 0, 0])
    looking = Instruments(torch.device("cpu"), None)
    looked = []
    detect = landmarker.detect
    vars(looking)["landmarker"] = landmarker
    monkeypatch.setattr(landmarker, "detect", lambda image: looked.append(1) or detect(image))
    points, blendshapes = looking.find(images, in_order=False)
    assert len(looked) == 2
    for i, image in enumerate(images):
        (face,) = detect(image)
        assert (points[i] == face.points).all() and (blendshapes[i] == face.blendshapes).all()


@pytest.mark.slow
def test_equal_pictures_have_the_same_features_as_alone(driver: Driver) -> None:
    looking = Instruments(torch.device("cpu"), None)
    images = np.stack([driver.frames[i] for i in (0, 6, 0, 6, 6, 6, 0, 0, 6, 6)])
    at = list(range(len(images)))
    look = looking.look(images, at, in_order=False)
    assert [len(layers[0]) for layers in look.features] == [8, 2]
    with torch.inference_mode():
        plain = looking.content(looking.planes(images))
    for number, layer in enumerate(plain):
        torch.testing.assert_close(torch.cat([layers[number] for layers in look.features]), layer, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(look.identity, looking.identity(images, look.points), atol=1e-5)
