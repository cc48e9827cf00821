"""Projection: recovery of known codes, independence of the pictures of a batch, and the definitions of its terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mien.errors import Cancelled, InputError
from mien.inversion.objective import TermWeights
from mien.inversion.project import (
    ProjectConfig,
    noise_maps,
    project,
)
from mien.latents import latent_stats, sample_ws, synthesize
from mien.nets.stylegan2 import Generator
from mien.report import Step

FAST = ProjectConfig(num_steps=12, patience=12)


@pytest.fixture(scope="module")
def G(make_G: Callable[..., Generator]) -> Generator:
    return make_G(z_dim=16, w_dim=16, num_layers=2, channel_base=512, channel_max=16)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(4 / float((a - b).square().mean()))


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_render_is_found_again(G: Generator, space: str) -> None:
    ws = sample_ws(G, [5], truncation_psi=0.7)
    img = synthesize(G, ws)
    scale = float(img.std())
    config = ProjectConfig(space=space, num_steps=120, patience=120, offset_weight=0, prior_weight=0, noise_lr=0)
    found = project(G, img, config=config)[0]
    assert psnr(found.render(G) / scale, img / scale) > 25
    assert (space == "w") == bool((found.ws == found.ws[:1]).all())


def test_a_batch_gives_what_one_by_one_gives(G: Generator) -> None:
    img = synthesize(G, sample_ws(G, [1, 2, 3]))
    config = replace(FAST, w_noise=0.05, num_steps=15, patience=3, min_progress=0.05)
    together = project(G, img, config=config)
    for i, one in enumerate(together):
        alone = project(G, img[i : i + 1], config=config)[0]
        torch.testing.assert_close(one.ws, alone.ws, rtol=1e-2, atol=5e-3)
        assert one.losses.keys() == alone.losses.keys()
        assert one.losses["total"] == pytest.approx(alone.losses["total"], rel=1e-3)


def test_a_picture_that_is_reached_stops_early(G: Generator) -> None:
    ws = sample_ws(G, [1])
    steps: list[Step] = []
    config = replace(FAST, num_steps=200, patience=3, offset_weight=0, prior_weight=0)
    found = project(G, synthesize(G, ws), config=config, start=ws, on_step=steps.append)[0]
    assert len(steps) < 20
    assert found.losses["pixel"] < 1e-5


def test_what_is_returned_renders_to_the_loss_that_is_reported(G: Generator) -> None:
    img = synthesize(G, sample_ws(G, [1]))
    found = project(G, img, config=FAST)[0]
    levels = []
    x, y = found.render(G), img
    while x.shape[-1] >= 8:
        levels.append(float((x - y).abs().mean()))
        x, y = torch.nn.functional.avg_pool2d(x, 2), torch.nn.functional.avg_pool2d(y, 2)
    assert found.losses["pixel"] == pytest.approx(sum(levels) / len(levels), rel=1e-4)
    assert [tuple(n.shape) for n in found.noise] == G.synthesis.noise_shapes()


def test_nothing_given_is_changed(G: Generator) -> None:
    start = sample_ws(G, [1])
    img = synthesize(G, sample_ws(G, [2]))
    before = [start.clone(), img.clone(), *[p.clone() for p in G.state_dict().values()]]
    project(G, img, start=start, config=FAST)
    for a, b in zip(before, [start, img, *G.state_dict().values()], strict=True):
        assert torch.equal(a, b)


def test_noise_maps_stay_standard_and_may_be_left_alone(G: Generator) -> None:
    img = synthesize(G, sample_ws(G, [2]))
    for noise in project(G, img, config=FAST)[0].noise:
        assert float(noise.mean()) == pytest.approx(0, abs=1e-5)
        assert float(noise.square().mean()) == pytest.approx(1, abs=1e-3)
    assert project(G, img, config=replace(FAST, noise_lr=0))[0].noise == ()


def test_offset_weight_draws_the_rows_together(G: Generator) -> None:
    img = synthesize(G, sample_ws(G, [3]))
    loose, tight = (project(G, img, config=replace(FAST, num_steps=25, offset_weight=x))[0] for x in (0.0, 5.0))
    assert tight.losses["offset"] < 0.5 * loose.losses["offset"]


def test_learning_rate_rises_and_falls() -> None:
    config = ProjectConfig(num_steps=100, lr=0.1, lr_rampup=0.05, lr_rampdown=0.25)
    assert config.rate(0) == pytest.approx(0.1 / 5)
    assert config.rate(50) == pytest.approx(0.1)
    assert config.rate(87) < 0.06
    assert config.rate(99) < 0.001


def test_a_sink_can_stop_the_work(G: Generator) -> None:
    def stop(step: Step) -> None:
        if step.done == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        project(G, synthesize(G, sample_ws(G, [1])), config=FAST, on_step=stop)


def test_bfloat16_is_close(G: Generator) -> None:
    img = synthesize(G, sample_ws(G, [4]))
    exact, quick = (project(G, img, config=FAST, dtype=t)[0].losses["pixel"] for t in (torch.float32, torch.bfloat16))
    assert quick == pytest.approx(exact, rel=0.1)


def test_wrong_shapes_and_settings_are_refused(G: Generator) -> None:
    with pytest.raises(InputError, match=r"img must be \[N, 3, 16, 16\], got \[1, 3, 8, 8\]"):
        project(G, torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="start must be"):
        project(G, torch.zeros(1, 3, 16, 16), start=torch.zeros(1, 2, 16))
    with pytest.raises(InputError, match="space must be one of"):
        ProjectConfig(space="z")
    with pytest.raises(InputError, match="num_steps"):
        ProjectConfig(num_steps=0)
    with pytest.raises(InputError, match="lr must be above 0"):
        ProjectConfig(lr=0)
    with pytest.raises(InputError, match="patience"):
        ProjectConfig(patience=0)


def test_stats_may_be_given(G: Generator) -> None:
    stats = latent_stats(G, num=500)
    img = synthesize(G, sample_ws(G, [1]))
    assert project(G, img, config=replace(FAST, terms=TermWeights(ssim=0)), stats=stats)[0].losses.keys() >= {"pixel"}
    assert len(noise_maps(G)) == 5
