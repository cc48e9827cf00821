"""Pivotal tuning: it comes nearer to the picture than the code can, keeps its neighbours, and keeps what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.inversion.objective import Target
from mien.inversion.personal import personal
from mien.inversion.tune import TuneConfig, tune, tune_together
from mien.latents import LatentStats, sample_ws, synthesize
from mien.losses import squared_error
from mien.nets.features import FaceNet
from mien.nets.stylegan2 import Generator
from mien.report import Step

FAST = TuneConfig(num_steps=20, rank=4, lr=0.02, locality_weight=0.0)


@pytest.fixture
def picture(small_G: Generator) -> torch.Tensor:
    """What no code gives: two halves of two people."""
    a, b = synthesize(small_G, sample_ws(small_G, [1, 2]))
    return torch.cat([a[:, :, :8], b[:, :, 8:]], dim=2)[None]


@pytest.fixture
def pivot(small_G: Generator) -> Inversion:
    return Inversion(ws=sample_ws(small_G, [1])[0])


def test_it_comes_nearer_and_reports_what_is_rendered(
    small_G: Generator, small_stats: LatentStats, picture: torch.Tensor, pivot: Inversion
) -> None:
    (found,) = tune(small_G, picture, [pivot], config=FAST, stats=small_stats)
    before, after = (squared_error(x.render(small_G), picture).item() for x in (pivot, found))
    assert after < 0.6 * before
    assert torch.equal(found.ws, pivot.ws)
    img = found.render(small_G)
    levels = [(img - picture).abs().mean(), (torch.nn.functional.avg_pool2d(img - picture, 2)).abs().mean()]
    assert found.losses["pixel"] == pytest.approx(float(sum(levels)) / 2, rel=0.02)  # rounding to 16 bits


def test_beside_whom_somebody_is_tuned_makes_no_difference(
    small_G: Generator, small_stats: LatentStats, picture: torch.Tensor, pivot: Inversion
) -> None:
    other = Inversion(ws=sample_ws(small_G, [3])[0])
    together = tune(small_G, picture.repeat(2, 1, 1, 1), [other, pivot], config=FAST, stats=small_stats)[1]
    alone = tune(small_G, picture, [pivot], config=FAST, stats=small_stats)[0]
    for name, (up, down) in alone.changes.factors.items():
        assert torch.equal(up, together.changes.factors[name][0])
        assert torch.equal(down, together.changes.factors[name][1])


def test_locality_keeps_other_people_as_they_were(
    small_G: Generator, small_stats: LatentStats, picture: torch.Tensor, pivot: Inversion
) -> None:
    neighbour = pivot.ws.lerp(sample_ws(small_G, [9])[0], 0.3)[None]
    before = synthesize(small_G, neighbour)
    moved = []
    for weight in (0.0, 10.0):
        config = replace(FAST, locality_weight=weight, locality_every=2)
        (found,) = tune(small_G, picture, [pivot], config=config, stats=small_stats)
        moved.append(squared_error(synthesize(personal(small_G, found.changes), neighbour), before).item())
    assert moved[1] < 0.7 * moved[0]


def test_where_the_mask_is_zero_nothing_is_compared(
    small_G: Generator, small_stats: LatentStats, picture: torch.Tensor, pivot: Inversion
) -> None:
    (found,) = tune(small_G, picture, [pivot], config=FAST, stats=small_stats, masks=torch.zeros(1, 1, 16, 16))
    assert torch.equal(found.render(small_G), pivot.render(small_G))


def test_it_stops_when_the_features_are_near(
    small_G: Generator, small_stats: LatentStats, small_face_net: FaceNet, pivot: Inversion
) -> None:
    steps: list[Step] = []
    config = replace(FAST, stop_perceptual=0.5)
    img = pivot.render(small_G)
    tune(small_G, img, [pivot], config=config, face_model=small_face_net, stats=small_stats, on_step=steps.append)
    assert len(steps) == 1


def test_nothing_given_is_changed(
    small_G: Generator, small_stats: LatentStats, picture: torch.Tensor, pivot: Inversion
) -> None:
    before = {name: t.clone() for name, t in small_G.state_dict().items()}
    tune(small_G, picture, [pivot], config=FAST, stats=small_stats)
    assert all(torch.equal(t, before[name]) for name, t in small_G.state_dict().items())
    assert not pivot.changes
    assert not any(m._forward_hooks for m in small_G.modules())


def test_pictures_of_one_person_share_a_change(
    small_G: Generator, small_stats: LatentStats, picture: torch.Tensor, pivot: Inversion
) -> None:
    """Both get nearer by the same weights; one alone is what `tune` does."""
    pictures = torch.cat([picture, picture.flip(3)])
    pivots = [pivot, replace(pivot, ws=pivot.ws + 0.1)]
    together = tune_together(small_G, Target.of(pictures, None), pivots, config=FAST, stats=small_stats)
    assert together[0].changes is together[1].changes
    for img, before, after in zip(pictures.split(1), pivots, together, strict=True):
        assert torch.equal(after.ws, before.ws)
        assert (after.render(small_G) - img).square().mean() < (before.render(small_G) - img).square().mean()
    (alone,) = tune_together(small_G, Target.of(picture, None), [pivot], config=FAST, stats=small_stats)
    (tuned,) = tune(small_G, picture, [pivot], config=FAST, stats=small_stats)
    assert torch.equal(alone.render(small_G), tuned.render(small_G))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="rank must be at least 1"):
        TuneConfig(rank=0)
    with pytest.raises(InputError, match="locality_every must be at least 1"):
        TuneConfig(locality_every=0)
