"""Dragging: features are read where they are, points are followed, go where they should, and the rest stays."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.edits.drag import DragConfig, drag, drag_layer
from mien.errors import InputError
from mien.inversion.code import Inversion
from mien.latents import latent_stats
from mien.nets import stylegan1, stylegan2, stylegan3

TINY = dict(mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(channel_base=512, channel_max=16))
FREE = DragConfig(num_steps=60, lr=0.05, prior_weight=0.0, num_rows=4)


@pytest.fixture(scope="module")
def G() -> stylegan2.Generator:
    torch.manual_seed(0)
    return stylegan2.Generator(16, 0, 16, 32, 3, **TINY).eval().requires_grad_(False)


def person(G: Any, seed: int = 0) -> Inversion:
    z = torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim)).float()
    return Inversion(ws=G.mapping(z)[0].detach())


class Spot(torch.nn.Module):
    """A bright spot at (x, y) px, seen at three widths, on two faint slopes."""

    def forward(self, w: Tensor) -> Tensor:
        line = torch.arange(32) + 0.5
        far = (line - w[:, 0, None, None]).square() + (line[:, None] - w[:, 1, None, None]).square()
        slopes = 0.01 * torch.stack([line.expand(32, 32), line[:, None].expand(32, 32)])[None] / 32
        return torch.cat([torch.stack([torch.exp(-far / (2 * s**2)) for s in (2, 4, 6)], 1), slopes], 1)


class SpotSynthesis(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spot = Spot()

    def forward(self, ws: Tensor, **_kwargs: object) -> Tensor:
        return self.spot(ws[:, 0])[:, :3]


class SpotGenerator(torch.nn.Module):
    """A generator whose first row of a code says where in the picture the spot is."""

    z_dim, c_dim, w_dim, num_ws, img_resolution, img_channels = 2, 0, 2, 3, 32, 3

    def __init__(self) -> None:
        super().__init__()
        self.synthesis = SpotSynthesis()
        self.register_buffer("w_avg", torch.tensor([16.0, 16]))

    def mapping(self, z: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        return (16 + 3 * z)[:, None].expand(-1, 3, -1)


def test_a_spot_goes_exactly_where_it_is_dragged() -> None:
    blob = SpotGenerator()
    goal = np.array([[21.0, 13.0]])
    start = Inversion(ws=torch.tensor([[16.0, 16], [1, 2], [3, 4]]))
    config = DragConfig(num_rows=1, layer="spot", prior_weight=0.0, reach=0.5 / 32)
    dragged = drag(blob, start, np.array([[16.0, 16.0]]), goal, stats=latent_stats(blob, num=200), config=config)
    assert dragged.distances_px[0] <= 0.5 and dragged.num_steps < config.num_steps
    np.testing.assert_allclose(dragged.inversion.ws[0].numpy(), goal[0], atol=1.0)
    assert torch.equal(dragged.inversion.ws[1:], start.ws[1:])
    assert torch.equal(start.ws[0], torch.tensor([16.0, 16]))


def test_points_come_nearer_and_only_the_first_rows_move(G: stylegan2.Generator) -> None:
    code, stats, state = person(G), latent_stats(G, num=500), copy.deepcopy(G.state_dict())
    handles, goals = np.array([[12.0, 14], [20, 18]]), np.array([[14.0, 14], [22, 18]])
    steps: list[float] = []
    dragged = drag(
        G, code, handles, goals, stats=stats, config=FREE, on_step=lambda step: steps.append(step.scalars["px"])
    )
    before = np.linalg.norm(goals - handles, axis=1)
    assert steps[0] == pytest.approx(before.mean()) and len(steps) == dragged.num_steps + 1
    assert dragged.distances_px.mean() < 0.6 * before.mean()
    np.testing.assert_allclose(np.linalg.norm(goals - dragged.points, axis=1), dragged.distances_px, atol=1e-4)
    assert dragged.distances_px.mean() == pytest.approx(min(steps), abs=1e-4)
    assert torch.equal(dragged.inversion.ws[4:], code.ws[4:])
    assert not torch.equal(dragged.inversion.ws[:4], code.ws[:4])
    assert all(torch.equal(value, G.state_dict()[name]) for name, value in state.items())
    assert not any(module._forward_hooks for module in G.modules())


def test_a_point_at_its_goal_takes_no_step(G: stylegan2.Generator) -> None:
    code, at = person(G), np.array([[10.0, 11.0]])
    dragged = drag(G, code, at, at, stats=latent_stats(G, num=200))
    assert dragged.num_steps == 0 and torch.equal(dragged.inversion.ws, code.ws)


def test_the_mask_holds_what_is_outside(G: stylegan2.Generator) -> None:
    code, stats = person(G), latent_stats(G, num=500)
    at, to = np.array([[8.0, 16.0]]), np.array([[12.0, 16.0]])
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1

    def change(config: DragConfig, mask: Tensor | None) -> float:
        moved = drag(G, code, at, to, stats=stats, mask=mask, config=config).inversion
        return float((moved.render(G) - code.render(G))[..., 20:].abs().mean())

    config = replace(FREE, num_steps=15, reach=1e-4)
    assert change(config, mask) < 0.8 * change(config, None)


def test_the_prior_keeps_codes_likely(G: stylegan2.Generator) -> None:
    code, stats = person(G), latent_stats(G, num=500)
    at, to = np.array([[12.0, 14.0]]), np.array([[20.0, 20.0]])

    def unlikely(weight: float) -> float:
        moved = drag(G, code, at, to, stats=stats, config=replace(FREE, num_steps=30, prior_weight=weight))
        return float(stats.unlikelihood(moved.inversion.ws[:4]).mean())

    assert unlikely(1.0) < unlikely(0.0)


@pytest.mark.parametrize("family", [stylegan1, stylegan2, stylegan3])
def test_every_family_can_be_dragged(family: Any) -> None:
    """The layer is asked of the network; a few steps run and move the code."""
    torch.manual_seed(0)
    kwargs: dict[str, Any] = dict(mapping_kwargs=dict(num_layers=1))
    kwargs["synthesis_kwargs"] = dict(channel_base=512, channel_max=8)
    G = family.Generator(8, 0, 8, 32, 3, **kwargs).eval().requires_grad_(False)
    layer = drag_layer(G)
    assert layer == {stylegan1: "b32", stylegan2: "b32", stylegan3: "L13_32_8"}[family]
    code, stats = person(G), latent_stats(G, num=200)
    dragged = drag(
        G, code, np.array([[12.0, 14]]), np.array([[14.0, 16]]), stats=stats, config=replace(FREE, num_steps=4)
    )
    assert dragged.num_steps >= 1 and np.isfinite(dragged.points).all()
    assert not torch.equal(dragged.inversion.ws, code.ws)


def test_a_margin_around_the_picture_is_no_part_of_it() -> None:
    """StyleGAN3's maps reach beyond the picture: a translation of the picture moves the features by as much."""
    from mien.edits.drag import _Features

    torch.manual_seed(0)
    G = stylegan3.Generator(8, 0, 8, 32, 3, mapping_kwargs=dict(num_layers=1), channel_base=512, channel_max=8)
    G.eval().requires_grad_(False)
    code = person(G)
    moved = copy.deepcopy(G)
    moved.synthesis.input.transform[0, 2] += 4 / 32  # a translation by 4 px of the picture
    layer = "L5_52_8"
    before, after = (_Features(net, code, layer) for net in (G, moved))
    places = torch.cartesian_prod(torch.arange(10.0, 22), torch.arange(10.0, 22))
    here = before.at(before(code.ws[None]), places)
    now = after(code.ws[None])
    assert float((after.at(now, places) - here).abs().mean() / here.std()) > 0.1
    shift = torch.tensor([-4.0, 0.0])  # the transform is of the coordinates, so the picture goes the other way
    assert float((after.at(now, places + shift) - here).abs().mean() / here.std()) < 1e-3


def test_bad_input_is_refused(G: stylegan2.Generator) -> None:
    code, stats = person(G), latent_stats(G, num=200)
    inside = np.array([[3.0, 4.0]])
    for handles, goals, message in (
        (np.array([[33.0, 4]]), inside, r"the point 33.0,4.0 is outside of the face's 32x32 px"),
        (inside, np.array([[1.0, np.nan]]), r"the goal 1.0,nan is outside"),
        (inside, np.zeros((2, 2)), r"must both be \[K, 2\], got \[1, 2\] and \[2, 2\]"),
        (np.zeros((0, 2)), np.zeros((0, 2)), r"must both be \[K, 2\]"),
    ):
        with pytest.raises(InputError, match=message):
            drag(G, code, handles, goals, stats=stats)
    with pytest.raises(InputError, match=r"mask must be \[1, 1, 32, 32\]"):
        drag(G, code, inside, inside, stats=stats, mask=torch.ones(1, 1, 8, 8))
    with pytest.raises(InputError, match="no features 'b9'"):
        drag(G, code, inside, inside, stats=stats, config=DragConfig(layer="b9"))
    for name, value in (("num_steps", 0), ("lr", 0.0), ("track_radius", -1.0), ("mask_weight", -1.0)):
        with pytest.raises(InputError, match=name):
            DragConfig(**{name: value})
