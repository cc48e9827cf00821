"""Arguments that published networks seldom have, against what the official code makes of the same weights by recipe.

All three architectures, other filters, depths and widths, one colour channel, limits that bite, sides of StyleGAN3 that
are no power of two. The state dicts of these networks must also survive a file with NVIDIA's names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from mien.nets import stylegan2, stylegan3
from mien.nets.discriminator import Discriminator
from mien.weights.build import build
from mien.weights.checkpoint import Found, Recipe
from mien.weights.nvidia_names import read, to_tree

with np.load(Path(__file__).parent.parent / "data" / "official_variants.npz") as held:
    CASES: dict[str, dict[str, Any]] = {case["key"]: case for case in json.loads(str(held["meta_json"]))["cases"]}
CLASSES: dict[str, Any] = {"G": stylegan2.Generator, "A": stylegan3.Generator, "D": Discriminator}
GENERATORS = [key for key, case in CASES.items() if case["kind"] != "D"]
DISCRIMINATORS = [key for key, case in CASES.items() if case["kind"] == "D"]


@pytest.fixture
def made(by_recipe: Any) -> Any:
    def make(key: str) -> tuple[Any, np.random.RandomState, torch.Tensor]:
        """The network, random numbers as they were drawn for its inputs, and its labels."""
        case = CASES[key]
        net = CLASSES[case["kind"]](**case["kwargs"]).eval().requires_grad_(False)
        net.load_state_dict(by_recipe(net.state_dict(), case["seed"]))
        return net, np.random.RandomState(case["seed"]), torch.eye(net.c_dim)[:2] if net.c_dim else torch.zeros(2, 0)

    return make


def codes(G: Any, random: np.random.RandomState, c: torch.Tensor) -> torch.Tensor:
    z = torch.from_numpy(random.standard_normal((2, G.z_dim))).float()
    ws: torch.Tensor = G.mapping(z, c, truncation_psi=0.6, truncation_cutoff=3)
    return ws


@pytest.mark.parametrize("key", GENERATORS)
def test_generators_agree_with_the_official_code(key: str, made: Any, recorded: Any, agree: Any) -> None:
    G, random, c = made(key)
    numbers = recorded("official_variants")
    ws = codes(G, random, c)
    agree(ws[:, [0, -1]], numbers[f"{key}_w"])
    img = G.synthesis(ws, noise_mode="const")
    low = img.shape[-1] // 2 - 8
    std = img.std()  # StyleGAN3's are small: compared as shares of it
    agree(img[:1, :, low : low + 16, low : low + 16] / std, numbers[f"{key}_crop"] / std)
    agree(img[1:, :, :8, :8] / std, numbers[f"{key}_corner"] / std)
    agree(adaptive_avg_pool2d(img, 8) / std, numbers[f"{key}_pool"] / std)


@pytest.mark.parametrize("key", DISCRIMINATORS)
def test_discriminators_agree_with_the_official_code(key: str, made: Any, recorded: Any, agree: Any) -> None:
    D, random, c = made(key)
    img = random.standard_normal((2, D.img_channels, D.img_resolution, D.img_resolution))
    agree(D(torch.from_numpy(img).float(), c), recorded("official_variants")[f"{key}_logits"])


NETS = {"G": "stylegan2.Generator", "A": "stylegan3.Generator", "D": "discriminator.Discriminator"}


@pytest.mark.parametrize("key", CASES)
def test_they_survive_a_file_with_nvidias_names(key: str, made: Any, tmp_path: Path) -> None:
    """Limits, margins and cut-offs leave no trace in tensors: they travel beside them."""
    net, random, c = made(key)
    case = CASES[key]
    role = "D" if case["kind"] == "D" else "G_ema"
    path = tmp_path / "net.pth"
    torch.save(to_tree({role: Found(Recipe(NETS[case["kind"]], net.init_kwargs), net.state_dict())}), path)
    again: Any = build(read(torch.load(path, weights_only=True)).networks[role], "net.pth").net
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    if role == "D":
        img = torch.randn(2, net.img_channels, net.img_resolution, net.img_resolution)
        assert torch.equal(again(img, c), net(img, c))
    else:
        ws = codes(net, random, c)
        assert torch.equal(again.synthesis(ws, noise_mode="const"), net.synthesis(ws, noise_mode="const"))
