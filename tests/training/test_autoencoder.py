"""The autoencoder start: its distances by definition, and a mapping that meets given codes."""

from __future__ import annotations

import torch

from mien.nets.stylegan2 import MappingNetwork
from mien.training.autoencoder import code_moments, fit_mapping, pyramid_distance, sliced_wasserstein


def test_a_change_of_level_costs_the_change() -> None:
    img = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(
        pyramid_distance(img, img + torch.tensor([0.25, 0.5])[:, None, None, None]), torch.tensor([0.25, 0.5])
    )
    assert (pyramid_distance(img, img) == 0).all()


def test_a_finest_pattern_counts_on_the_first_level_only() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 3, 16, 16)  # the mean of two neighbours is 0
    flat = torch.zeros(1, 3, 16, 16)
    torch.testing.assert_close(pyramid_distance(stripes, flat, num_levels=2), torch.tensor([(1.0 + 2.0) / 2]))


def test_moments_of_unit_normal_codes_are_small() -> None:
    rng = torch.Generator().manual_seed(0)
    base = torch.randn([4096, 8], generator=rng)
    ws = base[:, None].repeat(1, 5, 1)
    moments, offsets = code_moments(ws)
    assert moments < 0.01 and offsets < 1e-12
    moments, _ = code_moments(ws * 2 + 1)  # mean 1, variance 4
    torch.testing.assert_close(moments, torch.tensor(1.0 + 9.0), atol=0.8, rtol=0)
    step = torch.tensor([-1.0, 1.0]).repeat_interleave(2)[None, :, None]
    assert code_moments(torch.zeros(3, 4, 8) + step)[1] == 1


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    cloud = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([3.0, 0.0])
    distance = sliced_wasserstein(cloud, cloud[torch.randperm(64)] + shift, torch.eye(2))
    torch.testing.assert_close(distance, torch.tensor((9.0 + 0.0) / 2))


def test_a_mapping_learns_where_codes_lie() -> None:
    torch.manual_seed(0)
    mapping = MappingNetwork(16, 0, 16, 4, num_layers=2)
    codes = torch.randn(1024, 16) * torch.linspace(0.5, 2, 16) + torch.linspace(-1, 1, 16)
    fit_mapping(mapping, codes, num_steps=150)
    w = mapping(torch.randn(2000, 16))[:, 0]
    torch.testing.assert_close(w.mean(0), codes.mean(0), atol=0.35, rtol=0)
    torch.testing.assert_close(w.std(0), codes.std(0), atol=0.35, rtol=0)
    assert torch.equal(mapping.w_avg, codes.mean(dim=0))
