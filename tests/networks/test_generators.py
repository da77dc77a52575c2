"""generators.py: the paper's sizes, every path against a simple reference, and requirements of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

import torch.nn.functional as F  # noqa: N812
from network_sizes import count_parameters, size_table
from torch import Tensor, nn

from mimik.config import PRESETS
from mimik.networks.blocks import EPS, AdaIN, ResidualBlock, SelfAttention, spectral_linear
from mimik.networks.generators import (
    Discriminator,
    Embedder,
    Generator,
    Projection,
    apply_correction,
    build_networks,
    view_frames,
)
from mimik.rendering.flow import NUM_GEOMETRY

PX, DIM, VIDEOS = 32, 24, 5
TINY = {"min_channels": 8, "max_channels": 32}
B, K = 3, 2


@pytest.fixture(autouse=True)
def quiet_and_repeatable() -> Iterator[None]:
    """One thread, because these networks are too small for more, and a fixed seed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def embedder(px: int = PX, attention: bool = False) -> Embedder:
    return Embedder(px, embedding_dim=DIM, attention=attention, **TINY)


def generator(px: int = PX, attention: bool = False) -> tuple[Generator, Projection]:
    net = Generator(px, attention=attention, **TINY)
    return net, Projection(DIM, sum(net.adain_sizes))


def discriminator(px: int = PX, attention: bool = False) -> Discriminator:
    return Discriminator(VIDEOS, px, embedding_dim=DIM, attention=attention, **TINY)


def pictures(*shape: int, px: int = PX) -> Tensor:
    """Noise in [-1, 1]."""
    return torch.rand(*shape, 3, px, px) * 2 - 1


def millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def open_attention(*nets: nn.Module) -> None:
    """Nonzero gamma, so that self-attention has an effect."""
    for net in nets:
        for module in net.modules():
            if isinstance(module, SelfAttention):
                module.gamma.data.fill_(0.5)


# Sizes.


@pytest.mark.slow
def test_sizes_are_the_papers() -> None:
    net, dis = Generator(), Discriminator(7)
    assert sum(net.adain_sizes) * 2 == 13056
    assert Projection(512, sum(net.adain_sizes)).linear.weight.shape == (13056, 512)
    assert millions(count_parameters(Embedder())) == "14.83"
    assert millions(count_parameters(net)) == "31.21"
    assert millions(count_parameters(Projection(512, sum(net.adain_sizes)))) == "6.70"
    assert dis.W.weight.shape == (7, 512)
    assert millions(count_parameters(dis) - dis.W.weight.numel()) == "19.55"


def test_layers_are_the_papers() -> None:
    def channels(blocks: nn.ModuleList) -> list[int]:
        return [block.conv2.weight.shape[0] for block in blocks]

    net = Generator(min_channels=4, max_channels=32)  # a sixteenth of the paper's width
    assert channels(net.down) == [4, 8, 16, 32]
    assert channels(net.middle) == [32, 32, 32, 32]
    assert channels(net.up) == [32, 16, 8, 4]
    assert net.adain_sizes == (*[32] * 8, 32, 32, 32, 16, 16, 8, 8, 4, 4)
    assert channels(Embedder(min_channels=4, max_channels=32, embedding_dim=32).down) == [4, 8, 16, 32, 32, 32]
    dis = Discriminator(1, min_channels=4, max_channels=32, embedding_dim=32)
    assert channels([*dis.down, dis.residual]) == [4, 8, 16, 32, 32, 32, 32]


def test_self_attention_adds_what_the_paper_adds() -> None:
    attention = count_parameters(SelfAttention(256))
    assert attention == 2 * 256 * 32 + 2 * 256 * 128 + 1  # query and key, value and output, gamma
    assert millions(attention) == "0.08"
    narrow = {"image_px": 64, "max_channels": 256, "embedding_dim": 8}
    assert count_parameters(Embedder(attention=True, **narrow)) - count_parameters(Embedder(**narrow)) == attention
    small, large = Generator(max_channels=256), Generator(max_channels=256, attention=True)
    assert count_parameters(large) - count_parameters(small) == 2 * attention


@pytest.mark.parametrize(("px", "down", "up"), [(256, 32, 64), (64, 8, 16)])
def test_self_attention_stands_at_an_eighth_and_a_quarter(px: int, down: int, up: int) -> None:
    sides = {}

    def note(name: str) -> None:
        module = nets.get_submodule(name)
        module.register_forward_hook(lambda _, args, out: sides.__setitem__(name, args[0].shape[-1]))

    width = {"min_channels": 2, "max_channels": 8}
    net = Generator(px, attention=True, **width)
    nets = nn.ModuleDict(
        {
            "E": Embedder(px, embedding_dim=4, attention=True, **width),
            "G": net,
            "D": Discriminator(1, px, embedding_dim=4, attention=True, **width),
        }
    )
    for name in ("E.attention", "G.attention_down", "G.attention_up", "D.attention"):
        note(name)
    x = pictures(1, px=px)
    with torch.no_grad():
        nets["E"](x[None], x[None])
        nets["G"](x, Projection(4, sum(net.adain_sizes))(torch.ones(1, 4)))
        nets["D"](x, x, torch.tensor([0]))
    assert sides == {"E.attention": down, "G.attention_down": down, "G.attention_up": up, "D.attention": down}


@pytest.mark.slow
def test_the_table_of_the_sizes() -> None:
    lines = size_table().splitlines()
    assert [line.split()[-2:] for line in lines[1:5]] == [
        ["14.83", "14.91"],
        ["31.21", "31.38"],
        ["6.70", "6.70"],
        ["19.55", "19.63"],
    ]
    assert "13056" in lines[5]


# Blocks, against the table of docs/paper.md.


def reference_block(block: ResidualBlock, h: Tensor, psi: list[Tensor]) -> Tensor:
    """The block in the paper's order: the skip path convolves before downsampling and after upsampling."""

    def normalized(x: Tensor, number: int) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        centered = (x - mean) / (x.var((2, 3), correction=0, keepdim=True) + EPS).sqrt()
        layer = getattr(block, f"norm{number}")
        if isinstance(layer, AdaIN):
            bias, scale = psi[2 * number - 2 : 2 * number]
            return centered * scale[:, :, None, None] + bias[:, :, None, None]
        if isinstance(layer, nn.InstanceNorm2d):
            return centered * layer.weight[:, None, None] + layer.bias[:, None, None]
        return x

    def enlarged(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if block.resample == "up" else x

    def averaged(x: Tensor) -> Tensor:
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)) if block.resample == "down" else x

    def convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
        pad = conv.weight.shape[-1] // 2
        patches = F.unfold(x, conv.weight.shape[-1], padding=pad)
        out = conv.weight.flatten(1) @ patches
        out = out if conv.bias is None else out + conv.bias[:, None]
        return out.unflatten(2, x.shape[2:])

    skip = h if isinstance(block.skip, nn.Identity) else averaged(convolved(enlarged(h), block.skip))
    main = h if block.first else normalized(h, 1).relu()
    main = normalized(convolved(enlarged(main), block.conv1), 2).relu()
    return skip + averaged(convolved(main, block.conv2))


@pytest.mark.parametrize(
    ("norm", "resample", "first", "num_out"),
    [
        ("none", "down", True, 6),
        ("none", "down", False, 6),
        ("none", "none", False, 4),
        ("none", "none", False, 6),
        ("instance", "down", False, 6),
        ("adain", "none", False, 4),
        ("adain", "up", False, 6),
    ],
)
def test_block_equals_its_description(norm: str, resample: str, first: bool, num_out: int) -> None:
    block = ResidualBlock(4, num_out, norm=norm, resample=resample, first=first).eval().double()
    for layer in (block.norm1, block.norm2):
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    h = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    psi = [torch.randn(2, c, dtype=torch.float64) for c in (4, 4, num_out, num_out)] if norm == "adain" else []
    before = h.clone()
    torch.testing.assert_close(block(h, psi), reference_block(block, h, psi))
    assert torch.equal(h, before)  # the ReLU is not in place: L_FM compares these activations
    assert (block.conv1.bias is None) == (block.conv2.bias is None) == (norm != "none")


def test_adain_sets_mean_and_deviation_of_each_channel() -> None:
    bias, scale = torch.randn(2, 3), torch.randn(2, 3)
    out = AdaIN()(torch.randn(2, 3, 16, 16) * 7 + 5, bias, scale)
    torch.testing.assert_close(out.mean((2, 3)), bias, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((2, 3), correction=0), scale.abs(), atol=1e-3, rtol=0)


def test_psi_hat_holds_bias_before_scale_of_each_layer() -> None:
    net, _ = generator()
    first, last = net.adain_sizes[0], net.adain_sizes[-1]
    seen = []
    net.middle[0].norm1.register_forward_pre_hook(lambda _, args: seen.extend(args[1:]))
    net.last_norm.register_forward_pre_hook(lambda _, args: seen.extend(args[1:]))
    psi_hat = torch.arange(2.0 * sum(net.adain_sizes))[None]
    net(pictures(1), psi_hat)
    expected = [psi_hat[:, :first], psi_hat[:, first : 2 * first], psi_hat[:, -2 * last : -last], psi_hat[:, -last:]]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_self_attention_starts_as_identity_and_equals_its_formula() -> None:
    layer, h = SelfAttention(16).eval(), torch.randn(2, 16, 6, 6)
    assert torch.equal(layer(h), h)
    layer.gamma.data.fill_(0.7)
    query, key, value = (conv(h) for conv in (layer.query, layer.key, layer.value))
    key, value = (F.max_pool2d(m, 2).flatten(2) for m in (key, value))
    weights = torch.einsum("bcq,bck->bqk", query.flatten(2), key).softmax(2)
    read = torch.einsum("bqk,bck->bcq", weights, value).unflatten(2, (6, 6))
    torch.testing.assert_close(layer(h), h + 0.7 * layer.out(read))


# Shapes and meaning.


@pytest.mark.parametrize(("px", "attention"), [(32, True), (64, False), (128, True), (256, False)])
def test_any_size_gives_the_right_shapes(px: int, attention: bool) -> None:
    width = {"min_channels": 2, "max_channels": 16}
    net, dis = Generator(px, attention=attention, **width), Discriminator(3, px, embedding_dim=5, **width)
    enc = Embedder(px, embedding_dim=5, attention=attention, **width)
    open_attention(enc, net, dis)
    x = pictures(2, 1, px=px)
    with torch.no_grad():
        e = enc(x, x)
        x_hat = net(x[:, 0], Projection(5, sum(net.adain_sizes))(e.mean(1))).image
        score, acts = dis(x_hat, x[:, 0], torch.tensor([0, 2]))
    assert e.shape == (2, 1, 5) and (e >= 0).all()
    assert x_hat.shape == (2, 3, px, px) and x_hat.abs().max() <= 1
    assert score.shape == (2,)
    sides = [px // 2**i for i in range(1, len(acts))]
    assert [a.shape[-1] for a in acts] == [*sides, 4] and sides[-1] == 4
    assert acts[-1].shape[1] == 5


def test_other_sizes_are_refused() -> None:
    for make in (embedder, generator, discriminator):
        for px in (16, 96):
            with pytest.raises(ValueError, match=f"image_px {px}: use a power of two"):
                make(px)


def test_pooling_is_a_relu_and_then_a_sum() -> None:
    enc, dis = embedder().eval(), discriminator().eval()
    x, y = pictures(1), pictures(1)
    ends = []
    for block in (enc.down[-1], dis.residual):
        block.register_forward_hook(lambda _, args, out: ends.append(out[0]))
    e, (score, _) = enc(x[None], y[None])[0, 0], dis(x, y, torch.tensor([1]))
    pooled = [end.clamp_min(0).flatten(1).sum(1) for end in ends]
    torch.testing.assert_close(e, pooled[0])
    torch.testing.assert_close(score[0], pooled[1] @ (dis.W.weight[1] + dis.linear.weight[0]) + dis.linear.bias[0])


def test_networks_read_the_landmark_image_before_the_frame() -> None:
    x, y = pictures(1), pictures(1)
    for net, give in (
        (embedder(), lambda n: n(x[None], y[None])),
        (discriminator(), lambda n: n(x, y, w=torch.ones(DIM))),
    ):
        seen = []
        net.down[0].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        give(net)
        assert torch.equal(seen[0], torch.cat([y, x], 1))


def test_w_of_an_unknown_person_is_w0_plus_e_hat() -> None:
    dis = discriminator().eval()
    x, y, e_hat = pictures(B), pictures(B), torch.rand(B, DIM)
    dis.W.weight.data[:B] = e_hat
    by_video, _ = dis(x, y, torch.arange(B))
    by_weight, _ = dis(x, y, w=dis.personal_weight(e_hat))
    torch.testing.assert_close(by_weight, by_video)
    for_all, _ = dis(x, y, w=dis.personal_weight(e_hat[0]))  # [N] serves the whole batch
    torch.testing.assert_close(for_all[0], by_video[0])
    with pytest.raises(ValueError, match="either video"):
        dis(x, y)
    with pytest.raises(ValueError, match="either video"):
        dis(x, y, torch.arange(B), w=e_hat)


def test_w_starts_uniform_in_a_tenth() -> None:
    weight = Discriminator(2000, PX, embedding_dim=DIM, **TINY).W.weight
    assert weight.abs().max() <= 0.1
    assert weight.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.02)


# Items of a batch, frames of a person.


def test_items_do_not_see_each_other() -> None:
    enc, (net, projection), dis = embedder(attention=True), generator(attention=True), discriminator(attention=True)
    open_attention(enc, net, dis)
    nn.ModuleList([enc, net, projection, dis]).eval().double()
    x, y, video = pictures(B, K).double(), pictures(B, K).double(), torch.arange(B)

    def run(items: slice) -> list[Tensor]:
        e = enc(x[items], y[items])
        x_hat = net(y[items, 0], projection(e.mean(1))).image
        return [e, x_hat, dis(x_hat, y[items, 0], video[items])[0]]

    for whole, *parts in zip(run(slice(0, B)), *(run(slice(i, i + 1)) for i in range(B)), strict=True):
        torch.testing.assert_close(torch.cat(parts), whole)


def test_a_frame_counts_the_same_however_often_it_is_given() -> None:
    enc = embedder().eval()
    x, y = pictures(B, 1), pictures(B, 1)
    once, often = enc(x, y).mean(1), enc(x.expand(-1, 4, -1, -1, -1), y.expand(-1, 4, -1, -1, -1)).mean(1)
    torch.testing.assert_close(often, once)


def test_one_psi_hat_serves_a_batch() -> None:
    net, projection = generator()
    net.eval()
    y, psi_hat = pictures(B), projection(torch.rand(1, DIM))
    torch.testing.assert_close(net(y, psi_hat).image, net(y, psi_hat.expand(B, -1)).image)


# Spectral norm.


def normalized_layers(net: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def largest_singular_value(layer: nn.Module) -> float:
    return torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()


def everything(px: int = PX) -> nn.ModuleDict:
    net, projection = generator(px, attention=True)
    parts = {"E": embedder(px, attention=True), "G": net, "P": projection, "D": discriminator(px, attention=True)}
    open_attention(*parts.values())
    return nn.ModuleDict(parts)


def step_through(nets: nn.ModuleDict, x: Tensor, y: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
    """x_hat and its score."""
    e_hat = nets["E"](x[:, 1:], y[:, 1:]).mean(1)
    x_hat = nets["G"](y[:, 0], nets["P"](e_hat)).image
    return x_hat, nets["D"](x_hat, y[:, 0], video)[0]


def episode(video: tuple[int, ...] = (0, 1, 1)) -> tuple[Tensor, Tensor, Tensor]:
    """x and y [B, 1 + K, 3, H, W], of which the first frame is the target; video [B]."""
    return pictures(B, 1 + K), pictures(B, 1 + K), torch.tensor(video)


def test_every_weight_has_a_largest_singular_value_of_one() -> None:
    nets = everything()
    with torch.no_grad():
        for layer in normalized_layers(nets).values():
            layer.parametrizations.weight.original.mul_(3)  # as training would change it
        for _ in range(15):
            step_through(nets, *episode())
    nets.eval()
    layers = normalized_layers(nets)
    assert len(layers) == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in nets.modules()) > 60
    assert {name: v for name, m in layers.items() if abs((v := largest_singular_value(m)) - 1) > 0.05} == {}


# Training.


def test_gradient_reaches_every_parameter_and_the_used_rows_of_w() -> None:
    nets = everything()
    x_hat, score = step_through(nets, *episode((0, 3, 3)))
    (score.sum() + x_hat.square().sum()).backward()
    idle = [name for name, p in nets.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
    assert nets["D"].W.weight.grad.abs().sum(1).gt(0).tolist() == [True, False, False, True, False]


def test_gradient_reaches_a_trainable_psi_and_w() -> None:
    net, projection = generator()
    dis, enc = discriminator(), embedder()
    x, y = pictures(B), pictures(B)
    with torch.no_grad():
        e_hat = enc(x[None], y[None]).mean(1)  # B photos of one person -> [1, N]
        psi = nn.Parameter(projection(e_hat))
        w = nn.Parameter(dis.personal_weight(e_hat))
    dis(net(y, psi).image, y, w=w)[0].sum().backward()
    assert (psi.grad != 0).float().mean() > 0.5  # inactive ReLUs have no gradient
    assert w.grad.abs().sum() > 0
    assert projection.linear.bias.grad is None and dis.W.weight.grad is None
    assert dis.linear.parametrizations.weight.original.grad is None


def test_one_step_lowers_the_loss_on_a_batch() -> None:
    nets, (x, y, video) = everything(), episode()
    of_g = [*nets["E"].parameters(), *nets["G"].parameters(), *nets["P"].parameters()]

    def picture_loss() -> Tensor:
        return (step_through(nets, x, y, video)[0] - x[:, 0]).abs().mean()

    def score_loss() -> Tensor:
        real, fake = (nets["D"](frame, y[:, 0], video)[0] for frame in (x[:, 0], x[:, 1]))
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    for loss_of, parameters in ((picture_loss, of_g), (score_loss, list(nets["D"].parameters()))):
        optimizer = torch.optim.Adam(parameters, lr=1e-3)
        before = loss_of()
        optimizer.zero_grad()
        before.backward()
        optimizer.step()
        assert loss_of().item() < before.item()


def test_a_new_discriminator_is_orthogonal_in_training_and_in_use() -> None:
    net = Discriminator(2, 64, min_channels=4, max_channels=16, embedding_dim=8)
    for mode in (False, True):
        net.train(mode)
        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                gains = torch.linalg.svdvals(layer.weight.flatten(1))
                torch.testing.assert_close(gains, torch.ones_like(gains), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_bf16_autocast_trains_and_stays_near() -> None:
    def patches() -> Tensor:
        """Patches, because pixel noise would leave only rounding at 4 px."""
        return pictures(B, 1 + K, px=8).repeat_interleave(8, 3).repeat_interleave(8, 4)

    nets, batch = everything(px=64), (patches(), patches(), torch.arange(B))
    nets.eval()
    expected = step_through(nets, *batch)
    with torch.autocast("cpu", torch.bfloat16):
        x_hat, score = step_through(nets, *batch)
    assert (x_hat - expected[0]).abs().mean() < 0.1 * expected[0].std()
    torch.testing.assert_close(score.float(), expected[1], rtol=0, atol=0.05)
    nets.train()
    with torch.autocast("cpu", torch.bfloat16):
        x_hat, score = step_through(nets, *batch)
        (score.float().sum() + x_hat.float().sum()).backward()
    assert x_hat.isfinite().all() and score.isfinite().all()
    assert all(p.grad.isfinite().all() for p in nets.parameters())


# The texture form.


def texture(px: int = 64) -> tuple[Generator, Projection]:
    net = Generator(px, form="texture", min_channels=8, max_channels=16)
    return net, Projection(DIM, sum(net.adain_sizes))


def test_untrained_texture_returns_the_warped_photo() -> None:
    net, projection = texture()
    warped = pictures(2, px=128)  # frames are twice as large as the network's input
    out = net(pictures(2, px=64), projection(torch.rand(2, DIM)), warped, torch.zeros(2, NUM_GEOMETRY, 32, 32))
    torch.testing.assert_close(out.image, warped, atol=1e-5, rtol=0)
    assert out.correction.shape == (2, 2, 32, 32) and not out.correction.any()
    assert out.mask.shape == (2, 1, 128, 128)


def test_texture_blends_what_it_moves_and_what_it_draws() -> None:
    torch.manual_seed(0)
    net, projection = texture()
    for layer in (net.to_flow, net.to_picture):
        torch.nn.init.normal_(layer.weight, std=0.5)
    y, warped, geometry = pictures(1, px=64), pictures(1, px=128), torch.randn(1, NUM_GEOMETRY, 32, 32)
    psi_hat = projection(torch.rand(1, DIM))
    out = net.eval()(y, psi_hat, warped, geometry)
    half = warped.unflatten(3, (64, 2)).unflatten(2, (64, 2)).mean((3, 5))
    correction, change, mask = net.predict(y, psi_hat, half, geometry)
    assert change.shape == (1, 3, 128, 128) and mask.shape == (1, 1, 32, 32)
    moved = apply_correction(warped, correction)
    assert 0 < correction.abs().max() <= 0.1 and 0 < mask.min() < mask.max() < 1
    mask = torch.nn.functional.interpolate(mask, (128, 128), mode="bilinear")
    torch.testing.assert_close(out.synthesized, (moved + change).clamp(-1, 1), atol=2e-4, rtol=0)
    torch.testing.assert_close(out.image, mask * moved + (1 - mask) * out.synthesized, atol=2e-4, rtol=0)
    assert out.image.abs().max() <= 1


def test_move_takes_pixels_from_where_the_correction_points() -> None:
    image = torch.arange(8.0).repeat(1, 1, 8, 1)  # every row 0 .. 7
    right = torch.zeros(1, 2, 4, 4)
    right[:, 0] = 2 / 8
    expected = (torch.arange(8.0) + 2).clamp(max=7).repeat(1, 1, 8, 1)
    torch.testing.assert_close(apply_correction(image, right), expected)
    torch.testing.assert_close(apply_correction(image.transpose(2, 3), right.flip(1)), expected.transpose(2, 3))
    torch.testing.assert_close(apply_correction(image, torch.zeros(1, 2, 4, 4)), image)


def test_look_takes_all_of_a_frame_or_a_part() -> None:
    images = pictures(2, px=16)
    seen = view_frames(images, torch.tensor([[-1, -1], [3, 8]]))
    torch.testing.assert_close(seen[0, :, 2, 5], images[0, :, 4:6, 10:12].mean((1, 2)))
    torch.testing.assert_close(seen[1], images[1, :, 3:11, 8:16])


def test_both_forms_refuse_the_others_arguments() -> None:
    net, projection = texture()
    with pytest.raises(ValueError, match="texture form needs the warped photo"):
        net(pictures(1, px=64), projection(torch.rand(1, DIM)))
    paper, projection = generator()
    with pytest.raises(ValueError, match="the paper's takes neither"):
        paper(pictures(1), projection(torch.rand(1, DIM)), pictures(1), torch.zeros(1, NUM_GEOMETRY, PX // 2, PX // 2))
    with pytest.raises(ValueError, match="form 'oil'"):
        Generator(form="oil")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_networks_that_fit_each_other(name: str) -> None:
    config = replace(
        PRESETS[name].networks,
        image_px=64,
        embedder_channels=(4, 8),
        generator_channels=(4, 8),
        discriminator_channels=(4, 8),
        embedding_dim=8,
    )
    nets = build_networks(config, num_videos=3)
    x = pictures(2, 1, px=64)
    psi_hat = nets.P(nets.E(x, x).mean(1))
    frame = pictures(2, px=config.frame_px)
    warp = (frame, torch.zeros(2, NUM_GEOMETRY, 32, 32)) if config.form == "texture" else ()
    out = nets.G(x[:, 0], psi_hat, *warp)
    assert out.image.shape == frame.shape
    assert (out.mask is None) == (config.form == "paper")
    assert nets.D(x[:, 0], x[:, 0], torch.tensor([0, 2]))[0].shape == (2,)
    assert [name for name, _ in nets] == ["E", "P", "G", "D"]


def test_spectral_norm_is_exact_under_autocast() -> None:
    torch.manual_seed(0)
    layer = spectral_linear(40, 30)
    layer.eval()
    with torch.autocast("cpu", torch.bfloat16):
        half = layer.weight
    assert half.dtype == torch.float32 and torch.equal(half, layer.weight)
