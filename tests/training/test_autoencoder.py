"""What encoder and generator learn from: the distances by definition."""

from __future__ import annotations

import torch

from mien.training.autoencoder import code_moments, moments_apart, pyramid_distance


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
    w = torch.randn([4096, 8], generator=torch.Generator().manual_seed(0))
    assert code_moments(w) < 0.01
    torch.testing.assert_close(code_moments(w * 2 + 1), torch.tensor(1.0 + 9.0), atol=0.8, rtol=0)  # variance 4


def test_moments_of_two_batches_differ_by_shift_and_spread() -> None:
    w = torch.randn([64, 8], generator=torch.Generator().manual_seed(0)).double()
    w = (w - w.mean(0)) / w.std(0)
    assert moments_apart(w, w[torch.randperm(64)]) < 1e-12
    torch.testing.assert_close(moments_apart(2 * w + 0.5, w), torch.tensor(0.25 + 9.0).double())
