"""Files of genforce, written by hand from networks of ours after its key table: converted ones and the trainer's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mien.errors import WeightsError
from mien.nets import stylegan1
from mien.nets.discriminator import Discriminator
from mien.nets.stylegan2 import Generator
from mien.weights.build import build
from mien.weights.checkpoint import Found
from mien.weights.genforce import matches, read

STYLE = {"affine": "style", "noise_const": "noise"}


def randomised(net: nn.Module) -> Any:
    """Fill a network with numbers that one can be taken from and given back to without rounding."""
    random = torch.Generator().manual_seed(3)
    for name, tensor in net.state_dict().items():
        if not name.endswith("_filter"):
            tensor.copy_((torch.randn(tensor.shape, generator=random) * 1024).round() / 1024)
    return net.eval().requires_grad_(False)


def mapping(state: dict[str, Tensor]) -> dict[str, Tensor]:
    theirs = {"truncation.w_avg": state["mapping.w_avg"]}
    for name, tensor in state.items():
        if found := re.fullmatch(r"mapping\.fc(\d+)\.(\w+)", name):
            theirs[f"mapping.dense{found[1]}.{found[2]}"] = tensor
    if "mapping.embed.weight" in state:
        theirs["mapping.label_weight"] = state["mapping.embed.weight"].T
    return theirs


def stylegan1_state(G: stylegan1.Generator) -> dict[str, Tensor]:
    """layer{2i} doubles the resolution (layer0 is the constant), layer{2i+1} keeps it, output{i} is for each size."""
    state, theirs = G.state_dict(), {"synthesis.lod": torch.tensor(0.0)}
    last = len(G.synthesis.blocks()) - 1
    theirs["synthesis.layer0.const"] = state["synthesis.b4.const"][None]
    for i, block in enumerate(G.synthesis.blocks()):
        for j, layer in enumerate(block.layers()):
            name = f"synthesis.layer{2 * i + j}"
            if layer.in_channels:
                theirs[f"{name}.weight"] = layer.weight
            theirs[f"{name}.bias"] = layer.bias
            theirs[f"{name}.style.weight"] = layer.affine.weight
            theirs[f"{name}.style.bias"] = layer.affine.bias
            theirs[f"{name}.apply_noise.weight"] = layer.noise_strength
            theirs[f"{name}.apply_noise.noise"] = layer.noise_const[None, None]
        theirs[f"synthesis.layer{2 * i}.blur.kernel"] = torch.ones(4, 1, 3, 3)
        for part, like in (("weight", torch.zeros(3, 4, 1, 1)), ("bias", torch.zeros(3))):
            theirs[f"synthesis.output{i}.{part}"] = state[f"synthesis.torgb.{part}"] if i == last else like
    return theirs | mapping(state)


def stylegan2_state(G: Generator) -> dict[str, Tensor]:
    """layer0 is 4x4, layer{2i-1} doubles and is not mirrored, style biases are less one."""
    state, theirs = G.state_dict(), {}
    theirs["synthesis.early_layer.const"] = state["synthesis.b4.const"][None]
    theirs["synthesis.upsample.kernel"] = torch.ones(4, 4)
    for i, block in enumerate(G.synthesis.blocks()):
        for conv, name in (("conv0", f"layer{2 * i - 1}"), ("conv1", f"layer{2 * i}"), ("torgb", f"output{i}")):
            if not hasattr(block, conv):
                continue
            layer, name = getattr(block, conv), f"synthesis.{name}"
            theirs[f"{name}.weight"] = layer.weight.flip(2, 3) if conv == "conv0" else layer.weight
            theirs[f"{name}.bias"] = layer.bias
            theirs[f"{name}.style.weight"] = layer.affine.weight
            theirs[f"{name}.style.bias"] = layer.affine.bias - 1
            if conv != "torgb":
                theirs[f"{name}.noise_strength"] = layer.noise_strength
                theirs[f"{name}.noise"] = layer.noise_const[None, None]
    return theirs | mapping(state)


def discriminator_state(D: Discriminator) -> dict[str, Tensor]:
    """Layers are counted from the picture; the last two are linear."""
    theirs: dict[str, Tensor] = {"layer1.filter.kernel": torch.ones(4, 4)}

    def put(name: str, layer: Any) -> None:
        theirs.update({f"{name}.{part}": p for part, p in layer.named_parameters()})

    for i, res in enumerate(D.block_resolutions):
        block = D.get_submodule(f"b{res}")
        put(f"layer{2 * i}", block.conv0)
        put(f"layer{2 * i + 1}", block.conv1)
        if hasattr(block, "skip"):
            put(f"skip_layer{i}", block.skip)
        if hasattr(block, "fromrgb"):
            put(f"input{i}", block.fromrgb)
    last = len(D.block_resolutions)
    put(f"layer{2 * last}", D.b4.conv)
    put(f"layer{2 * last + 1}", D.b4.fc)
    put(f"layer{2 * last + 2}", D.b4.out)
    if hasattr(D.b4, "fromrgb"):
        put(f"input{last}", D.b4.fromrgb)
    return theirs


def tiny(family: Callable[..., Any], **kwargs: Any) -> Any:
    wanted: dict[str, Any] = dict(z_dim=6, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)
    wanted |= dict(mapping_kwargs={"num_layers": 2}, synthesis_kwargs={"channel_base": 64, "channel_max": 8})
    return randomised(family(**{**wanted, **kwargs}))


def check_same(found: Found, net: nn.Module) -> None:
    built, expected = build(found, "x.pth").net.state_dict(), net.state_dict()
    assert built.keys() == expected.keys()
    for name, tensor in built.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("c_dim", [0, 3])
def test_stylegan_comes_back_bit_by_bit(c_dim: int) -> None:
    G = tiny(stylegan1.Generator, c_dim=c_dim)
    state = stylegan1_state(G)
    converted = {"generator": state, "discriminator": {"layer0.weight": torch.ones(1)}, "generator_smooth": state}
    assert matches(converted) and matches({"models": converted, "optimizers": {}, "running_stats": None})
    networks = read(converted).networks
    assert list(networks) == ["G_ema", "G"], "its discriminator is left out"
    check_same(networks["G_ema"], G)
    check_same(read({"models": converted}).networks["G"], G)


@pytest.mark.parametrize("architecture", ["skip", "orig"])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_stylegan2_comes_back_bit_by_bit(architecture: str, c_dim: int) -> None:
    synthesis_kwargs = {"channel_base": 64, "channel_max": 8, "architecture": architecture}
    mapping_kwargs = {"num_layers": 2} | ({"concat_labels": True} if c_dim else {})
    G = tiny(Generator, c_dim=c_dim, mapping_kwargs=mapping_kwargs, synthesis_kwargs=synthesis_kwargs)
    state = stylegan2_state(G)
    checkpoint = read({f"module.{name}": tensor for name, tensor in state.items()})
    assert checkpoint.format == "genforce" and list(checkpoint.networks) == ["G_ema"]
    check_same(checkpoint.networks["G_ema"], G)


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_the_discriminator_comes_back(architecture: str) -> None:
    G = tiny(Generator)
    D = randomised(Discriminator(0, 16, 3, architecture=architecture, channel_base=64, channel_max=8))
    tree = {"generator_smooth": stylegan2_state(G), "discriminator": discriminator_state(D)}
    found = read(tree).networks["D"]
    check_same(found, D)
    img = torch.randn(4, 3, 16, 16)
    net: Any = build(found, "x.pth").net
    assert torch.equal(net(img), D(img))


def test_a_trainer_s_file_may_still_grow() -> None:
    G = tiny(stylegan1.Generator)
    state = stylegan1_state(G) | {"synthesis.lod": torch.tensor(1.0)}
    found = read({"models": {"generator_smooth": state}}).networks["G_ema"]
    assert found.recipe.kwargs["img_resolution"] == 8
    assert found.notes == ("it had grown to 8 of 16 px: read as a network of that size",)
    state["synthesis.lod"] = torch.tensor(1.5)
    with pytest.raises(WeightsError, match="while growing from one size to the next"):
        read({"models": {"generator_smooth": state}})


def test_other_trees_are_left_to_others() -> None:
    for tree in (None, [1], {}, {"generator": 1}, {"models": []}, {"generator": {"conv1.weight": torch.ones(1)}}):
        assert not matches(tree)


def test_damage_is_said() -> None:
    state = stylegan2_state(tiny(Generator))
    del state["synthesis.layer3.style.bias"]
    with pytest.raises(WeightsError, match=r"tensors are missing: synthesis\.layer3\.style\.bias"):
        read(state)
    state = stylegan1_state(tiny(stylegan1.Generator))
    state["synthesis.layer2.apply_noise.noise"] = torch.ones(1, 8, 1, 1)
    with pytest.raises(WeightsError, match=r"layer2\.apply_noise\.noise has the wrong shape \[1, 8, 1, 1\]"):
        read(state)
    with pytest.raises(WeightsError, match=r"tensors are missing: layer3\.weight"):
        read({"generator": stylegan2_state(tiny(Generator)), "discriminator": {"layer0.weight": torch.ones(1)}})
