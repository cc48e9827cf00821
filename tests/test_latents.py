"""Latents: the official code's seeds, truncation and mixing by their definitions, moments of the statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.errors import InputError
from mien.latents import (
    broadcast,
    class_label,
    interpolate,
    latent_stats,
    loop,
    loop_weights,
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


def test_a_truncation_is_a_number(G: Generator) -> None:
    with pytest.raises(InputError, match="truncation_psi is nan"):
        sample_ws(G, [0], truncation_psi=float("nan"))


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


@pytest.mark.parametrize("num_keys", [1, 2, 3, 5])
def test_a_loop_is_the_periodic_cubic_spline(num_keys: int) -> None:
    interpolate_ = pytest.importorskip("scipy.interpolate")
    keys = torch.randn(num_keys, 4, 2, dtype=torch.float64)
    closed = torch.cat([keys, keys[:1]]).numpy()
    spline = interpolate_.CubicSpline(np.arange(num_keys + 1), closed, bc_type="periodic")
    expected = spline(np.arange(11) * num_keys / 11)
    np.testing.assert_allclose(loop(keys.float(), 11).numpy(), expected, atol=1e-5)


def test_a_loop_meets_its_keys_and_is_smooth_where_it_closes() -> None:
    keys = torch.randn(3, 2, 4)
    frames = loop(keys, 300)
    torch.testing.assert_close(frames[::100], keys)
    steps = (frames.roll(-1, dims=0) - frames).flatten(1)
    assert (steps.roll(-1, dims=0) - steps).norm(dim=1).max() < 0.1 * steps.norm(dim=1).max(), "nowhere a corner"
    torch.testing.assert_close(loop_weights(5, 40).sum(1), torch.ones(40))
    with pytest.raises(InputError, match="needs keys and frames, got 3 and 0"):
        loop(keys, 0)


def test_classes_are_those_of_the_generator(G: Generator) -> None:
    assert class_label(G, None) is None
    with pytest.raises(InputError, match="class 1 of a generator without classes"):
        class_label(G, 1)
    kwargs = dict(mapping_kwargs=dict(num_layers=2), channel_base=64, channel_max=8)
    many = Generator(8, 3, 8, 8, 3, **kwargs).eval()
    assert class_label(many, 2).tolist() == [[0, 0, 1]]
    first, last = sample_ws(many, [1, 2], class_idx=0), sample_ws(many, [1, 2], class_idx=2)
    assert first.shape == last.shape and not torch.allclose(first, last)
    for wrong, message in ((None, "needs a class"), (3, "no class 3"), (-1, "no class -1")):
        with pytest.raises(InputError, match=message) as caught:
            sample_ws(many, [1], class_idx=wrong)
        assert "0 to 2" in caught.value.hint


def test_random_noise_is_that_of_its_seed(G: Generator) -> None:
    G.synthesis.b8.conv1.noise_strength.fill_(1)
    ws, before = sample_ws(G, [1]), torch.get_rng_state()
    one, same, other = (synthesize(G, ws, noise_mode="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(synthesize(G, ws, noise_mode="none"), G.synthesis(ws, noise_mode="none"))
    with pytest.raises(InputError, match="no noise mode 'pink'"):
        synthesize(G, ws, noise_mode="pink")
    G.synthesis.b8.conv1.noise_strength.fill_(0)


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
