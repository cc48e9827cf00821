"""Losses: their definitions, one picture at a time, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from mien.losses import (
    dssim,
    identity_distance,
    noise_autocorrelation,
    perceptual,
    pyramid_l1,
    squared_error,
    unit_channels,
)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 16, 16, generator=gen) * 2 - 1, torch.rand(3, 3, 16, 16, generator=gen) * 2 - 1


@pytest.mark.parametrize("loss", [squared_error, pyramid_l1, dssim])
def test_pictures_of_a_batch_never_meet(loss, pair) -> None:
    img, target = pair
    together = loss(img, target)
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.cat([loss(img[i : i + 1], target[i : i + 1]) for i in range(3)]))
    torch.testing.assert_close(loss(img, img), torch.zeros(3), atol=1e-5, rtol=0)


def test_squared_error_is_its_definition(pair) -> None:
    img, target = pair
    expected = sum((a - b) ** 2 for a, b in zip(img[1].flatten().tolist(), target[1].flatten().tolist(), strict=True))
    assert float(squared_error(img, target)[1]) == pytest.approx(expected / (3 * 16 * 16), rel=1e-5)


def test_pyramid_sees_a_shift_of_colour_at_every_level() -> None:
    img = torch.zeros(1, 3, 32, 32)
    assert float(pyramid_l1(img, img + 0.5)) == pytest.approx(0.5)  # levels of 32, 16 and 8 px: all 0.5
    checked = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    assert float(pyramid_l1(img, checked.expand(1, 3, -1, -1))) == pytest.approx(1 / 3)  # gone after one halving


def test_dssim_agrees_with_scikit_image(pair) -> None:
    img, target = pair
    for i, mine in enumerate(dssim(img, target)):
        light = [(x[i].double().numpy() + 1) / 2 for x in (img, target)]
        theirs = structural_similarity(*light, channel_axis=0, data_range=1, use_sample_covariance=False)
        assert 1 - float(mine) == pytest.approx(theirs, abs=1e-4)


def test_unit_channels_have_unit_length() -> None:
    features = 10 * torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unit_channels(features).square().sum(1), torch.ones(2, 3, 3), atol=1e-3, rtol=0)


def test_perceptual_distance_of_opposite_and_of_orthogonal_features() -> None:
    east, north = torch.zeros(2, 1, 2, 4, 4)
    east[:, 0], north[:, 1] = 5.0, 3.0
    assert float(perceptual([east], [east * 2])) == pytest.approx(0, abs=1e-4)  # a gain does not count
    assert float(perceptual([east], [north])) == pytest.approx(2, abs=1e-3)
    assert float(perceptual([east], [-east])) == pytest.approx(4, abs=1e-3)
    assert float(perceptual([east, east], [north, east])) == pytest.approx(1, abs=1e-3)  # mean over maps
    with pytest.raises(ValueError, match="shorter"):
        perceptual([east, east], [east])


def test_identity_distance_is_one_minus_the_cosine() -> None:
    angle = torch.tensor([0.0, 0.3, math.pi])
    identity = torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(identity_distance(identity, torch.tensor([[1.0, 0.0]])), 1 - angle.cos())


def test_noise_autocorrelation_is_its_definition() -> None:
    """Karras et al. 2020, App. D: squared means of products with the right and the lower neighbour, levels to 8 px."""
    noise = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for n in range(2):
        expected, level = 0.0, noise[n, 0]
        for _ in range(2):
            side = len(level)
            right = sum(level[y, x] * level[y, (x - 1) % side] for y in range(side) for x in range(side)) / side**2
            lower = sum(level[y, x] * level[(y - 1) % side, x] for y in range(side) for x in range(side)) / side**2
            expected += float(right) ** 2 + float(lower) ** 2
            level = (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2]) / 4 * 2
        assert float(noise_autocorrelation([noise])[n]) == pytest.approx(expected, rel=1e-4)


def test_noise_maps_add_up_and_small_ones_do_not_count() -> None:
    flat = torch.ones(1, 1, 8, 8)
    assert float(noise_autocorrelation([flat])) == pytest.approx(2)  # two directions, one level
    assert float(noise_autocorrelation([flat, flat, torch.ones(1, 1, 4, 4)])) == pytest.approx(4)
    assert float(noise_autocorrelation([torch.ones(1, 1, 4, 4)])) == 0


@pytest.mark.parametrize("loss", [squared_error, dssim])
def test_gradients_of_picture_losses(loss, pair) -> None:
    img, target = (x[:1, :, :9, :9].double() for x in pair)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), img.clone().requires_grad_(), atol=1e-4)


def test_gradients_of_feature_losses() -> None:
    gen = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=gen, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: noise_autocorrelation([x]), noise)
    maps, target = torch.randn(2, 1, 3, 2, 2, generator=gen, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: perceptual([x], [target]), maps.requires_grad_())
