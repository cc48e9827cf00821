"""Style terms: each against its definition, and what leaves it as it is."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from mien.edits.colours import grey, match_colours, match_light, with_colours_of
from mien.edits.style_terms import distance, gram, moments, projected, sliced, total_variation, wasserstein
from mien.errors import InputError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_gram_is_its_definition_and_forgets_places() -> None:
    maps = torch.randn(1, 4, 5, 6)
    G = gram(maps)
    by_hand = sum(maps[0, 1, y, x] * maps[0, 2, y, x] for y in range(5) for x in range(6)) / (4 * 5 * 6)
    torch.testing.assert_close(G[1, 2], torch.as_tensor(by_hand))
    shuffled = maps.flatten(2)[:, :, torch.randperm(30)].view_as(maps)
    torch.testing.assert_close(gram(shuffled), G)
    torch.testing.assert_close(gram(maps, torch.ones(1, 1, 5, 6)), G)


def test_a_weight_leaves_places_out() -> None:
    maps = torch.randn(1, 4, 6, 8)
    weight = torch.zeros(1, 1, 6, 8)
    weight[..., :4] = 1
    torch.testing.assert_close(gram(maps, weight), gram(maps[..., :4]), atol=1e-5, rtol=1e-5)
    for mine, aim in zip(moments(maps, weight), moments(maps[..., :4]), strict=True):
        torch.testing.assert_close(mine, aim, atol=1e-5, rtol=1e-5)


def test_moments_are_mean_and_covariance() -> None:
    maps = torch.randn(1, 4, 7, 6)
    mean, cov = moments(maps)
    torch.testing.assert_close(mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(cov, maps[0].flatten(1).cov(correction=0), atol=1e-5, rtol=1e-5)


def test_wasserstein_of_gaussians_is_the_closed_form() -> None:
    a, b = (moments(torch.randn(1, 5, 20, 20) * scale + scale) for scale in (1.0, 2.5))
    A, B = (m.cov.double().numpy() for m in (a, b))
    root = scipy.linalg.sqrtm(B)
    common = np.trace(scipy.linalg.sqrtm(root @ A @ root).real)
    aim = float((a.mean - b.mean).square().sum()) + np.trace(A) + np.trace(B) - 2 * common
    assert float(wasserstein(a, b)) == pytest.approx(aim / 5, rel=1e-3)
    assert float(wasserstein(a, a)) == pytest.approx(0, abs=1e-4)


def test_wasserstein_can_be_descended() -> None:
    maps = torch.randn(1, 3, 8, 8, requires_grad=True)
    aim = moments(torch.randn(1, 3, 8, 8) * 2)
    loss = wasserstein(moments(maps), aim)
    (slope,) = torch.autograd.grad(loss, maps)
    assert bool(slope.isfinite().all())
    assert float(wasserstein(moments((maps - 0.5 * slope).detach()), aim)) < loss.item()


def test_sliced_compares_distributions() -> None:
    x = torch.randn(3, 500)
    shift = torch.tensor([[1.0], [2], [0]])
    assert float(sliced(x + shift, x)) == pytest.approx(5 / 3, rel=1e-5)
    assert float(sliced(x, x[:, torch.randperm(500)])) == 0
    assert float(sliced(x, x[:, ::2])) < 0.02  # places of another number
    weight = torch.zeros(500)
    weight[:250] = 1
    broken = torch.where(weight > 0, x, torch.tensor(9.0))
    assert float(sliced(broken, x[:, :250], weight)) == 0


def test_projected_are_patches_under_filters() -> None:
    img, filters = torch.randn(1, 3, 9, 8), torch.randn(2, 3, 3, 3)
    said = projected(img, filters, stride=2, offset=(1, 0))
    assert said.shape == (2, 9)
    torch.testing.assert_close(said[1, 3 + 2], (img[0, :, 3:6, 4:7] * filters[1]).sum())


def test_distances() -> None:
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    torch.testing.assert_close(distance(x, y), (x - y).square().mean())
    torch.testing.assert_close(distance(x, y, "relative"), (x - y).square().mean() / y.var())
    torch.testing.assert_close(distance(10 * x, 10 * y, "scaled"), 10 * distance(x, y, "scaled"))
    with pytest.raises(InputError, match="no distance named 'l3'"):
        distance(x, y, "l3")


def test_total_variation_counts_neighbours() -> None:
    img = torch.zeros(1, 3, 4, 4)
    assert float(total_variation(img)) == 0
    img[..., 2:] = 1  # one edge of four px in twelve pairs
    assert float(total_variation(img)) == pytest.approx(4 / 12)


def test_colours_are_matched() -> None:
    img, like = (torch.rand(1, 3, 32, 32) * s - 0.5 for s in (0.9, 0.4))
    like[:, 0] += 0.3 * like[:, 1]
    moved = match_colours(img, like)
    for statistic in (lambda x: x.mean((0, 2, 3)), lambda x: x[0].flatten(1).cov()):
        torch.testing.assert_close(statistic(moved), statistic(like), atol=2e-3, rtol=0)
    torch.testing.assert_close(match_colours(img, img), img, atol=1e-3, rtol=0)


def test_light_alone_is_moved_and_colours_come_back() -> None:
    img, like = (torch.rand(1, 3, 16, 16) * s for s in (0.6, 0.3))
    moved = match_light(img, like)
    assert torch.equal(moved[:, 0], moved[:, 2])
    torch.testing.assert_close(moved.mean(), grey(like).mean())
    torch.testing.assert_close(moved[:, 0].std(), grey(like)[:, 0].std(), atol=1e-3, rtol=0)
    kept = with_colours_of(grey(img), like)
    torch.testing.assert_close(grey(kept), grey(img), atol=1e-5, rtol=0)
    torch.testing.assert_close(kept - grey(kept), like - grey(like), atol=1e-5, rtol=0)
