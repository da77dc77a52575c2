"""The voice network: shapes, causality, gradients of all parameters."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from mimik.media.mel import NUM_BANDS
from mimik.motion.generation.lips import NUM_OUTPUTS
from mimik.networks.voice import VoiceNet


def small() -> VoiceNet:
    torch.manual_seed(0)
    return VoiceNet(8, 5, channels=12, recurrent=6, dropout=0.0)


def test_two_frames_make_one_output_and_gradients_reach_every_parameter() -> None:
    net = small()
    out = net(torch.randn(3, 40, 8))
    assert out.shape == (3, 20, 5)
    out.pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_no_output_depends_on_later_features() -> None:
    net, x = small().eval(), torch.randn(1, 40, 8)
    changed = x.clone()
    changed[:, 20:] += 1
    with torch.no_grad():
        a, b = net(x), net(changed)
    assert torch.equal(a[:, :10], b[:, :10]) and not torch.allclose(a[:, 10], b[:, 10])


def test_it_has_less_than_a_million_parameters() -> None:
    assert sum(p.numel() for p in VoiceNet(NUM_BANDS, NUM_OUTPUTS).parameters()) < 1_000_000
