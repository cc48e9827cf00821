"""Files of lernapparat's StyleGAN: the recorded pictures, the round trip of names, what is refused."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import WeightsError
from mien.nets.stylegan1 import Generator
from mien.weights.build import build
from mien.weights.formats import read_checkpoint
from mien.weights.lernapparat import BLUR, DIALECT, matches, read
from mien.weights.tables import to_theirs
from mien.weights.tf_names import stylegan1_table


def state_dict(img_resolution: int = 16) -> dict[str, Tensor]:
    """A random network, written by the table."""
    torch.manual_seed(0)
    G = Generator(8, 0, 8, img_resolution, 3, dict(num_layers=2), dict(channel_base=64, channel_max=8))
    names = {f"Dense{i}/weight": 0 for i in range(2)}
    table = stylegan1_table(DIALECT, {DIALECT.name(name): 0 for name in names}, img_resolution)
    table = [entry for entry in table if "/" not in entry.theirs and not entry.theirs.startswith(("noise", "dlatent"))]
    state = to_theirs(table, G.state_dict())
    for side in (8 << i for i in range(img_resolution.bit_length() - 3)):
        state[f"g_synthesis.blocks.{side}x{side}.conv0_up.intermediate.kernel"] = BLUR[None, None].clone()
    return state


def set_noise(G: Any, value: Callable[[str], Tensor]) -> None:
    """Give each layer the noise of the official module's path."""
    for block in G.synthesis.blocks():
        for i, layer in enumerate(block.layers()):
            path = f"g_synthesis.blocks.{block.resolution}x{block.resolution}.epi{i + 1}.top_epi.noise"
            layer.noise_const.copy_(value(path)[0, 0])


@pytest.mark.parametrize("name", ["sg1_r64_w64", "sg1_r128_w64_fused_up"])
def test_pictures_are_the_recorded_ones(name: str, shared: Path, recorded: Any, agree: Any) -> None:
    numbers = recorded(shared / "fixtures" / name)
    found = read_checkpoint(shared / "fixtures" / f"{name}.for_g_all.pt").networks["G_ema"]
    assert "mapping.w_avg" not in found.tensors
    assert found.notes == ("the file has no constant noise: it is drawn with a fixed seed",)
    G: Any = build(found, name).net
    set_noise(G, lambda path: numbers[f"noise/{path}"])
    G.w_avg.copy_(numbers["avg_latent"])
    z = numbers["z"]
    agree(G.mapping(z)[:, 0], numbers["w"], "w")
    ws = G.mapping(z, truncation_psi=0.7, truncation_cutoff=8)
    agree(ws, numbers["w_trunc_0.7_max8"], "truncated")
    for what, codes in (("img", G.mapping(z)), ("img_trunc_0.7_max8", ws), ("img_wplus", numbers["ws_plus"])):
        img = G.synthesis(codes, noise_mode="const")
        for side in (32, 48):
            if (expected := numbers.get(f"{what}_crop{side}")) is not None:
                agree(img[..., (m := (img.shape[-1] - side) // 2) : m + side, m : m + side], expected, what)
        for part, seen in ((what, img), (f"{what}_topleft16", img[..., :16, :16])):
            if (expected := numbers.get(part)) is not None:
                agree(seen, expected, part)
        if (expected := numbers.get(f"{what}_bottomright16")) is not None:
            agree(img[..., -16:, -16:], expected, what)
            agree(F.adaptive_avg_pool2d(img, 32), numbers[f"{what}_pool32"], "pooled")


@pytest.mark.slow
def test_the_full_size_network_agrees_with_the_recorded_one(recorded: Any, by_recipe: Any) -> None:
    numbers = recorded("recipe_sg1_256")
    seed = numbers.meta["seed"]
    like = Generator(512, 0, 512, 256, 3)
    names = {DIALECT.name(f"Dense{i}/weight"): 0 for i in range(8)}
    table = [entry for entry in stylegan1_table(DIALECT, names, 256) if entry.theirs.startswith("g_")]
    state = by_recipe(to_theirs(table, like.state_dict()), seed)
    G: Any = build(read(state).networks["G_ema"], "recipe").net

    def noise(path: str) -> Tensor:
        side = int(path.split(".")[2].split("x")[0])
        random = np.random.RandomState((zlib.crc32(path.encode()) ^ seed) & 0xFFFFFFFF)
        return torch.from_numpy(random.standard_normal((1, 1, side, side))).float()

    set_noise(G, noise)
    ws = G.mapping(torch.from_numpy(np.random.RandomState(seed).standard_normal((1, 512))))
    torch.testing.assert_close(ws[:, 0].float(), numbers["w"], rtol=0, atol=1e-4)
    img = G.synthesis(ws, noise_mode="const")
    tolerance = 1e-4 * numbers["img_stats"][1].item()
    for actual, name in (
        (img[..., 112:144, 112:144], "img_crop32_centre"),
        (img[..., :16, :16], "img_crop16_topleft"),
        (F.adaptive_avg_pool2d(img, 32), "img_avgpool_to_32"),
        (torch.stack([img.mean(), img.std(), img.abs().max()]), "img_stats"),
    ):
        torch.testing.assert_close(actual, numbers[name], rtol=0, atol=tolerance, msg=name)


def test_names_come_back_bit_by_bit() -> None:
    state = state_dict()
    assert matches(state) and not matches({}) and not matches([1]) and not matches({"g_mapping.dense0.weight": 1})
    found = read({f"module.{name}": tensor for name, tensor in state.items()}).networks["G_ema"]
    assert found.recipe.net == "stylegan1.Generator"
    assert found.recipe.kwargs["img_resolution"] == 16 and found.recipe.kwargs["mapping_kwargs"] == {"num_layers": 2}
    assert found.recipe.kwargs["synthesis_kwargs"] == {"channel_base": 64, "channel_max": 8, "norm_eps": 1e-5}
    table = stylegan1_table(DIALECT, state, 16)
    again = to_theirs([entry for entry in table if entry.theirs in state], found.tensors)
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(".kernel")}
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) for name in kept)


def test_noise_and_average_are_made_with_a_fixed_seed() -> None:
    a, b = (build(read(state_dict()).networks["G_ema"], "x.pt") for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.net.state_dict().values(), b.net.state_dict().values(), strict=True))
    assert any("no average latent" in note for note in a.notes)


def test_variants_are_refused() -> None:
    state = state_dict()
    state["g_synthesis.blocks.8x8.conv0_up.intermediate.kernel"] = torch.ones(1, 1, 3, 3) / 9
    with pytest.raises(WeightsError, match=r"another filter than \[1, 2, 1\]"):
        read(state)
    state = state_dict()
    del state["g_synthesis.blocks.8x8.epi1.style_mod.lin.bias"]
    with pytest.raises(WeightsError, match=r"tensors are missing: g_synthesis.blocks.8x8.epi1.style_mod.lin.bias"):
        read(state)
    with pytest.raises(WeightsError, match=r"unknown tensors: g_synthesis\.extra"):
        read(state_dict() | {"g_synthesis.extra": torch.ones(1)})
