"""Channels of styles: the right ones are found, combined, and moved as they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mien.edits.directions import DirectionSet, StyleDirection, load_directions, save_directions
from mien.edits.find import Attribute, FindConfig
from mien.edits.probe import Scores
from mien.edits.stylespace import (
    Channel,
    StyleConfig,
    best_channels,
    shortest_step,
    style_gradients,
    style_layers,
    style_spread,
    stylespace,
)
from mien.errors import InputError
from mien.inversion.code import Inversion, load_inversion, save_inversion
from mien.latents import sample_ws
from mien.nets import stylegan1, stylegan2, stylegan3

MAPPING = dict(num_layers=1)


def small(family: str = "stylegan2") -> stylegan2.Generator:
    torch.manual_seed(0)
    kwargs = dict(channel_base=128, channel_max=8)
    if family == "stylegan3":
        return stylegan3.Generator(8, 0, 8, 16, 3, MAPPING, **kwargs, num_layers=4).eval()  # type: ignore[return-value]
    return {"stylegan1": stylegan1, "stylegan2": stylegan2}[family].Generator(8, 0, 8, 16, 3, MAPPING, **kwargs).eval()


def score(img: Tensor) -> Scores:
    """Redness, and how bright the picture is; who it is by its coarse looks."""
    looks = torch.nn.functional.adaptive_avg_pool2d(img, 4).flatten(1)
    red, light = img[:, 0].mean((1, 2)) - img[:, 1].mean((1, 2)), img.mean((1, 2, 3))
    return Scores({"red": red, "light": light}, torch.nn.functional.normalize(looks, dim=1))


@pytest.mark.parametrize("family", ["stylegan1", "stylegan2", "stylegan3"])
def test_gradients_are_slopes_of_single_channels(family: str) -> None:
    G = small(family)
    ws = sample_ws(G, [1, 2, 3])
    layers = style_layers(G)
    assert layers and not any("torgb" in name or "input" in name for name in layers)
    assert {name: len(s) for name, s in style_spread(G, 100).items()} == layers
    grads = style_gradients(G, score, ws, ["red"], batch_size=2)["red"]
    layer = list(layers)[len(layers) // 2]
    move = torch.zeros(layers[layer])
    move[1] = 1e-2
    one = StyleDirection({layer: move}, "", 1.0, (0.0, 0.0))
    with torch.no_grad():
        up, down = (score(one.render(G, ws, s)).attributes["red"].mean() for s in (1, -1))
    assert float(grads[layer][1]) == pytest.approx(float(up - down) / 2e-2, rel=0.05, abs=1e-5)


def test_the_purest_of_strong_channels_come_first() -> None:
    effects = {
        "red": {"a": torch.tensor([0.0, 2.0, 1.0]), "b": torch.tensor([-1.5])},
        "light": {"a": torch.tensor([3.0, 2.0, 0.0]), "b": torch.tensor([0.0])},
    }
    assert best_channels(effects, "red", ["light"], 2) == [Channel("b", 0), Channel("a", 1)]


def test_the_step_does_its_own_and_hardly_else() -> None:
    slopes = torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.1, 0.0]]).double()
    step = shortest_step(slopes, torch.eye(3).double(), 1e6)
    assert slopes.T @ step == pytest.approx([1, 0], abs=1e-5)
    careless = shortest_step(slopes, torch.diag(torch.tensor([1.0, 100, 1])).double(), 0.0)
    assert float(careless[0]) > 10 * float(careless[1])


def test_found_directions_are_calibrated_saved_and_applied(tmp_path: Path) -> None:
    G = small()
    find = FindConfig(num_spread=256, num_probes=32, largest_strength=1.0, least_identity=-1.0)
    config = StyleConfig(num_faces=8, num_spread=64, num_candidates=12, num_channels=8)
    steps: list[int] = []
    found = stylespace(
        G,
        score,
        [Attribute("red", "of red", ("light",))],
        config=config,
        find=find,
        network="x",
        on_step=lambda s: steps.append(s.done),
    )
    red = found["red"]
    assert isinstance(red, StyleDirection)
    assert sum(int(s.count_nonzero()) for s in red.styles.values()) == 8 and red.place.startswith("channels ")
    assert abs(red.effects["light"]) < 0.5 < red.effects["red"]
    faces = G.w_avg.lerp(sample_ws(G, list(range(100, 132))), find.truncation_psi)
    with torch.no_grad():
        up, down = (score(red.render(G, faces, s).clamp(-1, 1)).attributes["red"].mean() for s in (0.5, -0.5))
    assert float(up - down) / red.std == pytest.approx(1, abs=0.3)
    save_directions(found, tmp_path / "d.safetensors")
    again = load_directions(tmp_path / "d.safetensors")
    assert (again["red"].effects, again["red"].identity, again["red"].unit) == (red.effects, red.identity, red.unit)
    code = Inversion(ws=sample_ws(G, [5])[0])
    edited = again.edit(code, {"red": 1.0})
    assert torch.equal(edited.ws, code.ws) and edited.changes
    torch.testing.assert_close(edited.render(G), red.render(G, code.ws[None], 1.0))
    assert float((edited.render(G) - code.render(G)).abs().max()) > 1e-4
    torch.testing.assert_close(again.edit(edited, {"red": -1.0}).render(G), code.render(G), atol=1e-5, rtol=0)
    save_inversion(edited, tmp_path / "p.mien")
    torch.testing.assert_close(load_inversion(tmp_path / "p.mien").render(G), edited.render(G))


def test_what_does_not_fit_is_refused() -> None:
    G = small()
    move = StyleDirection({"b8.conv9.affine": torch.ones(8)}, "", 1.0, (0.0, 0.0))
    with pytest.raises(InputError, match=r"styles of b8\.conv9\.affine do not fit"):
        move.render(G, sample_ws(G, [1]), 1.0)
    with pytest.raises(InputError, match="moves no code"):
        DirectionSet({"red": move}).apply(sample_ws(G, [1]), {"red": 1.0})
    with pytest.raises(InputError, match="nothing measures hat"):
        stylespace(G, score, [Attribute("hat", "hats")], find=FindConfig(num_spread=8))
    with pytest.raises(InputError, match="no gradient goes through"):
        style_gradients(
            G, lambda img: Scores({"red": score(img).attributes["red"].detach()}, img), sample_ws(G, [1]), ["red"]
        )
    with pytest.raises(InputError, match="cannot choose 9 channels of 4"):
        StyleConfig(num_candidates=4, num_channels=9)
