"""State dicts with NVIDIA's names: every argument that leaves a trace is inferred, and what is written is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mien.errors import InputError, WeightsError
from mien.nets.discriminator import Discriminator
from mien.nets.stylegan2 import Generator
from mien.nets.stylegan3 import Generator as AliasFree
from mien.weights.build import build
from mien.weights.checkpoint import Found, Recipe
from mien.weights.nvidia_names import UNKNOWN, channel_kwargs, matches, read, to_tree

GENERATORS = (
    "sg2ada_G_skip_c0_m8",
    "sg2ada_G_skip_c3_m2",
    "sg2ada_G_resnet_c0_m8",
    "sg2nv3_G_skip_c3_m2",
    "sg2nv3_G_resnet_c0_m2",
)
DISCRIMINATORS = ("sg2ada_D_resnet_c0", "sg2ada_D_resnet_c3", "sg2nv3_D_resnet_c0")


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_agree_with_the_recorded_ones(name: str, data: Path, recorded: Any, agree: Any) -> None:
    numbers = recorded(name)
    found = read(torch.load(data / f"{name}.pt", weights_only=True)).networks["G_ema"]
    G: Any = build(found, name).net
    assert found.notes == (UNKNOWN,)
    agree(G.mapping(numbers["z"], numbers["c"], truncation_psi=0.7), numbers["w_psi0.7"])
    agree(G.synthesis(numbers["w_psi1"], noise_mode="const"), numbers["img_psi1_const"])


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_agree_with_the_recorded_ones(name: str, data: Path, recorded: Any, agree: Any) -> None:
    numbers = recorded(name)
    found = read(torch.load(data / f"{name}.pt", weights_only=True)).networks["D"]
    agree(build(found, name).net(numbers["img"], numbers["c"]), numbers["logits"])


@pytest.mark.parametrize("name", ["sg3_G_T_c3", "sg3_G_R_c0"])
def test_generators_without_aliases_agree_with_the_recorded_ones(
    name: str, data: Path, recorded: Any, agree: Any
) -> None:
    numbers = recorded(name)
    found = read(torch.load(data / f"{name}.pt", weights_only=True)).networks["G_ema"]
    G: Any = build(found, name).net
    agree(G.mapping(numbers["z"], numbers["c"], truncation_psi=0.7), numbers["w_psi0.7"])
    agree(G.synthesis(numbers["w_psi1"][:1]), numbers["img_psi1"][:1])


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(channel_base=1024, channel_max=12),
        dict(channel_base=777, channel_max=30, conv_kernel=1, use_radial_filters=True),
        dict(channel_base=512, channel_max=512, num_layers=6),
        dict(channel_base=512, channel_max=16, margin_size=7),
    ],
)
def test_arguments_of_generators_without_aliases_are_inferred(kwargs: dict[str, Any]) -> None:
    sizes: dict[str, Any] = dict(z_dim=6, c_dim=0, w_dim=8, img_resolution=32, img_channels=3)
    G = AliasFree(**sizes, mapping_kwargs=dict(num_layers=3), synthesis_kwargs=kwargs)
    again = build(read(G.state_dict()).networks["G_ema"], "file").net
    assert again.state_dict().keys() == G.state_dict().keys()
    assert again.synthesis.num_ws == G.num_ws


def test_layers_without_aliases_that_do_not_count_up_are_refused() -> None:
    sizes: dict[str, Any] = dict(z_dim=6, c_dim=0, w_dim=8, img_resolution=32, img_channels=3)
    tree = AliasFree(**sizes, channel_base=512, channel_max=8, num_layers=6).state_dict()
    less = {name: value for name, value in tree.items() if not name.startswith("synthesis.L3")}
    with pytest.raises(WeightsError, match=r"its layers are \[0, 1, 2, 4, 5, 6\]"):
        read(less)
    wider = {name.replace("L2_52_8.", "L2_52_9."): value for name, value in tree.items()}
    assert wider.keys() != tree.keys()
    with pytest.raises(WeightsError, match="widths follow no rule"):
        read(wider)
    with pytest.raises(WeightsError, match="pictures have 15 px"):
        read({name.replace("L6_32_3.", "L6_15_3."): value for name, value in tree.items()})


def small_generator(**kwargs: Any) -> Generator:
    usual: dict[str, Any] = dict(z_dim=6, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    usual |= dict(mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(channel_base=128, channel_max=8))
    return Generator(**{**usual, **kwargs})


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(synthesis_kwargs=dict(architecture="orig", channel_base=128, channel_max=8)),
        dict(synthesis_kwargs=dict(architecture="resnet", channel_base=100, channel_max=20)),
        dict(synthesis_kwargs=dict(use_noise=False, channel_base=128, channel_max=8)),
        dict(synthesis_kwargs=dict(resample_filter=[1, 2, 1], channel_base=128, channel_max=8)),
        dict(synthesis_kwargs=dict(resample_filter=[1, 2, 3, 4, 4, 3, 2, 1], channel_base=128, channel_max=8)),
        dict(mapping_kwargs=dict(num_layers=1), c_dim=4, img_channels=1),
        dict(mapping_kwargs=dict(num_layers=3, layer_features=5, embed_features=7), c_dim=4),
        dict(mapping_kwargs=dict(num_layers=2, concat_labels=True), c_dim=4),
        dict(img_resolution=4, z_dim=8),
    ],
)
def test_arguments_of_generators_are_inferred(kwargs: dict[str, Any]) -> None:
    G = small_generator(**kwargs)
    again = build(read(G.state_dict()).networks["G_ema"], "file").net
    assert all(torch.equal(a, b) for a, b in zip(G.state_dict().values(), again.state_dict().values(), strict=True))
    ws = torch.randn(1, G.num_ws, 8)
    assert torch.equal(again.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="const"))


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(architecture="skip"),
        dict(architecture="orig"),
        dict(c_dim=4, cmap_dim=5, mapping_kwargs=dict(num_layers=2, layer_features=6)),
        dict(c_dim=4, cmap_dim=5, mapping_kwargs=dict(num_layers=0)),
        dict(epilogue_kwargs=dict(mbstd_num_channels=0)),
        dict(epilogue_kwargs=dict(mbstd_num_channels=2)),
        dict(img_channels=6, block_kwargs=dict(resample_filter=[1, 1])),
    ],
)
def test_arguments_of_discriminators_are_inferred(kwargs: dict[str, Any]) -> None:
    sizes: dict[str, Any] = dict(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=8)
    D = Discriminator(**{**sizes, **kwargs})
    again = build(read(D.state_dict()).networks["D"], "file").net
    img, c = torch.randn(2, D.img_channels, 16, 16), torch.eye(4)[:2]
    assert torch.equal(again(img, c), D(img, c))


def test_several_networks_are_kept_by_role() -> None:
    G = small_generator()
    found = Found(Recipe("stylegan2.Generator", G.init_kwargs), G.state_dict())
    tree = to_tree({"G_ema": found, "G": found})
    assert list(tree) == ["G_ema", "G"] and matches(tree)
    assert list(read(tree).networks) == ["G_ema", "G"]
    alone = to_tree({"G_ema": found})
    assert alone.keys() == found.tensors.keys()
    small_generator().load_state_dict(alone)


def test_arguments_that_leave_no_trace_travel_beside_the_tensors() -> None:
    G = small_generator(synthesis_kwargs=dict(conv_clamp=0.5, channel_base=128, channel_max=8))
    tree = to_tree({"G_ema": Found(Recipe("stylegan2.Generator", G.init_kwargs), G.state_dict())})
    assert list(tree) == ["G_ema", "init_kwargs"] and matches(tree)
    found = read(tree).networks["G_ema"]
    assert found.recipe.kwargs == G.init_kwargs and not found.notes
    ws = torch.randn(1, G.num_ws, 8)
    again: Any = build(found, "file").net
    assert torch.equal(again.synthesis(ws), G.synthesis(ws))
    for wrong in (3, {"G_ema": 3}, {"G_ema": {3: 3}}):
        with pytest.raises(WeightsError, match="its arguments are not readable"):
            read(tree | {"init_kwargs": wrong})
    with pytest.raises(WeightsError, match="does not make a"):
        build(read(tree | {"init_kwargs": {"G_ema": {"no": 1}}}).networks["G_ema"], "file")


def test_networks_without_such_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"NVIDIA has no names for a psp\.PspEncoder"):
        to_tree({"E": Found(Recipe("psp.PspEncoder", {}), {})})


# ---- Widths ---------------------------------------------------------------------------------------------------------


def test_widths_without_a_rule_are_listed_one_by_one() -> None:
    widths = {4: 25, 8: 25, 16: 12, 32: 13}
    kwargs = channel_kwargs(widths)
    assert kwargs["channel_max"] == [25, 25, 12, 13]
    assert all(kwargs["channel_base"] // res >= width for res, width in widths.items())
    G = small_generator(img_resolution=32, synthesis_kwargs=kwargs)
    assert read(G.state_dict()).networks["G_ema"].recipe.kwargs["synthesis_kwargs"] == kwargs
    build(read(G.state_dict()).networks["G_ema"], "file")


# ---- Refusals -------------------------------------------------------------------------------------------------------


def test_what_is_not_of_this_family_does_not_match() -> None:
    for other in (None, [], {}, {"G_ema": None}, {"mapping.w_avg": 0}, {"g_ema": {"input.input": 0}}):
        assert not matches(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"synthesis.b8.conv1.weight": None}, r"tensors are missing: synthesis\.b8\.conv1\.weight"),
        ({"synthesis.b16.torgb.bias": None}, r"tensors are missing: synthesis\.b16\.torgb\.bias"),
        ({"mapping.fc0.weight": torch.zeros(8)}, "wrong shape"),
        ({"mapping.fc0.weight": None, "mapping.fc1.weight": None}, "tensors are missing: mapping.fc0.weight"),
        ({"synthesis.b12.const": torch.zeros(1)}, r"its blocks are \[4, 8, 12, 16\]"),
        ({"synthesis.b8.resample_filter": torch.zeros(4, 4)}, "filters differ"),
        ({"synthesis.extra": torch.zeros(1)}, r"do not belong to its network: synthesis\.extra"),
        ({"synthesis.b4.const": 3}, "is a int, not a tensor"),
    ],
)
def test_damaged_files_are_refused(change: dict[str, Any], message: str) -> None:
    tree = {**small_generator().state_dict(), **change}
    tree = {name: value for name, value in tree.items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        build(read(tree).networks["G_ema"], "file")


def test_filters_that_are_no_outer_product_are_refused() -> None:
    tree = dict(small_generator().state_dict())
    tree |= {name: torch.eye(4) for name in tree if name.endswith("resample_filter")}
    with pytest.raises(WeightsError, match="cannot be made from taps"):
        read(tree)
