"""Starts: each gives one code a picture, and what it promises of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mien.errors import InputError, WeightsError
from mien.inversion.objective import TermWeights
from mien.inversion.starts import NUM_SAMPLES, STARTS, TRUNCATION, Means, start_codes
from mien.latents import LatentStats, broadcast, sample_w, sample_ws, synthesize
from mien.nets.stylegan2 import Generator

PIXELS = TermWeights(pixel=1.0, ssim=0.0, perceptual=0.0, identity=0.0)


@pytest.fixture
def means(small_G: Generator, small_stats: LatentStats) -> Means:
    return Means(stats=small_stats, encode=lambda img: sample_ws(small_G, [8] * len(img)), terms=PIXELS)


@pytest.mark.parametrize("name", ["auto", "average", "nearest", "encoder", "iterative"])
def test_every_start_gives_a_code_a_picture(small_G: Generator, means: Means, name: str) -> None:
    img = synthesize(small_G, sample_ws(small_G, [1, 2, 3]))
    together = start_codes(small_G, img, name, means)
    assert together.shape == (3, small_G.num_ws, small_G.w_dim)
    torch.testing.assert_close(start_codes(small_G, img[1:2], name, means)[0], together[1])


def test_the_average_is_the_mean_of_w(small_G: Generator, means: Means, small_stats: LatentStats) -> None:
    codes = start_codes(small_G, torch.zeros(2, 3, 16, 16), "average", means)
    assert torch.equal(codes, small_stats.w_avg.expand(2, small_G.num_ws, -1))


def test_the_nearest_sample_is_found_again(small_G: Generator, means: Means, small_stats: LatentStats) -> None:
    samples = small_stats.w_avg.lerp(sample_w(small_G, NUM_SAMPLES, seed=0), TRUNCATION)
    some = broadcast(samples[[5, 400]], small_G.num_ws)
    torch.testing.assert_close(start_codes(small_G, synthesize(small_G, some), "nearest", means), some)


def test_looking_again_never_makes_it_worse(small_G: Generator, means: Means) -> None:
    """An encoder that sees the mean colour alone: corrections by its own error may overshoot."""
    torch.manual_seed(3)
    reads = torch.randn(3, small_G.w_dim)
    clumsy = replace(means, encode=lambda img: broadcast(img.mean((2, 3)) @ reads, small_G.num_ws))
    img = synthesize(small_G, sample_ws(small_G, [1, 2, 3, 4]))
    once, again = (synthesize(small_G, start_codes(small_G, img, n, clumsy)) for n in ("encoder", "iterative"))
    difference = (once - img).abs().mean((1, 2, 3)) - (again - img).abs().mean((1, 2, 3))
    assert (difference > -0.02).all() and difference.max() > 0


def test_given_codes_are_taken(small_G: Generator, means: Means) -> None:
    img, ws = torch.zeros(1, 3, 16, 16), sample_ws(small_G, [4])
    assert torch.equal(start_codes(small_G, img, "given", replace(means, given=ws)), ws)
    with pytest.raises(InputError, match=r"needs codes \[1, 6, 16\], got none"):
        start_codes(small_G, img, "given", means)


def test_without_an_encoder(small_G: Generator, means: Means) -> None:
    img, without = torch.zeros(1, 3, 16, 16), replace(means, encode=None)
    assert torch.equal(start_codes(small_G, img, "auto", without), start_codes(small_G, img, "average", without))
    with pytest.raises(WeightsError, match="has no encoder"):
        start_codes(small_G, img, "iterative", without)
    with pytest.raises(InputError, match="no start named 'middle'"):
        start_codes(small_G, img, "middle", means)
    assert set(STARTS) == {"auto", "average", "nearest", "encoder", "iterative", "given"}
