"""losses.py: every reduction against values computed by hand, and gradient flow."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from torch import Tensor

from mimik.networks.losses import (
    adversarial_loss,
    content_loss,
    discriminator_loss,
    feature_matching_loss,
    identity_loss,
    landmark_loss,
    match_loss,
    pixel_loss,
)


def layers(requires_grad: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Two layers of different sizes, whose mean distances are (1 + 3 + 0 + 0) / 4 = 1 and 5."""
    first = [torch.tensor([[1.0, -3.0], [2.0, 2.0]]).view(2, 2, 1, 1), torch.full((2, 1, 3, 3), 5.0)]
    second = [torch.tensor([[0.0, 0.0], [2.0, 2.0]]).view(2, 2, 1, 1), torch.zeros(2, 1, 3, 3)]
    for tensor in (*first, *second):
        tensor.requires_grad_(requires_grad)
    return first, second


# L_ADV and L_DSC.


def test_adversarial_loss_is_the_mean_score_turned_round() -> None:
    assert adversarial_loss(torch.tensor([1.0, 2.0, -6.0])).item() == 1.0


def test_adversarial_loss_has_no_bounds() -> None:
    assert adversarial_loss(torch.tensor([1e4])).item() == -1e4  # no sigmoid, no hinge


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        ([0.0], [0.0], 2.0),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 2.0),  # a mean over B
        ([1.0], [-1.0], 0.0),
        ([9.0], [-9.0], 0.0),
        ([-2.0], [0.5], 4.5),
        ([2.0, -1.0], [1.0, -3.0], 2.0),  # (0 + 2) / 2 + (2 + 0) / 2
    ],
)
def test_discriminator_loss(real: list[float], fake: list[float], expected: float) -> None:
    assert discriminator_loss(torch.tensor(real), torch.tensor(fake)).item() == expected


def test_discriminator_loss_raises_real_scores_and_lowers_synthesized_ones_inside_the_margin() -> None:
    real = torch.tensor([0.0, 3.0], requires_grad=True)
    fake = torch.tensor([0.0, -3.0], requires_grad=True)
    discriminator_loss(real, fake).backward()
    assert real.grad.tolist() == [-0.5, 0.0]
    assert fake.grad.tolist() == [0.5, 0.0]


# L_FM.


def test_feature_matching_loss() -> None:
    fake, real = layers()
    assert feature_matching_loss(fake, real).item() == 3.0  # (1 + 5) / 2
    assert feature_matching_loss(fake, real, over_layers="sum").item() == 6.0
    assert feature_matching_loss(fake, fake).item() == 0.0


def test_feature_matching_loss_moves_the_synthesized_frame_only() -> None:
    fake, real = layers(requires_grad=True)
    feature_matching_loss(fake, real).backward()
    assert fake[0].grad.flatten().tolist() == [1 / 8, -1 / 8, 0.0, 0.0]  # sign / (4 numbers * 2 layers)
    assert fake[1].grad.flatten().tolist() == pytest.approx([1 / 36] * 18)
    assert all(act.grad is None for act in real)


def test_feature_matching_loss_refuses_what_does_not_fit() -> None:
    fake, real = layers()
    with pytest.raises(ValueError, match="over_layers 'max': use one of mean, sum"):
        feature_matching_loss(fake, real, over_layers="max")
    for other in (real[:1], real[::-1], [real[0][:1], real[1]]):  # a batch of 1 would be broadcast
        with pytest.raises(ValueError, match="use the same ones of both frames"):
            feature_matching_loss(fake, other)
    with pytest.raises(ValueError, match="use the same ones"):
        feature_matching_loss([], [])


# L_MCH.


def test_match_loss() -> None:
    e_hat = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 8.0]]])  # B, K, N = 2
    w_i = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert match_loss(e_hat, w_i).item() == (0 + 1 + 2 + 3 + 0 + 0 + 0 + 8) / 8
    assert match_loss(w_i[:, None].expand(-1, 5, -1), w_i).item() == 0.0


def test_match_loss_compares_frames_and_not_their_mean() -> None:
    e_hat = torch.tensor([[[1.0], [-1.0]]])
    assert match_loss(e_hat, torch.zeros(1, 1)).item() == 1.0


def test_match_loss_moves_the_embedder_and_not_w() -> None:
    e_hat = torch.tensor([[[1.0, -1.0]]], requires_grad=True)
    w_i = torch.zeros(1, 2, requires_grad=True)
    match_loss(e_hat, w_i).backward()
    assert e_hat.grad.tolist() == [[[0.5, -0.5]]]
    assert w_i.grad is None


@pytest.mark.parametrize(
    ("e_hat", "w_i"), [((2, 3, 4), (3, 4)), ((2, 3, 4), (2, 5)), ((2, 4), (2, 4)), ((2, 3, 4), (1, 4))]
)
def test_match_loss_refuses_what_does_not_fit(e_hat: tuple[int, ...], w_i: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"use \[B, K, N\] and \[B, N\]"):
        match_loss(torch.zeros(e_hat), torch.zeros(w_i))


# L_CNT.


def test_content_loss() -> None:
    x, x_hat = layers()
    assert content_loss(x, x_hat, [0.5, 2.0]).item() == 0.5 * 1 + 2.0 * 5
    assert content_loss(x, x, [1.0, 1.0]).item() == 0.0


def test_content_loss_moves_the_synthesized_frame_only() -> None:
    x, x_hat = layers(requires_grad=True)
    content_loss(x, x_hat, [1.0, 0.0]).backward()
    assert x_hat[0].grad.flatten().tolist() == [-0.25, 0.25, 0.0, 0.0]
    assert x_hat[1].grad.abs().sum() == 0
    assert all(features.grad is None for features in x)


def test_content_loss_refuses_what_does_not_fit() -> None:
    x, x_hat = layers()
    with pytest.raises(ValueError, match="1 weights for 2 layers"):
        content_loss(x, x_hat, [1.0])
    with pytest.raises(ValueError, match="use the same ones of both frames"):
        content_loss(x, x_hat[:1], [1.0])


# All losses.


def test_a_batch_of_twice_the_same_costs_the_same() -> None:
    torch.manual_seed(0)
    score, other, e_hat, w_i = torch.randn(3), torch.randn(3), torch.randn(3, 2, 4), torch.randn(3, 4)
    acts, real = [torch.randn(3, 2, 4, 4)], [torch.randn(3, 2, 4, 4)]

    def losses(times: int) -> Tensor:
        def many(tensor: Tensor) -> Tensor:
            return torch.cat([tensor] * times)

        return torch.stack(
            [
                adversarial_loss(many(score)),
                discriminator_loss(many(score), many(other)),
                match_loss(many(e_hat), many(w_i)),
                feature_matching_loss([many(acts[0])], [many(real[0])]),
                content_loss([many(real[0])], [many(acts[0])], [0.3]),
            ]
        )

    torch.testing.assert_close(losses(2), losses(1))


def test_identity_loss() -> None:
    e_x = torch.zeros(2, 128)
    e_x_hat = torch.zeros(2, 128)
    e_x_hat[0, :2] = torch.tensor([3.0, 4.0])  # 5 apart; the other 0
    e_x_hat.requires_grad_()
    loss = identity_loss(e_x, e_x_hat)
    assert loss.item() == pytest.approx(2.5, abs=1e-3)
    loss.backward()
    assert e_x_hat.grad is not None and torch.isfinite(e_x_hat.grad).all()  # also where they are equal
    torch.testing.assert_close(e_x_hat.grad[0, :2], torch.tensor([0.3, 0.4]))  # halves of the direction


def test_landmark_loss() -> None:
    points = torch.zeros(1, 2, 2, requires_grad=True)
    found = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]], requires_grad=True)
    loss = landmark_loss(points, found)
    assert loss.item() == pytest.approx((5 + 1) / 2)
    loss.backward()
    assert points.grad is None  # those of the real frame are a target
    torch.testing.assert_close(found.grad, torch.tensor([[[0.3, 0.4], [0.0, 0.5]]]))
    assert landmark_loss(found, found).item() == pytest.approx(0, abs=2e-4)


def test_pixel_loss() -> None:
    x = torch.zeros(1, 3, 2, 2)
    x_hat = torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    regions = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    # 0.5 everywhere, one pixel of four counted five times: 0.5 * (5 + 3) / 4.
    loss = pixel_loss(x_hat, x, regions)
    assert loss.item() == pytest.approx(1.0)
    loss.backward()
    assert x_hat.grad is not None and x_hat.grad[0, 0, 0, 0] == pytest.approx(5 * x_hat.grad[0, 0, 1, 1].item())
    assert pixel_loss(x, x, regions) == 0
    assert pixel_loss(x_hat, x, regions, emphasis=0).item() == pytest.approx(0.5)
