"""The encoder of pSp and e4e against the recorded one, and how its kinds differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.nets.psp import PspEncoder


def tiny(**kwargs: Any) -> PspEncoder:
    torch.manual_seed(0)
    small: dict[str, Any] = dict(in_resolution=32, channels=(4, 6, 8, 10), units=(1, 1, 2, 1), w_dim=5)
    net = PspEncoder(**{**dict(num_ws=8), **small, **kwargs})
    net.latent_avg.normal_()
    return net.eval().requires_grad_(False)


def pictures(num: int = 2, channels: int = 3, side: int = 32) -> Tensor:
    return torch.rand(num, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_names_and_shapes_are_those_of_the_official_code(data: Path) -> None:
    with torch.device("meta"):
        state = PspEncoder(num_ws=10).state_dict()
    state.pop("latent_avg")
    official = json.loads((data / "recipe_e4e_encoder_s64.keys.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in state.items()} == dict(official)


@pytest.mark.slow
def test_the_full_size_encoder_agrees_with_the_recorded_one(recorded: Any, by_recipe: Any) -> None:
    numbers = recorded("recipe_e4e_encoder_s64")
    seed = numbers.meta["seed"]
    net = PspEncoder(num_ws=10).requires_grad_(False).eval()
    state = by_recipe(net.state_dict(), seed, "generic")
    net.load_state_dict({**state, "latent_avg": torch.zeros(10, 512)})
    x = torch.from_numpy(np.random.RandomState(seed).uniform(-1, 1, (1, 3, 256, 256))).float()
    expected = numbers["w"]
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-4 * expected.std().item())


def test_rows_of_e4e_are_offsets_from_the_first() -> None:
    offsets, free = tiny(kind="e4e"), tiny(kind="psp")
    img = pictures()
    rows = free(img) - free.latent_avg
    expected = torch.cat([rows[:, :1], rows[:, :1] + rows[:, 1:]], dim=1)
    torch.testing.assert_close(offsets(img) - offsets.latent_avg, expected)


def test_codes_start_from_the_average_or_from_what_is_given() -> None:
    net, img = tiny(use_pyramid=False, in_channels=6), pictures(channels=6)
    first = net(img)
    torch.testing.assert_close(net(img, first) - first, first - net.latent_avg)


def test_finer_rows_read_finer_maps() -> None:
    net = tiny()
    maps = net.features(pictures())
    assert {scale: list(x.shape) for scale, x in maps.items()} == {1: [2, 10, 2, 2], 2: [2, 10, 4, 4], 4: [2, 10, 8, 8]}
    assert [len(head.convs) // 2 for head in net.styles] == [1, 1, 1, 2, 2, 2, 2, 3]
    assert [len(head.convs) // 2 for head in tiny(use_pyramid=False).styles] == [1] * 8


def test_pictures_of_other_sides_are_resized() -> None:
    net = tiny()
    assert net(pictures(side=64)).shape == net(pictures(side=20)).shape == (2, 8, 5)
    flat = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(net(torch.full((1, 3, 96, 96), 0.3)), net(flat))


def test_a_code_does_not_depend_on_its_batch() -> None:
    net, img = tiny(), pictures(3)
    torch.testing.assert_close(net(img)[1:2], net(img[1:2]))


def test_the_arguments_rebuild_the_network() -> None:
    net = tiny(kind="psp", use_se=False)
    again = PspEncoder(**json.loads(json.dumps(net.init_kwargs)))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(pictures()), net(pictures()))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(kind="w"), "kind must be one of e4e, psp"),
        (dict(units=(1, 2, 3)), "four stages"),
        (dict(units=(1, 2, 0, 3)), "four stages"),
        (dict(in_resolution=48), "power of two"),
        (dict(in_resolution=16), "from 32 up"),
    ],
)
def test_what_makes_no_network_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


def test_pictures_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"img must be \[N,3,H,W\]"):
        tiny()(pictures(channels=6))
