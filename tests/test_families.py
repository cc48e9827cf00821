"""What is built on generators takes every family: each asks the network for its sizes and assumes none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mien.inversion.project import ProjectConfig, noise_maps, project
from mien.latents import latent_stats, mix, sample_w, sample_ws, synthesize
from mien.nets import stylegan1, stylegan2, stylegan3
from mien.nets.generator import Generator
from mien.weights.load import load_generator, save_generator

FAMILIES: dict[str, Any] = {
    "stylegan1": stylegan1.Generator,
    "stylegan2": stylegan2.Generator,
    "stylegan3": stylegan3.Generator,
}


def tiny(family: str, c_dim: int = 0) -> Any:
    """A generator of 16 px whose w is wider than its z."""
    torch.manual_seed(0)
    widths: dict[str, Any] = dict(channel_base=256, channel_max=8)
    kwargs = widths if family == "stylegan3" else dict(synthesis_kwargs=widths)
    net = FAMILIES[family](6, c_dim, 8, 16, 3, mapping_kwargs=dict(num_layers=2), **kwargs)
    return net.eval().requires_grad_(False)


@pytest.fixture(params=FAMILIES)
def G(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def test_it_keeps_the_protocol(G: Any) -> None:
    assert isinstance(G, Generator) and isinstance(G, nn.Module)
    assert (G.z_dim, G.c_dim, G.w_dim, G.img_resolution, G.img_channels) == (6, 0, 8, 16, 3)
    assert G.w_avg.shape == (8,)
    again = type(G)(**G.init_kwargs)
    assert again.init_kwargs == G.init_kwargs
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in G.state_dict().items()}


def test_both_halves_take_what_the_protocol_says(G: Any) -> None:
    z = torch.randn(2, 6)
    ws = G.mapping(z, None, truncation_psi=0.5, truncation_cutoff=2)
    assert ws.shape == (2, G.num_ws, G.w_dim)
    assert not torch.equal(ws[:, 0], ws[:, -1])
    for mode in ("const", "random", "none"):
        img = G.synthesis(ws, noise_mode=mode)
        assert img.shape == (2, 3, 16, 16) and img.dtype == torch.float32
    assert torch.equal(G.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="const"))
    half = G.synthesis(ws, noise_mode="const", dtype=torch.bfloat16)
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_latents_are_drawn_and_mixed(G: Any) -> None:
    ws = sample_ws(G, [1, 2])
    assert ws.shape == (2, G.num_ws, G.w_dim)
    torch.testing.assert_close(sample_ws(G, [1], truncation_psi=0)[0], G.w_avg.expand(G.num_ws, -1))
    assert torch.equal(synthesize(G, ws[:, 0]), synthesize(G, ws))
    rows = range(G.num_ws // 2)
    assert not torch.equal(synthesize(G, mix(ws[:1], ws[1:], rows)), synthesize(G, ws[:1]))
    assert latent_stats(G, num=500).w_avg.shape == (8,)


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_are_over_all_classes(family: str) -> None:
    G = tiny(family, c_dim=3)
    w = sample_w(G, 300, seed=1)
    assert w.shape == (300, 8) and torch.equal(w, sample_w(G, 300, seed=1))
    means = torch.stack([sample_ws(G, range(100), class_idx=i)[:, 0].mean(dim=0) for i in range(3)])
    assert (means.mean(dim=0) - w.mean(dim=0)).norm() < (means[0] - w.mean(dim=0)).norm()


def test_inversion_comes_nearer(G: Any) -> None:
    target = synthesize(G, sample_ws(G, [5]))
    config = ProjectConfig(num_steps=12, patience=12, prior_weight=0, offset_weight=0)
    losses: list[float] = []
    stats = latent_stats(G, num=500)
    found = project(G, target, config=config, stats=stats, on_step=lambda step: losses.append(step.scalars["loss"]))
    assert found[0].ws.shape == (G.num_ws, G.w_dim)
    assert found[0].losses["total"] < 0.9 * losses[0]
    assert [m.shape for m in found[0].noise] == [m.shape[2:] for m in noise_maps(G)]


def test_a_file_gives_it_back(G: Any, tmp_path: Path) -> None:
    save_generator(G, tmp_path / "g.safetensors")
    again: Any = load_generator(tmp_path / "g.safetensors")
    assert type(again) is type(G)
    ws = sample_ws(G, [3])
    assert torch.equal(synthesize(again, ws), synthesize(G, ws))
