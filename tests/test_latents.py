"""Latents: the official code's seeds, truncation and mixing by their definitions, moments of the statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.errors import InputError
from mien.latents import (
    broadcast,
    interpolate,
    latent_stats,
    mix,
    sample_w,
    sample_ws,
    seeds_to_z,
    synthesize,
    truncate,
)
from mien.nets.stylegan2 import Generator


@pytest.fixture(scope="module")
def G() -> Generator:
    torch.manual_seed(0)
    kwargs = dict(channel_base=256, channel_max=16)
    net = Generator(16, 0, 12, 16, 3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=kwargs)
    net.mapping.w_avg.copy_(torch.randn(12))
    return net.eval().requires_grad_(False)


def test_seeds_are_those_of_the_official_code() -> None:
    z = seeds_to_z([0, 7], 5)
    assert z.dtype == torch.float32
    np.testing.assert_allclose(z[1].numpy(), np.random.RandomState(7).randn(1, 5)[0].astype(np.float32))


@pytest.mark.parametrize(
    ("seeds", "message"), [([], "no seeds given"), ([-1], "seed -1 is out of range"), ([2**32], "out")]
)
def test_impossible_seeds_are_refused(seeds: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        seeds_to_z(seeds, 4)


def test_sample_ws_truncates_as_the_network_does(G: Generator) -> None:
    full = sample_ws(G, [3, 4])
    assert full.shape == (2, G.num_ws, G.w_dim)
    torch.testing.assert_close(sample_ws(G, [3, 4], truncation_psi=0.5), truncate(full, G.w_avg, 0.5))
    assert torch.equal(truncate(full, G.w_avg, 0.5, cutoff=2)[:, 2:], full[:, 2:])
    torch.testing.assert_close(truncate(full, G.w_avg, 0), broadcast(G.w_avg[None], G.num_ws).expand(2, -1, -1))


def test_mix_takes_rows_and_changes_nothing_given(G: Generator) -> None:
    a, b = sample_ws(G, [1]), sample_ws(G, [2])
    kept = a.clone()
    mixed = mix(a, b, [2, 3])
    assert torch.equal(mixed[:, 2:4], b[:, 2:4])
    assert torch.equal(mixed[:, :2], a[:, :2])
    assert torch.equal(mixed[:, 4:], a[:, 4:])
    assert torch.equal(a, kept)
    with pytest.raises(InputError, match="no row 6"):
        mix(a, b, [6])
    with pytest.raises(InputError, match="two generators"):
        mix(a, b[:, :2], [0])


def test_interpolate_ends_where_it_should(G: Generator) -> None:
    a, b = sample_ws(G, [1]), sample_ws(G, [2])
    assert torch.equal(interpolate(a, b, 0.0), a)
    torch.testing.assert_close(interpolate(a, b, 1.0), b)
    torch.testing.assert_close(interpolate(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_statistics_describe_the_samples(G: Generator) -> None:
    stats = latent_stats(G, num=4000, seed=1)
    w = sample_w(G, 4000, seed=2)
    torch.testing.assert_close(stats.w_avg, w.mean(0), atol=0.1, rtol=0)
    assert stats.w_std == pytest.approx(float((w - w.mean(0)).square().sum(1).mean().sqrt()), rel=0.05)
    white = stats.whiten(w)
    torch.testing.assert_close(white.T.cov(), torch.eye(white.shape[1]), atol=0.15, rtol=0)
    assert float(stats.unlikelihood(w).mean()) == pytest.approx(1, abs=0.1)
    assert float(stats.unlikelihood(stats.w_avg + 5 * (w - stats.w_avg)).mean()) > 5


def test_synthesize_renders_w_and_ws_alike(G: Generator) -> None:
    w = sample_w(G, 2)
    torch.testing.assert_close(synthesize(G, w), synthesize(G, broadcast(w, G.num_ws)))
    with pytest.raises(InputError, match=r"the code must be \[N, 6, 12\], got \[1, 2, 12\]"):
        synthesize(G, torch.zeros(1, 2, 12))
