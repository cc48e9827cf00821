"""Hybrid inversion: the picture is divided by what the code can show, and both parts come nearer."""

from __future__ import annotations

import pytest
import torch

from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.hybrid import HybridConfig, feature_layer, hybrid, in_domain
from mien.inversion.tune import TuneConfig
from mien.latents import LatentStats, sample_ws, synthesize
from mien.losses import squared_error
from mien.nets.stylegan2 import Generator

FAST = HybridConfig(num_steps=15, lr=0.1, tune=TuneConfig(num_steps=10, rank=4, locality_weight=0.0), feature_share=0.5)


def test_near_places_belong_to_the_generator() -> None:
    img = torch.zeros(1, 3, 32, 32)
    render = img.clone()
    render[:, :, :, 16:] = 1.0
    inside = in_domain(render, img, near=0.1, far=0.3)
    assert inside.shape == (1, 1, 32, 32)
    assert (inside[..., :12] == 1).all() and (inside[..., 20:] == 0).all()
    half = in_domain(torch.full((1, 3, 32, 32), 0.2), img, near=0.1, far=0.3)
    torch.testing.assert_close(half, torch.full((1, 1, 32, 32), 0.5))


def test_the_offset_lies_where_the_code_fails_and_helps_there(small_G: Generator, small_stats: LatentStats) -> None:
    code = Inversion(ws=sample_ws(small_G, [1])[0])
    img = code.render(small_G)
    img[..., :8] += 2.0 * img.std()  # what no face has
    config = HybridConfig(**{**vars(FAST), "near": 0.01, "far": float(img.std())})
    (found,) = hybrid(small_G, img, [code], config=config, stats=small_stats)
    feature = found.changes.feature
    assert feature is not None and feature.layer == "b8"
    assert float(feature.values[..., -1].abs().max()) < 0.2 * float(feature.values[..., 0].abs().max())
    before, after = (squared_error(x.render(small_G), img).item() for x in (code, found))
    assert after < 0.7 * before


def test_a_feature_map_of_the_share_is_found(small_G: Generator) -> None:
    assert feature_layer(small_G, 0.25) == "b4"
    assert feature_layer(small_G, 0.5) == "b8"
    assert feature_layer(small_G, 1.0) == "b8"  # what follows the last could not use it
    assert feature_layer(small_G, 0.1) == "b4"


def test_people_do_not_meet(small_G: Generator, small_stats: LatentStats) -> None:
    codes = [Inversion(ws=ws) for ws in sample_ws(small_G, [1, 2])]
    img = synthesize(small_G, sample_ws(small_G, [3, 4]))
    together = hybrid(small_G, img, codes, config=FAST, stats=small_stats)[1]
    alone = hybrid(small_G, img[1:], codes[1:], config=FAST, stats=small_stats)[0]
    assert torch.equal(together.render(small_G), alone.render(small_G))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="near must be above 0 and below far"):
        HybridConfig(near=0.3, far=0.2)
    with pytest.raises(InputError, match="feature_share"):
        HybridConfig(feature_share=0.0)
