"""AnimeGANv2's generator against the recorded one, and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mien.errors import WeightsError
from mien.nets.animegan import AnimeGenerator
from mien.weights.animegan import CORNERS, matches, read
from mien.weights.build import build


def test_names_and_shapes_are_those_of_the_official_code(data: Path) -> None:
    official = json.loads((data / "recipe_animegan2_128.keys.json").read_text())
    with torch.device("meta"):
        state = AnimeGenerator().state_dict()
    assert [[name, list(tensor.shape)] for name, tensor in state.items()] == official


@pytest.mark.parametrize("align_corners", [True, False])
def test_drawings_agree_with_the_recorded_ones(align_corners: bool, recorded: Any, by_recipe: Any) -> None:
    numbers = recorded("recipe_animegan2_128")
    seed = numbers.meta["seed"]
    G = AnimeGenerator(align_corners=align_corners).requires_grad_(False).eval()
    G.load_state_dict(by_recipe(G.state_dict(), seed, "generic"))
    img = G(torch.from_numpy(np.random.RandomState(seed).uniform(-1, 1, (1, 3, 128, 128))).float())
    tolerance = 1e-4 * numbers["img_stats"][1].item()
    name = "img_crop32" if align_corners else "img_crop32_align_corners_False"
    torch.testing.assert_close(img[:, :, 40:72, 40:72], numbers[name], rtol=0, atol=tolerance)
    if align_corners:
        pooled = F.adaptive_avg_pool2d(img, 32)
        torch.testing.assert_close(pooled, numbers["img_avgpool_to_32"], rtol=0, atol=tolerance)


def test_a_file_comes_back_as_it_was() -> None:
    G = AnimeGenerator(4).eval()
    tree = G.state_dict()
    assert matches(tree) and not matches({}) and not matches(None)
    built = build(read(tree).networks["G"], "file")
    assert built.notes == (CORNERS,)
    img = torch.randn(1, 3, 20, 32)
    assert torch.equal(built.net(img), G(img))


def test_what_does_not_fit_is_refused() -> None:
    tree = {**AnimeGenerator(4).state_dict()}
    del tree["block_c.2.layers.1.1.bias"]
    with pytest.raises(WeightsError, match=r"tensors are missing: block_c\.2\.layers\.1\.1\.bias"):
        build(read(tree).networks["G"], "file")
    with pytest.raises(WeightsError, match="wrong shape"):
        read({**tree, "block_a.0.1.weight": torch.zeros(4)})
    with pytest.raises(ValueError, match="multiples of 4"):
        AnimeGenerator(4)(torch.zeros(1, 3, 30, 32))
