"""LPIPS against its equation, place by place, and the names of its published heads."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.nets.lpips import LPIPS, TRUNKS


@pytest.fixture(scope="module", params=TRUNKS)
def net(request: pytest.FixtureRequest) -> LPIPS:
    torch.manual_seed(0)
    net = LPIPS(trunk=request.param).eval().requires_grad_(False)
    for name, p in net.named_parameters():
        if name.startswith("lin"):
            p.abs_()  # as the published ones are
    return net


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.rand(2, 2, 3, 40, 36, generator=torch.Generator().manual_seed(1)) * 2 - 1).unbind()


def test_heads_have_the_published_names_and_shapes(net: LPIPS) -> None:
    heads = {name: list(t.shape) for name, t in net.state_dict().items() if name.startswith("lin")}
    widths = {"vgg16": (64, 128, 256, 512, 512), "alexnet": (64, 192, 384, 256, 256)}[net.init_kwargs["trunk"]]
    assert heads == {f"lin{i}.model.1.weight": [1, width, 1, 1] for i, width in enumerate(widths)}


def test_distance_is_equation_1(net: LPIPS) -> None:
    img, target = pictures()
    expected = torch.zeros(2)
    for i, (x, y) in enumerate(zip(net.net.maps(img), net.net.maps(target), strict=True)):
        weight = net.state_dict()[f"lin{i}.model.1.weight"].flatten()
        for n in range(2):
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    a, b = x[n, :, row, column], y[n, :, row, column]
                    a, b = a / (a.norm() + 1e-10), b / (b.norm() + 1e-10)
                    expected[n] += (weight * (a - b) ** 2).sum() / (x.shape[2] * x.shape[3])
        if x.shape[2] * x.shape[3] > 400:
            break
    else:
        torch.testing.assert_close(net(img, target), expected, atol=1e-5, rtol=1e-4)
        return
    parts = [(a, b) for a, b in zip(net.maps(img)[:1], net.maps(target)[:1], strict=True)]
    weight = net.state_dict()["lin0.model.1.weight"].flatten()[:, None, None]
    first = sum(((a - b).square() * weight).sum(1).mean((1, 2)) for a, b in parts)
    torch.testing.assert_close(first, expected, atol=1e-5, rtol=1e-4)


def test_equal_pictures_have_no_distance_and_a_finite_slope(net: LPIPS) -> None:
    black = torch.full((1, 3, 32, 32), -1.0, requires_grad=True)
    distance = net(black, torch.full((1, 3, 32, 32), -1.0))
    assert distance.tolist() == [0]
    distance.sum().backward()
    assert black.grad.isfinite().all()


def test_each_picture_counts_for_itself(net: LPIPS) -> None:
    img, target = pictures()
    both = net(img, target)
    assert both.shape == (2,)
    torch.testing.assert_close(both[1:], net(img[1:], target[1:]))
    torch.testing.assert_close(both, net.distance(net.maps(img), net.maps(target)))
    assert (both > 0).all()


def test_an_unknown_trunk_is_said() -> None:
    with pytest.raises(InputError, match="no trunk named 'resnet'"):
        LPIPS(trunk="resnet")
