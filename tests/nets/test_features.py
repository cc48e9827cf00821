"""The face network: what it returns, sizes it takes, folding, gradients; and what the shipped weights know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mien.errors import InputError
from mien.nets.features import EXPRESSIONS, FaceNet, folded, window

TINY = {"channels": (8, 8, 8, 8), "num_blocks": (0, 1, 0, 0), "embedding_dim": 16}


@pytest.fixture
def net() -> FaceNet:
    torch.manual_seed(0)
    net = FaceNet(**TINY)
    for _ in range(3):
        net.train()(torch.randn(8, 3, 96, 96))  # norms see some numbers
    return net.eval()


def smooth(num: int, side: int) -> torch.Tensor:
    """Pictures without detail: [num, 3, side, side]."""
    coarse = torch.rand(num, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


def test_what_a_reading_holds(net: FaceNet) -> None:
    reading = net(smooth(5, 96))
    assert reading.identity.shape == (5, 16)
    torch.testing.assert_close(reading.identity.norm(dim=1), torch.ones(5))
    assert [list(m.shape) for m in reading.maps] == [[5, 8, s, s] for s in (32, 16, 8, 4)]
    assert reading.pose.shape == (5, 3)
    assert reading.expression.shape == (5, len(EXPRESSIONS)) == (5, 32)
    assert (reading.expression >= 0).all() and (reading.expression <= 1).all()
    assert reading.age.shape == reading.gender.shape == reading.smile.shape == (5,)
    assert (reading.gender >= 0).all() and (reading.gender <= 1).all()


def test_smile_is_the_mean_of_both_corners(net: FaceNet) -> None:
    reading = net(smooth(3, 96))
    left, right = (reading.expression[:, EXPRESSIONS.index(f"mouthSmile{side}")] for side in ("Left", "Right"))
    torch.testing.assert_close(reading.smile, (left + right) / 2)


def test_the_window_lies_where_the_header_says() -> None:
    img = torch.arange(96.0).expand(1, 3, 96, 96) + 1000 * torch.arange(96.0)[:, None]
    cut = window(img)
    assert cut.shape == (1, 3, 64, 64)
    assert float(cut[0, 0, 0, 0]) == 28 * 1000 + 16  # top 28, left 16
    assert float(cut[0, 0, -1, -1]) == 91 * 1000 + 79


@pytest.mark.parametrize("side", [64, 128, 256, 500])
def test_any_size_gives_the_same_reading(net: FaceNet, side: int) -> None:
    expected, found = net(smooth(3, 96)), net(smooth(3, side))
    assert F.cosine_similarity(found.identity, expected.identity).min() > 0.999
    torch.testing.assert_close(found.expression, expected.expression, atol=0.01, rtol=0)


def test_maps_of_the_frame_keep_its_own_size_up_to_96_px(net: FaceNet) -> None:
    assert [m.shape[-1] for m in net.maps(smooth(1, 64))] == [32, 16, 8]
    assert [m.shape[-1] for m in net.maps(smooth(1, 128), num_stages=4)] == [48, 24, 12, 6]


def test_description_is_the_mean_of_the_last_maps(net: FaceNet) -> None:
    img = smooth(2, 96)
    maps = net(img).maps
    torch.testing.assert_close(net.describe(img), torch.cat([maps[-2].mean((2, 3)), maps[-1].mean((2, 3))], 1))


def test_pictures_of_a_batch_never_meet(net: FaceNet) -> None:
    img = smooth(3, 96)
    torch.testing.assert_close(net(img).identity[1:2], net(img[1:2]).identity, atol=1e-5, rtol=1e-5)


def test_folding_changes_no_number(net: FaceNet) -> None:
    img, ready = smooth(4, 96), folded(net)
    assert not any(isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) for m in ready.modules())
    assert not any(p.requires_grad for p in ready.parameters())
    for before, after in zip(net(img)[2:], ready(img)[2:], strict=True):
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(ready(img).identity, net(img).identity, atol=1e-5, rtol=1e-4)
    assert net.init_kwargs["norm"] is True  # the given network is as it was


def test_arguments_rebuild_the_network(net: FaceNet) -> None:
    ready = folded(net)
    twin = FaceNet(**ready.init_kwargs)
    twin.load_state_dict(ready.state_dict())
    img = smooth(1, 96)
    torch.testing.assert_close(twin(img).identity, ready(img).identity)


def test_gradients_reach_the_pixels(net: FaceNet) -> None:
    """Along one direction, against a finite difference, through resizing and every head."""
    net = folded(net).double()
    gen = torch.Generator().manual_seed(0)
    img = smooth(1, 64).double()
    step = torch.randn(img.shape, generator=gen, dtype=torch.float64)

    def score(x: torch.Tensor) -> torch.Tensor:
        reading = net(x)
        return reading.identity[0, 0] + reading.pose.sum() + reading.expression.sum() + reading.age.sum()

    (gradient,) = torch.autograd.grad(score(img.requires_grad_()), img)
    with torch.no_grad():
        difference = (score(img + 1e-4 * step) - score(img - 1e-4 * step)) / 2e-4
    assert float((gradient * step).sum()) == pytest.approx(float(difference), rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 48)])
def test_frames_must_be_square_and_rgb(net: FaceNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="must be square"):
        net(torch.zeros(shape))


def test_every_stage_needs_its_number_of_blocks() -> None:
    with pytest.raises(InputError, match="4 widths but 1"):
        FaceNet(num_blocks=(1,))


def test_the_shipped_weights_know_faces_they_never_saw(shared: Path) -> None:
    """On people kept out of training: signs of pose under a mirror, smiles, people, ages."""
    from mien.training.data import is_held_out, load_pictures
    from mien.weights.load import load_net

    net = load_net("face-features")
    assert isinstance(net, FaceNet)
    faces = load_pictures(shared / "data" / "faces128.zip", size_px=128)
    faces = faces.select(np.array([is_held_out(str(name)) for name in faces.labels["identity"]])).select(np.arange(96))
    img = faces.pixels.float() / 127.5 - 1
    with torch.no_grad():
        reading, mirrored = net(img), net(img.flip(3))
    yaw = torch.from_numpy(faces.labels["yaw_deg"]).float()
    assert float(torch.corrcoef(torch.stack([reading.pose[:, 0], yaw]))[0, 1]) > 0.9
    assert float((reading.pose[:, 0] + mirrored.pose[:, 0]).abs().mean()) < 5
    assert float((reading.pose[:, 1] - mirrored.pose[:, 1]).abs().mean()) < 5
    assert float((reading.smile - mirrored.smile).abs().mean()) < 0.1
    assert float((reading.identity * mirrored.identity).sum(1).mean()) > 0.8
    assert 30 < float(reading.age.median()) < 60
